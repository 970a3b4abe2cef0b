"""Accuracy on natural corruptions by family."""

import pandas as pd
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

from ssrob.formatting import percent
from ssrob.registry.corruptions import BENCHMARK, families
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import main_arms
from ssrob.reporting.figures.dot_plot import dot_plot
from ssrob.reporting.figures.style import styled
from ssrob.reporting.figures.summary import interval_words


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
    kinds = means.drop_duplicates("group").set_index("group")["kinds"]
    groups = [group for group in [*families(), "all"] if group in kinds]
    means = means.sort_values("group", key=lambda column: column.map(groups.index), kind="stable")
    means = means.assign(panel=means["group"] + means["kinds"].map(" ({})".format), hollow=False)
    note = interval_words(means, ["name", "group"]) + " Mean over the corruptions of a family and their severities."
    return dot_plot(means, names, data.styles, (_title(means, names), note, "accuracy"), columns=len(groups))


def _title(means: pd.DataFrame, names: list[str]) -> str:
    overall = means[(means["group"] == "all") & means["name"].isin(names)].groupby("name")["accuracy"].mean()
    return f"On corrupted images {overall.idxmax()} is right most often: {percent(overall.max())}"
