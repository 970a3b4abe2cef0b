"""An evaluation of somebody else's model as a run of MLflow: who the model is, what was found, and the files."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssrob.formatting import eps_text
from ssrob.storage.tables import read_table
from ssrob.tracking.client import Experiment, Point, open_experiment
from ssrob.tracking.points import corrupted_points

EXPERIMENT = "evaluations"
FILES = ("report.html", "evaluation.json", "robustness.parquet", "checks.parquet", "corruptions.parquet")
VOLATILE = ("peak_memory_mb", "threads", "device", "commit")  # facts that do not make it another evaluation


def check_store(uri: str, out: Path) -> None:
    """Raise TrackingError now, before hours of attacks, if the store cannot be used."""
    with open_experiment(uri, EXPERIMENT, _root(uri, out)):
        pass


def track_evaluation(out: Path, uri: str) -> str:
    """Log the evaluation in a folder as a run of ``evaluations``, once however often it is called; the run's id."""
    document = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    with open_experiment(uri, EXPERIMENT, _root(uri, out)) as experiment:
        key = _key(document)
        present = experiment.runs.get(key)
        if present is None or present.status != "FINISHED":
            _log(experiment, key, document, out)
        return experiment.runs[key].id


def _log(experiment: Experiment, key: str, document: Mapping[str, Any], out: Path) -> None:
    now = round(1000 * time.time())
    run = experiment.runs.get(key) or experiment.create(key, document["name"], now)
    facts = document["facts"]
    model, versions = facts["model"], {k: v for k, v in facts["versions"].items() if v}
    params = {f"model.{name}": str(value)[:500] for name, value in model.items() if value is not None}
    params |= {name: str(document[name]) for name in ("dataset", "norm", "attack", "gradients_in", "n", "seed")}
    params |= {f"version.{name}": str(version) for name, version in versions.items()}
    tags = {"kind": "evaluation", "weights_sha256": model["weights_sha256"], "images_sha256": facts["images_sha256"]}
    tags |= {"unreliable": str(document["unreliable"]), "device": str(facts["device"])}
    experiment.log(run, _points(document, out), params, tags | {"mlflow.note.content": _note(document)})
    for name in FILES:
        if (out / name).is_file():
            experiment.log_file(run, out / name)
    experiment.finish(run, now)


def _points(document: Mapping[str, Any], out: Path) -> list[Point]:
    """Return accuracies 0..1; the step of the curve is eps in thousandths of the pixel range."""
    norm, points = document["norm"].lower(), [("clean_accuracy", 0, document["curve"][0]["accuracy"])]
    for row in document["curve"]:
        points.append((f"robust_accuracy_by_eps_in_thousandths/{norm}", round(1000 * row["eps"]), row["accuracy"]))
        if row["eps"]:
            points.append((f"robust_accuracy/{norm}/eps {row['eps']:.4g}", 0, row["accuracy"]))
    corrupted = out / "corruptions.parquet"
    return points + (corrupted_points(read_table(corrupted)) if corrupted.is_file() else [])


def _note(document: Mapping[str, Any]) -> str:
    rows = [f"| {eps_text(row['eps']) if row['eps'] else 0} | {row['accuracy']:.1%} |" for row in document["curve"]]
    lines = ["| eps | accuracy |", "|---|---|", *rows, "", *(f"- {line}" for line in document["warnings"])]
    return "\n".join([*lines, *(f"- {line}" for line in document["assumed"])])


def _key(document: Mapping[str, Any]) -> str:
    facts = {name: value for name, value in document["facts"].items() if name not in VOLATILE}
    text = json.dumps({**document, "facts": facts}, sort_keys=True)
    return f"evaluation/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _root(uri: str, out: Path) -> Path:
    """Return the folder for the lock and, of a local store, the artifacts: beside the store's file."""
    if not uri.startswith("sqlite:///"):
        return out
    return Path(uri.removeprefix("sqlite:///")).absolute().parent
