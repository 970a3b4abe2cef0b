"""The claims' effects with their intervals."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.style import INK, LINE, MUTED, NAME, fold, new_figure, styled
from ssrob.reporting.verdicts import VERDICTS, compared

_ABOVE: dict[str, Any] = {
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6},
}


@styled
def effects(data: ReportData) -> Figure | None:
    """Draw effects (points) and intervals of the claims' primary comparisons that have a result."""
    rows = data.primary[data.primary["effect"].notna()]
    if rows.empty:
        return None
    threshold, level = data.study.findings.detectable, data.study.findings.level
    labels = [_label(claim, *compared(cell)) for claim, cell in zip(rows["claim"], rows["cell"], strict=True)]
    most = max(label.count("\n") for label in labels) + 1
    note = f"Bars: {level} intervals. Grey zone: less than {threshold:g} points either way."
    figure = new_figure(_title(rows), note, 0.6 + len(labels) * max(0.46, 0.12 + LINE * most))
    ax = figure.subplots()
    ax.axvspan(-threshold, threshold, color=MUTED, alpha=0.1, linewidth=0)
    ax.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows.to_dict("records")):
        colour = VERDICTS[row["verdict"]].colour if row["verdict"] in VERDICTS else MUTED
        ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot([row["effect"]], [place], marker="o", color=colour, markersize=6)
        ax.annotate(str(row["verdict"]), (row["effect"], place), (0, 6), **_ABOVE)
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("effect (percentage points)")
    return figure


def _title(rows: pd.DataFrame) -> str:
    """Say how many comparisons came to which verdict, and how many intervals leave out 0."""
    counts = ", ".join(f"{count} {word}" for word, count in rows["verdict"].value_counts(sort=False).items())
    clear = int(np.sum((rows["low"] > 0) | (rows["high"] < 0)))
    return f"Of {len(rows)} comparisons: {counts}; {clear} interval{'s' * (clear != 1)} without 0"


def _label(claim: str, arms: str, where: str) -> str:
    """Name a row: the claim, what is compared, and at which sizes of the perturbation."""
    metric = where.rpartition("; ")[2]
    return fold(f"{claim}: {arms}", NAME) + (f"\n{fold(metric, NAME)}" if metric else "")
