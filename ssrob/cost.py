"""What a training step costs, counted from its objective alone: the floor that speed is measured against."""

from dataclasses import dataclass, replace

from ssrob.catalog import LOSSES
from ssrob.fields import Tune
from ssrob.stage_specs import Objective, Terms, TrainSpec


@dataclass(frozen=True)
class Passes:
    """Network passes per image and step; an input backward costs about one forward, a full backward two."""

    forwards: int
    input_backwards: int
    full_backwards: int

    @property
    def equivalent(self) -> int:
        """The cost in forward passes, the unit in which arms are compared."""
        return self.forwards + self.input_backwards + 2 * self.full_backwards

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.forwards + other.forwards,
            self.input_backwards + other.input_backwards,
            self.full_backwards + other.full_backwards,
        )


def training_passes(spec: TrainSpec) -> float:
    """Return what a whole training costs per training image, in forward passes, as planned."""
    return step_passes(spec.objective, spec.tune).equivalent * spec.training.epochs


def step_passes(objective: Objective, tune: Tune = "full") -> Passes:
    """Count the passes of one training step: every attack step, then the training forward and backward.

    Where the heads alone are trained there is no backward through the backbone but to the input, in attacks.
    """
    total = _training_passes(objective.train)
    if tune == "head":
        total = replace(total, full_backwards=0)
    for perturbation in objective.perturb.values():
        total += _attack_passes(perturbation.climb, perturbation.steps)
    return total


def _training_passes(train: dict[str, Terms]) -> Passes:
    forwards, descended = set(), set()
    for image_set, terms in train.items():
        for name, weight in terms.items():
            batches = {("clean", "x") if each == "clean" else (image_set, each) for each in LOSSES[name].forwards}
            forwards |= batches
            descended |= batches if weight else set()
    return Passes(len(forwards), 0, len(descended))


def _attack_passes(climb: Terms, steps: int) -> Passes:
    batches = {forward for name in climb for forward in LOSSES[name].forwards}
    moving = len(batches - {"clean"})  # the clean logits are computed once per attack
    return Passes(moving * steps + ("clean" in batches), moving * steps, 0)
