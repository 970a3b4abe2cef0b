"""How every figure looks: colours that colour-blind readers can tell apart, one look per arm, axes in per cent.

Colours: Okabe & Ito (2008) with the yellow darkened for white paper, then Tol's muted set for ways of a study's own.
"""

import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from PIL import Image
from scipy.optimize import isotonic_regression

from ssrob.formatting import NORMS, eps_text
from ssrob.reporting.figures.arms import is_control, is_frontier, main_value, short_names

INK, MUTED, FAINT = "#1f2328", "#5f6670", "#d9dce1"
LARGEST_SVG = 150_000  # characters; a larger figure is kept as a bitmap
_TAG = re.compile(r"<[^>]+>")
_NUMBER = re.compile(r"(?<![\w#.])-?\d+\.\d{2,}")  # drawn at 72 per inch: a tenth is not seen
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
    "svg.fonttype": "none",  # text stays text: small, to be searched, and drawn in the reader's font
    "font.family": ["DejaVu Sans"],
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
            "markerfacecolor": self.face,
        }
        return options | {"fillstyle": self.fill, "markerfacecoloralt": "white"}


Looks = dict[str, Look]
T = TypeVar("T")


def looks(arms: pd.DataFrame) -> Looks:
    """Give every arm its look by name; `arms` as `arms.name_arms` returns them.

    The method gives colour and marker; init, task and what was fine-tuned the dashes and the marker's filling; a
    smaller or larger weight than usual a lighter or darker shade. Controls are pale, with dashes of their own.
    """
    groups = arms.drop_duplicates("name")
    tasks = groups["task"].fillna(groups["init_task"]).fillna(main_value(groups, "task"))
    kinds = list(dict.fromkeys(zip(groups["init"], tasks, groups["tune"], strict=True)))
    kinds.sort(key=lambda kind: (kind[2] != "full", kind[0] != "random", kind[1] != main_value(groups, "task")))
    budgets = list(dict.fromkeys(groups["budget"].dropna()))
    unknown = [name for name in dict.fromkeys(groups["method"]) if _core(name) not in _COLOURS]
    found = {}
    for row, task, thin, control in zip(
        groups.to_dict("records"), tasks, is_frontier(groups), is_control(groups), strict=True
    ):
        method = str(row["method"])
        colour, marker = _COLOURS.get(_core(method)) or _SPARE[unknown.index(method) % len(_SPARE)]
        kind = min(kinds.index((row["init"], task, row["tune"])), len(_DASHES) - 1)
        budget = budgets.index(row["budget"]) if isinstance(row["budget"], str) else 0
        shade = 0.2 + 0.4 * float(row["eps_scale"]) if thin else _shade(groups, row["weight"])
        shaded = _shaded(colour, min(shade, 0.75))
        found[str(row["name"])] = Look(
            colour=shaded,
            dashes=_CONTROL_DASHES if control else _DASHES[kind],
            marker=_BUDGETS[(budget - 1) % len(_BUDGETS)] if budget else marker,
            fill="full" if row["extends"] == "trades" else _FILLS[kind],
            face=_face(row, shaded, control=bool(control), kind=kind),
            thin=bool(thin),
        )
    return found


def _face(row: Mapping[Any, Any], colour: Colour, *, control: bool, kind: int) -> Colour:
    """Return what fills a marker; what has no filling left of its own, as of a sixth init or task, is pale, too."""
    if row["extends"] == "trades":
        return to_rgb("white")
    if row["role"] == "no_gradient" or kind == len(_FILLS) - 1:
        return _shaded(colour, 0.65)
    if row["role"] == "views":
        return to_rgb(FAINT)
    return to_rgb("white") if control else colour


@contextmanager
def context() -> Iterator[None]:
    """Apply the style inside a `with` block, and give matplotlib's settings back."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def styled(draw: Callable[..., T]) -> Callable[..., T]:
    """Draw a figure in the project's style."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> T:
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
    """Write an axis of shares 0..1 in per cent, with no tick outside."""
    axis.set_major_formatter(
        FuncFormatter(lambda share, _: f"{100 * share:.4g} %" if -1e-9 <= share <= 1 + 1e-9 else "")
    )


