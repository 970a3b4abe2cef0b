"""The tables: their columns, types and units, and how they are written and read. Everything else is a group-by away."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssrob.planning.names import ArmColumns
from ssrob.storage.files import replacing

Columns = dict[str, tuple[pa.DataType, str]]  # name -> type, what it holds and in which unit
TEXT, WHOLE, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

# Written by stages.
RECORDS: Columns = {
    "step": (WHOLE, "optimiser steps done when this was recorded"),
    "epoch": (REAL, "the same in epochs"),
    "metric": (TEXT, "e.g. loss/adv/xent, lr, validation/robust_accuracy"),
    "value": (REAL, "accuracies 0..1, losses in nats"),
}
EXAMPLES: Columns = {
    "eval_norm": (TEXT, "linf or l2: the norm of the sweep"),
    "example": (WHOLE, "row of the test split"),
    "label": (WHOLE, "class"),
    "clean_correct": (FLAG, "classified correctly without a perturbation"),
    "distance": (REAL, "smallest perturbation norm found, [0,1] pixel units; 0 misclassified, inf none found"),
    "first_failed": (REAL, "smallest eps of the grid at which it failed, [0,1] pixel units; inf: none"),
    "attack": (TEXT, "attack that found it"),
}
CORRUPTED: Columns = {
    "corruption": (TEXT, "name"),
    "severity": (WHOLE, "1..5"),
    "n": (WHOLE, "test images"),
    "correct": (pa.binary(), "bit-packed (numpy.packbits): image i classified correctly"),
}
PROBED: Columns = {
    "features": (TEXT, "pretrained, or untrained: the same network before any training"),
    "probe": (TEXT, "knn or linear"),
    "eval_norm": (TEXT, "norm of the attack, null for clean images"),
    "eps": (REAL, "of the attack, [0,1] pixel units; 0 for clean images"),
    "n": (WHOLE, "validation images"),
    "correct": (pa.binary(), "bit-packed (numpy.packbits): image i classified correctly"),
}
DIAGNOSED: Columns = {
    "head": (TEXT, "SSL head: own (trained with the model) or fitted (afresh, on frozen features)"),
    "images": (TEXT, "where it was measured: clean, noise, or attacked on the supervised or the ssl loss"),
    "example": (WHOLE, "row of the validation split"),
    "cosine": (REAL, "of the input gradients of both losses, -1..1; null where one is zero"),
    "supervised_gradient": (REAL, "l2 norm of the input gradient of cross-entropy, nats per unit of pixel"),
    "ssl_gradient": (REAL, "the same of the SSL loss"),
    "supervised_loss": (REAL, "cross-entropy, nats"),
    "ssl_loss": (REAL, "the task's loss, in its own unit"),
    "class_correct": (FLAG, "classified correctly"),
    "ssl_correct": (FLAG, "SSL task solved; null where the task has no such answer"),
}
SCORED: Columns = {
    "image_set": (TEXT, "name of the image set; test: the model's own test images"),
    "example": (WHOLE, "row of the test split; in other sets the number of the image"),
    "score": (TEXT, "name of the score; higher for images of the training distribution"),
    "eps": (REAL, "of the l-inf attack on the score, [0,1] pixel units; 0 for clean images"),
    "value": (pa.float32(), "the score, in its own unit"),
}
DETECTED: Columns = {
    "image_set": (TEXT, "images of no known class that test images are compared with"),
    "score": SCORED["score"],
    "eps": SCORED["eps"],
    "inside": (WHOLE, "test images"),
    "outside": (WHOLE, "images of the set"),
} | {
    f"{name}{end}": (REAL, words + what)
    for name, words in {
        "auroc": "chance that a test image scores above one of the set, 0..1",
        "aupr": "average precision, test images as positives, 0..1",
        "fpr": "share of the set that passes where 95 % of test images do, 0..1",
    }.items()
    for end, what in {"": "", "_low": "; lower end of the 95 % bootstrap interval", "_high": "; upper end"}.items()
}
CONFIDENCES: Columns = {
    "images": (TEXT, "clean, a corruption, or the norm of an attack"),
    "scaled": (FLAG, "by the temperature that was fitted on validation images"),
    "temperature": (REAL, "that logits were divided by"),
    "example": (WHOLE, "row of the test split"),
    "label": (WHOLE, "class"),
    "correct": (FLAG, "classified correctly"),
    "confidence": (REAL, "largest class probability, 0..1"),
    "nll": (REAL, "negative log-likelihood of the label, nats"),
    "brier": (REAL, "squared distance of the probabilities from the label's, 0..2"),
}
CALIBRATED: Columns = {name: CONFIDENCES[name] for name in ("images", "scaled", "temperature")} | {
    "ece": (REAL, "expected calibration error, 0..1"),
    "nll": (REAL, "mean negative log-likelihood of the label, nats"),
    "brier": (REAL, "mean Brier score, 0..2"),
    "bins": (WHOLE, "bins of equal mass of the expected calibration error"),
    "accuracy": (REAL, "0..1"),
    "n": (WHOLE, "test images"),
}
CHECKED: Columns = {
    "eval_norm": (TEXT, "linf or l2"),
    "check": (TEXT, "name of the check"),
    "passed": (FLAG, "whether it passed"),
    "detail": (TEXT, "what was measured"),
}


# Collected for a study; each carries the columns of its arm.
def _arm_columns() -> Columns:
    """Return the columns of `ArmColumns`, with the init's task after the init."""
    kinds: dict[Any, pa.DataType] = {float: REAL, float | None: REAL, int: WHOLE}
    columns: Columns = {"arm": (TEXT, "key of the trained model")}
    for name, field in ArmColumns.model_fields.items():
        columns[name] = (kinds.get(field.annotation, TEXT), field.description or "")
        if name == "init":
            columns["init_task"] = (TEXT, "SSL task that the init was pre-trained on, null if there is none")
    return columns


