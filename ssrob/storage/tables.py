"""The tables: their columns, types and units, and how they are written and read. Everything else is a group-by away."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssrob.planning.names import ArmColumns
from ssrob.storage.files import replacing

Columns = dict[str, tuple[pa.DataType, str]]  # name -> type, what it holds and in which unit

# Written by stages.
RECORDS: Columns = {
    "step": (pa.int64(), "optimiser steps done when this was recorded"),
    "epoch": (pa.float64(), "the same in epochs"),
    "metric": (pa.string(), "e.g. loss/adv/xent, lr, validation/robust_accuracy"),
    "value": (pa.float64(), "accuracies 0..1, losses in nats"),
}
EXAMPLES: Columns = {
    "eval_norm": (pa.string(), "linf or l2: the norm of the sweep"),
    "example": (pa.int64(), "row of the test split"),
    "label": (pa.int64(), "class"),
    "clean_correct": (pa.bool_(), "classified correctly without a perturbation"),
    "distance": (
        pa.float64(),
        "smallest perturbation norm found, [0,1] pixel units; 0 misclassified, inf none found",
    ),
    "first_failed": (
        pa.float64(),
        "smallest eps of the grid at which it failed, [0,1] pixel units; inf: none",
    ),
    "attack": (pa.string(), "attack that found it"),
}
CORRUPTED: Columns = {
    "corruption": (pa.string(), "name"),
    "severity": (pa.int64(), "1..5"),
    "n": (pa.int64(), "test images"),
    "correct": (pa.binary(), "bit-packed (numpy.packbits): image i classified correctly"),
}
PROBED: Columns = {
    "features": (pa.string(), "pretrained, or untrained: the same network before any training"),
    "probe": (pa.string(), "knn or linear"),
    "eval_norm": (pa.string(), "norm of the attack, null for clean images"),
    "eps": (pa.float64(), "of the attack, [0,1] pixel units; 0 for clean images"),
    "n": (pa.int64(), "validation images"),
    "correct": (pa.binary(), "bit-packed (numpy.packbits): image i classified correctly"),
}
DIAGNOSED: Columns = {
    "head": (pa.string(), "SSL head: own (trained with the model) or fitted (afresh, on frozen features)"),
    "images": (pa.string(), "where it was measured: clean, noise, or attacked on the supervised or the ssl loss"),
    "example": (pa.int64(), "row of the validation split"),
    "cosine": (pa.float64(), "of the input gradients of both losses, -1..1; null where one is zero"),
    "supervised_gradient": (pa.float64(), "l2 norm of the input gradient of cross-entropy, nats per unit of pixel"),
    "ssl_gradient": (pa.float64(), "the same of the SSL loss"),
    "supervised_loss": (pa.float64(), "cross-entropy, nats"),
    "ssl_loss": (pa.float64(), "the task's loss, in its own unit"),
    "class_correct": (pa.bool_(), "classified correctly"),
    "ssl_correct": (pa.bool_(), "SSL task solved; null where the task has no such answer"),
}
SCORED: Columns = {
    "image_set": (pa.string(), "name of the image set; test: the model's own test images"),
    "example": (pa.int64(), "row of the test split; in other sets the number of the image"),
    "score": (pa.string(), "name of the score; higher for images of the training distribution"),
    "eps": (pa.float64(), "of the l-inf attack on the score, [0,1] pixel units; 0 for clean images"),
    "value": (pa.float32(), "the score, in its own unit"),
}
DETECTED: Columns = {
    "image_set": (pa.string(), "images of no known class that test images are compared with"),
    "score": SCORED["score"],
    "eps": SCORED["eps"],
    "inside": (pa.int64(), "test images"),
    "outside": (pa.int64(), "images of the set"),
} | {
    f"{name}{end}": (pa.float64(), words + what)
    for name, words in {
        "auroc": "chance that a test image scores above one of the set, 0..1",
        "aupr": "average precision, test images as positives, 0..1",
        "fpr": "share of the set that passes where 95 % of test images do, 0..1",
    }.items()
    for end, what in {"": "", "_low": "; lower end of the 95 % bootstrap interval", "_high": "; upper end"}.items()
}
CONFIDENCES: Columns = {
    "images": (pa.string(), "clean, a corruption, or the norm of an attack"),
    "scaled": (pa.bool_(), "by the temperature that was fitted on validation images"),
    "temperature": (pa.float64(), "that logits were divided by"),
    "example": (pa.int64(), "row of the test split"),
    "label": (pa.int64(), "class"),
    "correct": (pa.bool_(), "classified correctly"),
    "confidence": (pa.float64(), "largest class probability, 0..1"),
    "nll": (pa.float64(), "negative log-likelihood of the label, nats"),
    "brier": (pa.float64(), "squared distance of the probabilities from the label's, 0..2"),
}
CALIBRATED: Columns = {name: CONFIDENCES[name] for name in ("images", "scaled", "temperature")} | {
    "ece": (pa.float64(), "expected calibration error, 0..1"),
    "nll": (pa.float64(), "mean negative log-likelihood of the label, nats"),
    "brier": (pa.float64(), "mean Brier score, 0..2"),
    "bins": (pa.int64(), "bins of equal mass of the expected calibration error"),
    "accuracy": (pa.float64(), "0..1"),
    "n": (pa.int64(), "test images"),
}
CHECKED: Columns = {
    "eval_norm": (pa.string(), "linf or l2"),
    "check": (pa.string(), "name of the check"),
    "passed": (pa.bool_(), "whether it passed"),
    "detail": (pa.string(), "what was measured"),
}


# Collected for a study; each carries the columns of its arm.
def _arm_columns() -> Columns:
    """Return the columns of `ArmColumns`, with the init's task after the init."""
    kinds: dict[Any, pa.DataType] = {float: pa.float64(), float | None: pa.float64(), int: pa.int64()}
    columns: Columns = {"arm": (pa.string(), "key of the trained model")}
    for name, field in ArmColumns.model_fields.items():
        columns[name] = (kinds.get(field.annotation, pa.string()), field.description or "")
        if name == "init":
            columns["init_task"] = (pa.string(), "SSL task that the init was pre-trained on, null if there is none")
    return columns


