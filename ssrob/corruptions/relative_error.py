"""Mean corruption error relative to a named baseline. Hendrycks & Dietterich 2019, section 4. Imports no torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssrob.registry.corruptions import BENCHMARK

if TYPE_CHECKING:
    import pandas as pd


def corruption_errors(
    model: "pd.DataFrame", baseline: "pd.DataFrame", names: Sequence[str] = BENCHMARK
) -> "pd.Series[float]":
    """Return CE of each corruption in `names`: the model's summed error over the baseline's, 1 where they are equal.

    Both tables have a row per corruption and severity, columns corruption, severity and accuracy (0..1), e.g. the
    rows of one arm in `tables.CORRUPTIONS`. Refused: a test that is missing, there twice or of one table alone, and
    a baseline without an error.
    """
    errors = {who: _errors(table, who, names) for who, table in (("model", model), ("baseline", baseline))}
    if list(errors["model"]) != list(errors["baseline"]):
        found = " and ".join(", ".join(map(str, table)) for table in errors.values())
        raise ValueError(f"model and baseline need the same severities, found {found}")
    summed = {who: table.sum(axis=1) for who, table in errors.items()}
    perfect = list(summed["baseline"][summed["baseline"] == 0].index)
    if perfect:
        raise ValueError(f"baseline: has no error on {', '.join(perfect)}, so nothing can be relative to it")
    ratio: pd.Series[float] = summed["model"] / summed["baseline"]
    return ratio.rename("relative_error")


def mce(model: "pd.DataFrame", baseline: "pd.DataFrame", names: Sequence[str] = BENCHMARK) -> float:
    """Return the mean of `corruption_errors` over `names`, in per cent: 100 is as good as the baseline, less better."""
    return 100 * float(corruption_errors(model, baseline, names).mean())


def _errors(table: "pd.DataFrame", who: str, names: Sequence[str]) -> "pd.DataFrame":
    """Return errors 0..1, a row per corruption in the order of `names`, a column per severity."""
    rows = table[table["corruption"].isin(names)]
    if rows.duplicated(["corruption", "severity"]).any():
        raise ValueError(f"{who}: has several rows for one corruption and severity; give those of one trained model")
    wide = 1 - rows.pivot_table(index="corruption", columns="severity", values="accuracy").reindex(list(names))
    missing = [name for name in names if not len(rows) or wide.loc[name].isna().any()]
    if missing:
        raise ValueError(f"{who}: lacks {', '.join(missing)} at one severity or more")
    return wide
