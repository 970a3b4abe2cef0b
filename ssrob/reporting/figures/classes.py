"""Accuracy by class, clean and at the reference eps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, eps_text, percent
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import is_frontier, main_arms, short_names
from ssrob.reporting.figures.heatmaps import TIGHT, heatmap
from ssrob.reporting.figures.style import new_figure, rows_height, styled

MOST_CLASSES = 20  # more columns cannot be read


def class_accuracies(examples: pd.DataFrame, eps: float) -> pd.DataFrame:
    """Return accuracy by model and class; rows of one norm's sweeps as `tables.ALL_EXAMPLES`, with names
    (and `class` for the label).

    Columns: name, class, clean, robust (0..1, mean over seeds; robust: no attack succeeded at any grid point up to
    eps, [0, 1] pixel units), n (images of the class per seed).
    """
    survived = examples["first_failed"] > eps * (1 + 1e-6)
    rows = examples.assign(clean=examples["clean_correct"].astype(float), robust=survived.astype(float))
    seeds = rows.groupby(["name", "class", "arm"], sort=False)[["clean", "robust"]].agg(["mean", "count"])
    shares = pd.DataFrame(
        {"clean": seeds["clean", "mean"], "robust": seeds["robust", "mean"], "n": seeds["clean", "count"].astype(float)}
    )
    return shares.groupby(["name", "class"], sort=False).mean().reset_index()


@styled
def per_class(data: ReportData) -> Figure | None:
    """Draw a map of clean and one of robust accuracy, arms by classes.

    With more than `MOST_CLASSES` classes, those of least and of most robust accuracy over all arms are drawn.
    """
    arms = data.arms[~is_frontier(data.arms) & data.arms["budget"].isna()]
    rows = data.examples[(data.examples["eval_norm"] == data.norm) & data.examples["arm"].isin(set(arms["arm"]))]
    if rows.empty or rows["class"].nunique() < 2:
        return None
    accuracies, classes = class_accuracies(rows, data.eps), data.classes
    names = main_arms(arms[arms["arm"].isin(set(rows["arm"]))])
    shown = shown_classes(accuracies)
    titles = [_name(label, classes) for label in shown]
    note = f"Per cent, mean over seeds, about {accuracies['n'].mean():.0f} test images per class and seed."
    note += f" Robust: under every attack at {NORMS[data.norm]} eps = {eps_text(data.eps)}."
    left_out = accuracies["class"].nunique() - len(shown)
    note += f" {left_out} classes between the least and the most robust ones are left out." if left_out else ""
    means = accuracies.groupby("class")["robust"].mean()
    low, high = (_name(int(str(i)), classes) for i in (means.idxmin(), means.idxmax()))
    title = f"Least robust class: {low} ({percent(means.min())} over all arms), most: {high} ({percent(means.max())})"
    short = short_names(names)
    figure = new_figure(title, note, 0.9 + 2 * rows_height(short.values(), TIGHT))
    axes = figure.subplots(2, sharex=True)
    for ax, what in zip(axes, ("clean", "robust"), strict=True):
        cells = accuracies.pivot_table(index="name", columns="class", values=what).reindex(index=names, columns=shown)
        heatmap(ax, cells.set_axis(titles, axis=1).rename(index=short))
        ax.set_title(what)
    return figure


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)


def shown_classes(accuracies: pd.DataFrame) -> list[int]:
    """Return the classes to draw, in their order."""
    robust = accuracies.groupby("class")["robust"].mean().sort_values(kind="stable")
    chosen = robust.index if len(robust) <= MOST_CLASSES else np.r_[robust.index[:10], robust.index[-10:]]
    return sorted(int(label) for label in chosen)
