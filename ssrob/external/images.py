"""The images that a model is evaluated on: a known set, parquet files or a folder, prepared once into a cache."""

import hashlib
import os
import shutil
from pathlib import Path

import yaml
from pydantic import ValidationError

from ssrob.config.explain import explain
from ssrob.config.study import Data
from ssrob.data.prepare import prepare
from ssrob.registry.sources import SOURCES


def find_data(text: str) -> Data:
    """Understand ``digits``, ``cifar10``, a folder, or a study's settings: ``{source: folder, path: p, size: 64}``."""
    if text.lstrip().startswith("{"):
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--data: cannot be read as YAML: {' '.join(str(error).split())}") from None
        name = Path(settings["path"]).name if "path" in settings else str(settings.get("source"))
        return _checked({"name": name} | settings)
    if text in SOURCES and SOURCES[text].known is not None:
        return _checked({"name": text, "source": text})
    path = Path(text)
    if not path.is_dir():
        known = ", ".join(name for name, source in SOURCES.items() if source.known is not None)
        raise ValueError(f"--data: expected {known}, a folder or settings in braces, found {text!r}")
    source = "parquet" if any(path.glob("*.parquet")) else "folder"
    return _checked({"name": path.resolve().name, "source": source, "path": str(path)})


def prepared(data: Data, cache: Path) -> Path:
    """Prepare a data set below `cache`, unless that was done before; returns its folder."""
    folder = cache / f"{data.name}-{hashlib.sha256(data.model_dump_json().encode()).hexdigest()[:10]}"
    if not (folder / "data.json").is_file():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        prepare(data, partial)
        os.replace(partial, folder)
    return folder


def _checked(settings: dict[str, object]) -> Data:
    try:
        return Data.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"--data: {'; '.join(explain(error))}") from None
