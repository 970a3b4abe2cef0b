"""AUROC by cell and seed, in the form in which claims compare robust accuracies: clean is eps 0, attacked 1."""

import math

import numpy as np
import pandas as pd

from ssrob.analysis.standard_error import FloatArray
from ssrob.analysis.sweeps import GROUPS, Sweep, Sweeps, add, cell_of, claimed, without_ambiguous
from ssrob.registry.ood import TEST_IMAGES


def detection_sweeps(scores: pd.DataFrame, arms: pd.DataFrame, score: str) -> Sweeps:
    """Return the AUROC of a score, mean over the image sets of a study, in per cent; scores as `tables.OOD_SCORES`."""
    rows = scores[scores["score"] == score]
    about = {row["arm"]: row for _, row in claimed(arms).iterrows()}
    sweeps = Sweeps(np.array([0.0, 1.0]), {}, measure="auroc")
    for (arm, checkpoint), mine in rows[rows["arm"].isin(list(about))].groupby(["arm", "checkpoint"], sort=True):
        row = about[arm]
        cell = cell_of(pd.concat([row, pd.Series({"checkpoint": checkpoint})]))
        parts = [mine[mine["eps"] == 0], mine[mine["eps"] > 0]]
        accuracy = 100 * np.stack([mean_auroc(part) for part in parts], axis=1)
        n = np.array([(part["image_set"] == TEST_IMAGES).sum() for part in parts])
        add(sweeps, cell, int(row["seed"]), Sweep(accuracy, n, passes=float(row["passes"])))
    return without_ambiguous(sweeps)


def mean_auroc(rows: pd.DataFrame) -> FloatArray:
    """Return the mean AUROC over image sets, (1 + GROUPS,) in 0..1; NaN without rows."""
    values = {name: part.sort_values("example")["value"].to_numpy() for name, part in rows.groupby("image_set")}
    if TEST_IMAGES not in values:
        return np.full(1 + GROUPS, math.nan)
    inside = values.pop(TEST_IMAGES)
    mean: FloatArray = np.mean([auroc_without_groups(inside, outside) for outside in values.values()], axis=0)
    return mean


def auroc_without_groups(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """Return the AUROC of scores (N,) and (M,), and that without each group of images of both, (1 + GROUPS,).

    Ties count half. Groups are every `GROUPS`-th image; with fewer images there are none, and their values are NaN.
    """
    wins = np.zeros((GROUPS, GROUPS))  # of images of one group over those of another
    for group in range(GROUPS):
        mine = inside[group::GROUPS, None]
        above = (mine > outside).sum(axis=0) + 0.5 * (mine == outside).sum(axis=0)
        wins[group] = np.bincount(np.arange(len(outside)) % GROUPS, above, minlength=GROUPS)
    sizes = [np.bincount(np.arange(len(each)) % GROUPS, minlength=GROUPS) for each in (inside, outside)]
    areas = np.full(1 + GROUPS, math.nan)
    areas[0] = wins.sum() / (len(inside) * len(outside))
    if min(len(inside), len(outside)) >= GROUPS:
        rest = wins.sum() - wins.sum(axis=0) - wins.sum(axis=1) + wins.diagonal()
        areas[1:] = rest / ((len(inside) - sizes[0]) * (len(outside) - sizes[1]))
    return areas