ARM: Columns = _arm_columns()
ARMS: Columns = ARM | {
    "label": (pa.string(), "short name for figures, without the seed"),
    "passes": (
        pa.float64(),
        "training cost, forward-pass equivalents per training image, pre-training included; null if it had other data",
    ),
    "passes_finetune": (pa.float64(), "the same for fine-tuning alone"),
    "seconds": (pa.float64(), "training time, pre-training included"),
    "device": (pa.string(), "where it was trained"),
    "best_epoch": (pa.float64(), "epoch of the best checkpoint on validation"),
    "overfitting": (
        pa.float64(),
        "robust validation accuracy of the best epoch less that of the last, 0..1; null if never attacked",
    ),
}
TRAINING: Columns = ARM | {"stage": (pa.string(), "pretrain or finetune")} | RECORDS
ROBUSTNESS: Columns = ARM | {
    "checkpoint": (pa.string(), "best (on validation) or last"),
    "eval_norm": (pa.string(), "norm of the sweep"),
    "eps": (pa.float64(), "[0,1] pixel units"),
    "eps_multiple": (pa.float64(), "eps in multiples of the reference eps of eval_norm"),
    "accuracy": (pa.float64(), "share of test images that no attack broke at this eps, 0..1"),
    "n": (pa.int64(), "test images"),
    "low": (pa.float64(), "lower end of the 95 % binomial (Wilson) interval"),
    "high": (pa.float64(), "upper end"),
}
ALL_EXAMPLES: Columns = {"arm": ARM["arm"], "checkpoint": ROBUSTNESS["checkpoint"]} | EXAMPLES
ALL_CHECKS: Columns = {"arm": ARM["arm"], "checkpoint": ROBUSTNESS["checkpoint"]} | CHECKED
CORRUPTIONS: Columns = ARM | {
    "checkpoint": (pa.string(), "best or last"),
    "corruption": (pa.string(), "name"),
    "family": (pa.string(), "noise, blur, weather or digital"),
    "severity": (pa.int64(), "1..5"),
    "accuracy": (pa.float64(), "0..1"),
    "n": (pa.int64(), "test images"),
}
DETECTION: Columns = ARM | {"checkpoint": CORRUPTIONS["checkpoint"]} | DETECTED
OOD_SCORES: Columns = {"arm": ARM["arm"], "checkpoint": CORRUPTIONS["checkpoint"]} | SCORED
CALIBRATION: Columns = ARM | {"checkpoint": CORRUPTIONS["checkpoint"]} | CALIBRATED
PROBES: Columns = {
    "pretrain": (pa.string(), "key of the pre-trained model"),
    "init": ARM["init"],
    "init_task": ARM["init_task"],
    "norm": (pa.string(), "norm of the pre-training's perturbation, null without one"),
    "eps_train": ARM["eps_train"],
    "seed": ARM["seed"],
    "features": PROBED["features"],
    "probe": PROBED["probe"],
    "eval_norm": PROBED["eval_norm"],
    "eps": PROBED["eps"],
    "accuracy": (pa.float64(), "0..1, on validation images"),
    "n": PROBED["n"],
}
DIAGNOSTICS: Columns = ARM | {
    "checkpoint": (pa.string(), "best or last"),
    "ssl_task": (pa.string(), "task whose loss is held against cross-entropy"),
    "head": DIAGNOSED["head"],
    "images": DIAGNOSED["images"],
    "eval_norm": (pa.string(), "norm of the perturbations"),
    "eps": (pa.float64(), "of the perturbations, [0,1] pixel units"),
    "n": (pa.int64(), "validation images"),
    "cosine": (pa.float64(), "of the input gradients of both losses, mean over images"),
    "cosine_q05": (pa.float64(), "5 % quantile over images"),
    "cosine_q25": (pa.float64(), "25 % quantile"),
    "cosine_q50": (pa.float64(), "median"),
    "cosine_q75": (pa.float64(), "75 % quantile"),
    "cosine_q95": (pa.float64(), "95 % quantile"),
    "gradient_ratio": (pa.float64(), "norm of the SSL loss's input gradient over cross-entropy's, median over images"),
    "class_accuracy": (pa.float64(), "0..1"),
    "ssl_accuracy": (pa.float64(), "0..1, null where the task has none"),
    "supervised_loss": (pa.float64(), "cross-entropy, nats, mean"),
    "ssl_loss": (pa.float64(), "the task's loss, mean"),
}
NOT_RUN: Columns = ARM | {
    "label": ARMS["label"],
    "part": (pa.string(), "part of the study"),
    "finished": (pa.int64(), "stages of this model that are finished"),
    "stages": (pa.int64(), "stages of this model: what it starts from, its training, its tests"),
}
FINDINGS: Columns = {
    "claim": (pa.string(), "C2, C3, C4, C5a, C5b"),
    "question": (pa.string(), "what was compared, in words"),
    "cell": (pa.string(), "which arms, norm, checkpoint, metric, eps interval"),
    "primary": (pa.bool_(), "fixed in the config before anything ran; otherwise exploratory"),
    "effect": (pa.float64(), "percentage points"),
    "low": (pa.float64(), "lower end of the interval at level 1 - findings.alpha (95 % by default), points"),
    "high": (pa.float64(), "upper end"),
    "p": (
        pa.float64(),
        "p value of what the claim or control asks for (one seed: McNemar's, two-sided); in primary rows corrected for"
        " the claim's primary cells (Holm), in all others not",
    ),
    "seeds": (pa.int64(), "paired seeds"),
    "n": (pa.int64(), "test images per seed"),
    "detectable": (
        pa.float64(),
        "smallest effect found with 80 % power, points; of an equivalence the margin",
    ),
    "test": (pa.string(), "statistical test"),
    "verdict": (pa.string(), "supported, contradicted, inconclusive or underpowered; empty for exploratory cells"),
    "note": (pa.string(), "why, in one sentence"),
}
STAGES: Columns = {
    "kind": (pa.string(), "kind of stage"),
    "key": (pa.string(), "its key"),
    "seconds": (pa.float64(), "wall time"),
    "started": (pa.string(), "ISO 8601, UTC"),
    "device": (pa.string(), "cpu or the GPU's name"),
    "peak_memory_mb": (pa.float64(), "largest resident set, MB"),
    "versions": (pa.string(), "JSON: package -> version"),
    "commit": (pa.string(), "git commit of the code, with -dirty if changed since; empty outside a checkout"),
}


def write_table(frame: pd.DataFrame, columns: Columns, path: Path) -> None:
    """Write a table as parquet, atomically and with the same bytes for the same rows; refuses columns out of place."""
    if list(frame.columns) != list(columns):
        raise ValueError(f"{path.name}: expected columns {list(columns)}, found {list(frame.columns)}")
    fields = [pa.field(name, kind, metadata={"holds": holds}) for name, (kind, holds) in columns.items()]
    table = pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)
    with replacing(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def shares(table: pd.DataFrame) -> pd.Series:
    """Return the share of bits that are set, 0..1, per row of a table with `correct` (bit-packed) and `n`."""
    packed = zip(table["correct"], table["n"], strict=True)
    means = [float(np.unpackbits(np.frombuffer(bits, np.uint8), count=n).mean()) for bits, n in packed]
    return pd.Series(means, index=table.index, dtype=float)


def read_table(path: Path | str) -> pd.DataFrame:
    """Read a parquet table; a damaged file is named in the error."""
    if not Path(path).exists():
        raise ValueError(f"{path}: no such table")
    try:
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        advice = "remove its stage folder and run again"
        raise ValueError(f"{path}: not a readable parquet table ({error}); {advice}") from None
    return frame
