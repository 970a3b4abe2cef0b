"""What robustness costs: robust accuracy at the reference eps against clean accuracy and against training passes."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, number, percent
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyles, handles
from ssrob.reporting.figures.arms import is_frontier, is_plain_at, main_arms
from ssrob.reporting.figures.style import (
    FAINT,
    MUTED,
    end_at_100,
    legend_below,
    legend_height,
    new_figure,
    per_cent,
    styled,
)
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
def clean_against_robust(data: ReportData) -> Figure | None:
    """Draw robust over clean accuracy at the reference eps, of the arms trained on the norm of the test."""
    return _scatter(data, "clean", _both_accuracies_title, "plain AT trained with another eps")


@styled
def cost_against_robust(data: ReportData) -> Figure | None:
    """Draw robust accuracy over training cost."""
    return _scatter(data, "passes", _cost_title, "plain AT with more passes")


def _scatter(data: ReportData, x: str, title: Callable[[pd.DataFrame], str], line: str) -> Figure | None:
    """Draw the main arms with their names, the others in grey; a grey line joins what plain AT alone can reach."""
    rows = data.robustness
    points = rows if rows.empty else at_reference(rows, data.arms)
    trained = points[(points["norm"] == points["eval_norm"]) & points[x].notna()] if len(points) else points
    if trained.empty or trained["name"].nunique() < 2:
        return None
    note = f"{interval_words(trained, ['name', 'eval_norm'])} Grey line: {line}.{_left_out(points, x)}"
    chosen = main_arms(trained)
    if others := trained["name"].nunique() - len(chosen):
        note += f" Grey: the other arms ({others})."
    legend = handles({name: data.styles[name] for name in chosen}, points=True)
    tall = legend_height(str(handle.get_label()) for handle in legend)
    figure = new_figure(title(trained), note, 3.5 + tall)
    ax, below = figure.subplots(2, height_ratios=[3.5, tall])
    _points(ax, trained, data.styles, x, chosen)
    ax.set_ylabel(f"robust accuracy, {NORMS[data.norm]} at reference eps")
    legend_below(below, legend)
    return figure


def _both_accuracies_title(trained: pd.DataFrame) -> str:
    """Count the arms that are better than plain AT in both accuracies."""
    means = trained.groupby("name")[["clean", "accuracy"]].mean()
    plain = trained.loc[is_plain_at(trained) & (trained["init"] == "random"), "name"].unique()
    if len(plain) != 1:
        return f"Clean and robust accuracy of {len(means)} arms"
    others = means[~means.index.isin(plain)]
    ahead = int((others > means.loc[plain[0]]).all(axis=1).sum())
    return f"In clean and in robust accuracy, {ahead} of {len(others)} arms are above plain AT"


def _cost_title(trained: pd.DataFrame) -> str:
    """Say what the most robust arm costs."""
    means = trained.groupby("name")[["accuracy", "passes"]].mean()
    best = str(means["accuracy"].idxmax())
    cost, least = (number(float(passes), 0) for passes in (means["passes"][best], means["passes"].min()))
    return f"The most robust arm, {best}, takes {cost} passes per image; the cheapest takes {least}"


def _left_out(points: pd.DataFrame, x: str) -> str:
    """Name what is not drawn: arms trained without a perturbation, far from the others, and arms without an x."""
    rows = points[points["norm"].isna()]
    means = rows.groupby(["name", "eval_norm"], sort=False)[["clean", "accuracy"]].mean()
    omitted = [
        f"{row['name']} {percent(row['clean'])} clean, {percent(row['accuracy'])} at {NORMS[row['eval_norm']]}"
        for row in means.reset_index().to_dict("records")
    ]
    words = f" Not drawn, trained without a perturbation: {'; '.join(omitted)}." if omitted else ""
    other = x == "passes" and points.loc[points["norm"].notna(), x].isna().any()
    return words + (" Nor are arms pre-trained on other data, whose passes are not comparable." if other else "")


def _points(ax: Axes, part: pd.DataFrame, styles: ArmStyles, x: str, chosen: list[str]) -> None:
    middle = part.groupby("name")[x].mean()
    ends = over_seeds(part, ["name", "eps_scale"]).set_index("name").assign(x=middle)
    plain = part[(part["init"] == "random") & (part["variant"] == "at")]
    joined = plain[is_frontier(plain) | is_plain_at(plain)] if x == "clean" else plain[plain["eps_scale"] == 1]
    line = ends.loc[list(dict.fromkeys(joined["name"]))].sort_values("eps_scale" if x == "clean" else "x")
    ax.plot(line["x"], line["mean"], color=MUTED, linewidth=1, alpha=0.6, zorder=1)
    others = ends.drop(index=chosen)
    ax.plot(others["x"], others["mean"], "o", color=FAINT, markeredgecolor=MUTED, markersize=4, zorder=1.5)
    for name in chosen:
        row = ends.loc[name]
        reach = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        ax.errorbar([row["x"]], [row["mean"]], yerr=reach, elinewidth=1, label=name, **styles[name].point())
    per_cent(ax.yaxis)
    end_at_100(ax, "y")
    if x == "clean":
        spare = max(0.0, SHORTEST - float(np.ptp(ax.get_xlim()))) / 2
        ax.set_xlim(ax.get_xlim()[0] - spare, ax.get_xlim()[1] + spare)
        per_cent(ax.xaxis)
        end_at_100(ax, "x")
        ax.set_xlabel("clean accuracy")
    else:
        ax.set_xlim(0, None)
        ax.set_xlabel("training cost: network passes per training image, pre-training included")
