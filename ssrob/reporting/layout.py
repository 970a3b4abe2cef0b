"""How pages are made: tables of cells in groups, as HTML, LaTeX and Markdown, and the templates that show them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from ssrob.formatting import MISSING, number
from ssrob.reporting.verdicts import VERDICTS


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, what stands beside it (a difference) and below it (an interval, a note)."""

    text: str
    aside: str = ""
    below: str = ""
    kind: str = ""  # a CSS class: `best`, or a verdict


@dataclass(frozen=True)
class Table:
    """A table as people read it, in groups of rows with a title each, and as plain columns for CSV and LaTeX."""

    headings: list[str]
    groups: list[tuple[str, list[list[Cell]]]]
    numeric: list[bool]
    frame: pd.DataFrame

    @property
    def rows(self) -> list[list[Cell]]:
        """All rows."""
        return [row for _, rows in self.groups for row in rows]


def plain_table(frame: pd.DataFrame, write: dict[str, Any] | None = None) -> Table | None:
    """Make a table of a frame's columns; numbers with one decimal, or as `write` says by column. None without rows."""
    if frame.empty:
        return None
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    plain = [number if each else str for each in numeric]
    writers = [(write or {}).get(str(name), default) for name, default in zip(frame, plain, strict=True)]
    rows = [
        [Cell(MISSING if pd.isna(value) else put(value)) for put, value in zip(writers, row, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    return Table([str(name) for name in frame.columns], [("", rows)], numeric, frame)


def render(template: str, **context: Any) -> str:
    """Fill a page of `templates/`, which has its style inside and needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssrob.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template, globals={"signs": VERDICTS}).render(context)


def write_latex(table: Table, path: Path) -> None:
    """Write a LaTeX tabular (needs booktabs): text columns to the left, numbers to the right; its groups in one."""
    cells = [
        [
            f"{cell.text} ({cell.below})" if cell.below and right else cell.text
            for cell, right in zip(row, table.numeric, strict=True)
        ]
        for row in table.rows
    ]
    style = pd.DataFrame(cells, columns=table.headings).style.hide(axis="index").format(escape="latex")
    columns = "".join("r" if right else "l" for right in table.numeric)
    text = style.format_index(escape="latex", axis=1).to_latex(column_format=columns, hrules=True)
    for sign, name in (("−", "$-$"), ("×", r"$\times$")):
        text = text.replace(sign, name)
    path.write_text(text, encoding="utf-8")


def markdown(table: Table | None) -> str:
    """Write a table in Markdown; what stands beside or below a cell goes in brackets after its text."""
    if table is None:
        return ""
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    lines = [table.headings, ["---"] * len(table.headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.kind == "best" else cell.text
    more = "; ".join(filter(None, [cell.aside, cell.below]))
    return (f"{text} ({more})" if more else text).replace("|", "\\|").replace("\n", " ")
