"""Names that configs and the command line may use; separate from the attacks, to be importable without torch."""

from dataclasses import dataclass

NORMS = ("linf", "l2")
AUTOATTACK_NORMS = {"linf": "Linf", "l2": "L2"}  # as AutoAttack and RobustBench write them
REFERENCE = "autoattack"  # the preset that is run by AutoAttack's own code
STEP_RATIO = 2.5  # step = STEP_RATIO * eps / steps: PGD can cross the ball and come back, whatever its number of steps

UNTARGETED_LOSSES = ("cross_entropy", "margin", "dlr")
TARGETED_LOSSES = ("targeted_margin", "targeted_dlr")
STARTS = ("random", "warm", "clean")
GRADIENT_DTYPES = ("float32", "bfloat16")
LAYOUTS = ("channels_last", "model")
SEARCHES = ("bracket", "ascending")  # in which order a sweep goes through the eps
CHECKS = {
    "train_mode": "modules in train mode",
    "changed": "parameters or buffers that forward passes change",
    "randomised": "different logits for the same images in another forward pass",
    "batch_dependent": "different logits for the same images in smaller batches",
    "dynamic": "autograd or an optimiser at work inside the forward pass",
    "softmax": "probabilities in place of logits",
    "zero_gradient": "gradients that are exactly 0 at clean images",
    "clean_differs": "clean images classified differently than in the sweep",
    "unconfirmed": "perturbations that leave the ball or the box, or do not fool a fresh float32 forward pass",
    "square_stronger": "black-box Square breaks images that the attacks did not",
    "single_step_stronger": "a single step breaks images that the attacks did not",
    "more_steps_stronger": "twice as many steps break images that the attacks did not",
    "not_monotone": "budgets attacked one by one: accuracy that rises with the budget",
    "sweep_weaker": "budgets attacked one by one: accuracy below that of the sweep",
    "constant": "images that withstand l-inf eps = 1: a constant classifier",
    "large_eps": "images that withstand l-inf eps = 1: a weak attack",
}
"""Signs that a robustness number is not to be trusted, and what each would find."""
OF_GRADIENTS = (
    *("square_stronger", "single_step_stronger", "more_steps_stronger"),
    *("not_monotone", "sweep_weaker", "constant", "large_eps"),
)
"""Those that compare attacks by gradient; skipped, as the attacks are, where no gradient reaches the images."""


@dataclass(frozen=True)
class Attack:
    """One kind of attack: "module:function" of (geometry, config) that gives a `Stepper`, and how a sweep runs it.

    minimises_norm: looks for the nearest misclassified point, so that it is run once and not at every eps.
    uses_gradient: False for a black-box attack, whose steps are queries.
    """

    function: str
    minimises_norm: bool = False
    uses_gradient: bool = True


ATTACKS: dict[str, Attack] = {
    "pgd": Attack("ssrob.attacks.steppers.pgd:stepper"),
    "apgd": Attack("ssrob.attacks.steppers.apgd:stepper"),
    "fmn": Attack("ssrob.attacks.steppers.fmn:stepper", minimises_norm=True),
    "square": Attack("ssrob.attacks.steppers.square:stepper", uses_gradient=False),
}
"""By the kind that a plan names; plugins add rows."""
