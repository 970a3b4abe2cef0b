"""Why it happens: how alike the gradients of both losses are, and what a perturbation of one does to the other."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, signed
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyle, ArmStyles
from ssrob.reporting.figures.arms import is_frontier, main_arms, short_names
from ssrob.reporting.figures.style import (
    FAINT,
    INK,
    MUTED,
    legend_below,
    legend_mark,
    name_rows,
    new_figure,
    per_cent,
    rows_height,
    styled,
)

QUANTILES = [f"cosine_q{q:02d}" for q in (5, 25, 50, 75, 95)]
ATTACKS = {  # image set -> what it is called, marker, colour
    "clean": ("clean", "|", INK),
    "noise": ("random noise", "x", MUTED),
    "ssl": ("attack on the SSL loss", "o", "#0072b2"),
    "supervised": ("attack on cross-entropy", "D", "#d55e00"),
}


@styled
def diagnosis(data: ReportData) -> Figure | None:
    """Draw cosines and transfer of the study's main arms, a block per SSL task."""
    rows, styles = data.diagnostics, data.styles
    rows = rows[~is_frontier(rows) & rows["budget"].isna()]
    if rows.empty:
        return None
    diagnostics = rows[rows["name"].isin(main_arms(rows))]
    tasks = sorted(set(diagnostics["ssl_task"]))
    parts = [in_rows(diagnostics[diagnostics["ssl_task"] == task], styles) for task in tasks]
    short = short_names(list(dict.fromkeys(diagnostics["name"])))
    labels = [[short[name] + (", own head" if head == "own" else "") for name, head in part] for part in parts]
    heights = [0.7 + rows_height(each) for each in labels for _ in range(2)]
    figure = new_figure(_title(diagnostics), _note(diagnostics), 0.4 + sum(heights))
    grid = figure.add_gridspec(len(heights) + 1, 2, height_ratios=[*heights, 0.4])
    for i, (task, part) in enumerate(zip(tasks, parts, strict=True)):
        axes = [figure.add_subplot(grid[2 * i + k // 2, k % 2]) for k in range(4)]
        _task_panels(axes, diagnostics[diagnostics["ssl_task"] == task], part, styles)
        for k, ax in enumerate(axes):
            name_rows(ax, labels[i])
            ax.tick_params(labelleft=k % 2 == 0)
    marks = [legend_mark(words, **_marker(mark, colour)) for words, mark, colour in ATTACKS.values()]
    legend_below(figure.add_subplot(grid[len(heights), :]), marks)
    return figure


def _task_panels(axes: list[Axes], rows: pd.DataFrame, places: list[tuple[str, str]], styles: ArmStyles) -> None:
    """Draw a task's cosines on clean and on attacked images, and what attacks do to both accuracies."""
    task = rows["ssl_task"].iloc[0]
    for ax, where in zip(axes[:2], ("clean", "supervised"), strict=True):
        _cosines(ax, rows[rows["images"] == where], places, styles)
        ax.set_title(f"{task}: cosine, clean" if where == "clean" else "cosine, attacked")
    _transfer(axes[2], rows, places, "class_accuracy")
    axes[2].set_title("class accuracy")
    _transfer(axes[3], rows, places, "ssl_accuracy")
    axes[3].set_title(f"{task} accuracy" if axes[3].axison else "")


def _title(rows: pd.DataFrame) -> str:
    """Say how alike the gradients of both losses are on clean images."""
    clean = rows[(rows["images"] == "clean") & (rows["head"] == "fitted")].groupby("ssl_task")["cosine"].mean()
    if clean.empty:
        return "What both losses share"
    span = " to ".join(dict.fromkeys((signed(clean.min(), 2), signed(clean.max(), 2))))
    return f"Gradients of the SSL loss and of cross-entropy: mean cosine {span}"


def in_rows(part: pd.DataFrame, styles: ArmStyles) -> list[tuple[str, str]]:
    """Return the (name, head) pairs of a figure's rows in display order, a fitted head before the model's own."""
    present = set(zip(part["name"], part["head"], strict=True))
    return [(name, head) for name in styles for head in ("fitted", "own") if (name, head) in present]


def over_models(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Average columns over the seeds of each name, task, head and image set."""
    return rows.groupby(["name", "ssl_task", "head", "images"], sort=False)[columns].mean().reset_index()


def _note(rows: pd.DataFrame) -> str:
    norms = ", ".join(NORMS[norm] for norm in dict.fromkeys(rows["eval_norm"]))
    seeds = sorted(set(rows.groupby(["name", "ssl_task", "head", "images"])["seed"].nunique()))
    counts = " to ".join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1])))
    return (
        f"n = {int(rows['n'].max())} validation images; mean over seeds ({counts}). Perturbations at the reference eps,"
        f" {norms}. Cosines: median, 25 to 75 % (thick) and 5 to 95 % (thin) of the images. Without “own head” the SSL"
        " head was fitted afresh on frozen features, in the same way for every model."
    )


def _cosines(ax: Axes, rows: pd.DataFrame, places: list[tuple[str, str]], styles: ArmStyles) -> None:
    means = over_models(rows, QUANTILES).set_index(["name", "head"])
    for place, key in enumerate(places):
        if key in means.index:
            _spread(ax, means.xs(key)[QUANTILES].to_numpy(), place, styles[key[0]])
    ax.axvline(0, color=INK, linewidth=1, zorder=1)
    ax.set_xlim(-1, 1)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])


def _spread(ax: Axes, ends: Any, place: int, style: ArmStyle) -> None:
    for low, high, width in ((0, 4, 1.0), (1, 3, 3.5)):
        ax.plot([ends[low], ends[high]], [place, place], color=style.colour, linewidth=width, solid_capstyle="butt")
    ax.plot([ends[2]], [place], **style.point() | {"zorder": 3})


def _transfer(ax: Axes, rows: pd.DataFrame, places: list[tuple[str, str]], column: str) -> None:
    """Draw an accuracy on every image set in a row per model and head; nothing where the task has no accuracy."""
    means = over_models(rows, [column]).set_index(["name", "head", "images"])[column]
    if means.isna().all():
        ax.axis("off")
        return
    for place, key in enumerate(places):
        shares = {where: float(means.get((*key, where), np.nan)) for where in ATTACKS}
        ax.plot([min(shares.values()), max(shares.values())], [place, place], color=FAINT, linewidth=3, zorder=1)
        for where, (_, mark, colour) in ATTACKS.items():
            ax.plot([shares[where]], [place], **_marker(mark, colour))
    ax.set_xlim(-0.03, 1.03)
    per_cent(ax.xaxis)


def _marker(mark: str, colour: str) -> dict[str, Any]:
    return {"marker": mark, "color": colour, "linestyle": "none", "markersize": 8 if mark == "|" else 5, "zorder": 3}
