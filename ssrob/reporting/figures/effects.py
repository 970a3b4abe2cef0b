"""The claims' effects with their intervals."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssrob.reporting.figures.style import INK, MUTED, new_figure, styled

_ABOVE: dict[str, Any] = {
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 7.5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6},
}
VERDICT_COLOURS = {"supported": "#00795a", "contradicted": "#b84600", "inconclusive": MUTED}


@styled
def effects(findings: pd.DataFrame, threshold: float, level: str = "95 %") -> Figure:
    """Draw effects (points) and intervals of the claims' primary cells; rows as `tables.FINDINGS`.

    threshold: the effect (points) that a study must be able to detect; level: of the intervals, in words.
    """
    rows = findings[findings["primary"].astype(bool)].reset_index(drop=True)
    parts = rows["cell"].str.split(" | ", regex=False)
    labels = [_label(claim, cell[0], cell[-1]) for claim, cell in zip(rows["claim"], parts, strict=True)]
    note = f"Bars: {level} intervals. Grey zone: less than {threshold:g} points either way."
    height = 1.3 + sum(max(0.52, 0.1 + 0.17 * (1 + label.count("\n"))) for label in labels)
    figure = new_figure("Effects of the claims' primary cells", note, 11.0, height)
    ax = figure.subplots()
    ax.axvspan(-threshold, threshold, color=MUTED, alpha=0.1, linewidth=0)
    ax.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows.to_dict("records")):
        colour = VERDICT_COLOURS.get(str(row["verdict"]), MUTED)
        ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot([row["effect"]], [place], marker="o", color=colour, markersize=6)
        if np.isfinite(row["effect"]):
            ax.annotate(str(row["verdict"]), (row["effect"], place), (0, 7), **_ABOVE)
        else:
            ax.annotate("no result", (0, place), (0, 7), **_ABOVE)
    ax.set_yticks(range(len(rows)), labels, fontsize=8)
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("effect (percentage points)")
    return figure


def _label(claim: str, compared: str, metric: str) -> str:
    """Name a row: the claim, what is compared, and at which sizes of the perturbation."""
    where = "" if metric == compared else f"\n{textwrap.fill(metric, 54)}"
    return textwrap.fill(f"{claim}: {compared}", 54) + where
