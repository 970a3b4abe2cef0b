"""Who is who in a figure: unique names of arms, their one order, and panels small enough to read."""

from typing import Any

import pandas as pd

from ssrob.formatting import NORMS
from ssrob.storage.tables import ARM

GROUP = [name for name in ARM if name not in ("arm", "seed")]  # what seeds of one arm share
WAYS = (
    "standard",
    "ssl_standard",
    "at",
    "at_two",
    "trades",
    "at_ssl_clean",
    "at_ssl_adv",
    "at_ssl_attack_only",
    "at_ssl_joint_clean",
    "at_ssl_joint",
    "at_ssl_separate",
    "at_ssl_ensemble",
    "trades_ssl_clean",
    "trades_ssl_adv",
    "trades_ssl_joint",
)
"""The order of the ways of training in every figure and table; ways of a study's own follow."""

CONTROLS = ("at_two",)  # ways that are trained to be compared with, not for themselves
CONTROL_SUFFIXES = ("_nograd", "_views")  # of the controls of a way: BatchNorm statistics alone, views as augmentation
Panel = tuple[str, pd.DataFrame]  # what it shows, and its rows
MOST_LINES = 8  # in one panel; more cannot be told apart


def name_arms(arms: pd.DataFrame) -> pd.DataFrame:
    """Return the arms in display order with a `name` for each, unique but for the seed; `arms` as `tables.ARMS`.

    The name is the label, extended by what tells two arms of the same label apart.
    """
    frame = arms.assign(name=arms["label"])
    for column in ("init", "init_task", "norm", "task", "weight", "eps_scale", "budget"):
        groups = frame.drop_duplicates([*GROUP, "name"])
        twice = frame["name"].isin(groups.loc[groups["name"].duplicated(), "name"]) & frame[column].notna()
        frame.loc[twice, "name"] = frame["name"] + " · " + frame[column].map(_short)
    return _in_order(frame).reset_index(drop=True)


