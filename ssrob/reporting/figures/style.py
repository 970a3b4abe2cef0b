"""How every figure looks: colours that colour-blind readers can tell apart, one look per arm, axes in per cent.

Colours: Okabe & Ito (2008) with the yellow darkened for white paper, then Tol's muted set for ways of a study's own.
"""

import functools
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from ssrob.formatting import NORMS, eps_text
from ssrob.reporting.figures.arms import is_control, is_frontier, main_value, twin_of

INK, MUTED, FAINT = "#1f2328", "#5f6670", "#d9dce1"
Colour = tuple[float, float, float]
Dashes = tuple[int, tuple[float, ...]]

_COLOURS = {  # way of training -> colour, marker; a TRADES way looks like its PGD-AT twin with hollow markers
    "standard": ("#6b7078", "v"),
    "ssl_standard": ("#b59f7b", "^"),
    "at": ("#000000", "o"),
    "at_two": ("#7a4b2a", "<"),
    "trades": ("#332288", ">"),
    "ssl_clean": ("#56b4e9", "s"),
    "ssl_adv": ("#0072b2", "D"),
    "ssl_attack_only": ("#857a00", "P"),
    "ssl_joint_clean": ("#e69f00", "X"),
    "ssl_joint": ("#d55e00", "*"),
    "ssl_separate": ("#cc79a7", "h"),
    "ssl_ensemble": ("#009e73", "p"),
}
_SPARE = (("#88ccee", "d"), ("#882255", "H"), ("#999933", "4"), ("#aa4499", "2"))
_DASHES: tuple[Dashes, ...] = (
    (0, ()),
    (0, (5, 2)),
    (0, (1.2, 1.4)),
    (0, (7, 2, 1.2, 2)),
    (0, (2.5, 2.5)),
    (0, (9, 3)),
)
_SIZES = {"*": 9.0, "P": 6.0, "X": 6.0, "h": 6.0, "p": 6.0, "8": 5.5, "H": 6.0}  # drawn small by matplotlib
_FILLS = ("full", "left", "bottom", "top", "right", "full")
_CONTROL_DASHES: Dashes = (0, (3, 1.2, 1, 1.2, 1, 1.2))
_BUDGETS = ("s", "D", "^", "v")  # markers of the second and further budgets; the first has its way's own

_RC: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "text.color": INK,
    "figure.facecolor": "white",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "savefig.dpi": 150,
    "svg.hashsalt": "ssrob",  # the same figure gives the same bytes
    "svg.fonttype": "path",  # looks the same where a font is missing
}


@dataclass(frozen=True)
class Look:
    """How one arm is drawn, the same in every figure of a study."""

    colour: Colour
    dashes: Dashes
    marker: str
    fill: str  # of the marker: full, or half: left, bottom, top, right; the other half is white
    face: Colour  # what it is filled with: the colour, of a control a pale one, white of TRADES
    thin: bool  # AT's own frontier: context, not a result

    def line(self) -> dict[str, Any]:
        """Return the keywords of a line with markers; the frontier has none."""
        told = {"color": self.colour, "linestyle": self.dashes}
        return told | ({"linewidth": 1.0} if self.thin else self._marker(1.0))

    def point(self) -> dict[str, Any]:
        """Return the keywords of a marker with an error bar; the frontier's are small."""
        return {"color": self.colour, "linestyle": "none"} | self._marker(0.8 if self.thin else 1.3)

    def _marker(self, size: float) -> dict[str, Any]:
        told = {
            "marker": self.marker,
            "markersize": size * _SIZES.get(self.marker, 4.5),
            "markeredgecolor": self.colour,
            "markerfacecolor": self.face,
        }
        return told | {"fillstyle": self.fill, "markerfacecoloralt": "white"}


Looks = dict[str, Look]


def looks(arms: pd.DataFrame) -> Looks:
    """Give every arm its look by name; `arms` as `arms.name_arms` returns them.

    The way of training gives colour and marker; init, task and what was fine-tuned the dashes and the marker's filling;
    a smaller or larger weight than usual a lighter or darker shade. Controls are pale, with dashes of their own.
    """
    groups = arms.drop_duplicates("name")
    tasks = groups["task"].fillna(groups["init_task"]).fillna(main_value(groups, "task"))
    kinds = list(dict.fromkeys(zip(groups["init"], tasks, groups["tune"], strict=True)))
    kinds.sort(key=lambda kind: (kind[2] != "full", kind[0] != "random", kind[1] != main_value(groups, "task")))
    budgets = list(dict.fromkeys(groups["budget"].dropna()))
    own = [name for name in dict.fromkeys(groups["variant"]) if _core(name) not in _COLOURS]
    found = {}
    for row, task, thin, control in zip(
        groups.to_dict("records"), tasks, is_frontier(groups), is_control(groups), strict=True
    ):
        variant = str(row["variant"])
        colour, marker = _COLOURS.get(_core(variant)) or _SPARE[own.index(variant) % len(_SPARE)]
        kind = min(kinds.index((row["init"], task, row["tune"])), len(_DASHES) - 1)
        budget = budgets.index(row["budget"]) if isinstance(row["budget"], str) else 0
        shade = 0.2 + 0.4 * float(row["eps_scale"]) if thin else _shade(groups, row["weight"])
        shaded = _shaded(colour, min(shade, 0.75))
        look = Look(
            colour=shaded,
            dashes=_CONTROL_DASHES if control else _DASHES[kind],
            marker=_BUDGETS[(budget - 1) % len(_BUDGETS)] if budget else marker,
            fill="full" if variant.startswith("trades") else _FILLS[kind],
            face=_face(variant, shaded, control=bool(control), kind=kind),
            thin=bool(thin),
        )
        found[str(row["name"])] = look
    return found