ARM: Columns = _arm_columns()
ARMS: Columns = ARM | {
    "label": (TEXT, "short name for figures, without the seed"),
    "passes": (
        REAL,
        "training cost, forward-pass equivalents per training image, pre-training included; null if it had other data",
    ),
    "passes_finetune": (REAL, "the same for fine-tuning alone"),
    "seconds": (REAL, "training time, pre-training included"),
    "device": (TEXT, "where it was trained"),
    "best_epoch": (REAL, "epoch of the best checkpoint on validation"),
    "overfitting": (
        REAL,
        "robust validation accuracy of the best epoch less that of the last, 0..1; null if never attacked",
    ),
}
TRAINING: Columns = ARM | {"stage": (TEXT, "pretrain or finetune")} | RECORDS
ROBUSTNESS: Columns = ARM | {
    "checkpoint": (TEXT, "best (on validation) or last"),
    "eval_norm": (TEXT, "norm of the sweep"),
    "eps": (REAL, "[0,1] pixel units"),
    "eps_multiple": (REAL, "eps in multiples of the reference eps of eval_norm"),
    "accuracy": (REAL, "share of test images that no attack broke at this eps, 0..1"),
    "n": (WHOLE, "test images"),
    "low": (REAL, "lower end of the 95 % binomial (Wilson) interval"),
    "high": (REAL, "upper end"),
}
ALL_EXAMPLES: Columns = {"arm": ARM["arm"], "checkpoint": ROBUSTNESS["checkpoint"]} | EXAMPLES
ALL_CHECKS: Columns = {"arm": ARM["arm"], "checkpoint": ROBUSTNESS["checkpoint"]} | CHECKED
CORRUPTIONS: Columns = ARM | {
    "checkpoint": (TEXT, "best or last"),
    "corruption": (TEXT, "name"),
    "family": (TEXT, "noise, blur, weather or digital"),
    "severity": (WHOLE, "1..5"),
    "accuracy": (REAL, "0..1"),
    "n": (WHOLE, "test images"),
}
DETECTION: Columns = ARM | {"checkpoint": CORRUPTIONS["checkpoint"]} | DETECTED
OOD_SCORES: Columns = {"arm": ARM["arm"], "checkpoint": CORRUPTIONS["checkpoint"]} | SCORED
CALIBRATION: Columns = ARM | {"checkpoint": CORRUPTIONS["checkpoint"]} | CALIBRATED
PROBES: Columns = {
    "pretrain": (TEXT, "key of the pre-trained model"),
    "init": ARM["init"],
    "init_task": ARM["init_task"],
    "norm": (TEXT, "norm of the pre-training's perturbation, null without one"),
    "eps_train": ARM["eps_train"],
    "seed": ARM["seed"],
    "features": PROBED["features"],
    "probe": PROBED["probe"],
    "eval_norm": PROBED["eval_norm"],
    "eps": PROBED["eps"],
    "accuracy": (REAL, "0..1, on validation images"),
    "n": PROBED["n"],
}
DIAGNOSTICS: Columns = ARM | {
    "checkpoint": (TEXT, "best or last"),
    "ssl_task": (TEXT, "task whose loss is compared with cross-entropy"),
    "head": DIAGNOSED["head"],
    "images": DIAGNOSED["images"],
    "eval_norm": (TEXT, "norm of the perturbations"),
    "eps": (REAL, "of the perturbations, [0,1] pixel units"),
    "n": (WHOLE, "validation images"),
    "cosine": (REAL, "of the input gradients of both losses, mean over images"),
    "cosine_q05": (REAL, "5 % quantile over images"),
    "cosine_q25": (REAL, "25 % quantile"),
    "cosine_q50": (REAL, "median"),
    "cosine_q75": (REAL, "75 % quantile"),
    "cosine_q95": (REAL, "95 % quantile"),
    "gradient_ratio": (REAL, "norm of the SSL loss's input gradient over cross-entropy's, median over images"),
    "class_accuracy": (REAL, "0..1"),
    "ssl_accuracy": (REAL, "0..1, null where the task has none"),
    "supervised_loss": (REAL, "cross-entropy, nats, mean"),
    "ssl_loss": (REAL, "the task's loss, mean"),
}
NOT_RUN: Columns = ARM | {
    "label": ARMS["label"],
    "part": (TEXT, "part of the study"),
    "finished": (WHOLE, "stages of this model that are finished"),
    "stages": (WHOLE, "stages of this model: what it starts from, its training, its tests"),
}
FINDINGS: Columns = {
    "claim": (TEXT, "C2, C3, C4, C5a, C5b"),
    "question": (TEXT, "what was compared, in words"),
    "cell": (TEXT, "which arms, norm, checkpoint, metric, eps interval"),
    "primary": (FLAG, "fixed in the config before anything ran; otherwise exploratory"),
    "effect": (REAL, "percentage points"),
    "low": (REAL, "lower end of the interval at level 1 - findings.alpha (95 % by default), points"),
    "high": (REAL, "upper end"),
    "p": (
        REAL,
        "p value of what the claim or control asks for (one seed: McNemar's, two-sided); in primary rows corrected for"
        " the claim's primary cells (Holm), in all others not",
    ),
    "seeds": (WHOLE, "paired seeds"),
    "n": (WHOLE, "test images per seed"),
    "detectable": (REAL, "smallest effect found with 80 % power, points; of an equivalence the margin"),
    "test": (TEXT, "statistical test"),
    "verdict": (TEXT, "supported, contradicted, inconclusive or underpowered; empty for exploratory cells"),
    "note": (TEXT, "why, in one sentence"),
}
STAGES: Columns = {
    "kind": (TEXT, "kind of stage"),
    "key": (TEXT, "its key"),
    "seconds": (REAL, "wall time"),
    "started": (TEXT, "ISO 8601, UTC"),
    "device": (TEXT, "cpu or the GPU's name"),
    "peak_memory_mb": (REAL, "largest resident set, MB"),
    "versions": (TEXT, "JSON: package -> version"),
    "commit": (TEXT, "git commit of the code, with -dirty if changed since; empty outside a checkout"),
}
COLLECTED: dict[str, Columns] = {  # the tables of a study, in the order in which they are collected
    "arms": ARMS,
    "training": TRAINING,
    "robustness": ROBUSTNESS,
    "examples": ALL_EXAMPLES,
    "checks": ALL_CHECKS,
    "corruptions": CORRUPTIONS,
    "detection": DETECTION,
    "ood_scores": OOD_SCORES,
    "calibration": CALIBRATION,
    "probes": PROBES,
    "diagnostics": DIAGNOSTICS,
    "stages": STAGES,
    "not_run": NOT_RUN,
    "findings": FINDINGS,
}


def write_table(frame: pd.DataFrame, columns: Columns, path: Path) -> None:
    """Write a table as parquet, atomically and with the same bytes for the same rows; refuses columns out of place."""
    if list(frame.columns) != list(columns):
        raise ValueError(f"{path.name}: expected columns {list(columns)}, found {list(frame.columns)}")
    fields = [pa.field(name, kind, metadata={"holds": holds}) for name, (kind, holds) in columns.items()]
    table = pa.Table.from_pandas(frame, schema=pa.schema(fields), preserve_index=False)
    with replacing(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def accuracy_table(eps: NDArray[Any], correct: NDArray[Any]) -> pd.DataFrame:
    """Return eps, accuracy and its 95 % interval (Wilson 1927), one row per eps; shares 0..1.

    eps (E,); correct (E, N) bool: whether each image is classified right under attacks of that eps.
    """
    from statsmodels.stats.proportion import proportion_confint

    ends = proportion_confint(correct.sum(1), correct.shape[1], method="wilson")
    low, high = (end.clip(0, 1) for end in ends)  # rounding leaves the ends of 0 and 100 % just outside
    return pd.DataFrame({"eps": eps, "accuracy": correct.mean(1), "low": low, "high": high})


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
