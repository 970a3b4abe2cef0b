"""Heat maps with a row per arm: accuracy over the sweep, and over the corruptions."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssrob.formatting import NORMS
from ssrob.registry.corruptions import families
from ssrob.reporting.figures.style import INK, Looks, new_figure, styled

COLOURS = "YlGnBu"  # from light to dark: the same order for colour-blind readers and in print


@styled
def sweep_heatmap(robustness: pd.DataFrame, looks: Looks) -> Figure:
    """Draw robust accuracy by arm and eps_test, one map per norm of the sweep; the mean over seeds."""
    norms = [norm for norm in NORMS if norm in set(robustness["eval_norm"])]
    names = [name for name in looks if name in set(robustness["name"])]
    note = f"Mean over seeds, n = {int(robustness['n'].max()):,} test images each. Outlined: the reference eps (1 ×)."
    height = 1.5 + 0.25 * len(names)
    figure = new_figure("Robust accuracy of every arm (per cent)", note, 11.0 if len(norms) > 1 else 8.0, height)
    axes = figure.subplots(1, len(norms), squeeze=False, sharey=True)[0]
    for norm, ax in zip(norms, axes, strict=True):
        sweep = robustness[robustness["eval_norm"] == norm]
        cells = sweep.pivot_table(index="name", columns="eps_multiple", values="accuracy", aggfunc="mean").reindex(
            names
        )
        heatmap(ax, cells)
        ax.set_xticklabels([f"{multiple:g} ×" for multiple in cells.columns], rotation=0)
        ax.set_xlabel(f"{NORMS[norm]} perturbation eps, in multiples of the reference")
        reference = np.flatnonzero(np.isclose(cells.columns.to_numpy(dtype=float), 1.0))
        for column in reference:
            ax.add_patch(Rectangle((float(column), 0), 1, len(names), fill=False, edgecolor=INK, linewidth=1.6))
        ax.set_title(f"tested on {NORMS[norm]}")
    return figure


@styled
def corruption_heatmap(corruptions: pd.DataFrame, looks: Looks) -> Figure:
    """Draw accuracy by arm and corruption, the mean over severities and seeds; families are set apart."""
    names = [name for name in looks if name in set(corruptions["name"])]
    present = set(corruptions["corruption"])
    columns = [kind for members in families().values() for kind in members if kind in present]
    cells = corruptions.pivot_table(index="name", columns="corruption", values="accuracy", aggfunc="mean")
    severities = ", ".join(str(severity) for severity in sorted(set(corruptions["severity"])))
    note = f"Mean over severities {severities} and over seeds, n = {int(corruptions['n'].max()):,} test images each."
    note += " The colours span the values shown."
    figure = new_figure(
        "Accuracy on natural corruptions (per cent)", note, 4.2 + 0.45 * len(columns), 2.4 + 0.25 * len(names)
    )
    ax = figure.subplots()
    chosen = cells.reindex(index=names, columns=columns)
    low, high = np.floor(10 * np.nanmin(chosen)) / 10, np.ceil(10 * np.nanmax(chosen)) / 10
    heatmap(ax, chosen, (low, max(high, low + 0.1)))
    ax.set_xticklabels([kind.replace("_", " ") for kind in columns], rotation=40, ha="right", rotation_mode="anchor")
    family = {kind: name for name, members in families().items() for kind in members}
    for i, kind in enumerate(columns):
        if i == 0 or family[kind] != family[columns[i - 1]]:
            ax.annotate(family[kind], (i + 0.1, 0), (0, 4), textcoords="offset points", fontsize=9)
            ax.axvline(i, color="white", linewidth=5)
    return figure


def heatmap(ax: Axes, cells: pd.DataFrame, ends: tuple[float, float] = (0.0, 1.0)) -> None:
    """Draw shares 0..1 as annotated per cents; a cell without a value stays white."""
    import seaborn as sns

    low, high = (100 * end for end in ends)
    told = {"size": 8.5 if len(cells.columns) <= 9 else 8}
    sns.heatmap(
        100 * cells, ax=ax, annot=True, fmt=".0f", cmap=COLOURS, vmin=low, vmax=high, cbar=False, annot_kws=told
    )
    ax.grid(False)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    ax.tick_params(axis="y", labelrotation=0)
