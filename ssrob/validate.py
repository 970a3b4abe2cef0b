"""Validation while training: accuracies of every head on held-out images, clean and under attack."""

import torch
from torch import Tensor

from ssrob.attacks.freeze import frozen
from ssrob.catalog import LOSSES, load
from ssrob.losses.batch import Batch
from ssrob.models.network import Forward, Network
from ssrob.objective import draw_views, perturb, precision
from ssrob.seeding import generator
from ssrob.stage_specs import Objective, Perturbation, TrainSpec

BATCH = 500


def validate(network: Network, spec: TrainSpec, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Return ``validation/{clean,robust}_[task_]accuracy`` on images (N, C, H, W) in [0, 1], labels (N,).

    The attack climbs cross-entropy, or the SSL loss where there are no labels to learn, at the training eps.
    Draws depend on the seed and the batch alone, so that epochs are compared on the same attacks.
    """
    hits: dict[str, list[Tensor]] = {}
    attack = _attack(spec)
    with frozen(network), precision(spec.training.precision, images.device):
        for number, (x, y) in enumerate(zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True)):
            batch = draw_views(spec.objective, Batch(x, y), spec.seed, "validation", number)
            sets = {"clean": x}
            if attack is not None:
                draws = generator(spec.seed, "attack", "validation", number, device=x.device)
                sets["robust"] = perturb(network, attack, batch, draws)
            for name, where in sets.items():
                for task, correct in _correct(network, spec.objective, where, batch).items():
                    hits.setdefault(f"validation/{name}_{task}", []).append(correct)
    return {name: torch.cat(parts).float().mean().item() for name, parts in hits.items()}


def score(validated: dict[str, float]) -> float:
    """The number that selects the best checkpoint: robust accuracy where there is an attack, else clean accuracy.

    It is the class head's where there is one, else the mean over the SSL tasks.
    """
    for kind in ("robust", "clean"):
        if f"validation/{kind}_accuracy" in validated:
            return validated[f"validation/{kind}_accuracy"]
        tasks = [value for name, value in validated.items() if name.startswith(f"validation/{kind}_")]
        if tasks:
            return sum(tasks) / len(tasks)
    return 0.0


def _attack(spec: TrainSpec) -> Perturbation | None:
    if not spec.objective.perturb or spec.norm is None or spec.eps_train is None:
        return None
    climb = next(iter(spec.objective.perturb.values())).climb
    if any(not LOSSES[name].self_supervised for name in spec.objective.losses):
        climb = {"xent": 1.0}
    steps, eps = spec.training.validation_steps, spec.eps_train
    return Perturbation(climb=climb, norm=spec.norm, eps=eps, steps=steps, step_size=2.5 * eps / steps)


@torch.no_grad()
def _correct(network: Network, objective: Objective, x: Tensor, batch: Batch) -> dict[str, Tensor]:
    model = Forward(network)
    return {
        "accuracy" if name == "xent" else f"{name}_accuracy": load(row.correct)(model, x, batch)
        for name in objective.losses
        if (row := LOSSES[name]).correct
    }
