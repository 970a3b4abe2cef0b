"""Validation while training: accuracies (or losses) of every task on held-out images, clean and under attack."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ssrob.attacks.frozen import frozen
from ssrob.hardware.device import precision, to_memory_format
from ssrob.losses.batch import Batch, task_at
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import Network
from ssrob.planning.specs import Objective, Perturbation, TrainSpec
from ssrob.registry.attacks import STEP_RATIO
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES
from ssrob.training.distributed import ALONE, ReplicaGroup
from ssrob.training.perturbations import draw_views, image_sets

BATCH = 500


def validate(
    network: Network, spec: TrainSpec, images: Tensor, labels: Tensor, replicas: ReplicaGroup = ALONE
) -> dict[str, float]:
    """Return ``validation/{clean,robust}_[task_]accuracy`` on images (N, C, H, W) in [0, 1], labels (N,).

    An SSL task that has no accuracy gives its loss, ``validation/{clean,robust}_task_loss``. The attack maximises
    cross-entropy, or the SSL loss where there are no labels to learn, at the training eps.
    Draws depend on the seed and the batch alone, so that epochs are compared on the same attacks. Replicas share the
    batches; each of them returns all.
    """
    measured: dict[int, dict[str, Tensor]] = {}
    attack = _attack(spec)
    with frozen(network), precision(spec.training.precision, images.device):
        sizes = _batch_sizes(len(images))
        for number, (x, y) in enumerate(
            zip(torch.split(to_memory_format(images), sizes), torch.split(labels, sizes), strict=True)
        ):
            if number % replicas.size != replicas.rank:
                continue
            batch = draw_views(spec.objective, Batch(x, y), spec.seed, "validation", number)
            sets = {"clean": x}
            if attack is not None:
                sets["robust"] = image_sets(network, attack, batch, spec.seed, number)["validation"]
            measured[number] = {
                f"validation/{name}_{task}": values.cpu() if replicas.size > 1 else values
                for name, where in sets.items()
                for task, values in _measured(network, spec.objective, where, batch).items()
            }
    everything = list(replicas.all_gather(measured).values())
    return {name: torch.cat([each[name] for each in everything]).float().mean().item() for name in everything[0]}


def score(validated: dict[str, float]) -> float:
    """The number that selects the best checkpoint: robust accuracy where there is an attack, else clean accuracy.

    It is the class head's where there is one, else the mean over the SSL tasks that have an accuracy; where none has,
    minus the mean of their losses.
    """
    for kind in ("robust", "clean"):
        if f"validation/{kind}_accuracy" in validated:
            return validated[f"validation/{kind}_accuracy"]
        for sign, what in ((1, "accuracy"), (-1, "loss")):
            tasks = [validated[name] for name in validated if re.fullmatch(f"validation/{kind}_.*_{what}", name)]
            if tasks:
                return sign * sum(tasks) / len(tasks)
    raise ValueError(f"nothing to select a checkpoint by: expected an accuracy or a loss, found {[*validated]}")


def in_words(metrics: Mapping[str, float | Tensor]) -> str:
    """Say what was validated; other metrics are left out."""
    found = {name.removeprefix("validation/"): value for name, value in metrics.items() if "validation/" in name}
    return ", ".join(
        f"{name.replace('_', ' ')} " + (f"{value:.3g}" if name.endswith("_loss") else f"{100 * value:.1f} %")
        for name, value in found.items()
    )


def _attack(spec: TrainSpec) -> Objective | None:
    """Return the objective whose one perturbation, of the image before any view, the images are tested with."""
    if not spec.objective.perturb or spec.norm is None or spec.eps_train is None:
        return None
    maximise = next(iter(spec.objective.perturb.values())).maximise
    if any(not LOSSES[name].self_supervised for name in spec.objective.losses):
        maximise = {"xent": 1.0}
    steps, eps = spec.training.validation_steps, spec.eps_train
    perturbation = Perturbation(
        maximise=maximise, norm=spec.norm, eps=eps, steps=steps, step_size=STEP_RATIO * eps / steps
    )
    return Objective(perturb={"validation": perturbation}, train={}, arguments=spec.objective.arguments)


@torch.no_grad()
def _measured(network: Network, objective: Objective, x: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return per image, (B,), whether each task is solved, or an SSL task's loss where it has no such answer.

    Where no task has one, every loss is returned, so that there is something to select by.
    """
    model, values = FeatureCache(network), {}
    any_answer = any(LOSSES[name].correct for name in objective.losses)
    for name in objective.losses:
        row, task = LOSSES[name], task_at(objective, name, x, batch)
        if row.correct:
            values["accuracy" if name == "xent" else f"{name}_accuracy"] = load(row.correct)(model, x, task)
        elif row.self_supervised or not any_answer:
            values[f"{name}_loss"] = load(row.function)(model, x, task)
    return values


def _batch_sizes(images: int) -> list[int]:
    """Split so many images; one left over joins the batch before it, as some tasks compare the images of a batch."""
    whole, left = divmod(images, BATCH)
    if left == 1 and whole:
        return [BATCH] * (whole - 1) + [BATCH + 1]
    return [BATCH] * whole + [left] * (left > 0)
