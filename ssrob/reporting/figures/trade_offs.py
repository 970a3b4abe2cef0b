"""What robustness costs: robust accuracy at the reference eps against clean accuracy and against training passes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssrob.formatting import NORMS
from ssrob.reporting.figures.arms import is_frontier, is_plain_at
from ssrob.reporting.figures.style import MUTED, Looks, legend_beside, new_figure, per_cent, styled
from ssrob.reporting.figures.summary import interval_words, over_seeds

SHORTEST = 0.05  # of an axis of accuracies: less would draw two alike models far apart


def at_reference(robustness: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return per arm and seed its robust accuracy at the reference eps, with its clean accuracy and its passes.

    Adds `clean` (0..1) and `passes` to the rows of the sweep at 1 x the reference eps.
    """
    one = robustness[np.isclose(robustness["eps_multiple"], 1.0)]
    zero = robustness.loc[robustness["eps_multiple"] == 0, ["arm", "checkpoint", "eval_norm", "accuracy"]]
    clean = zero.rename(columns={"accuracy": "clean"})
    rows = one.merge(clean, on=["arm", "checkpoint", "eval_norm"], how="left")
    return rows.merge(arms[["arm", "passes"]], on="arm", how="left")


@styled
def clean_against_robust(points: pd.DataFrame, looks: Looks) -> Figure:
    """Draw robust over clean accuracy; rows as `at_reference` returns them."""
    return _scatter(points, looks, "clean", "Clean against robust accuracy", "plain AT trained with another eps")


@styled
def cost_against_robust(points: pd.DataFrame, looks: Looks) -> Figure:
    """Draw robust accuracy over training cost; rows as `at_reference` returns them."""
    line = "plain AT with more passes. Arms of the same cost stand side by side"
    return _scatter(points, looks, "passes", "Robust accuracy against the cost of training", line)


def _scatter(points: pd.DataFrame, looks: Looks, x: str, title: str, line: str) -> Figure:
    """Draw one row per norm, of the arms trained on it; a grey line joins what plain AT alone can reach."""
    trained = points[(points["norm"] == points["eval_norm"]) & points[x].notna()]
    norms = [norm for norm in NORMS if norm in set(trained["norm"])]
    shown = [trained[trained["norm"] == norm] for norm in norms]
    heights = [max(3.4, 0.8 + 0.2 * part["name"].nunique()) for part in shown]
    note = f"{interval_words(trained, ['name', 'eval_norm'])} Grey line: {line}.{_left_out(points, x)}"
    figure = new_figure(title, note, 9.5, 1.0 + sum(heights))
    shape = {"width_ratios": [1, 0.62], "height_ratios": heights}
    grid = figure.subplots(len(norms), 2, squeeze=False, gridspec_kw=shape)
    for norm, part, axes in zip(norms, shown, grid, strict=True):
        _points(axes[0], part, looks, x)
        axes[0].set_ylabel(f"robust accuracy, {NORMS[norm]} at reference eps")
        names = set(part["name"])
        legend_beside(axes[1], {name: look for name, look in looks.items() if name in names}, points=True)
    return figure


def _left_out(points: pd.DataFrame, x: str) -> str:
    """Tell the values of arms trained without a perturbation, which lie far from the others, and who has no x."""
    rows = points[points["norm"].isna()]
    means = rows.groupby(["name", "eval_norm"], sort=False)[["clean", "accuracy"]].mean()
    told = [
        f"{row['name']} {row['clean']:.1%} clean, {row['accuracy']:.1%} at {NORMS[row['eval_norm']]}"
        for row in means.reset_index().to_dict("records")
    ]
    words = f" Not drawn, trained without a perturbation: {'; '.join(told)}." if told else ""
    other = x == "passes" and points.loc[points["norm"].notna(), x].isna().any()
    return words + (" Nor are arms pre-trained on other data, whose passes do not add up." if other else "")


def _points(ax: Axes, part: pd.DataFrame, looks: Looks, x: str) -> None:
    middle = part.groupby("name")[x].mean()
    ends = over_seeds(part, ["name", "eps_scale"]).set_index("name").assign(x=middle)
    aside = _side_by_side(ends["x"]) if x == "passes" else ends["x"]
    plain = part[(part["init"] == "random") & (part["variant"] == "at")]
    joined = plain[is_frontier(plain) | is_plain_at(plain)] if x == "clean" else plain[plain["eps_scale"] == 1]
    line = ends.loc[list(dict.fromkeys(joined["name"]))].sort_values("eps_scale" if x == "clean" else "x")
    ax.plot(line["x"], line["mean"], color=MUTED, linewidth=1, alpha=0.6, zorder=1)
    for name, look in looks.items():
        if name in ends.index:
            row = ends.loc[name]
            reach = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            ax.errorbar([aside[name]], [row["mean"]], yerr=reach, elinewidth=1, label=name, **look.point())
    per_cent(ax.yaxis)
    if x == "clean":
        spare = max(0.0, SHORTEST - float(np.ptp(ax.get_xlim()))) / 2
        ax.set_xlim(ax.get_xlim()[0] - spare, ax.get_xlim()[1] + spare)
        per_cent(ax.xaxis)
        ax.set_xlabel("clean accuracy")
    else:
        ax.set_xlim(0, None)
        ax.set_xlabel("training cost: network passes per training image, pre-training included")


def _side_by_side(x: pd.Series) -> pd.Series:
    """Move marks of the same x apart, by a hundredth of the axis each: arms of one way cost the same."""
    place = x.groupby(x.round(6)).cumcount()
    count = x.groupby(x.round(6)).transform("count")
    moved: pd.Series = x + 0.01 * x.max() * (place - (count - 1) / 2)
    return moved
