"""What pre-training has taught the features: kNN and linear probes, clean and attacked, beside an untrained network."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, percent
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.style import legend_below, legend_mark, name_rows, new_figure, per_cent, styled
from ssrob.reporting.figures.training import name_pretrainings

MARKS = {"knn": ("s", "#0072b2", "kNN"), "linear": ("o", "#d55e00", "linear")}


def probe_rows(probes: pd.DataFrame) -> pd.DataFrame:
    """Name the pre-training of each row (`tables.PROBES`) in a column `pretraining`, with its seeds' mean accuracy.

    Columns: pretraining, features, probe, eval_norm ("" for clean images), accuracy (0..1), least, most, seeds, n.
    """
    named = probes.assign(pretraining=name_pretrainings(probes), eval_norm=probes["eval_norm"].fillna(""))
    grouped = named.groupby(["pretraining", "features", "probe", "eval_norm"], sort=False)
    columns = {"accuracy": ("accuracy", "mean"), "least": ("accuracy", "min"), "most": ("accuracy", "max")}
    return grouped.agg(**columns, seeds=("seed", "nunique"), n=("n", "min")).reset_index()


def _title(rows: pd.DataFrame) -> str:
    """Say what the linear probe reads from pre-trained and from untrained features of clean images."""
    linear = rows[(rows["probe"] == "linear") & (rows["eval_norm"] == "")].groupby("features")["accuracy"].mean()
    before, after = (percent(linear.get(name)) for name in ("untrained", "pretrained"))
    return f"Linear probe on clean images: {after} after pre-training, {before} untrained"


@styled
def probe_accuracies(data: ReportData) -> Figure | None:
    """Draw both probes by pre-training; hollow: the same network before any training."""
    if data.probes.empty:
        return None
    rows = probe_rows(data.probes)
    names = list(dict.fromkeys(rows["pretraining"]))
    norms = [norm for norm in ("", *NORMS) if norm in set(rows["eval_norm"])]
    note = f"n = {int(rows['n'].min())} validation images; mean over seeds, line: range. Hollow: the same network,"
    note += " untrained. Attacked: correct if PGD on the linear probe and PGD on kNN both fail, at the reference eps."
    rows_inches = 0.7 + 0.5 * len(names)
    figure = new_figure(_title(rows), note, rows_inches + 0.3)
    grid = figure.add_gridspec(2, len(norms), height_ratios=[rows_inches, 0.3])
    axes = [figure.add_subplot(grid[0, column]) for column in range(len(norms))]
    for norm, ax in zip(norms, axes, strict=True):
        for row in rows[rows["eval_norm"] == norm].to_dict("records"):
            mark, colour, _ = MARKS[row["probe"]]
            place = names.index(row["pretraining"]) + (0.15 if row["probe"] == "linear" else -0.15)
            fill = colour if row["features"] == "pretrained" else "white"
            ax.plot([row["least"], row["most"]], [place, place], color=colour, linewidth=1.2, zorder=2)
            marker: dict[str, Any] = {"markerfacecolor": fill, "markeredgecolor": colour, "markersize": 6}
            ax.plot([row["accuracy"]], [place], marker=mark, zorder=3, **marker)
        ax.set_title("clean" if not norm else f"attacked, {NORMS[norm]}")
        ax.set_xlim(-0.03, 1.03)
        ax.set_xticks([0, 0.5, 1])
        per_cent(ax.xaxis)
        name_rows(ax, names, lines=True)
        ax.tick_params(labelleft=ax is axes[0])
    marks = [legend_mark(words, marker=marker, color=colour) for marker, colour, words in MARKS.values()]
    marks.append(legend_mark("untrained", markerfacecolor="white"))
    legend_below(figure.add_subplot(grid[1, :]), marks, columns=3)
    return figure
