"""What Hugging Face's `datasets` writes beside its tables: which files belong together, splits, class names.

No torch is imported, nor `datasets`.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssrob.config.data import Data
from ssrob.data.split_names import split_in
from ssrob.data.table_files import is_table
from ssrob.data.types import DataError, refusal

STATE, INFO = "state.json", "dataset_info.json"  # written by `save_to_disk` into the folder of each split
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")


def tables_below(path: Path) -> list[Path]:
    """Return the tables in a folder, at any depth: no hidden ones, and of a saved split those that belong to it."""
    files = sorted(file for file in path.rglob("*") if is_table(file))
    seen = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return [file for file in seen if file.suffix.lower() == ".parquet" or _belongs(file)]


def split_of_file(file: Path, root: Path) -> str | None:
    """Return the split that a table is of, by its name, by folders below `root`, or as `save_to_disk` noted it."""
    inside = file.relative_to(root)
    named = [split_in(part) for part in (inside.stem, *reversed(inside.parts[:-1]))]
    return next((split for split in named if split), None) or split_in(str(_json(file.parent / STATE).get("_split")))


def check_complete(data: Data, files: Iterable[Path]) -> None:
    """Refuse files of which some are missing: shards ``-00001-of-00004``, and what a saved split lists."""
    present = set(files)
    for file in sorted(present):
        missing: list[str] = []
        if match := _SHARD.fullmatch(file.name):
            before, _, count, after = match.groups()
            missing = [f"{before}-{number:05}-of-{count}{after}" for number in range(int(count))]
        elif file.suffix.lower() == ".arrow":
            missing = _listed(file.parent)
        for name in missing:
            if file.with_name(name) not in present and not file.with_name(name).is_file():
                raise refusal(data, "path", f"{file.parent} lacks {name}, which {file.name} belongs to; copy it again")


def stated_in_folder(file: Path, column: str) -> tuple[str, ...]:
    """Return the class names of a column as the `dataset_info.json` beside a table states them, if it does."""
    return class_names(_json(file.parent / INFO).get("features"), column)


def class_names(features: Any, column: str) -> tuple[str, ...]:
    """Return the names of a `ClassLabel` among features, in the order of their labels; a mapping is by label."""
    names = ((features or {}).get(column) or {}).get("names") or ()
    return tuple(names[key] for key in sorted(names, key=int)) if isinstance(names, dict) else tuple(names)


def _belongs(file: Path) -> bool:
    listed = _listed(file.parent)
    return file.name in listed if listed else not file.name.startswith("cache-")


def _listed(folder: Path) -> list[str]:
    return [str(each["filename"]) for each in _json(folder / STATE).get("_data_files") or ()]


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        loaded = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error}); copy it again") from error
    return loaded if isinstance(loaded, dict) else {}
