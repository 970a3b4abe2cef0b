"""The pretrain and finetune stages: a training with checkpoints, its records and its weights."""

import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ssrob.data.decoding_loader import DecodedBatches
from ssrob.data.loader import Batches, Order, labelled
from ssrob.data.prepared import Prepared
from ssrob.hardware.cuda_graphs import CudaGraphs
from ssrob.models.serialization import save_architecture, save_weights
from ssrob.planning.specs import TrainSpec
from ssrob.runtime import checkpoint
from ssrob.runtime.runner import Context, Interrupted
from ssrob.storage.metrics_log import Records, begins_with, records_table
from ssrob.storage.store import sha256
from ssrob.storage.tables import RECORDS, write_table
from ssrob.training.distributed import ALONE, ReplicaGroup
from ssrob.training.fit import Metrics, TrainingRun, fit
from ssrob.training.state import TrainState, start
from ssrob.training.validate import in_words

FLUSH_STEPS = 50  # metrics stay on the device for so many steps


class Diverged(ArithmeticError):
    """The loss is not a number any more."""


def stage(context: Context) -> None:
    """Run a pretrain or finetune stage, or a replica's share of it."""
    count = context.stage.replicas
    if count == 1:
        return train(context, ALONE)
    train(context, ReplicaGroup(dist.get_rank(), count))
    context.provenance |= {"replicas": count, "nodes": int(os.environ["GROUP_WORLD_SIZE"])}
    dist.destroy_process_group()  # not after an error: it could wait for replicas that are lost


def train(context: Context, replicas: ReplicaGroup) -> None:
    """Train with checkpoints in the work folder, then write weights and records; only replica 0 writes."""
    spec = TrainSpec.model_validate(context.stage.spec)
    data = Prepared(context.parent("data"), context.data_source)
    state = start(spec, data, _init_file(context), context.device, context.log)
    batches = _batches(data, spec, context.device, replicas)
    replays = context.device.type == "cuda" and context.stage.settings.get("cuda_graphs", True)
    backend = CudaGraphs(context.device) if replays else None
    run = TrainingRun(spec, batches, _validation(data, spec, context.device), backend, replicas)
    if replicas.rank:
        _resume(state, context)
        for _ in fit(state, run):
            pass
        return
    with Records(context.work / "records.jsonl", _resume(state, context)) as records:
        _train(state, run, records, context)
    save_weights(state.eval_network.state_dict(), context.out / "last.safetensors")
    save_weights(state.best["weights"], context.out / "best.safetensors")
    save_architecture(state.network.architecture, context.out / "model.json")
    write_table(records_table(context.work / "records.jsonl"), RECORDS, context.out / "training.parquet")
    best = state.best["score"]  # negative: minus the loss of an SSL task without an accuracy
    reached = f"{100 * best:.1f} %" if best >= 0 else f"loss {-best:.3g}"
    context.summary = f"best epoch {state.best['epoch']:g}, validation {reached}"
    parameters = sum(parameter.numel() for parameter in state.network.parameters())
    context.provenance |= {"best_epoch": state.best["epoch"], "parameters": parameters}


def _train(state: TrainState, run: TrainingRun, records: Records, context: Context) -> None:
    """Drive `fit`: records to disk, checkpoints by time, a clean stop when asked."""
    pending: list[tuple[int, Metrics]] = []
    interval, epoch_began = checkpoint.Interval(), time.monotonic()
    epoch_seconds = context.provenance.setdefault("epoch_seconds", [])
    with context.progress(total=run.steps, initial=state.step, unit="step") as bar:
        for metrics in fit(state, run):
            bar.update()
            pending.append((state.step, metrics))
            if "passes" in metrics:
                epoch_seconds.append(round(time.monotonic() - epoch_began, 3))
                epoch_began = time.monotonic()
                context.log.info("epoch %.4g: %s", state.step / run.batches.steps_per_epoch, in_words(metrics))
            stop, last = context.stopping(), state.step == run.steps
            save = (stop or interval.due()) and not last
            if save or last or len(pending) >= FLUSH_STEPS:
                _write(pending, run.batches.steps_per_epoch, records)
                pending = []
            if save:
                float(metrics["loss/total"])  # waits for the device, whose work is not the checkpoint's
                with interval.saving():
                    written = {"records": records.flush(), "records_sha256": records.sha256}
                    checkpoint.save(state.to_dict() | written, context.work / "checkpoint.pt")
            if stop and not last:
                raise Interrupted(f"stopped at step {state.step} of {run.steps}; run it again to go on from there")
    records.flush()


def _write(pending: list[tuple[int, Metrics]], steps_per_epoch: int, records: Records) -> None:
    """Copy pending metrics to the host together and write them; raises Diverged at the first that is not finite."""
    on_device = [value for _, metrics in pending for value in metrics.values() if isinstance(value, Tensor)]
    fetched = iter(torch.stack(on_device).tolist() if on_device else [])
    for step, metrics in pending:
        row = {name: next(fetched) if isinstance(value, Tensor) else value for name, value in metrics.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at step {step}: training diverged; lower lr or raise warmup")
        records.write(step, step / steps_per_epoch, row)


def _resume(state: TrainState, context: Context) -> int:
    """Go on from the work folder's checkpoint, if there is a sound one; return the length of its records."""
    path, log = context.work / "checkpoint.pt", context.work / "records.jsonl"
    if not path.is_file():
        return 0
    try:
        saved = checkpoint.load(path, context.device)
        if missing := sorted({*state.to_dict(), "records", "records_sha256"} - set(saved)):
            raise checkpoint.DamagedCheckpoint(f"{path}: has no {missing[0]!r}, as of an earlier version of ssrob")
        if not begins_with(log, saved["records"], saved["records_sha256"]):
            raise checkpoint.DamagedCheckpoint(f"{log}: truncated or altered")
    except checkpoint.DamagedCheckpoint as error:
        context.log.warning("%s: starting from the beginning", error)
        return 0
    state.load(saved)
    context.log.info("resumed at step %d", state.step)
    return int(saved["records"])


def _init_file(context: Context) -> Path | None:
    """Pre-training passes on its last weights; the user's own file is named in the settings."""
    if "init" in context.stage.parents:
        return context.parent("init") / "last.safetensors"
    weights = context.stage.settings.get("weights")
    if weights is None:
        return None
    if sha256(Path(weights)) != context.stage.spec["init_sha256"]:
        raise ValueError(f"{weights}: its content has changed since the study was planned; start the workflow again")
    return Path(weights)


def _batches(data: Prepared, spec: TrainSpec, device: torch.device, replicas: ReplicaGroup) -> Order:
    """Return the training batches: of images on the device, or of those that are decoded when they are needed."""
    training, random_crops = spec.training, "resized_crop" in spec.training.augment
    if not data.in_files and not random_crops:
        return Batches(*data.train(), training.batch_size, spec.seed, device)
    return DecodedBatches(
        data.stored_images(),
        data.train_labels,
        training.batch_size,
        spec.seed,
        device,
        random_crops=random_crops,
        part=(replicas.rank, replicas.size),
    )


def _validation(data: Prepared, spec: TrainSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the validation split on the device: images (N, C, H, W) in [0, 1] and labels (N,)."""
    images, labels = data.validation()
    count = spec.training.validation_images
    return labelled(images[:count], labels[:count], device)
