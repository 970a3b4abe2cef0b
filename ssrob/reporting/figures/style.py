"""How every figure looks: one width that is readable on a phone, axes in per cent, names at the ends of lines."""

import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from scipy.optimize import isotonic_regression

from ssrob.formatting import NORMS, eps_text
from ssrob.reporting.figures.arms import short_names

INK, MUTED, FAINT = "#1f2328", "#5f6670", "#d9dce1"
WIDTH = 6.2  # inches; on a phone of 390 px small text is still 7 px high
LINE = 0.155  # inches from one line of small text to the next
EDGE = 0.02  # of an axis of shares beyond its ends
NAME = 30  # letters of a name that stand in one line beside a panel
_LEGEND = 66  # letters in a row of a legend
_WORDS = {"title": (58, 0.21), "note": (98, 0.15)}  # letters in a line, and inches for each

_RC: dict[str, Any] = {
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#eceef1",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.bottom": True,
    "ytick.left": True,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "text.color": INK,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "savefig.dpi": 150,
    "svg.hashsalt": "ssrob",  # the same figure gives the same bytes
    "svg.fonttype": "none",  # text stays text: small, to be searched, and drawn in the reader's font
    "font.family": ["DejaVu Sans"],
}
T = TypeVar("T")


@contextmanager
def context() -> Iterator[None]:
    """Apply the style inside a `with` block, and restore matplotlib's settings afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(sns.plotting_context("paper") | sns.axes_style("whitegrid") | _RC)
        yield


def styled(draw: Callable[..., T]) -> Callable[..., T]:
    """Draw a figure in the project's style."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        with context():
            return draw(*args, **kwargs)

    return wrapper


def new_figure(title: str, note: str, height: float) -> Figure:
    """Make an empty figure with a title that says what is seen and a note on n, seeds and intervals.

    height: of the panels, inches; the words come on top of it.
    """
    words = {name: fold(text, _WORDS[name][0]) for name, text in (("title", title), ("note", note))}
    lines = sum((1 + text.count("\n")) * _WORDS[name][1] for name, text in words.items())
    figure = Figure(figsize=(WIDTH, height + lines), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    figure.suptitle(words["title"], x=0.008, ha="left")
    figure.supxlabel(words["note"], x=0.008, ha="left", fontsize=8, color=MUTED, linespacing=1.35)
    return figure


def per_cent(axis: Any) -> None:
    """Write an axis of shares 0..1 in per cent, with no tick outside."""
    axis.set_major_formatter(
        FuncFormatter(lambda share, _: f"{100 * share:.4g} %" if -1e-9 <= share <= 1 + 1e-9 else "")
    )


def end_at_100(axes: Axes, axis: str) -> None:
    """End an axis of shares, "x" or "y", where the data are all drawn, at 0 and 100 %, with room for half a marker."""
    low, high = getattr(axes, f"get_{axis}lim")()
    getattr(axes, f"set_{axis}lim")(max(low, -EDGE), min(high, 1 + EDGE))


def eps_axis(axes: Axes, norm: str, multiples: list[float], reference: float) -> None:
    """Label an axis whose coordinate is eps in multiples of the reference eps ([0,1] pixel units).

    Budgets are written in 1/255 where the reference is a whole number of these, as in every table.
    """
    whole = eps_text(reference).endswith("/255")
    scale, unit = (255.0, "1/255") if whole else (1.0, "[0, 1] pixel units")
    shown = multiples if len(multiples) <= 6 else [m for m in multiples if m % 0.5 == 0] or multiples[::2]
    axes.set_xticks(shown, [f"{m * reference * scale:.4g}" for m in shown])
    axes.set_xlabel(f"{NORMS[norm]} perturbation eps ({unit})")


def name_rows(axes: Axes, names: Iterable[str], *, lines: bool = False) -> None:
    """Write a name beside every row of a panel, from the top down; lines: between rows."""
    labels = wrapped(names)
    for place in range(1, len(labels) * lines):
        axes.axhline(place - 0.5, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def wrapped(names: Iterable[str]) -> list[str]:
    """Break names into lines that leave room for a panel beside them."""
    return [fold(name, NAME) for name in names]


def fold(text: str, letters: int) -> str:
    """Break text into lines, but not at a hyphen, nor a weight or an eps from its number."""
    kept = re.sub(r"\b(w|eps) (?=[\d.])", "\\1\N{NO-BREAK SPACE}", text)
    for together in (" %", " × eps"):
        kept = kept.replace(together, together.replace(" ", "\N{NO-BREAK SPACE}"))
    folded = textwrap.fill(kept, letters, break_long_words=False, break_on_hyphens=False)
    return folded.replace("\N{NO-BREAK SPACE}", " ")


def rows_height(names: Iterable[str], line: float = LINE) -> float:
    """Return the inches that rows need to show their names; line: from one line of text to the next."""
    labels = wrapped(names)
    most = 1 + max((label.count("\n") for label in labels), default=0)
    return len(labels) * (0.06 + line * most)


def legend_mark(label: str, **marker: Any) -> Line2D:
    """Return the entry of a marker in a legend."""
    return Line2D([], [], label=label, **{"color": INK, "marker": "o", "linestyle": "none"} | marker)


def legend_below(axes: Axes, handles: list[Line2D], columns: int = 2) -> None:
    """Write a legend into an empty axes of its own, so that it covers no data."""
    axes.axis("off")
    for handle in handles:
        handle.set_label(fold(str(handle.get_label()), _LEGEND // columns))
    axes.legend(handles=handles, loc="center left", borderaxespad=0, ncols=columns, handlelength=2.2)


def legend_height(names: Iterable[str]) -> float:
    """Return the inches that a legend of these names needs, in two columns."""
    lines = [1 + fold(name, _LEGEND // 2).count("\n") for name in names]
    return 0.12 + LINE * 1.15 * sum(lines) / 2 + LINE * max(lines, default=1) / 2


def label_lines(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, Any]) -> None:
    """Write names at the right ends of lines, `ends` their heights, moved apart so that none covers another."""
    short = {name: fold(text, 24) for name, text in short_names(list(ends)).items()}
    low, high = axes.get_ylim()
    inches = axes.bbox.height / axes.figure.dpi * 0.8  # about the height of the axes: the layout is not settled yet
    most = 1 + max((text.count("\n") for text in short.values()), default=0)
    gap = (0.03 + 0.14 * most) / inches * (high - low)
    for name, y in _spread_labels(dict(sorted(ends.items(), key=lambda item: item[1])), gap, low, high).items():
        axes.annotate(
            short[name],
            (1.0, (ends[name] - low) / (high - low)),
            (14, (y - low) / (high - low)),
            xycoords="axes fraction",
            textcoords=("offset points", "axes fraction"),
            va="center",
            fontsize=8.5,
            linespacing=1.05,
            color=tuple(0.75 * channel for channel in to_rgb(colours[name])),
            arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.7, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def _spread_labels(ends: dict[str, float], gap: float, low: float, high: float) -> dict[str, float]:
    """Move heights in ascending order apart by at least `gap`, as little as possible, within low and high."""
    steps = gap * np.arange(len(ends))
    places = isotonic_regression(np.array(list(ends.values())) - steps).x
    places = np.clip(places, low, max(low, high - steps[-1])) + steps
    return dict(zip(ends, map(float, places), strict=True))
