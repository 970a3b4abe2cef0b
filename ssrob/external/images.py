"""What images a model is evaluated on, as a command line says it."""

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from ssrob.config.data import Data
from ssrob.config.explain import explain
from ssrob.config.fields import expand
from ssrob.config.yaml_text import YamlError, read_yaml
from ssrob.data.split_names import split_in, split_of
from ssrob.data.table_files import is_table
from ssrob.registry.lookup import meant
from ssrob.registry.sources import SOURCES


def find_data(text: str) -> Data:
    """Understand ``digits``, ``cifar10``, a folder or file, or a study's settings: ``{source: folder, path: p}``."""
    if text.lstrip().startswith("{"):
        return _of_settings(text)
    if text in SOURCES and SOURCES[text].known is not None:
        return _checked({"name": text, "source": text})
    path = Path(expand(text))
    if not path.is_dir() and not is_table(path):
        known = [name for name, source in SOURCES.items() if source.known is not None]
        beside = [str(path.with_name(other.name)) for other in path.parent.glob("*") if other.is_dir()]
        guess = meant(text, [*known, *beside])
        raise ValueError(f"--data: expected {', '.join(known)}, a folder or settings in braces, found {text!r}{guess}")
    source = "parquet" if path.is_file() or holds_tables(path) else "folder"
    return _checked({"name": name_of(path), "source": source, "path": str(path)})


def holds_tables(path: Path) -> bool:
    """Return whether a folder holds tables: right inside, or below in files or folders named as splits."""
    tables = [file for pattern in ("*", "*/*", "*/*/*") for file in path.glob(pattern) if is_table(file)]
    return any(file.parent == path or split_in(file.stem) or split_of(file.parent.name) for file in tables)


def name_of(path: Path) -> str:
    """Return a name for a data set that lies in a folder, whatever letters and spaces the folder's has."""
    plain = unicodedata.normalize("NFKD", path.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:64] or "data"


def _of_settings(text: str) -> Data:
    try:
        settings = read_yaml(text)
    except YamlError as error:
        raise ValueError(f"--data: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"--data: expected settings such as {{source: folder, path: photos}}, found {text!r}")
    path = settings.get("path")
    name = name_of(Path(str(path))) if path is not None else str(settings.get("source"))
    return _checked({"name": name} | settings)


def _checked(settings: Mapping[str, object]) -> Data:
    try:
        return Data.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"--data: {'; '.join(explain(error))}") from None
