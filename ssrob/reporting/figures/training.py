"""What happened while training: validation accuracies and losses over epochs."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssrob.formatting import number, percent
from ssrob.registry.losses import LOSSES, Arguments, loss_row
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyles, handles
from ssrob.reporting.figures.arms import is_plain_at, main_arms
from ssrob.reporting.figures.style import MUTED, end_at_100, legend_below, legend_height, new_figure, per_cent, styled

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#857a00", "#56b4e9", "#e69f00", "#1f2328")  # Okabe & Ito


def chance(task: str, arguments: Mapping[str, Arguments]) -> float | None:
    """Return an SSL task's accuracy by guessing: one over its answers; None where it does not choose among K.

    arguments: what the study changes (`Study.losses`).
    """
    outputs = list(loss_row(task, arguments).widths.values()) if task in LOSSES and LOSSES[task].correct else []
    return 1 / outputs[0] if len(outputs) == 1 and isinstance(outputs[0], int) else None


@styled
def training_curves(data: ReportData) -> Figure | None:
    """Draw the fine-tuning of the study's main arms: validation accuracies, supervised and SSL losses."""
    rows = data.training[data.training["stage"] == "finetune"]
    if rows.empty:
        return None
    rows = _per_epoch(rows[rows["name"].isin(main_arms(rows))])
    if rows["epoch"].nunique() < 2:
        return None
    note = "Mean over seeds. Accuracies on validation images, held out of the training split; robust: attacked at the"
    note += " training eps. Losses (nats): means over an epoch and over the image sets that they are trained on."
    panels = [panel for panel in _panels_of(rows) if rows["metric"].isin(panel[1]).any()]
    names = set(rows["name"])
    legend = handles({name: style for name, style in data.styles.items() if name in names})
    figure, axes = _grid(_title(data), note, len(panels), legend)
    for ax, (title, metrics) in zip(axes, panels, strict=True):
        _draw(ax, rows[rows["metric"].isin(metrics)], data.styles)
        ax.set_title(title)
        ax.set_xlabel("epoch")
        if "accuracy" in title:
            per_cent(ax.yaxis)
            end_at_100(ax, "y")
    return figure


def _grid(title: str, note: str, panels: int, legend: list[Line2D]) -> tuple[Figure, list[Axes]]:
    """Make panels, two in a row, with a legend below."""
    lines, tall = -(-panels // 2), legend_height(str(handle.get_label()) for handle in legend)
    figure = new_figure(title, note, 2.3 * lines + tall)
    grid = figure.add_gridspec(lines + 1, 2, height_ratios=[*[2.3] * lines, tall])
    legend_below(figure.add_subplot(grid[lines, :]), legend)
    return figure, [figure.add_subplot(grid[i // 2, i % 2]) for i in range(panels)]


def _title(data: ReportData) -> str:
    """Say how much robust validation accuracy plain AT loses from its best epoch to the last."""
    gaps = data.arms.loc[is_plain_at(data.arms) & (data.arms["init"] == "random"), "overfitting"].dropna()
    if gaps.empty:
        return "Fine-tuning over epochs"
    lost = number(100 * float(gaps.mean()))
    return f"From its best epoch to the last, plain AT loses {lost} points of robust validation accuracy"


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
def pretraining_curves(data: ReportData) -> Figure | None:
    """Draw pre-training: the SSL tasks' validation accuracies and losses."""
    rows, arguments = pretraining_rows(data.training), data.study.losses
    if rows.empty:
        return None
    means = _per_epoch(rows.assign(name=rows["pretraining"], metric=rows["metric"].map(_metric_title)))
    epochs = means.groupby("metric")["epoch"].nunique()
    known = [name for name in epochs.index if name.endswith((" accuracy", " loss")) and epochs[name] > 1]
    shown = sorted(known, key=lambda title: (not title.endswith("accuracy"), title))
    if not shown:
        return None
    note = "Mean and range over seeds. Robust: attacked at the pre-training's own eps. Dotted: chance."
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(rows["pretraining"]))}
    legend = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure, axes = _grid(_pretraining_title(means, shown[0]), note, len(shown), legend)
    for ax, title in zip(axes, shown, strict=True):
        _plain_lines(ax, means[means["metric"] == title], colours)
        ax.set_title(title)
        ax.set_xlabel("epoch")
        if title.endswith("accuracy"):
            per_cent(ax.yaxis)
            end_at_100(ax, "y")
            level = chance("_".join(title.split(" ")[1:-1]), arguments)  # "clean jigsaw 3x3 accuracy"
            if level is not None:
                ax.axhline(level, color=MUTED, linewidth=1, linestyle=":")
    return figure


def _pretraining_title(means: pd.DataFrame, metric: str) -> str:
    """Say where the first metric ends."""
    last = means[means["metric"] == metric].sort_values("epoch").groupby(["name", "seed"])["value"].last()
    ends = [percent(value) if metric.endswith("accuracy") else number(value, 2) for value in (last.min(), last.max())]
    return f"Pre-training ends at a {metric} of {' to '.join(dict.fromkeys(ends))}"


def _panels_of(part: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the titles of the four panels and the metrics that each shows."""
    losses = [metric for metric in set(part["metric"]) if metric.startswith("loss/") and metric != "loss/total"]
    supervised = [name for name in losses if not _is_ssl(name)]
    return [
        ("clean accuracy", ["validation/clean_accuracy"]),
        ("robust accuracy", ["validation/robust_accuracy"]),
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


def _draw(ax: Axes, rows: pd.DataFrame, styles: ArmStyles) -> None:
    means = rows.groupby(["name", "epoch"], sort=True)["value"].mean()
    for name, style in styles.items():
        if name in means.index:
            line = means.loc[name]
            few = {"markevery": max(1, len(line) // 6), "linewidth": 1.0 if style.thin else 1.3}
            ax.plot(line.index, line.to_numpy(), label=name, **(style.line() | few))


def _plain_lines(ax: Axes, means: pd.DataFrame, colours: dict[str, str]) -> None:
    for name, colour in colours.items():
        line = means[means["name"] == name].groupby("epoch", sort=True)["value"].agg(["mean", "min", "max"])
        ax.plot(line.index, line["mean"], color=colour, label=name)
        ax.fill_between(line.index, line["min"], line["max"], color=colour, alpha=0.13, linewidth=0)


def _metric_title(metric: str) -> str:
    """Name a panel of pre-training: ``validation/clean_rotation_accuracy`` or ``loss/adv/rotation``."""
    kind, _, rest = metric.partition("/")
    if kind == "loss" and rest != "total":
        return f"{rest.rpartition('/')[2]} loss"
    return rest.replace("_", " ") if kind == "validation" else metric
