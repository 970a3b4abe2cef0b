"""Heat maps with a row per arm: accuracy over the sweep, and over the corruptions."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssrob.formatting import NORMS, eps_text, percent
from ssrob.registry.corruptions import families
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import names_in, short_names
from ssrob.reporting.figures.style import INK, new_figure, rows_height, styled, wrapped

TIGHT = 0.125  # inches from one line of a name to the next
COLOURS = "YlGnBu"  # from light to dark: the same order for colour-blind readers and in print


@styled
def sweep_heatmap(data: ReportData) -> Figure | None:
    """Draw robust accuracy by arm and eps_test, one map per norm of the sweep; the mean over seeds."""
    rows = data.robustness
    if rows.empty:
        return None
    norms = [norm for norm in NORMS if norm in set(rows["eval_norm"])]
    names = names_in(rows, data.arms)
    short = short_names(names)
    note = f"Per cent, mean over seeds, n = {int(rows['n'].max()):,} test images each. Outlined: the reference eps."
    at = (
        rows[rows["eval_norm"].eq(data.norm) & np.isclose(rows["eps_multiple"], 1.0)].groupby("name")["accuracy"].mean()
    )
    span = " to ".join(dict.fromkeys((percent(at.min()), percent(at.max()))))
    title = f"At {NORMS[data.norm]} {eps_text(data.eps)}, the robust accuracy of {len(names)} arms is {span}"
    figure = new_figure(title, note, len(norms) * (0.8 + rows_height(short.values(), TIGHT)))
    axes = figure.subplots(len(norms), squeeze=False)[:, 0]
    for norm, ax in zip(norms, axes, strict=True):
        sweep = rows[rows["eval_norm"] == norm]
        cells = sweep.pivot_table(index="name", columns="eps_multiple", values="accuracy").reindex(names)
        titles = [f"{multiple:g}" for multiple in cells.columns]
        heatmap(ax, cells.set_axis(titles, axis=1).rename(index=short))
        ax.set_xlabel(f"{NORMS[norm]} perturbation eps, in multiples of the reference")
        for column in np.flatnonzero(np.isclose(cells.columns.to_numpy(dtype=float), 1.0)):
            box = Rectangle((float(column), 0), 1, len(names), fill=False, edgecolor=INK, linewidth=1.6)
            ax.add_patch(box)
        ax.set_title(f"tested on {NORMS[norm]}")
    return figure


@styled
def corruption_heatmap(data: ReportData) -> Figure | None:
    """Draw accuracy by arm and corruption, the mean over severities and seeds; families are set apart."""
    rows = data.corruptions
    if rows.empty:
        return None
    names, present = names_in(rows, data.arms), set(rows["corruption"])
    family = {kind: name for name, members in families().items() for kind in members if kind in present}
    cells = rows.pivot_table(index="name", columns="corruption", values="accuracy").reindex(
        index=names, columns=list(family)
    )
    severities = ", ".join(str(severity) for severity in sorted(set(rows["severity"])))
    note = f"Per cent, mean over severities {severities} and seeds, n = {int(rows['n'].max()):,} test images each."
    note += " The colours span the values shown."
    hard = cells.mean().sort_values()
    title = f"Hardest corruption: {_words(hard.index[0])} (mean over arms {percent(hard.iloc[0])}), "
    title += f"easiest: {_words(hard.index[-1])} ({percent(hard.iloc[-1])})"
    short = short_names(names)
    figure = new_figure(title, note, 1.3 + rows_height(short.values(), TIGHT))
    ax = figure.subplots()
    low, high = np.floor(10 * np.nanmin(cells)) / 10, np.ceil(10 * np.nanmax(cells)) / 10
    heatmap(ax, cells.rename(columns=_words, index=short), (low, max(high, low + 0.1)))
    for i, (kind, before) in enumerate(zip(family, [None, *family], strict=False)):
        if before is None or family[kind] != family[before]:
            ax.annotate(family[kind], (i + 0.1, 0), (0, 4), textcoords="offset points", fontsize=9)
            ax.axvline(i, color="white", linewidth=5)
    return figure


def heatmap(ax: Axes, cells: pd.DataFrame, ends: tuple[float, float] = (0.0, 1.0)) -> None:
    """Draw shares 0..1 as per cents on colours, a name per row; a cell without a value stays white."""
    low, high = (100 * end for end in ends)
    small = {"fontsize": 8 if cells.shape[1] <= 12 else 6.5}
    sns.heatmap(
        100 * cells, ax=ax, cmap=COLOURS, vmin=low, vmax=high, cbar=False, annot=True, fmt=".0f", annot_kws=small
    )
    ax.set_yticks(np.arange(len(cells)) + 0.5, wrapped(map(str, cells.index)), rotation=0, fontsize=7.8, linespacing=1)
    if max(map(len, map(str, cells.columns))) > 4:
        ax.set_xticks(ax.get_xticks(), list(map(str, cells.columns)), rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)


def _words(kind: str) -> str:
    return kind.replace("_", " ")