def with_names(frame: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Add `label` and `name` to the rows of a table that names arms by key; `arms` as `name_arms` returns them."""
    if unknown := sorted(set(frame["arm"]) - set(arms["arm"])):
        raise ValueError(f"arm {unknown[0]!r} is in a table of results but not in the table of arms")
    return frame.merge(arms[["arm", "label", "name"]], on="arm", how="left", validate="many_to_one")


def names_in(frame: pd.DataFrame, arms: pd.DataFrame) -> list[str]:
    """Return the names of the arms that a table has rows of, in display order."""
    present = set(frame["name"])
    return [name for name in dict.fromkeys(arms["name"]) if name in present]


def is_frontier(frame: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to plain AT at another eps_train than the reference."""
    return _is_at(frame) & (frame["eps_scale"] != 1)


def is_plain_at(frame: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to plain AT at the reference eps_train and with its own number of passes."""
    return _is_at(frame) & (frame["eps_scale"] == 1)


def _is_at(frame: pd.DataFrame) -> pd.Series:
    return (frame["variant"] == "at") & frame["budget"].isna() & (frame["tune"] == "full")


def is_control(frame: pd.DataFrame) -> pd.Series:
    """Tell which rows belong to controls: equal passes, no gradient, views alone, two supervised perturbations."""
    variant = frame["variant"]
    return frame["budget"].notna() | variant.str.endswith(CONTROL_SUFFIXES) | variant.isin(CONTROLS)


def twin_of(variant: str) -> str:
    """Return the way that a way is the control of, or itself."""
    for suffix in CONTROL_SUFFIXES:
        variant = variant.removesuffix(suffix)
    return variant


def trained_on(frame: pd.DataFrame) -> str:
    """Return ", trained on l2" for a title when the rows share one training norm, otherwise nothing."""
    norms = list(dict.fromkeys(frame["norm"].dropna()))
    return f", trained on {NORMS[norms[0]]}" if len(norms) == 1 else ""


def main_value(frame: pd.DataFrame, column: str) -> Any:
    """Return the value of a column that most arms share: what the other values are variations of; None without any."""
    arms = frame.drop_duplicates("name")[column].dropna()
    return None if arms.empty else arms.mode().iloc[0]


def panels(frame: pd.DataFrame) -> list[Panel]:
    """Split named rows into panels: one per training norm, and where that is too much to read, one per question.

    The questions vary one thing at a time: the way of training, its base, the initialisation, the SSL task, its weight;
    controls have a panel of their own. Arms trained without a perturbation stand beside every norm; every arm stands in
    at least one panel, and the first has the study's main comparison.
    """
    return [(_join(told, question), rows) for told, part in _by_norm(frame) for question, rows in _questions(part)]


def main_panels(frame: pd.DataFrame) -> list[Panel]:
    """Return the first panel of each training norm: its main comparison, or all where that is not too much to read."""
    firsts = [(told, _questions(part)[0]) for told, part in _by_norm(frame)]
    return [(_join(told, question), rows) for told, (question, rows) in firsts]


def _by_norm(frame: pd.DataFrame) -> list[Panel]:
    norms = list(dict.fromkeys(frame["norm"].dropna()))
    if len(norms) < 2:
        return [("", frame)]
    return [(f"trained on {NORMS[norm]}", frame[(frame["norm"] == norm) | frame["norm"].isna()]) for norm in norms]


def _questions(frame: pd.DataFrame) -> list[Panel]:
    frontier = is_frontier(frame)
    if frame.loc[~frontier, "name"].nunique() <= MOST_LINES:
        return [("", frame)]
    usual = {column: _usual(frame, column) for column in ("init", "task", "weight", "tune")}
    control, trades = is_control(frame), frame["variant"].str.startswith("trades_")
    full = usual["tune"] & ~control
    main = usual["init"] & usual["task"] & usual["weight"] & full
    differs = {
        "on TRADES": main & trades,
        "by initialisation": ~usual["init"] & full,
        "by SSL task": ~usual["task"] & full,
        "by SSL weight": ~usual["weight"] & usual["init"] & usual["task"] & full,
        "controls": control & usual["tune"],
    }
    found = [("by way of training", frame[main & ~trades])] if (main & ~trades).any() else []
    for told, others in differs.items():
        ways = {"at", *frame.loc[others, "variant"].map(twin_of)} | ({"trades"} if (others & trades).any() else set())
        if others.any():
            found.append((told, frame[main & frame["variant"].isin(ways) & ~frontier | others]))
    heads = frame[~usual["tune"]]
    if len(heads):
        beside = usual["tune"] & frame["variant"].isin(set(heads["variant"])) & frame["init"].isin(set(heads["init"]))
        found.append(("by what is fine-tuned", frame[beside & ~frontier | ~usual["tune"]]))
    return found


def _usual(frame: pd.DataFrame, column: str) -> pd.Series:
    """Tell which rows have the usual value of a column, or none."""
    first = {"init": "random", "tune": "full"}.get(column)
    main = first if (frame[column] == first).any() else main_value(frame, column)
    return (frame[column] == main) | frame[column].isna()


def _join(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else NORMS.get(str(value), str(value))


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by norm, init (random first), way, eps, task and weight; seeds last."""
    inits = ["random", *(name for name in dict.fromkeys(frame["init"]) if name != "random")]
    ways = [*WAYS, *(name for name in dict.fromkeys(frame["variant"]) if name not in WAYS)]
    rank = pd.DataFrame(
        {
            "norm": frame["norm"].map({"linf": 1, "l2": 2}).fillna(0),
            "init": frame["init"].map(inits.index),
            "init_task": frame["init_task"].fillna(""),
            "variant": frame["variant"].map(ways.index),
            "budget": frame["budget"].fillna(""),
            "eps_scale": frame["eps_scale"],
            "task": frame["task"].fillna(""),
            "weight": frame["weight"].fillna(-1),
            "seed": frame["seed"],
        }
    )
    return frame.loc[rank.sort_values(list(rank.columns), kind="stable").index]
