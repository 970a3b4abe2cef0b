"""Names that configs and the command line may use; kept apart to be importable without torch."""

from dataclasses import dataclass

NORMS = ("linf", "l2")
REFERENCE = "autoattack"  # the preset that is run by AutoAttack's own code
STEP_RATIO = 2.5  # step = STEP_RATIO * eps / steps: PGD can cross the ball and come back, whatever its number of steps

UNTARGETED_LOSSES = ("cross_entropy", "margin", "dlr")
TARGETED_LOSSES = ("targeted_margin", "targeted_dlr")
STARTS = ("random", "warm", "clean")
GRADIENT_DTYPES = ("float32", "bfloat16")
LAYOUTS = ("channels_last", "model")


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
    "pgd": Attack("ssrob.attacks.pgd:stepper"),
    "apgd": Attack("ssrob.attacks.apgd:stepper"),
    "fmn": Attack("ssrob.attacks.fmn:stepper", minimises_norm=True),
    "square": Attack("ssrob.attacks.square:stepper", uses_gradient=False),
}
"""By the kind that a plan names; plugins add rows."""
