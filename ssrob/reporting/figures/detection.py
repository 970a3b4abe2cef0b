"""How well images of no known class are detected, and how far class probabilities are what they say."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssrob.formatting import NORMS, percent
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyle
from ssrob.reporting.figures.arms import main_arms, short_names
from ssrob.reporting.figures.style import (
    INK,
    fold,
    legend_below,
    legend_mark,
    name_rows,
    new_figure,
    per_cent,
    rows_height,
    styled,
)
from ssrob.reporting.figures.summary import interval_words, over_seeds

HELD_OUT, CORRUPTED = "classes held out", "corrupted"
CHANCE = 0.5
LEGEND = 0.3  # inches
COLUMNS = 3  # panels beside each other


@styled
def detection_auroc(data: ReportData) -> Figure | None:
    """Draw the AUROC of the primary score by image set: filled clean, hollow attacked."""
    score = data.study.findings.primary.score
    rows = data.detection[data.detection["score"] == score]
    if rows.empty:
        return None
    values = {"accuracy": rows["auroc"], "low": rows["auroc_low"], "high": rows["auroc_high"], "n": rows["inside"]}
    rows = rows.assign(**values, panel=rows["image_set"].map(set_name), hollow=rows["eps"] > 0)
    note = interval_words(rows, ["name", "panel", "hollow"], "one seed: 95 % bootstrap interval")
    note += f" Score: {_words(score)}. 50 % is chance."
    best = rows[~rows["hollow"]].groupby("name", sort=False)["accuracy"].mean().loc[main_arms(rows)]
    title = f"Images of no known class are detected best by {best.idxmax()}: AUROC {percent(best.max())}"
    figure = _dots(data, rows, (title, note, "AUROC"), ("clean", "attacked") if rows["hollow"].any() else ())
    for ax in figure.axes:
        if ax.axison:
            ax.axvline(CHANCE, color=INK, linewidth=0.8, linestyle=":", zorder=1)
    return figure


@styled
def calibration_error(data: ReportData) -> Figure | None:
    """Draw the expected calibration error by kind of images: filled as trained, hollow with a fitted temperature."""
    if data.calibration.empty:
        return None
    rows = calibration_means(data.calibration)
    rows = rows.assign(accuracy=rows["ece"], hollow=rows["scaled"].astype(bool))
    note = interval_words(rows, ["name", "panel", "hollow"], "one seed")
    note += f" Expected calibration error over {data.calibration['bins'].iloc[0]} bins of equal mass; 0 % is best."
    clean = rows[~rows["hollow"] & (rows["panel"] == "clean")].groupby("name", sort=False)["accuracy"].mean()
    clean = clean.loc[main_arms(rows)]
    title = f"Confidence is nearest to accuracy on clean images for {clean.idxmin()}: off by {percent(clean.min())}"
    words = title, note, "expected calibration error"
    return _dots(data, rows, words, ("as trained", "with a fitted temperature") if rows["hollow"].any() else ())


def calibration_means(calibration: pd.DataFrame) -> pd.DataFrame:
    """Average the corruptions of each model; a column `panel` says what the images are: clean, corrupted, or a norm."""
    panels = calibration["images"].map(lambda name: f"attacked, {NORMS[name]}" if name in NORMS else name)
    kinds = panels.where((panels == "clean") | calibration["images"].isin(NORMS), CORRUPTED)
    rows = calibration.assign(panel=kinds)
    by = [
        name for name in rows if name not in ("images", "temperature", "ece", "nll", "brier", "accuracy", "n", "bins")
    ]
    means: dict[str, Any] = {name: (name, "mean") for name in ("ece", "nll", "brier", "accuracy")}
    averaged: pd.DataFrame = rows.groupby(by, sort=False, dropna=False, observed=True).agg(**means, n=("n", "min"))
    return averaged.reset_index()


def set_name(name: str) -> str:
    """Name an image set for people."""
    return HELD_OUT if name == "held_out" else name


def _words(score: str) -> str:
    return score.replace("_", " ")


def _dots(data: ReportData, rows: pd.DataFrame, words: tuple[str, str, str], kinds: Sequence[str]) -> Figure:
    """Draw a panel for each `panel`, a row for each arm: means with intervals, filled and, beside them, hollow."""
    title, note, axis = words
    names, panels = main_arms(rows), list(dict.fromkeys(rows["panel"]))
    short = short_names(names)
    height, lines = 0.5 + rows_height(short.values()), math.ceil(len(panels) / COLUMNS)
    figure = new_figure(title, note, lines * height + LEGEND * bool(kinds))
    heights = [height] * lines + [LEGEND] * bool(kinds)
    grid = figure.add_gridspec(len(heights), min(COLUMNS, len(panels)), height_ratios=heights)
    first = figure.add_subplot(grid[0, 0])
    rest = [figure.add_subplot(grid[divmod(i, COLUMNS)], sharex=first, sharey=first) for i in range(1, len(panels))]
    for i, (panel, ax) in enumerate(zip(panels, [first, *rest], strict=True)):
        means = over_seeds(rows[rows["panel"] == panel], ["name", "hollow"])
        for place, name in enumerate(names):
            _pair(ax, means[means["name"] == name], place, 0.15 * bool(kinds), data.styles[name])
        ax.set_title(fold(panel, 16))
        ax.margins(x=0.12)
        ax.set_xlabel(axis if i == (lines - 1) * COLUMNS else "", loc="left")
        per_cent(ax.xaxis)
        ax.xaxis.set_major_locator(MaxNLocator(2))
        name_rows(ax, short.values(), lines=True)
        ax.tick_params(labelleft=i % COLUMNS == 0)
    if kinds:
        marks = [legend_mark(name, markerfacecolor=fill) for name, fill in zip(kinds, (INK, "white"), strict=True)]
        legend_below(figure.add_subplot(grid[-1, :]), marks)
    return figure


def _pair(ax: Axes, means: pd.DataFrame, place: int, apart: float, style: ArmStyle) -> None:
    """Draw an arm's means with their intervals: filled, and hollow below."""
    for row in means.to_dict("records"):
        marker = style.point() | {"markerfacecolor": "white" if row["hollow"] else style.colour}
        ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]] if pd.notna(row["low"]) else None
        at = place + (apart if row["hollow"] else -apart)
        ax.errorbar([row["mean"]], [at], xerr=ends, elinewidth=1.2, **marker)
