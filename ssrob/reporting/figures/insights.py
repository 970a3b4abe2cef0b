"""The figures beyond the sweeps: SSL weights, classes, probes of pre-trained models, diagnoses of trained ones."""

import pandas as pd
from matplotlib.figure import Figure

from ssrob.reporting.figures.arms import is_frontier
from ssrob.reporting.figures.classes import class_accuracies, per_class
from ssrob.reporting.figures.curves import difference_by_weight
from ssrob.reporting.figures.diagnosis import diagnosis
from ssrob.reporting.figures.inputs import Inputs
from ssrob.reporting.figures.probes import probe_accuracies
from ssrob.reporting.figures.recipe import Recipe
from ssrob.reporting.figures.summary import differences_to_at


def _weights(i: Inputs) -> Figure | None:
    floor = i.study.findings.floor
    rows = i.robustness if i.robustness.empty else differences_to_at(i.robustness, floor)
    weighted = rows[_several_weights(rows)] if len(rows) else rows
    return (
        None if weighted.empty else difference_by_weight(pd.concat([weighted, rows[is_frontier(rows)]]), i.looks, floor)
    )


def _several_weights(rows: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to a way of training that there is with several SSL weights."""
    family = ["variant", "init", "init_task", "task", "norm"]
    return (rows.groupby(family, dropna=False)["weight"].transform("nunique") > 1) & rows["budget"].isna()


def _classes(i: Inputs) -> Figure | None:
    eps = i.study.threat[i.norm].eps if i.norm in i.study.threat else 0.0
    rows = i.examples[i.examples["eval_norm"] == i.norm]
    rows = rows[rows["arm"].isin(set(i.arms.loc[~is_frontier(i.arms) & i.arms["budget"].isna(), "arm"]))]
    if rows.empty or rows["class"].nunique() < 2:
        return None
    return per_class(class_accuracies(rows, eps), i.looks, i.classes, i.norm, eps)


def _probes(i: Inputs) -> Figure | None:
    return None if i.probes.empty else probe_accuracies(i.probes)


def _diagnosis(i: Inputs) -> Figure | None:
    rows = i.diagnostics[~is_frontier(i.diagnostics) & i.diagnostics["budget"].isna()]
    return None if rows.empty else diagnosis(rows, i.looks)


INSIGHTS = (
    Recipe(
        "difference_by_weight",
        "The same difference for each SSL weight of a way. Grey: what plain AT trades by the choice of its eps alone.",
        "tables/robustness.parquet",
        "No way of training was run with several SSL weights.",
        _weights,
    ),
    Recipe(
        "per_class",
        "Robustness that rests on a few easy classes shows here.",
        "tables/examples.parquet",
        "The outcome of each test image was not collected.",
        _classes,
    ),
    Recipe(
        "probes",
        "Whether pre-training left features that tell the classes apart. Filled marks no better than hollow ones: what "
        "was pre-trained is worth no more than a random start.",
        "tables/probes.parquet",
        "No pre-trained model was probed.",
        _probes,
        per_norm=False,
    ),
    Recipe(
        "diagnosis",
        "Cosine 1: both losses ask for the same perturbation. Near 0: they are as good as unrelated, and a "
        "perturbation of one should do no more to the other than noise does.",
        "tables/diagnostics.parquet",
        "No trained model was diagnosed.",
        _diagnosis,
    ),
)