def _per_cent_label(share: float, _: object) -> str:
    return f"{100 * share:.4g} %" if -1e-9 <= share <= 1 + 1e-9 else ""


def eps_axis(axes: Axes, norm: str, multiples: list[float], reference: float) -> None:
    """Label an axis whose coordinate is eps in multiples of the reference eps ([0,1] pixel units).

    Budgets are written in 1/255 where the reference is a whole number of these, as in every table.
    """
    whole = eps_text(reference).endswith("/255")
    scale, unit = (255.0, "1/255") if whole else (1.0, "[0, 1] pixel units")
    shown = multiples if len(multiples) <= 6 else [m for m in multiples if m % 0.5 == 0] or multiples[::2]
    axes.set_xticks(shown, [f"{m * reference * scale:.4g}" for m in shown])
    axes.set_xlabel(f"{NORMS[norm]} perturbation eps ({unit})")


def legend_beside(axes: Axes, entries: Looks, *, points: bool = False) -> None:
    """Write a legend of a few lines or points into an empty axes of its own, so that it covers no data."""
    axes.axis("off")
    short = short_names(list(entries))
    drawn = [(short[name], look.point() if points else look.line()) for name, look in entries.items()]
    handles = [Line2D([], [], label=textwrap.fill(name, 30), **look) for name, look in drawn]
    axes.legend(handles=handles, loc="center left", borderaxespad=0, handlelength=1 if points else 3)


def label_lines(axes: Axes, ends: Mapping[str, float], entries: Looks) -> None:
    """Write names at the right ends of lines, `ends` their heights, moved apart so that none covers another."""
    short = short_names(list(ends))
    low, high = axes.get_ylim()
    inches = axes.bbox.height / axes.figure.dpi * 0.8  # about the height of the axes: the layout is not settled yet
    gap = 0.17 / inches * (high - low)
    for name, y in _apart(dict(sorted(ends.items(), key=lambda item: item[1])), gap, low, high).items():
        axes.annotate(
            short[name],
            (1.0, (ends[name] - low) / (high - low)),
            (14, (y - low) / (high - low)),
            xycoords="axes fraction",
            textcoords=("offset points", "axes fraction"),
            va="center",
            fontsize=8.5,
            color=_shaded(entries[name].colour, -0.25),
            arrowprops={"arrowstyle": "-", "color": entries[name].colour, "linewidth": 0.7, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def _apart(ends: dict[str, float], gap: float, low: float, high: float) -> dict[str, float]:
    """Move heights in ascending order apart by at least `gap`, as little as possible, within low and high."""
    steps = gap * np.arange(len(ends))
    places = isotonic_regression(np.array(list(ends.values())) - steps).x
    places = np.clip(places, low, max(low, high - steps[-1])) + steps
    return dict(zip(ends, map(float, places), strict=True))


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as SVG with the same bytes for the same figure, as a bitmap where that is smaller; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    vector, bitmap = folder / f"{name}.svg", folder / f"{name}.png"
    vector.unlink(missing_ok=True)
    bitmap.unlink(missing_ok=True)
    with context(), io.StringIO() as text:
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")  # the layout is settled; finding it again takes most of the time
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        small = _TAG.sub(lambda tag: _NUMBER.sub(_rounded, tag[0]), text.getvalue())
        if len(small) <= LARGEST_SVG:
            vector.write_text(small, encoding="utf-8")
            return vector
        figure.savefig(bitmap, metadata={"Software": None})
    few = Image.open(bitmap).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(bitmap, optimize=True)  # a third of the size; thin lines keep their colours
    return bitmap


def _rounded(found: re.Match[str]) -> str:
    value = float(found[0])
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}".removesuffix(".0")


def _core(method: str) -> str:
    """Return the part of a method's name that decides its colour: without what it is based on."""
    stripped = method.removeprefix("at_").removeprefix("trades_")
    return stripped if stripped.startswith("ssl_") and not method.startswith("ssl_") else method


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
