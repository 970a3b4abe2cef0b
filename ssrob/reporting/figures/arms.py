"""Unique names for the arms of a figure, their order, and which of many arms a figure draws."""

import re
from typing import Any

import pandas as pd

from ssrob.config.study import Study
from ssrob.formatting import NORMS
from ssrob.planning.names import ArmColumns
from ssrob.storage.tables import ARM

# What the seeds of one arm share; eps_train follows from norm and eps_scale.
COLUMNS = [name for name in ARM if name not in ("arm", "seed", "eps_train")]
# Columns with a usual value, by the heading of the arms that have another one; a new column gets its own name.
_HEADINGS = {"tune": "Linear fine-tuning", "init": "Initialisation", "task": "SSL task", "weight": "SSL weight"}
_OTHERWISE = ("variant", "init_task", "norm", "eps_scale", "budget")  # columns that figures treat in other ways
HEADINGS = _HEADINGS | {name: name for name in COLUMNS if name not in (*_HEADINGS, *_OTHERWISE)}
CLAIMED = ("standard", "at", "at_ssl_clean", "at_ssl_adv", "at_ssl_joint")  # the variants that claims are about
MOST_LINES = 6  # in one panel; more look alike


def name_arms(arms: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return the arms (`tables.ARMS`) in display order, with what figures need to know of each.

    Adds `name`, unique but for the seed: the label, extended by what tells two arms of the same label apart; and of
    the variant `role`, `method` (itself, or what it is the control of) and `extends`.
    """
    variants = study.variants
    frame = arms.assign(name=arms["label"], role=arms["variant"].map(lambda name: variants[name].role))
    frame["method"] = frame["variant"].map(lambda name: variants[name].control_of or name)
    frame["extends"] = frame["method"].map(lambda name: variants[name].base or name)
    for column in COLUMNS:
        groups = frame.drop_duplicates([*COLUMNS, "name"])
        twice = frame["name"].isin(groups.loc[groups["name"].duplicated(), "name"]) & frame[column].notna()
        frame.loc[twice, "name"] = frame["name"] + " · " + frame[column].map(_short)
    return _in_order(frame, list(variants)).reset_index(drop=True)


def with_names(frame: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Add what `name_arms` knows to the rows of a table that names arms by key."""
    if unknown := sorted(set(frame["arm"]) - set(arms["arm"])):
        raise ValueError(f"arm {unknown[0]!r} is in a table of results but not in the table of arms")
    columns = ["arm", "label", "name", "role", "method", "extends"]
    return frame.merge(arms[columns], on="arm", how="left", validate="many_to_one")


def names_in(frame: pd.DataFrame, arms: pd.DataFrame) -> list[str]:
    """Return the names of the arms that a table has rows of, in display order."""
    present = set(frame["name"])
    return [name for name in dict.fromkeys(arms["name"]) if name in present]


def is_frontier(frame: pd.DataFrame) -> pd.Series:
    """Return which rows belong to plain AT at another eps_train than the reference."""
    return _is_at(frame) & (frame["eps_scale"] != 1)


def is_plain_at(frame: pd.DataFrame) -> pd.Series:
    """Return which rows belong to plain AT at the reference eps_train, trained for the usual number of passes."""
    return _is_at(frame) & (frame["eps_scale"] == 1)


def _is_at(frame: pd.DataFrame) -> pd.Series:
    return (frame["variant"] == "at") & frame["budget"].isna() & (frame["tune"] == "full")


def is_control(frame: pd.DataFrame) -> pd.Series:
    """Return which rows belong to controls: equal passes, no gradient, views alone, two supervised perturbations."""
    return frame["budget"].notna() | (frame["role"] != "method")


def short_names(names: list[str]) -> dict[str, str]:
    """Drop norm and SSL weight from names where all names that have one have the same: a figure says it once."""
    short = {name: name for name in names}
    for pattern in (rf", ({'|'.join(NORMS.values())})\b", r", w [\d.]+"):
        if len({found[0] for name in names if (found := re.search(pattern, name))}) == 1:
            without = {name: re.sub(pattern, "", text, count=1) for name, text in short.items()}
            short = without if len(set(without.values())) == len(names) else short
    return short


def trained_on(frame: pd.DataFrame) -> str:
    """Return "trained on l2" when the rows share one training norm, otherwise nothing."""
    norms = list(dict.fromkeys(frame["norm"].dropna()))
    return f"trained on {NORMS[norms[0]]}" if len(norms) == 1 else ""


def main_value(frame: pd.DataFrame, column: str) -> Any:
    """Return the value of a column that most arms share: what the other values are variations of; None without any."""
    arms = frame.drop_duplicates("name")[column].dropna()
    return None if arms.empty else arms.mode().iloc[0]


def main_arms(frame: pd.DataFrame) -> list[str]:
    """Return the names of at most `MOST_LINES` arms that stand for the study: the methods in its usual setting.

    Methods based on adversarial training come first, those that claims name before others; controls, TRADES, other
    tasks, weights and initialisations follow only while there is room.
    """
    groups = frame.drop_duplicates("name")
    usual = pd.concat([_usual(groups, name) for name in HEADINGS], axis=1).all(axis=1)
    order = pd.DataFrame(
        {
            "frontier": is_frontier(groups),
            "control": is_control(groups),
            "unusual": ~usual,
            "other base": ~groups["extends"].isin(["at", "standard"]),
            "standard with ssl": (groups["extends"] == "standard") & (groups["variant"] != "standard"),
            "no claim": ~groups["variant"].isin(CLAIMED),
        }
    )
    chosen = set(groups.loc[order.sort_values(list(order.columns), kind="stable").index[:MOST_LINES], "name"])
    return [name for name in groups["name"] if name in chosen]


def questions(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Group arms by what they vary, each once: (question, names), by training norm where there are several.

    The first group of a norm has the methods in the usual setting, with plain AT and its frontier.
    """
    groups = frame.drop_duplicates("name")
    tests = {
        "Controls": is_control(groups),
        **{heading: ~_usual(groups, column) for column, heading in HEADINGS.items()},
        "TRADES": groups["extends"] == "trades",
        "Plain AT, other eps": is_frontier(groups),
    }
    kind = pd.Series("Methods", index=groups.index)
    for title, test in reversed(tests.items()):
        kind = kind.mask(test, title)
    several = len(set(groups["norm"].dropna())) > 1
    grouped: dict[str, list[str]] = {}
    for norm in [*dict.fromkeys(groups["norm"].dropna()), None]:
        of_norm = groups["norm"].isna() if norm is None else groups["norm"] == norm
        for title in ("Methods", *reversed(tests)):
            names = list(groups.loc[of_norm & (kind == title), "name"])
            heading = "Without a perturbation" if norm is None else title
            suffix = f", trained on {NORMS[norm]}" if several and norm else ""
            if names:
                grouped.setdefault(heading + suffix, []).extend(names)
    return list(grouped.items())


def _usual(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return which rows have the usual value of a column, or none."""
    default: str | float | None = ArmColumns.model_fields[column].default
    main = default if (frame[column] == default).any() else main_value(frame, column)
    return (frame[column] == main) | frame[column].isna()


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else NORMS.get(str(value), str(value))


def _in_order(frame: pd.DataFrame, variants: list[str]) -> pd.DataFrame:
    """Sort by norm, init (random first), variant, eps, task, weight and what other columns there are; seeds last."""
    inits = ["random", *(name for name in dict.fromkeys(frame["init"]) if name != "random")]
    rank = pd.DataFrame(
        {
            "norm": frame["norm"].map({"linf": 1, "l2": 2}).fillna(0),
            "init": frame["init"].map(inits.index),
            "init_task": frame["init_task"].fillna(""),
            "variant": frame["variant"].map(variants.index),
            "budget": frame["budget"].fillna(""),
            "eps_scale": frame["eps_scale"],
            "task": frame["task"].fillna(""),
            "weight": frame["weight"].fillna(-1),
        }
    )
    others = [name for name in COLUMNS if name not in rank]
    rank[[*others, "seed"]] = frame[[*others, "seed"]]
    return frame.loc[rank.sort_values(list(rank.columns), kind="stable").index]
