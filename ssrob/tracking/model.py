"""Models and data sets as MLflow keeps them. A model is safetensors, JSON and the name of the module that reads them.

Nothing is pickled. MLflow finds the loader by its name, so ssrob must be installed where a model is loaded.
"""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.storage.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Dataset

LOADER = "ssrob.tracking.loader"
WEIGHTS, ARCHITECTURE, PLUGINS = "weights.safetensors", "model.json", "plugins.json"


def final_weights(stage: Stage, store: Store) -> Path | None:
    """Return the weights that a finished training is for; None for other stages, or where they were not imported."""
    file = store.folder(stage.path) / (STAGES[stage.kind].weights or "none")
    return file if file.is_file() else None


def model_name(run_name: str) -> str:
    """Return the name of a model in MLflow, which allows fewer characters than that of a run."""
    return re.sub(r"[/:.%\"']", "-", run_name)


def write_model(stage: Stage, store: Store, folder: Path) -> None:
    """Write a finished training as an MLflow model into an empty folder; the copied files are verified."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec
    from numpy import dtype

    (folder / "data").mkdir()
    shutil.copyfile(store.output(stage.path, STAGES[stage.kind].weights), folder / "data" / WEIGHTS)
    shutil.copyfile(store.output(stage.path, ARCHITECTURE), folder / "data" / ARCHITECTURE)
    (folder / "data" / PLUGINS).write_text(json.dumps(stage.settings.get("plugins", [])))
    (folder / "requirements.txt").write_text("ssrob\n")
    stored = json.loads((folder / "data" / ARCHITECTURE).read_text())
    images = TensorSpec(dtype("float32"), (-1, *stored["shape"]))
    outputs = TensorSpec(dtype("float32"), (-1, stored["heads"].get("class", -1)))
    model = Model(signature=ModelSignature(Schema([images]), Schema([outputs])))
    pyfunc.add_to_model(model, loader_module=LOADER, data="data")
    model.save(str(folder / "MLmodel"))


def dataset(name: str, about: dict[str, Any], folder: Path) -> "Dataset":
    """Return a prepared data set for MLflow: its fingerprint as digest, its numbers as profile, where it lies."""
    from mlflow.entities import Dataset
    from mlflow.types import ColSpec, Schema, TensorSpec
    from numpy import dtype

    profile = {"classes": len(about.get("classes", [])), **about["counts"]}
    schema = {}
    if "shape" in about:
        parts: list[ColSpec | TensorSpec] = [TensorSpec(dtype("uint8"), (-1, *about["shape"]), "image")]
        parts += [TensorSpec(dtype("int64"), (-1,), "label")]
        schema = {"mlflow_tensorspec": {"features": Schema(parts).to_json(), "targets": None}}
    return Dataset(
        name=name,
        digest=about["fingerprint"],
        source_type="local",
        source=json.dumps({"uri": str(folder.resolve())}),
        schema=json.dumps(schema) if schema else None,
        profile=json.dumps(profile),
    )
