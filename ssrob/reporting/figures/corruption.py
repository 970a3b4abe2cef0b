"""Accuracy on natural corruptions by family."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from statsmodels.stats.proportion import proportion_confint

from ssrob.formatting import percent
from ssrob.registry.corruptions import BENCHMARK, families
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyle
from ssrob.reporting.figures.arms import main_arms, short_names
from ssrob.reporting.figures.style import end_at_100, name_rows, new_figure, per_cent, rows_height, styled
from ssrob.reporting.figures.summary import interval_words, over_seeds


def corruption_means(corruptions: pd.DataFrame) -> pd.DataFrame:
    """Average over the benchmark corruptions and their severities, per arm and seed, for each family and for all.

    Columns: name, seed, group (a family, or "all"), kinds (how many corruptions), accuracy (0..1), n, low and high
    (95 % binomial interval on n images; severities of one image are not independent, so n is images alone).
    """
    rows = corruptions[corruptions["corruption"].isin(BENCHMARK)]
    both = pd.concat([rows.assign(group=rows["family"]), rows.assign(group="all")])
    grouped = both.groupby(["name", "seed", "group"], sort=False)
    means = grouped.agg(kinds=("corruption", "nunique"), accuracy=("accuracy", "mean"), n=("n", "min")).reset_index()
    low, high = proportion_confint(means["accuracy"] * means["n"], means["n"], method="wilson")
    return means.assign(low=low, high=high)


@styled
def corruption_families(data: ReportData) -> Figure | None:
    """Draw accuracy of the study's main arms for each family and for all."""
    rows = data.corruptions
    means = rows if rows.empty else corruption_means(rows)
    if means.empty:
        return None
    names = main_arms(rows)
    groups = [group for group in [*families(), "all"] if group in set(means["group"])]
    kinds = means.drop_duplicates("group").set_index("group")["kinds"]
    note = interval_words(means, ["name", "group"]) + " Mean over the corruptions of a family and their severities."
    short = short_names(names)
    figure = new_figure(_title(means, names), note, 0.8 + rows_height(short.values()))
    axes = figure.subplots(1, len(groups), squeeze=False, sharex=True, sharey=True)[0]
    for group, ax in zip(groups, axes, strict=True):
        summary = over_seeds(means[means["group"] == group], ["name"]).set_index("name")
        for place, name in enumerate(names):
            if name in summary.index:
                _dot(ax, summary.loc[[name]].iloc[0], place, data.styles[name])
        ax.set_title(f"{group}\n({kinds[group]})")
        ax.margins(x=0.15)
        per_cent(ax.xaxis)
        ax.xaxis.set_major_locator(MaxNLocator(2))
        name_rows(ax, short.values())
    end_at_100(axes[0], "x")  # of all, which share it
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)
    return figure


def _title(means: pd.DataFrame, names: list[str]) -> str:
    overall = means[(means["group"] == "all") & means["name"].isin(names)].groupby("name")["accuracy"].mean()
    return f"On corrupted images {overall.idxmax()} is right most often: {percent(overall.max())}"


def _dot(ax: Axes, summary: pd.Series, place: int, style: ArmStyle) -> None:
    """Draw a mean and its interval in a row of its own."""
    ends = [[summary["mean"] - summary["low"]], [summary["high"] - summary["mean"]]]
    ax.errorbar([summary["mean"]], [place], xerr=ends, elinewidth=1.4, **style.point())
