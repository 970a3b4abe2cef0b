"""What a stage has measured, as points (metric, step, value). Imports no mlflow."""

from pathlib import Path

import numpy as np
import pandas as pd

from ssrob.planning.stage import Stage
from ssrob.registry.corruptions import BENCHMARK
from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES
from ssrob.storage.metrics_log import records_table
from ssrob.storage.store import Store
from ssrob.storage.tables import RECORDS, read_table, shares
from ssrob.tracking.client import Point

EPS_AXIS, SEVERITY_AXIS = "eps_multiple", "severity"  # what curves of tests are drawn over
DIGITS = 6  # of an accuracy; the UI shows every digit there is


def training_points(store: Store, stage: Stage) -> list[Point]:
    """Return a stage's records by step and metric; of a running stage, its complete steps.

    The order makes what was there earlier a prefix of what is there later.
    """
    if store.done(stage.path):
        recorded = (store.folder(stage.path) / "training.parquet").is_file()
        return _ordered(read_table(store.output(stage.path, "training.parquet"))) if recorded else []
    live = _ordered(_live_records(store.work(stage.path) / "records.jsonl"))
    return [point for point in live if point[1] < live[-1][1]]


def as_bytes(points: list[Point]) -> bytes:
    """Return points as bytes to hash: those of two lists in a row are those of the joined list."""
    return "".join(f"{metric} {step} {value!r}\n" for metric, step, value in points).encode()


def measured_points(store: Store, stage: Stage) -> list[Point]:
    """Return a finished test's accuracies, 0..1, under the names that every run of a study uses.

    ``..._by_eps_percent`` and ``..._by_severity`` are curves: their step is the eps in per cent of the
    norm's reference eps, or the severity. What belongs to the last checkpoint, not to the best one, begins with
    ``last/``.
    """
    measure = STAGES[stage.kind].points
    points: list[Point] = load(measure)(store, stage) if measure else []
    prefix = "" if stage.spec.get("checkpoint", "best") == "best" else f"{stage.spec['checkpoint']}/"
    return [(prefix + name, step, round(value, DIGITS)) for name, step, value in points]


def robust_points(store: Store, stage: Stage) -> list[Point]:
    """Return clean accuracy, and per norm the share of examples that no eps of the grid up to this one broke.

    ``eps_multiple/NORM`` has the same steps as the curve over eps: the axis that it is drawn over.
    """
    examples, spec = read_table(store.output(stage.path, "robustness.parquet")), stage.spec
    points: list[Point] = [("clean_accuracy", 0, float(examples.clean_correct.mean()))]
    for norm, rows in examples.groupby("eval_norm"):
        for eps in spec["eps"][norm]:
            multiple = eps / spec["reference"][norm]
            accuracy = float((rows.first_failed > eps).mean())
            points.append((f"robust_accuracy_by_eps_percent/{norm}", round(100 * multiple), accuracy))
            points.append((f"{EPS_AXIS}/{norm}", round(100 * multiple), multiple))
            if eps > 0:
                points.append((f"robust_accuracy/{norm}/x{_two_decimals(multiple)}", 0, accuracy))
    return points


def corruption_points(store: Store, stage: Stage) -> list[Point]:
    """Return the accuracies on corrupted images."""
    return corrupted_points(read_table(store.output(stage.path, "corruptions.parquet")))


def corrupted_points(table: pd.DataFrame) -> list[Point]:
    """Return the accuracy on each corruption over its severities, and the mean over the benchmark's corruptions."""
    frame = table[["corruption", "severity"]].assign(accuracy=shares(table))
    by_name = frame.groupby("corruption", sort=False).accuracy.mean()
    points: list[Point] = [(f"corruption_accuracy/{name}", 0, float(mean)) for name, mean in by_name.items()]
    benchmark = frame[frame.corruption.isin(BENCHMARK)]
    if len(benchmark):
        mean = benchmark.groupby("corruption").accuracy.mean().mean()
        points.append(("corruption_accuracy/mean", 0, float(mean)))
    for severity, rows in benchmark.groupby("severity"):
        points.append(("corruption_accuracy_by_severity/mean", int(str(severity)), float(rows.accuracy.mean())))
        points.append((SEVERITY_AXIS, int(str(severity)), float(str(severity))))
    return points


def detection_points(store: Store, stage: Stage) -> list[Point]:
    """Return AUROC by score and image set, e.g. ``ood_auroc/energy/blobs``, and the means over image sets."""
    table = read_table(store.output(stage.path, "detection.parquet"))
    points: list[Point] = []
    for (attacked, score), rows in table.groupby([table["eps"] > 0, "score"], sort=False):
        where = f"ood_{'attacked_' if attacked else ''}auroc/{score}"
        points += [(f"{where}/{row['image_set']}", 0, float(row["auroc"])) for row in rows.to_dict("records")]
        points.append((f"{where}/mean", 0, float(rows["auroc"].mean())))
    return points


def calibration_points(store: Store, stage: Stage) -> list[Point]:
    """Return ECE, NLL and Brier score by kind of images, e.g. ``calibration/ece_clean``, ``calibration_scaled/..``."""
    return [
        (f"calibration{'_scaled' if row['scaled'] else ''}/{name}_{row['images']}", 0, float(row[name]))
        for row in read_table(store.output(stage.path, "calibration.parquet")).to_dict("records")
        for name in ("ece", "nll", "brier")
    ]


def probe_points(store: Store, stage: Stage) -> list[Point]:
    """Return the probes' accuracies, e.g. ``probe/linear``, ``probe/knn_robust_linf``, ``probe_untrained/linear``."""
    table = read_table(store.output(stage.path, "probes.parquet"))
    points: list[Point] = []
    for row in table.assign(accuracy=shares(table)).to_dict("records"):
        where = "probe" if row["features"] == "pretrained" else f"probe_{row['features']}"
        attack = f"_robust_{row['eval_norm']}" if isinstance(row["eval_norm"], str) else ""
        points.append((f"{where}/{row['probe']}{attack}", 0, float(row["accuracy"])))
    return points


def diagnosis_points(store: Store, stage: Stage) -> list[Point]:
    """Return per head and image set the mean cosine of the gradients and the class accuracy, by SSL task."""
    table, task = read_table(store.output(stage.path, "diagnosis.parquet")), stage.spec["task"]
    means = table.groupby(["head", "images"], sort=False)[["cosine", "class_correct"]].mean()
    return [
        (f"diagnose_{task}/{row['head']}_{name}_{row['images']}", 0, float(row[name]))
        for row in means.reset_index().to_dict("records")
        for name in means.columns
        if np.isfinite(row[name])
    ]


def _live_records(path: Path) -> pd.DataFrame:
    try:
        return records_table(path)
    except ValueError:  # torn by a crash; the stage cuts it off when it goes on
        return pd.DataFrame(columns=list(RECORDS))


def _ordered(records: pd.DataFrame) -> list[Point]:
    once = records.drop_duplicates(["step", "metric"], keep="last").sort_values(["step", "metric"])
    return list(zip(once.metric.tolist(), once.step.tolist(), once.value.tolist(), strict=True))


def _two_decimals(multiple: float) -> str:
    return f"{multiple:.2f}" if abs(multiple - round(multiple, 2)) < 1e-9 else f"{multiple:.4g}"
