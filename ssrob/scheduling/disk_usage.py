"""How much disk a study will take: stated before it starts, and compared with what is free. Imports no torch."""

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssrob.config.fields import ConfigError
from ssrob.formatting import file_size
from ssrob.planning.plan import Plan
from ssrob.planning.specs import CalibrateSpec, CorruptSpec, DiagnoseSpec, EvaluateSpec, OodSpec, TrainSpec
from ssrob.planning.stage import canonical
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES
from ssrob.registry.stages import STAGES
from ssrob.scheduling.images import Images, images_of
from ssrob.scheduling.parameter_count import network_numbers
from ssrob.storage.store import Store

SMALL = 20_000  # bytes: spec, provenance, log and manifest of a stage
FLOAT = 4
DIAGNOSED = 60  # bytes: a row of a diagnosis
SCORED, CONFIDENCE = 8, 36  # bytes: a row of scores, of confidences, compressed
PER_IMAGE = 24  # bytes: label and row of an image; a row of an evaluation's table, at most
SAMPLES = 8  # images that an evaluation keeps, clean and attacked in each norm
RECORD, LIVE, POINT = 9, 80, 310  # bytes of one recorded value: in the table, while it runs, in MLflow's database
REPORT = 8_000_000  # bytes: tables, figures and the page of a study


@dataclass(frozen=True)
class DiskUsage:
    """Bytes that a stage leaves, that it needs beside these while it runs, and that the import into MLflow adds."""

    stays: int
    running: int = 0
    tracked: int = 0


@dataclass(frozen=True)
class Estimate:
    """What the unfinished stages of a study need, in bytes; `unknown` names what could not be estimated."""

    by_kind: dict[str, int]
    running: int  # of the stage that needs most beside what it leaves
    unknown: list[str]
    free: int
    where: Path

    @property
    def needed(self) -> int:
        """Bytes without which the study cannot end, one stage at a time."""
        return sum(self.by_kind.values()) + self.running

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} {file_size(count)}" for kind, count in self.by_kind.items() if count)
        text = f"about {file_size(self.needed)} of disk ({parts}; {file_size(self.running)} while a stage runs)"
        text += f", without {', '.join(self.unknown)}, whose size is not known" if self.unknown else ""
        return f"{text}; {file_size(self.free)} are free in {self.where}"


def estimate(plan: Plan, store: Store) -> Estimate:
    """Estimate what the unfinished stages of a study will take."""
    images = {f"data/{key}": images_of(stage, store) for key, stage in plan.of_kind("data").items()}
    by_kind: dict[str, int] = {}
    running, tracked, unknown = 0, 0, dict[str, None]()
    for stage in plan.stages.values():
        if store.done(stage.path):
            continue
        data = images[stage.parents.get("data", stage.path)]
        need = None if data is None else _need(stage.kind, canonical(stage.spec), data)
        if need is None:
            unknown[f"{stage.kind} of {stage.spec.get('model', stage.spec).get('name', stage.key)}"] = None
            continue
        by_kind[stage.kind] = by_kind.get(stage.kind, 0) + need.stays
        running, tracked = max(running, need.running), tracked + need.tracked
    by_kind["report"] = REPORT
    if plan.study.tracking_uri is None:
        by_kind["MLflow"] = tracked + REPORT
    where = next(folder for folder in (store.root.absolute(), *store.root.absolute().parents) if folder.exists())
    return Estimate(by_kind, running, list(unknown), shutil.disk_usage(where).free, where)


def check_disk(plan: Plan, store: Store) -> None:
    """Refuse a study that cannot fit on the disk of its results folder."""
    usage = estimate(plan, store)
    if usage.needed > usage.free:
        raise ConfigError(f"results: this study needs {usage}; make room or set `results` to another disk")


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count as links."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


@functools.lru_cache(maxsize=4096)
def _need(kind: str, spec: str, images: Images) -> DiskUsage | None:
    """Estimate one stage; those of a kind that does not say leave small tables."""
    size_of = STAGES[kind].disk
    usage: DiskUsage | None = load(size_of)(json.loads(spec), images) if size_of else DiskUsage(10 * SMALL)
    return usage


def data_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size the prepared images."""
    height, width, channels = images.shape
    kept = images.all - images.in_files
    stays = kept * height * width * channels + images.all * PER_IMAGE + SMALL
    return DiskUsage(stays, kept * height * width * 3 if channels == 1 else 0)  # grey images are decoded to three


def training_size(spec: dict[str, Any], images: Images) -> DiskUsage | None:
    """Size weights, checkpoint and records; None where the backbone's number of parameters is not known."""
    parsed = TrainSpec.model_validate(spec)
    training, losses = parsed.training, parsed.objective.losses
    classes = [10] if any(not LOSSES[name].self_supervised for name in losses) else []
    heads = [*classes, *parsed.objective.heads.values()]
    numbers = network_numbers(parsed.model.name, parsed.model.arguments, images.shape[2], heads)
    if numbers is None:
        return None
    file = FLOAT * numbers
    steps = training.epochs * images.train / training.batch_size
    values = round(steps * (2 + 2 * sum(len(terms) for terms in parsed.objective.train.values())))
    state = file * (3 + (training.ema is not None))  # weights, momentum, best, perhaps an average
    return DiskUsage(2 * file + values * RECORD + SMALL, 2 * state + values * LIVE, file + values * (POINT + RECORD))


def evaluation_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size example images, a row per test image and norm, and the finished blocks of a sweep."""
    parsed = EvaluateSpec.model_validate(spec)
    height, width, channels = images.shape
    samples = SAMPLES * height * width * channels * FLOAT * (1 + len(parsed.eps))
    rows = {norm: parsed.images_of(norm) or images.test for norm in parsed.eps}
    per_image = sum(rows.values()) * PER_IMAGE + SMALL
    blocks = sum(rows[norm] * len(grid) for norm, grid in parsed.eps.items()) * FLOAT
    return DiskUsage(samples + per_image, blocks, per_image)


def corruption_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size a bit for every corrupted image."""
    parsed = CorruptSpec.model_validate(spec)
    stays = len(parsed.names) * len(parsed.severities) * (parsed.images or images.test) // 8 + SMALL
    return DiskUsage(stays, 0, stays)


def ood_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size a row per image, image set and score, clean and attacked."""
    parsed = OodSpec.model_validate(spec)
    rows = len(parsed.scores) * parsed.images + len(parsed.attacked_scores) * parsed.attacked_images
    return DiskUsage((1 + len(parsed.sets)) * rows * SCORED + SMALL)


def calibration_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size a row per image and test, without and with a temperature."""
    parsed = CalibrateSpec.model_validate(spec)
    tests = (1 + len(parsed.corruptions) + len(parsed.reference)) * (1 + parsed.temperature)
    return DiskUsage(tests * min(parsed.images, images.test) * CONFIDENCE + SMALL)


def diagnosis_size(spec: dict[str, Any], images: Images) -> DiskUsage:
    """Size a row per image, image set and head."""
    parsed = DiagnoseSpec.model_validate(spec)
    sets, heads = 4, 1 + parsed.own_head
    return DiskUsage(parsed.images * sets * heads * DIAGNOSED + SMALL)
