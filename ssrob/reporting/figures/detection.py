"""How well images of no known class are detected, and how far class probabilities are what they say."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, percent
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import main_arms
from ssrob.reporting.figures.dot_plot import dot_plot
from ssrob.reporting.figures.style import INK, styled
from ssrob.reporting.figures.summary import interval_words

HELD_OUT, CORRUPTED = "classes held out", "corrupted"
CHANCE = 0.5


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
    names, kinds = main_arms(rows), ("clean", "attacked") if rows["hollow"].any() else ()
    best = rows[~rows["hollow"]].groupby("name", sort=False)["accuracy"].mean().loc[names]
    title = f"Images of no known class are detected best by {best.idxmax()}: AUROC {percent(best.max())}"
    figure = dot_plot(rows, names, data.styles, (title, note, "AUROC"), kinds=kinds)
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
    names, kinds = main_arms(rows), ("as trained", "with a fitted temperature") if rows["hollow"].any() else ()
    clean = rows[~rows["hollow"] & (rows["panel"] == "clean")].groupby("name", sort=False)["accuracy"].mean().loc[names]
    title = f"Confidence is nearest to accuracy on clean images for {clean.idxmin()}: off by {percent(clean.min())}"
    return dot_plot(rows, names, data.styles, (title, note, "expected calibration error"), kinds=kinds)


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
