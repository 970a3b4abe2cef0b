"""The main table of a report: accuracies of every arm, clean, attacked and on corruptions."""

from typing import Any

import numpy as np
import pandas as pd

from ssrob.formatting import NORMS, eps_text, interval, number, signed
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import is_plain_at, names_in, questions
from ssrob.reporting.figures.corruption import corruption_means
from ssrob.reporting.figures.summary import over_seeds
from ssrob.reporting.layout import Cell, Table

SHOWN = (0.5, 1.0, 2.0)  # multiples of the reference eps


def main(data: ReportData) -> Table | None:
    """Lay out the main table: grouped by question, the difference to plain AT beside the value, the best in bold."""
    columns, numbers = main_columns(data), main_numbers(data)
    if not columns:
        return None
    twins, by_name = same_models(data), numbers.set_index("name", drop=False).to_dict("index")

    def cell(row: dict[Any, Any], key: str) -> Cell:
        aside = "" if pd.isna(row[f"{key}_to_at"]) else signed(row[f"{key}_to_at"])
        kind = "best" if row[key] == numbers[key].max() else ""
        return Cell(number(row[key]), aside, interval(row[f"{key}_low"], row[f"{key}_high"]), kind)

    def line(row: dict[Any, Any]) -> list[Cell]:
        note = f"the same model as “{twins[row['name']]}”" if row["name"] in twins else ""
        return [Cell(row["name"], below=note), Cell(str(row["seeds"])), *(cell(row, key) for key in columns)]

    groups = [(title, [line(by_name[name]) for name in names]) for title, names in questions(data.arms)]
    headings = ["arm", "seeds", *(heading for heading, _ in columns.values())]
    return Table(headings, groups, [False, *[True] * (1 + len(columns))], numbers)


def main_columns(data: ReportData) -> dict[str, tuple[str, pd.DataFrame]]:
    """Return the columns that the study has numbers for: by key, the heading and the rows of accuracies."""
    columns, rows = {}, data.robustness
    if len(rows):
        is_clean = (rows["eval_norm"] == rows["eval_norm"].iloc[0]) & (rows["eps_multiple"] == 0)
        columns["clean"] = ("clean", rows[is_clean])
    for norm, name in NORMS.items():
        sweep = rows[rows["eval_norm"] == norm]
        grid = sorted(set(sweep["eps_multiple"]))
        for multiple in [each for each in SHOWN if each in grid] or [each for each in grid if each][:3]:
            at = sweep[np.isclose(sweep["eps_multiple"], multiple)]
            columns[f"{norm}_{multiple:g}"] = (f"{name} {eps_text(at['eps'].iloc[0])}", at)
    if len(data.corruptions):
        means = corruption_means(data.corruptions)
        columns["corruptions"] = (f"{means['kinds'].max()} corruptions", means[means["group"] == "all"])
    return columns


def main_numbers(data: ReportData) -> pd.DataFrame:
    """Return the main table: per arm its seeds, and per column mean, low and high in per cent, difference in points.

    Columns: name, seeds, n, then `KEY`, `KEY_low`, `KEY_high`, `KEY_to_at` by key of `main_columns`, and `passes`.
    low and high are the interval that figures show: over seeds, or binomial for a single seed. `to_at`: to plain AT
    from random weights with the same training norm (of arms without one: the primary), mean over shared seeds.
    """
    frame = pd.DataFrame({"name": names_in(data.arms, data.arms)})
    frame["seeds"] = frame["name"].map(data.arms.groupby("name")["seed"].nunique())
    frame["n"] = frame["name"].map(data.robustness.groupby("name")["n"].max()) if len(data.robustness) else np.nan
    for key, (_, rows) in main_columns(data).items():
        means = over_seeds(rows, ["name"]).set_index("name")
        for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            frame[key + suffix] = 100 * frame["name"].map(means[end])
        frame[f"{key}_to_at"] = 100 * frame["name"].map(_to_at(rows, data))
    frame["passes"] = frame["name"].map(data.arms.groupby("name")["passes"].mean())
    return frame


def _to_at(rows: pd.DataFrame, data: ReportData) -> dict[str, float]:
    """Return by name the mean difference to plain AT over shared seeds, 0..1; nothing for plain AT itself."""
    values = rows.pivot_table(index="seed", columns="name", values="accuracy")
    arms = data.arms.drop_duplicates("name").set_index("name")
    plain = arms[is_plain_at(arms) & (arms["init"] == "random")]
    references = {row["norm"]: name for name, row in plain.iterrows() if name in values}
    norms = arms["norm"].fillna(data.norm)
    differences = {}
    for name in values.columns:
        reference = references.get(norms[name])
        if reference is not None and reference != name:
            differences[str(name)] = float((values[name] - values[reference]).mean())
    return differences


def same_models(data: ReportData) -> dict[str, str]:
    """Find arms that have every accuracy of every seed in common: by name, the first of the same numbers."""
    first: dict[tuple[Any, ...], str] = {}
    twins = {}
    for name, rows in data.robustness.groupby("name", sort=False):
        ordered = rows.sort_values(["seed", "eval_norm", "eps"])
        key = tuple(ordered[["seed", "eval_norm", "eps", "accuracy"]].itertuples(index=False, name=None))
        if len(set(ordered["accuracy"])) > 2 and first.setdefault(key, str(name)) != name:
            twins[str(name)] = first[key]
    return twins
