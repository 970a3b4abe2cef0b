"""What a training step costs, counted from its objective alone: the floor that speed is measured against."""

from dataclasses import dataclass, replace

from ssrob.config.fields import Tune
from ssrob.planning.specs import Objective, TrainSpec


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


def training_passes(spec: TrainSpec, until: float | None = None) -> float:
    """Return what a training, or its first `until` epochs, costs per training image, in forward passes."""
    epochs = spec.training.epochs if until is None else until
    return step_passes(spec.objective, spec.tune).equivalent * epochs


def step_passes(objective: Objective, tune: Tune = "full") -> Passes:
    """Count the passes of one training step: every attack step, then the training forward and backward.

    Where the heads alone are trained there is no backward through the backbone but to the input, in attacks.
    """
    total = _update_passes(objective)
    if tune == "head":
        total = replace(total, full_backwards=0)
    for name in objective.perturb:
        total += _attack_passes(objective, name)
    return total


def _update_passes(objective: Objective) -> Passes:
    forwards, backwards = set(), set()
    for image_set, terms in objective.train.items():
        for name, weight in terms.items():
            batches = _batches(objective, image_set, name)
            forwards |= batches
            backwards |= batches if weight else set()
    return Passes(len(forwards), 0, len(backwards))


def _attack_passes(objective: Objective, image_set: str) -> Passes:
    perturbation = objective.perturb[image_set]
    batches = set().union(*(_batches(objective, image_set, name) for name in perturbation.maximise))
    moving = {(where, what) for where, what in batches if where == image_set}
    if perturbation.views:
        moving = {(where, what) for where, what in moving if what in perturbation.views}
    still = len(batches - moving)  # forwards of what does not move are made once per attack
    return Passes(len(moving) * perturbation.steps + still, len(moving) * perturbation.steps, 0)


def _batches(objective: Objective, image_set: str, loss: str) -> set[tuple[str, str]]:
    """Return the batches of images that a loss sends through the network, as (image set, what of it)."""
    row, perturbation = objective.row(loss), objective.perturb.get(image_set)
    # With the layout `single` the image is the view.
    one = perturbation is not None and perturbation.layout == "single" and perturbation.view == row.views_of
    named = {"clean": ("clean", "x"), "x": (image_set, "x")}
    return {named.get(each, (image_set, "x" if one else each)) for each in row.forwards}
