"""What the run of a whole study carries: effects as metrics, verdicts as parameters, the answer as description."""

from typing import Any

import pandas as pd

from ssrob.analysis.collect import read_tables
from ssrob.planning.plan import Plan
from ssrob.reporting.answer import headline, too_small, untested, verdict_lines, what_was_run
from ssrob.reporting.data import ReportData, report_data
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
    params: dict[str, str] = {}
    for name, row in _compared(data):
        params |= {
            f"{name}/verdict": str(row["verdict"]),
            f"{name}/compared": str(row["cell"]).partition(" | ")[0][:500],
        }
    return params


def description(data: ReportData) -> str:
    """Return the answer in Markdown."""
    lines = ["| claim | compared | effect in points | verdict |", "|---|---|---|---|"]
    for line in verdict_lines(data):
        effect = f"{line.effect} ({line.interval})" if line.interval else line.effect
        lines.append(f"| **{line.claim}** {line.sentence} | {line.compared} | {effect} | {line.verdict} |")
    missing = untested(data)
    parts = [f"**{headline(data)}**", too_small(data), "\n".join(lines) if len(lines) > 2 else ""]
    parts += [f"Not tested here: {', '.join(missing)}." if missing else "", f"Run: {what_was_run(data)}."]
    return "\n\n".join([*filter(None, parts), "The report is the artifact `report.html`."])


def _compared(data: ReportData) -> list[tuple[str, dict[Any, Any]]]:
    """Name the primary comparisons: the claim, and which of its comparisons it is."""
    rows = data.primary[data.primary["effect"].notna()]
    places = rows.groupby("claim").cumcount() + 1
    return [(f"{row['claim']}.{place}", row) for row, place in zip(rows.to_dict("records"), places, strict=True)]
