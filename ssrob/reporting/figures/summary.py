"""From rows per seed to what a figure shows: a mean with an interval, and words that say which interval it is."""

import numpy as np
import pandas as pd
from scipy import stats

from ssrob.reporting.figures.arms import COLUMNS, is_plain_at

Z = 1.959964  # 97.5 % point of the normal distribution
SWEEP = ["checkpoint", "eval_norm", "eps", "seed"]
OF_METHOD = ("variant", "task", "weight", "eps_scale", "tune", "budget")  # in which a method may differ from plain AT


def over_seeds(frame: pd.DataFrame, by: list[str], value: str = "accuracy") -> pd.DataFrame:
    """Average `value` over the seeds of each group; columns `by`, mean, low, high, seeds, n.

    low and high: the 95 % t interval of the mean from three seeds on, the range of two, and for a single seed the
    row's own binomial interval (its columns low and high), or nothing where it has none.
    """
    rows = frame if {"low", "high"} <= set(frame.columns) else frame.assign(low=np.nan, high=np.nan)
    grouped = rows.groupby(by, sort=False, dropna=False, observed=True)
    means = grouped.agg(
        mean=(value, "mean"),
        deviation=(value, "std"),
        least=(value, "min"),
        most=(value, "max"),
        low=("low", "first"),
        high=("high", "first"),
        seeds=("seed", "nunique"),
        n=("n", "first"),
    ).reset_index()
    half = stats.t.ppf(0.975, (means["seeds"] - 1).clip(lower=1)) * means["deviation"] / np.sqrt(means["seeds"])
    for end, sign, extreme in (("low", -1, "least"), ("high", 1, "most")):
        several = np.where(means["seeds"] >= 3, means["mean"] + sign * half, means[extreme])
        means[end] = np.where(means["seeds"] >= 2, several, means[end])
    if value == "accuracy":
        means[["low", "high"]] = means[["low", "high"]].clip(0, 1)
    return means[[*by, "mean", "low", "high", "seeds", "n"]]


def interval_words(frame: pd.DataFrame, by: list[str], single: str = "one seed: 95 % binomial interval") -> str:
    """Say in words what means and bands over the rows of each group `by` are: from how many seeds and images."""
    counts = sorted(set(frame.groupby(by, dropna=False, observed=True)["seed"].nunique()))
    images = " to ".join(f"{size:,}" for size in sorted({int(frame["n"].min()), int(frame["n"].max())}))
    kinds = {1: single, 2: "2 seeds: mean and their range"}
    notes = [kinds.get(count, f"{count} seeds: mean and 95 % t interval") for count in counts]
    return f"n = {images} test images; " + "; ".join(notes) + "."


def differences_to_at(robustness: pd.DataFrame, floor: float) -> pd.DataFrame:
    """Subtract plain AT of the same seed, init and training norm from every adversarially trained arm, in points.

    Adds `difference` and `base` (AT's accuracy) to the rows, drops plain AT itself and every row where AT is below
    `floor` per cent: nothing can be lost there.
    """
    plain = is_plain_at(robustness)
    rows = robustness[~plain & robustness["norm"].notna()]
    on = [name for name in COLUMNS if name not in OF_METHOD]
    return _differences(rows, robustness[plain], [*SWEEP, *on], floor)


def differences_to_random(robustness: pd.DataFrame, floor: float) -> pd.DataFrame:
    """Subtract from every pre-trained arm its twin from random initialisation, in points; as `differences_to_at`."""
    random = robustness["init"] == "random"
    on = [name for name in COLUMNS if name not in ("init", "init_task", "budget")]
    short = robustness["budget"].isna()
    return _differences(robustness[~random & short], robustness[random & short], [*SWEEP, *on], floor)


def _differences(rows: pd.DataFrame, base: pd.DataFrame, on: list[str], floor: float) -> pd.DataFrame:
    baseline = base[[*on, "accuracy"]].rename(columns={"accuracy": "base"})
    paired = rows.merge(baseline, on=on, how="inner", validate="many_to_one")
    paired["difference"] = 100 * (paired["accuracy"] - paired["base"])
    return paired[paired["base"] >= floor / 100].drop(columns=["low", "high"]).reset_index(drop=True)


def noise_of_difference(accuracy: pd.Series, n: pd.Series) -> pd.Series:
    """Return the half-width (points) of a 95 % interval of two equal accuracies' difference, each on n images.

    It takes the two models' errors as independent; on the same images they are not, and the true one is narrower.
    """
    return 100 * Z * (2 * accuracy * (1 - accuracy) / n) ** 0.5
