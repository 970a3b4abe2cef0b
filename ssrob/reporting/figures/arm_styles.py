"""How each arm is drawn: one style per arm, in colours that colour-blind readers can tell apart.

Colours: Okabe & Ito (2008) with the yellow darkened for white paper, then Tol's muted set for methods of a study's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from ssrob.reporting.figures.arms import is_control, is_frontier, main_value, short_names
from ssrob.reporting.figures.style import FAINT

Colour = tuple[float, float, float]
Dashes = tuple[int, tuple[float, ...]]

_COLOURS = {  # method -> colour, marker
    "standard": ("#6b7078", "v"),
    "ssl_standard": ("#b59f7b", "^"),
    "at": ("#000000", "o"),
    "at_two": ("#7a4b2a", "<"),
    "trades": ("#332288", ">"),
    "at_ssl_clean": ("#56b4e9", "s"),
    "at_ssl_adv": ("#0072b2", "D"),
    "at_ssl_attack_only": ("#857a00", "P"),
    "at_ssl_joint_clean": ("#e69f00", "X"),
    "at_ssl_joint": ("#d55e00", "*"),
    "at_ssl_separate": ("#cc79a7", "h"),
    "at_ssl_ensemble": ("#009e73", "p"),
}
_TWINS = {  # the same with TRADES as the base: drawn alike, with hollow markers
    "trades_ssl_clean": "at_ssl_clean",
    "trades_ssl_adv": "at_ssl_adv",
    "trades_ssl_joint": "at_ssl_joint",
}
_SPARE = (("#88ccee", "d"), ("#882255", "H"), ("#999933", "4"), ("#aa4499", "2"))
_DASHES: tuple[Dashes, ...] = ((0, ()), (0, (5, 2)), (0, (1.2, 1.4)), (0, (7, 2, 1.2, 2)), (0, (2.5, 2.5)), (0, (9, 3)))
_SIZES = {"*": 9.0, "P": 6.0, "X": 6.0, "h": 6.0, "p": 6.0, "8": 5.5, "H": 6.0}  # drawn small by matplotlib
_FILLS = ("full", "left", "bottom", "top", "right", "full")
_CONTROL_DASHES: Dashes = (0, (3, 1.2, 1, 1.2, 1, 1.2))
_BUDGETS = ("s", "D", "^", "v")  # markers of the second and further budgets; the first has its method's own


@dataclass(frozen=True)
class ArmStyle:
    """How one arm is drawn, the same in every figure of a study."""

    colour: Colour
    dashes: Dashes
    marker: str
    fill: str  # of the marker: full, or half: left, bottom, top, right; the other half is white
    fill_colour: Colour  # what it is filled with: the colour, of a control a pale one, white of TRADES
    thin: bool  # AT's own frontier: context, not a result

    def line(self) -> dict[str, Any]:
        """Return the keywords of a line with markers; the frontier has none."""
        options = {"color": self.colour, "linestyle": self.dashes}
        return options | ({"linewidth": 1.0} if self.thin else self._marker(1.0))

    def point(self) -> dict[str, Any]:
        """Return the keywords of a marker with an error bar; the frontier's are small."""
        return {"color": self.colour, "linestyle": "none"} | self._marker(0.8 if self.thin else 1.3)

    def _marker(self, size: float) -> dict[str, Any]:
        options = {
            "marker": self.marker,
            "markersize": size * _SIZES.get(self.marker, 4.5),
            "markeredgecolor": self.colour,
            "markerfacecolor": self.fill_colour,
        }
        return options | {"fillstyle": self.fill, "markerfacecoloralt": "white"}


ArmStyles = dict[str, ArmStyle]


def handles(entries: ArmStyles, *, points: bool = False) -> list[Line2D]:
    """Return the lines, or the points, of a legend."""
    short = short_names(list(entries))
    drawn = [(short[name], style.point() if points else style.line()) for name, style in entries.items()]
    return [Line2D([], [], label=name, **keywords) for name, keywords in drawn]


def arm_styles(arms: pd.DataFrame) -> ArmStyles:
    """Give every arm its style by name; `arms` as `arms.name_arms` returns them.

    The method gives colour and marker; init, task and what was fine-tuned the dashes and the marker's filling; a
    smaller or larger weight than usual a lighter or darker shade. Controls are pale, with dashes of their own.
    """
    groups = arms.drop_duplicates("name")
    tasks = groups["task"].fillna(groups["init_task"]).fillna(main_value(groups, "task"))
    kinds = list(dict.fromkeys(zip(groups["init"], tasks, groups["tune"], strict=True)))
    kinds.sort(key=lambda kind: (kind[2] != "full", kind[0] != "random", kind[1] != main_value(groups, "task")))
    budgets = list(dict.fromkeys(groups["budget"].dropna()))
    unknown = [name for name in dict.fromkeys(groups["method"]) if _TWINS.get(name, name) not in _COLOURS]
    styles = {}
    for row, task, thin, control in zip(
        groups.to_dict("records"), tasks, is_frontier(groups), is_control(groups), strict=True
    ):
        method = str(row["method"])
        colour, marker = _COLOURS.get(_TWINS.get(method, method)) or _SPARE[unknown.index(method) % len(_SPARE)]
        kind = min(kinds.index((row["init"], task, row["tune"])), len(_DASHES) - 1)
        budget = budgets.index(row["budget"]) if isinstance(row["budget"], str) else 0
        shade = 0.2 + 0.4 * float(row["eps_scale"]) if thin else _shade(groups, row["weight"])
        tone = shaded(colour, min(shade, 0.75))
        styles[str(row["name"])] = ArmStyle(
            colour=tone,
            dashes=_CONTROL_DASHES if control else _DASHES[kind],
            marker=_BUDGETS[(budget - 1) % len(_BUDGETS)] if budget else marker,
            fill="full" if row["extends"] == "trades" else _FILLS[kind],
            fill_colour=_fill_colour(row, tone, control=bool(control), kind=kind),
            thin=bool(thin),
        )
    return styles


def _fill_colour(row: Mapping[Any, Any], colour: Colour, *, control: bool, kind: int) -> Colour:
    """Return what fills a marker; what has no filling left of its own, as of a sixth init or task, is pale, too."""
    if row["extends"] == "trades":
        return to_rgb("white")
    if row["role"] == "no_gradient" or kind == len(_FILLS) - 1:
        return shaded(colour, 0.65)
    if row["role"] == "views":
        return to_rgb(FAINT)
    return to_rgb("white") if control else colour


def _shade(groups: pd.DataFrame, weight: float | None) -> float:
    """Return how much lighter (> 0) or darker (< 0) a weight is drawn than the study's usual one."""
    weights = sorted(set(groups["weight"].dropna()))
    if weight not in weights:
        return 0.0
    away = weights.index(weight) - weights.index(main_value(groups, "weight"))
    return -away / len(weights) * (0.8 if away < 0 else 0.6)


def shaded(colour: str | Colour, share: float) -> Colour:
    """Mix a colour with white (share > 0) or black (share < 0)."""
    towards = 1.0 if share > 0 else 0.0
    red, green, blue = (channel + (towards - channel) * abs(share) for channel in to_rgb(colour))
    return red, green, blue
