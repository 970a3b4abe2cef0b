"""What happened while training: validation accuracies and losses over epochs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssrob.registry.losses import LOSSES, Arguments, loss_row
from ssrob.reporting.figures.arms import panels, trained_on
from ssrob.reporting.figures.style import MUTED, Looks, legend_beside, new_figure, per_cent, styled


def chance(task: str, arguments: Mapping[str, Arguments]) -> float | None:
    """Return an SSL task's accuracy by guessing: one over its answers; None where it does not choose among K.

    arguments: what the study changes (`Study.losses`).
    """
    outputs = list(loss_row(task, arguments).widths.values()) if task in LOSSES and LOSSES[task].correct else []
    return 1 / outputs[0] if len(outputs) == 1 and isinstance(outputs[0], int) else None


@styled
def training_curves(training: pd.DataFrame, looks: Looks) -> Figure:
    """Draw fine-tuning: validation accuracies, supervised and SSL losses; rows as `tables.TRAINING` with names."""
    rows = _per_epoch(training[training["stage"] == "finetune"])
    parts = panels(rows)
    heights = [max(2.6, 0.7 + 0.2 * part["name"].nunique()) for _, part in parts]
    note = (
        "Mean over seeds. Accuracies on validation images, which are held out of the training split; robust: attacked"
    )
    note += " at the training eps. Losses (nats): means over an epoch and over the image sets that they are trained on."
    figure = new_figure(f"Fine-tuning over epochs{trained_on(rows)}", note, 11.0, 1.1 + sum(heights))
    shape = {"width_ratios": [1, 1, 1, 1, 0.9], "height_ratios": heights}
    grid = figure.subplots(len(parts), 5, squeeze=False, gridspec_kw=shape)
    for (told, part), axes in zip(parts, grid, strict=True):
        for ax, (title, metrics) in zip(axes, _panels_of(part), strict=False):
            _draw(ax, part[part["metric"].isin(metrics)], looks)
            ax.set_title(title)
            ax.set_xlabel("epoch")
            if "accuracy" in title:
                per_cent(ax.yaxis)
        names = set(part["name"])
        legend_beside(axes[-1], {name: look for name, look in looks.items() if name in names}, told)
    return figure


def pretraining_rows(training: pd.DataFrame) -> pd.DataFrame:
    """Return the pre-training's rows once, named by init: arms that share a pre-training repeat its rows.

    Adds `pretraining`: the init, with task and norm where the same init was trained differently for several.
    """
    rows = training[training["stage"] == "pretrain"]
    rows = rows.drop_duplicates(["init", "init_task", "seed", "step", "metric", "value"])
    return rows.assign(pretraining=name_pretrainings(rows))


def name_pretrainings(rows: pd.DataFrame) -> pd.Series:
    """Name each row's pre-training: its init, with the task and the norm where that init stands for several."""
    names = rows["init"].copy()
    for column in ("init_task", "norm"):
        several = rows[column].groupby(rows["init"]).transform("nunique") > 1
        names = names.where(~several, names + " " + rows[column].fillna(""))
    return names.str.strip()


@styled
def pretraining_curves(rows: pd.DataFrame, arguments: Mapping[str, Arguments]) -> Figure:
    """Draw pre-training: the SSL tasks' validation accuracies and losses; rows as `pretraining_rows` returns them.

    arguments: of the losses, as for `chance`.
    """
    import seaborn as sns

    means = _per_epoch(rows.assign(name=rows["pretraining"], metric=rows["metric"].map(_title)))
    known = [name for name in set(means["metric"]) if name.endswith((" accuracy", " loss"))]
    shown = sorted(known, key=lambda title: (not title.endswith("accuracy"), title))
    note = "Mean and range over seeds. Robust: attacked at the pre-training's own eps. Dotted: chance."
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = new_figure("Pre-training over epochs", note, 3.0 * columns + 1.6, 1.0 + 2.6 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(rows["pretraining"]))
    colours = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    for ax, title in zip(axes, shown, strict=False):
        _plain_lines(ax, means[means["metric"] == title], colours)
        ax.set_title(title)
        ax.set_xlabel("epoch")
        if title.endswith("accuracy"):
            per_cent(ax.yaxis)
            level = chance("_".join(title.split(" ")[1:-1]), arguments)  # "clean jigsaw 3x3 accuracy"
            if level is not None:
                ax.axhline(level, color=MUTED, linewidth=1, linestyle=":")
    for ax in axes[len(shown) :]:
        ax.axis("off")
    handles = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside right center")
    return figure


def _panels_of(part: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the titles of the four panels and the metrics that each shows."""
    losses = [metric for metric in set(part["metric"]) if metric.startswith("loss/") and metric != "loss/total"]
    supervised = [name for name in losses if not _is_ssl(name)]
    return [
        ("clean accuracy", ["validation/clean_accuracy"]),
        ("robust accuracy, each\nat its own training eps", ["validation/robust_accuracy"]),
        ("supervised loss", supervised),
        ("SSL loss", [name for name in losses if _is_ssl(name)]),
    ]


def _is_ssl(metric: str) -> bool:
    row = LOSSES.get(metric.rpartition("/")[2])
    return row is not None and row.self_supervised


def _per_epoch(rows: pd.DataFrame) -> pd.DataFrame:
    """Average each metric within an epoch: losses are recorded per step, accuracies per validation."""
    keys = [name for name in rows.columns if name not in ("step", "epoch", "value", "stage")]
    whole = rows.assign(epoch=np.ceil(rows["epoch"] - 1e-9))
    return whole.groupby([*keys, "epoch"], sort=False, dropna=False)["value"].mean().reset_index()


def _draw(ax: Axes, rows: pd.DataFrame, looks: Looks) -> None:
    means = rows.groupby(["name", "epoch"], sort=True)["value"].mean()
    for name, look in looks.items():
        if name in means.index:
            line = means.loc[name]
            few = {"markevery": max(1, len(line) // 6), "linewidth": 1.0 if look.thin else 1.3}
            ax.plot(line.index, line.to_numpy(), label=name, **(look.line() | few))
    if rows.empty:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", color=MUTED)


def _plain_lines(ax: Axes, means: pd.DataFrame, colours: dict[str, tuple[float, float, float]]) -> None:
    for name, colour in colours.items():
        line = means[means["name"] == name].groupby("epoch", sort=True)["value"].agg(["mean", "min", "max"])
        ax.plot(line.index, line["mean"], color=colour, label=name)
        ax.fill_between(line.index, line["min"], line["max"], color=colour, alpha=0.13, linewidth=0)


def _title(metric: str) -> str:
    """Name a panel of pre-training: ``validation/clean_rotation_accuracy`` or ``loss/adv/rotation``."""
    kind, _, rest = metric.partition("/")
    if kind == "loss" and rest != "total":
        return f"{rest.rpartition('/')[2]} loss"
    return rest.replace("_", " ") if kind == "validation" else metric
