"""What the run of a whole study carries: effects as metrics, verdicts as parameters, the answer as description."""

from typing import Any

import pandas as pd

from ssrob.analysis.collect import read_tables
from ssrob.planning.plan import Plan
from ssrob.reporting.answer import headline, too_small, untested_text, verdict_lines, what_was_run
from ssrob.reporting.data import ReportData, report_data
from ssrob.reporting.layout import markdown, plain_table
from ssrob.tracking.client import Point

NUMBERS = {"effect": "effect_points", "low": "low", "high": "high", "detectable": "detectable", "p": "p"}


def read_study(plan: Plan) -> ReportData | None:
    """Return a study's collected tables; None before they are there."""
    if not (plan.folder / "collected.json").is_file():
        return None
    tables = read_tables(plan)
    return report_data(plan.study, tables, {}) if len(tables["arms"]) else None


def effect_points(data: ReportData) -> list[Point]:
    """Return the numbers of every comparison with a result, e.g. ``C2.1/effect_points``."""
    return [
        (f"{name}/{metric}", 0, float(row[column]))
        for name, row in _compared(data)
        for column, metric in NUMBERS.items()
        if not pd.isna(row[column])
    ]


def verdict_params(data: ReportData) -> dict[str, str]:
    """Return the verdict of every comparison with a result, e.g. ``C2.1 verdict``, and what was compared."""
    rows = _compared(data)
    arms = {f"{name}/compared": str(row["cell"]).partition(" | ")[0][:500] for name, row in rows}
    return {f"{name}/verdict": str(row["verdict"]) for name, row in rows} | arms


def description(data: ReportData) -> str:
    """Return the answer in Markdown."""
    lines = verdict_lines(data)
    rows = [(f"**{each.claim}** {each.sentence}", each.compared, each.effect_text, each.verdict) for each in lines]
    table = plain_table(pd.DataFrame(rows, columns=["claim", "compared", "effect in points", "verdict"]))
    parts = [f"**{headline(data)}**", too_small(data), markdown(table), untested_text(data)]
    parts += [f"Run: {what_was_run(data)}.", "The report is the artifact `report.html`."]
    return "\n\n".join(filter(None, parts))


def _compared(data: ReportData) -> list[tuple[str, dict[Any, Any]]]:
    """Name the primary comparisons: the claim, and which of its comparisons it is."""
    rows = data.primary[data.primary["effect"].notna()]
    places = rows.groupby("claim").cumcount() + 1
    return [(f"{row['claim']}.{place}", row) for row, place in zip(rows.to_dict("records"), places, strict=True)]
