"""Attack plans: which attacks a sweep runs at every eps, in which order. Imports no torch."""

from dataclasses import dataclass, replace

from ssrob.registry.attacks import ATTACKS, REFERENCE, STARTS, TARGETED_LOSSES, UNTARGETED_LOSSES, Attack
from ssrob.registry.lookup import check_choice

BLACK_BOX_QUERIES = 1000  # of Square where a model has no gradient and the preset no black-box attack


@dataclass(frozen=True)
class AttackConfig:
    """One attack of a plan.

    kind: a key of `ATTACKS`: "pgd", "apgd", "fmn" (smallest norm), "square" (black-box) or a plugin's
    loss: a key of `logit_losses`
    steps: gradients per run; of "square": queries per run
    restarts: runs per eps; of a targeted loss: target classes, one per run, the likeliest first
    start: "random", "warm" (the perturbation that came nearest so far) or "clean"
    step_ratio: of "pgd" (default 2.5); the step is step_ratio * eps / steps
    """

    kind: str
    loss: str
    steps: int
    restarts: int = 1
    start: str = "random"
    step_ratio: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is unknown or would have no effect."""
        check_choice("attack kind", self.kind, ATTACKS)
        check_choice("attack loss", self.loss, UNTARGETED_LOSSES + TARGETED_LOSSES)
        check_choice("attack start", self.start, STARTS)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts must be >= 1, found {self.steps} and {self.restarts}")
        if self.step_ratio is not None and (self.kind != "pgd" or not self.step_ratio > 0):
            raise ValueError(f"step_ratio is for pgd and > 0, found {self.step_ratio} for {self.kind}")
        if self.kind == "fmn" and (self.loss, self.start) != ("margin", "clean"):
            raise ValueError(f"fmn takes loss margin and start clean, found {self.loss} and {self.start}")
        if self.restarts > 1 and self.start != "random" and not self.targeted:
            raise ValueError(f"restarts > 1 need random starts or a targeted loss, found start {self.start}")

    @property
    def row(self) -> Attack:
        """What is known of its kind."""
        return ATTACKS[self.kind]

    @property
    def targeted(self) -> bool:
        """Whether each restart aims at one class."""
        return self.loss in TARGETED_LOSSES

    @property
    def name(self) -> str:
        """A readable name, e.g. "pgd50-margin-warm"; the random draws of the attack depend on it."""
        return f"{self.kind}{self.steps}-{self.loss}" + ("" if self.start == "random" else f"-{self.start}")


@dataclass(frozen=True)
class AttackPlan:
    """Attacks run one after the other at every eps, each on the images that are still robust."""

    attacks: tuple[AttackConfig, ...]

    def __post_init__(self) -> None:
        """Refuse an empty plan and the same attack twice (its draws would be the same too)."""
        names = [attack.name for attack in self.attacks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"an attack plan needs one or more different attacks, found {names}")

    def with_more_steps(self, factor: int) -> "AttackPlan":
        """Return the plan's gradient attacks with their steps multiplied by a factor, without black-box attacks."""
        longer = (replace(each, steps=factor * each.steps) for each in self.attacks if each.row.uses_gradient)
        return AttackPlan(tuple(longer) or self.attacks)

    def black_box(self) -> "AttackPlan":
        """Return the plan's attacks that need no gradient; of a plan without any, Square by its margin."""
        kept = tuple(each for each in self.attacks if not each.row.uses_gradient)
        return AttackPlan(kept or (AttackConfig("square", "margin", BLACK_BOX_QUERIES),))

    def for_classes(self, classes: int) -> "AttackPlan":
        """Return the plan for a number of classes.

        DLR needs 3 classes and targeted DLR 4, below that their numerator is used; targets <= classes - 1.
        """
        return AttackPlan(tuple(dict.fromkeys(_for_classes(attack, classes) for attack in self.attacks)))


def _for_classes(attack: AttackConfig, classes: int) -> AttackConfig:
    loss, restarts = attack.loss, attack.restarts
    if attack.targeted:
        restarts = min(restarts, classes - 1)
        loss = "targeted_margin" if classes < 4 else loss
    elif classes < 3 and loss == "dlr":
        loss = "margin"
    return replace(attack, loss=loss, restarts=restarts)


# Warm starts come after a run from a random point, which leaves them something to start from. Runs of "standard"
# are in the order of what they break per gradient; "strong" has AutoAttack's losses, steps and targets, with a
# smallest-norm attack to spare the others work (Croce & Hein 2020).
PRESETS: dict[str, AttackPlan] = {
    "fast": AttackPlan(
        (
            AttackConfig("pgd", "cross_entropy", 10),
            AttackConfig("pgd", "margin", 10, start="warm"),
        )
    ),
    "standard": AttackPlan(
        (
            AttackConfig("pgd", "cross_entropy", 50),
            AttackConfig("apgd", "dlr", 50, start="warm"),
            AttackConfig("pgd", "margin", 50),
        )
    ),
    "strong": AttackPlan(
        (
            AttackConfig("fmn", "margin", 100, start="clean"),
            AttackConfig("apgd", "cross_entropy", 100),
            AttackConfig("apgd", "targeted_dlr", 100, restarts=9),
            AttackConfig("square", "margin", 5000),
        )
    ),
    # Says what the reference runs, to count its work; `autoattack.autoattack_sweep` runs it. FAB-T is not among our
    # attacks and missing here.
    REFERENCE: AttackPlan(
        (
            AttackConfig("apgd", "cross_entropy", 100),
            AttackConfig("apgd", "targeted_dlr", 100, restarts=9),
            AttackConfig("square", "margin", 5000),
        )
    ),
}
