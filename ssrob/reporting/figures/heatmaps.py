"""Heat maps with a row per arm: accuracy over the sweep, and over the corruptions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssrob.formatting import NORMS, percent
from ssrob.registry.corruptions import families
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import names_in
from ssrob.reporting.figures.style import INK, new_figure, styled

COLOURS = "YlGnBu"  # from light to dark: the same order for colour-blind readers and in print


@styled
def sweep_heatmap(data: ReportData) -> Figure | None:
    """Draw robust accuracy by arm and eps_test, one map per norm of the sweep; the mean over seeds."""
    rows = data.robustness
    if rows.empty:
        return None
    norms = [norm for norm in NORMS if norm in set(rows["eval_norm"])]
    names = names_in(rows, data.arms)
    note = f"Per cent, mean over seeds, n = {int(rows['n'].max()):,} test images each. Outlined: the reference eps."
    height = 1.5 + 0.25 * len(names)
    title = f"Robust accuracy of all {len(names)} arms" if len(names) > 1 else f"Robust accuracy of {names[0]}"
    figure = new_figure(title, note, 11.0 if len(norms) > 1 else 8.0, height)
    axes = figure.subplots(1, len(norms), squeeze=False, sharey=True)[0]
    for norm, ax in zip(norms, axes, strict=True):
        sweep = rows[rows["eval_norm"] == norm]
        cells = sweep.pivot_table(index="name", columns="eps_multiple", values="accuracy").reindex(names)
        heatmap(ax, cells)
        ax.set_xticks(range(len(cells.columns)), [f"{multiple:g} ×" for multiple in cells.columns])
        ax.set_xlabel(f"{NORMS[norm]} perturbation eps, in multiples of the reference")
        for column in np.flatnonzero(np.isclose(cells.columns.to_numpy(dtype=float), 1.0)):
            box = Rectangle((float(column) - 0.5, -0.5), 1, len(names), fill=False, edgecolor=INK, linewidth=1.6)
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
    columns = list(family)
    cells = rows.pivot_table(index="name", columns="corruption", values="accuracy").reindex(
        index=names, columns=columns
    )
    severities = ", ".join(str(severity) for severity in sorted(set(rows["severity"])))
    note = f"Per cent, mean over severities {severities} and seeds, n = {int(rows['n'].max()):,} test images each."
    note += " The colours span the values shown."
    hard = cells.mean().sort_values()
    title = f"Hardest corruption: {_words(hard.index[0])} (mean over arms {percent(hard.iloc[0])}), "
    title += f"easiest: {_words(hard.index[-1])} ({percent(hard.iloc[-1])})"
    figure = new_figure(title, note, 4.2 + 0.45 * len(columns), 2.4 + 0.25 * len(names))
    ax = figure.subplots()
    low, high = np.floor(10 * np.nanmin(cells)) / 10, np.ceil(10 * np.nanmax(cells)) / 10
    heatmap(ax, cells, (low, max(high, low + 0.1)))
    ax.set_xticks(range(len(columns)), list(map(_words, columns)), rotation=40, ha="right", rotation_mode="anchor")
    for i, kind in enumerate(columns):
        if i == 0 or family[kind] != family[columns[i - 1]]:
            ax.annotate(family[kind], (i - 0.4, -0.5), (0, 4), textcoords="offset points", fontsize=9)
            ax.axvline(i - 0.5, color="white", linewidth=5)
    return figure


def heatmap(ax: Axes, cells: pd.DataFrame, ends: tuple[float, float] = (0.0, 1.0)) -> None:
    """Draw shares 0..1 as per cents on colours, a name per row; a cell without a value stays white."""
    shares = cells.to_numpy(dtype=float)
    low, high = ends
    edges = (np.arange(shares.shape[1] + 1) - 0.5, np.arange(shares.shape[0] + 1) - 0.5)
    ax.pcolormesh(*edges, np.ma.masked_invalid(shares), cmap=COLOURS, vmin=low, vmax=high)
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share):
            colour = "white" if share > low + 0.55 * (high - low) else INK
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_yticks(range(len(cells)), list(cells.index))
    ax.set_xlim(-0.5, shares.shape[1] - 0.5)
    ax.set_ylim(len(cells) - 0.5, -0.5)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _words(kind: str) -> str:
    return kind.replace("_", " ")
