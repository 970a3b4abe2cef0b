"""What an evaluation has saved in its folder, read again."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ssrob.analysis.paired import Outcomes, outcomes_of
from ssrob.external.entry import DOCUMENT
from ssrob.registry.lookup import meant
from ssrob.storage.tables import read_table


@dataclass(frozen=True)
class Saved:
    """An evaluation's folder."""

    folder: Path
    document: dict[str, Any]
    examples: pd.DataFrame  # `tables.EXAMPLES`, ascending by example

    @property
    def norm(self) -> str:
        """The norm of its attacks."""
        return str(self.examples["eval_norm"].iloc[0])

    @property
    def eps(self) -> list[float]:
        """The budgets of its attacks, ascending, without 0."""
        return [row["eps"] for row in self.document["curve"] if row["eps"] > 0]

    @cached_property
    def outcomes(self) -> Outcomes:
        """Which image it classified correctly under which test, as one seed."""
        corrupted = self.folder / "corruptions.parquet"
        return outcomes_of(self.examples, {self.norm: self.eps}, corrupted if corrupted.is_file() else None)


def read_saved(folder: Path) -> Saved:
    """Read the folder of an evaluation, or its evaluation.json; a ValueError says what is not there."""
    folder = folder.parent if folder.name == DOCUMENT else folder
    file, rows = folder / DOCUMENT, folder / "robustness.parquet"
    if not file.is_file():
        raise ValueError(f"{folder}: expected a folder that `ssrob evaluate` wrote, with {DOCUMENT}{_guess(folder)}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        known = document["facts"]["images_sha256"], document["facts"]["model"], document["curve"][0]["eps"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: not of this version of ssrob, or damaged; run `ssrob evaluate` again") from None
    if not rows.is_file() or not known[0]:
        raise ValueError(f"{folder}: {rows.name} is missing beside {DOCUMENT}; run `ssrob evaluate` again")
    return Saved(folder, document, read_table(rows).sort_values("example", ignore_index=True))


def _guess(folder: Path) -> str:
    """Name what may have been meant: a folder beside it with a result in it, or a study."""
    if folder.suffix in (".yaml", ".yml"):
        return "; two arms of a study are compared with --study CONFIG"
    there = [str(folder.with_name(file.parent.name)) for file in sorted(folder.parent.glob(f"*/{DOCUMENT}"))]
    return meant(str(folder), there) or (f"; there is {', '.join(there[:3])}" if there else "")
