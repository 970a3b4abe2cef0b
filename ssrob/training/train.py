"""The one training loop, for pre-training and fine-tuning alike: a difference between them is in the spec."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssrob.data.loader import Batches
from ssrob.data.prepared import Prepared
from ssrob.hardware.cuda_graphs import Backend, CudaGraphs, GraphedStep
from ssrob.hardware.device import memory_format
from ssrob.models.network import CLASS_HEAD, Architecture, Network, build
from ssrob.models.serialization import load_backbone, read_weights, save_architecture, save_weights
from ssrob.planning.cost import training_passes
from ssrob.planning.specs import TrainSpec
from ssrob.registry.losses import LOSSES, Widths
from ssrob.runtime import checkpoint
from ssrob.runtime.runner import Context, Interrupted
from ssrob.storage.metrics_log import Records, begins_with, records_table
from ssrob.storage.store import sha256
from ssrob.storage.tables import RECORDS, write_table
from ssrob.training import launcher
from ssrob.training.distributed import ALONE, Team
from ssrob.training.ema import WeightAverage
from ssrob.training.lr_schedule import learning_rate
from ssrob.training.train_step import GRADIENT, as_tensors, descend, drawn, from_tensors
from ssrob.training.validate import in_words, score, validate

Metrics = dict[str, Tensor | float]
FLUSH_STEPS = 50  # metrics stay on the device for so many steps


class Diverged(ArithmeticError):
    """The loss is not a number any more."""


@dataclass
class State:
    """Everything that changes while training; what a checkpoint holds."""

    network: Network
    optimizer: torch.optim.SGD
    average: WeightAverage | None = None
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)  # score, epoch, weights

    @property
    def judged(self) -> Network:
        """The network that is validated and saved: the average of the weights where there is one."""
        return self.average.network if self.average else self.network

    def to_dict(self) -> dict[str, Any]:
        """Return the state in the form that a checkpoint stores."""
        stored = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
        }
        return stored | ({"average": self.average.network.state_dict()} if self.average else {})

    def load(self, saved: dict[str, Any]) -> None:
        """Take over a stored state."""
        self.network.load_state_dict(saved["network"])
        fused = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = fused  # that of this device, whichever the checkpoint came from
        self.step, self.best = saved["step"], saved["best"]
        if self.average:
            self.average.network.load_state_dict(saved["average"])


@dataclass(frozen=True)
class Task:
    """What is trained: a spec, the batches in their order, and validation images (N, C, H, W) with labels (N,)."""

    spec: TrainSpec
    batches: Batches
    validation: tuple[Tensor, Tensor]
    backend: Backend | None = None  # records steps; None: they are launched one by one
    team: Team = ALONE

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, round(self.spec.training.epochs * self.batches.steps_per_epoch))


def fit(state: State, task: Task) -> Iterator[Metrics]:
    """Train from the state's step to the end; after each step yield its metrics, and validate at epochs' ends."""
    per_epoch = task.batches.steps_per_epoch
    compute = recorded(state, task)
    while not finished(state, task):
        metrics = training_step(state, task, compute)
        if state.average:
            state.average.update(state.network, state.step)
        state.step += 1
        if state.step % (task.spec.training.validate_every * per_epoch) == 0 or state.step == task.steps:
            epoch = state.step / per_epoch
            task.team.agree(state.network)
            validated = validate(state.judged, task.spec, *task.validation, task.team)
            metrics |= validated | {"passes": training_passes(task.spec, epoch)}
            if not state.best or score(validated) > state.best["score"]:
                weights = {name: tensor.clone() for name, tensor in state.judged.state_dict().items()}
                state.best = {"score": score(validated), "epoch": epoch, "weights": weights}
        yield metrics


def finished(state: State, task: Task) -> bool:
    """Whether all steps are taken, or no validation has improved on the best one for as long as the spec waits.

    A function of what a checkpoint holds, so that a resumed training stops at the same step.
    """
    training = task.spec.training
    if state.step == task.steps or not (training.early_stop and state.best):
        return state.step == task.steps
    waited = state.step / task.batches.steps_per_epoch - state.best["epoch"]
    return bool(waited >= training.early_stop * training.validate_every)


def recorded(state: State, task: Task) -> GraphedStep:
    """Return what computes gradients and metrics of a drawn batch, from a recording where there is a backend."""
    network = state.network
    return GraphedStep(
        lambda tensors: descend(network, task.spec, from_tensors(tensors)),
        lambda: [*network.parameters(), *network.buffers()],
        task.backend,
    )


def training_step(state: State, task: Task, compute: GraphedStep) -> Metrics:
    """Perturb one batch and take one optimiser step; every draw is a function of (seed, purpose, step)."""
    spec, network, step = task.spec, state.network, state.step
    lr = learning_rate(step, task.steps, spec.training)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    x, y, _ = task.batches.at(step)
    batch = task.team.part(drawn(spec, x, y, step, (step + 0.5) / task.steps))
    first = step % task.batches.steps_per_epoch == 0
    found = descend(network, spec, batch, norms=True) if first else compute(as_tensors(batch))
    found = task.team.average(found, network)
    for name, parameter in network.named_parameters():
        parameter.grad = found.get(GRADIENT + name)
    state.optimizer.step()
    # A replay overwrites its outputs, and the metrics stay on the device for a while.
    metrics: Metrics = {"loss/total": found["loss/total"].clone(), "lr": lr}
    return metrics | {name: value.clone() for name, value in found.items() if not name.startswith(GRADIENT)}


def start(spec: TrainSpec, data: Prepared, init: Path | None, device: torch.device, log: Logger) -> State:
    """Build the network and its optimiser; `init` is a file of weights for the backbone, or None for random."""
    needs_classes = any(not LOSSES[name].self_supervised for name in spec.objective.losses)
    class_head: dict[str, Widths] = {CLASS_HEAD: len(data.classes)} if needs_classes else {}
    architecture = Architecture(
        backbone=spec.model.name,
        arguments=spec.model.arguments,
        shape=data.shape,
        mean=data.mean,
        std=data.std,
        heads=class_head | spec.objective.heads,
        classes=data.classes,
        branches=spec.objective.branches,
    )
    network = build(architecture, spec.seed)
    if init is not None:
        load_backbone(network, read_weights(init))
        log.info("init: backbone taken from %s", init)
    if spec.tune == "head":
        network.backbone.requires_grad_(False)
    network.to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
    training = spec.training
    if training.compile:
        network.backbone.compile(dynamic=False)
    optimizer = torch.optim.SGD(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov and training.momentum > 0,
        weight_decay=training.weight_decay,
        fused=device.type == "cuda" or None,  # None is torch's own choice, and the documented bits on a CPU
    )
    return State(network, optimizer, WeightAverage(network, training.ema) if training.ema else None)


def stage(context: Context) -> None:
    """Run a pretrain or finetune stage, in as many processes as its spec says."""
    count = TrainSpec.model_validate(context.stage.spec).training.replicas
    if count > 1:
        launcher.run(context, count, train)
    else:
        train(context, ALONE)


def train(context: Context, team: Team) -> None:
    """Train with checkpoints in the work folder, then write weights and records; of a team, replica 0 does."""
    spec = TrainSpec.model_validate(context.stage.spec)
    data = Prepared(context.parent("data"))
    state = start(spec, data, _init_file(context), context.device, context.log)
    batches = Batches(*data.train(), spec.training.batch_size, spec.seed, context.device)
    replays = context.device.type == "cuda" and context.stage.settings.get("cuda_graphs", True)
    backend = CudaGraphs(context.device) if replays else None
    task = Task(spec, batches, _validation(data, spec, context.device), backend, team)
    if team.rank:
        _resume(state, context)
        for _ in fit(state, task):
            pass
        return
    with Records(context.work / "records.jsonl", _resume(state, context)) as records:
        _train(state, task, records, context)
    save_weights(state.judged.state_dict(), context.out / "last.safetensors")
    save_weights(state.best["weights"], context.out / "best.safetensors")
    save_architecture(state.network.architecture, context.out / "model.json")
    write_table(records_table(context.work / "records.jsonl"), RECORDS, context.out / "training.parquet")
    best = state.best["score"]  # negative: minus the loss of an SSL task without an accuracy
    told = f"{100 * best:.1f} %" if best >= 0 else f"loss {-best:.3g}"
    epochs = state.step / batches.steps_per_epoch
    stopped = f", stopped early after {epochs:g} epochs" if state.step < task.steps else ""
    context.summary = f"best epoch {state.best['epoch']:g}, validation {told}{stopped}"
    parameters = sum(parameter.numel() for parameter in state.network.parameters())
    context.provenance |= {"best_epoch": state.best["epoch"], "parameters": parameters}
    context.provenance |= {"stopped_epoch": epochs} if stopped else {}


def _train(state: State, task: Task, records: Records, context: Context) -> None:
    """Drive `fit`: records to disk, checkpoints by time, a clean stop when asked."""
    pending: list[tuple[int, Metrics]] = []
    interval, epoch_began = checkpoint.Interval(), time.monotonic()
    epoch_seconds = context.provenance.setdefault("epoch_seconds", [])
    with context.progress(total=task.steps, initial=state.step, unit="step") as bar:
        for metrics in fit(state, task):
            bar.update()
            keep = state.step % task.spec.training.record_every == 0 or "passes" in metrics
            pending.extend([(state.step, metrics)] if keep else [])
            if "passes" in metrics:
                epoch_seconds.append(round(time.monotonic() - epoch_began, 3))
                epoch_began = time.monotonic()
                context.log.info("epoch %.4g: %s", state.step / task.batches.steps_per_epoch, in_words(metrics))
            stop, last = context.stopping(), finished(state, task)
            save = (stop or interval.due()) and not last
            if save or last or len(pending) >= FLUSH_STEPS:
                _write(pending, task.batches.steps_per_epoch, records)
                pending = []
            if save:
                float(metrics["loss/total"])  # waits for the device, whose work is not the checkpoint's
                with interval.saving():
                    told = {"records": records.flush(), "records_sha256": records.sha256}
                    checkpoint.save(state.to_dict() | told, context.work / "checkpoint.pt")
            if stop and not last:
                raise Interrupted(f"stopped at step {state.step} of {task.steps}; run it again to go on from there")
    records.flush()


def _write(pending: list[tuple[int, Metrics]], steps_per_epoch: int, records: Records) -> None:
    """Bring pending metrics to the host in one go and write them; raises Diverged at the first that is not finite."""
    on_device = [value for _, metrics in pending for value in metrics.values() if isinstance(value, Tensor)]
    fetched = iter(torch.stack(on_device).tolist() if on_device else [])
    for step, metrics in pending:
        row = {name: next(fetched) if isinstance(value, Tensor) else value for name, value in metrics.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {step}: training diverged; lower lr or raise warmup")
        records.write(step, step / steps_per_epoch, row)


def _resume(state: State, context: Context) -> int:
    """Go on from the work folder's checkpoint, if there is a sound one; return the length of its records."""
    path, told = context.work / "checkpoint.pt", context.work / "records.jsonl"
    if not path.is_file():
        return 0
    try:
        saved = checkpoint.load(path, context.device)
        if missing := sorted({*state.to_dict(), "records", "records_sha256"} - set(saved)):
            raise checkpoint.DamagedCheckpoint(f"{path}: has no {missing[0]!r}, as of an earlier version of ssrob")
        if not begins_with(told, saved["records"], saved["records_sha256"]):
            raise checkpoint.DamagedCheckpoint(f"{told}: truncated or altered")
    except checkpoint.DamagedCheckpoint as error:
        context.log.warning("%s: starting from the beginning", error)
        return 0
    state.load(saved)
    context.log.info("resumed at step %d", state.step)
    return int(saved["records"])


def _init_file(context: Context) -> Path | None:
    """Pre-training hands over its last weights; the user's own file is named in the settings."""
    if "init" in context.stage.parents:
        return context.parent("init") / "last.safetensors"
    own = context.stage.settings.get("weights")
    if own is None:
        return None
    if sha256(Path(own)) != context.stage.spec["init_sha256"]:
        raise ValueError(f"{own}: its content has changed since the study was planned; start the workflow again")
    return Path(own)


def _validation(data: Prepared, spec: TrainSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the validation split on the device: images (N, C, H, W) in [0, 1] and labels (N,)."""
    images, labels = data.validation()
    count = spec.training.validation_images
    x = torch.from_numpy(images[:count].copy()).permute(0, 3, 1, 2).to(device).float() / 255
    return x, torch.from_numpy(labels[:count].copy()).to(device)