def _face(variant: str, colour: Colour, *, control: bool, kind: int) -> Colour:
    """Return what fills a marker; what has no filling left of its own, as of a sixth init or task, is pale, too."""
    if variant.startswith("trades"):
        return to_rgb("white")
    if variant.endswith("_nograd") or kind == len(_FILLS) - 1:
        return _shaded(colour, 0.65)
    if variant.endswith("_views"):
        return to_rgb(FAINT)
    return to_rgb("white") if control else colour


@contextmanager
def context() -> Iterator[None]:
    """Apply the style inside a `with` block, and give matplotlib's settings back."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure in the project's style."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with context():
            return draw(*args, **kwargs)

    return wrapper


def new_figure(title: str, note: str, width: float, height: float) -> Figure:
    """Make an empty figure (inches) with a title that says what is seen and a note on n, seeds and intervals."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    figure.suptitle(title, x=0.008, ha="left")
    wrapped = textwrap.fill(note, width=round(15.5 * width))
    figure.supxlabel(wrapped, x=0.008, ha="left", fontsize=8, color=MUTED, linespacing=1.35)
    return figure


def per_cent(axis: Any) -> None:
    """Write an axis of shares 0..1 in per cent."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))


def eps_axis(axes: Axes, norm: str, multiples: list[float], reference: float) -> None:
    """Label an axis whose coordinate is eps in multiples of the reference eps ([0,1] pixel units).

    Budgets are written in 1/255 where the reference is a whole number of these, as in every table.
    """
    whole = eps_text(reference).endswith("/255")
    scale, unit = (255.0, "1/255") if whole else (1.0, "[0, 1] pixel units")
    shown = multiples if len(multiples) <= 6 else [m for m in multiples if m % 0.5 == 0] or multiples[::2]
    axes.set_xticks(shown, [f"{m * reference * scale:.4g}" for m in shown])
    axes.set_xlabel(f"{NORMS[norm]} perturbation eps ({unit})")


def legend_beside(axes: Axes, entries: Looks, title: str = "", *, points: bool = False) -> None:
    """Write a legend of lines or points into an empty axes of its own, so that it covers no data."""
    axes.axis("off")
    handles = [
        Line2D([], [], label=name, **(look.point() if points else look.line())) for name, look in entries.items()
    ]
    if handles:
        axes.legend(handles=handles, loc="center left", borderaxespad=0, handlelength=3, title=title, alignment="left")


def save(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Write a figure as SVG and PNG, with the same bytes for the same figure; returns the paths by format."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"svg": folder / f"{name}.svg", "png": folder / f"{name}.png"}
    with context():
        figure.draw_without_rendering()
        figure.set_layout_engine(
            "none"
        )  # the layout is settled; finding it again for each format takes most of the time
        figure.savefig(paths["svg"], metadata={"Date": None, "Creator": None})
        figure.savefig(paths["png"], metadata={"Software": None})
    return paths


def _core(variant: str) -> str:
    """Return the part of a way's name that decides its colour: without the base and a control's suffix."""
    variant = twin_of(variant)
    stripped = variant.removeprefix("at_").removeprefix("trades_")
    return stripped if stripped.startswith("ssl_") and not variant.startswith("ssl_") else variant


def _shade(groups: pd.DataFrame, weight: float | None) -> float:
    """Return how much lighter (> 0) or darker (< 0) a weight is drawn than the study's usual one."""
    weights = sorted(set(groups["weight"].dropna()))
    if weight not in weights:
        return 0.0
    away = weights.index(weight) - weights.index(main_value(groups, "weight"))
    return -away / len(weights) * (0.8 if away < 0 else 0.6)


def _shaded(colour: str | Colour, share: float) -> Colour:
    """Mix a colour with white (share > 0) or black (share < 0)."""
    towards = 1.0 if share > 0 else 0.0
    red, green, blue = (channel + (towards - channel) * abs(share) for channel in to_rgb(colour))
    return red, green, blue
