"""Dot plots: a panel for each kind of images, and in it a row for each arm with its mean and interval."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssrob.reporting.figures.arm_styles import ArmStyle, ArmStyles
from ssrob.reporting.figures.arms import short_names
from ssrob.reporting.figures.style import (
    INK,
    end_at_100,
    fold,
    legend_below,
    legend_mark,
    name_rows,
    new_figure,
    per_cent,
    rows_height,
)
from ssrob.reporting.figures.summary import over_seeds

LEGEND = 0.3  # inches


def dot_plot(
    rows: pd.DataFrame,
    names: list[str],
    styles: ArmStyles,
    words: tuple[str, str, str],
    *,
    kinds: Sequence[str] = (),
    columns: int = 3,
) -> Figure:
    """Draw the means over seeds of shares 0..1 with their intervals, the arms in the order of `names`.

    rows: as for `over_seeds`, with `panel` (its title) and `hollow` (bool): a hollow mark stands below the filled one.
    words: title, note and what the axis shows. kinds: what filled and hollow marks are, if there are both. columns:
    panels side by side.
    """
    title, note, axis = words
    panels, short = list(dict.fromkeys(rows["panel"])), short_names(names)
    height, lines = 0.5 + rows_height(short.values()), math.ceil(len(panels) / columns)
    heights = [height] * lines + [LEGEND] * bool(kinds)
    figure = new_figure(title, note, sum(heights))
    grid = figure.add_gridspec(len(heights), min(columns, len(panels)), height_ratios=heights)
    first = figure.add_subplot(grid[0, 0])
    rest = [figure.add_subplot(grid[divmod(i, columns)], sharex=first, sharey=first) for i in range(1, len(panels))]
    for i, (panel, ax) in enumerate(zip(panels, [first, *rest], strict=True)):
        means = over_seeds(rows[rows["panel"] == panel], ["name", "hollow"])
        for place, name in enumerate(names):
            _marks(ax, means[means["name"] == name], place, styles[name], paired=bool(kinds))
        ax.set_title(fold(panel, 16))
        ax.margins(x=0.12)
        ax.set_xlabel(axis if i == (lines - 1) * columns else "", loc="left")
        per_cent(ax.xaxis)
        ax.xaxis.set_major_locator(MaxNLocator(2))
        name_rows(ax, short.values(), lines=True)
        ax.tick_params(labelleft=i % columns == 0)
    end_at_100(first, "x")  # of all panels, which share it
    if kinds:
        marks = [legend_mark(name, markerfacecolor=fill) for name, fill in zip(kinds, (INK, "white"), strict=True)]
        legend_below(figure.add_subplot(grid[-1, :]), marks)
    return figure


def _marks(ax: Axes, means: pd.DataFrame, place: int, style: ArmStyle, *, paired: bool) -> None:
    """Draw an arm's means with their intervals in its row; paired: filled and hollow ones, whatever the arm's style."""
    for row in means.to_dict("records"):
        fill = {"markerfacecolor": "white" if row["hollow"] else style.colour} if paired else {}
        at = place + 0.15 * paired * (1 if row["hollow"] else -1)
        ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]] if pd.notna(row["low"]) else None
        ax.errorbar([row["mean"]], [at], xerr=ends, elinewidth=1.2, **style.point() | fill)
