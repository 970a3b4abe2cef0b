"""Robust accuracy against the size of the test perturbation, and its difference to plain adversarial training."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssrob.formatting import NORMS, eps_text, percent, signed
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arm_styles import ArmStyles
from ssrob.reporting.figures.arms import COLUMNS, is_frontier, is_plain_at, main_arms, names_in, short_names, trained_on
from ssrob.reporting.figures.style import FAINT, INK, MUTED, eps_axis, fold, label_lines, new_figure, per_cent, styled
from ssrob.reporting.figures.summary import (
    differences_to_at,
    differences_to_random,
    interval_words,
    noise_of_difference,
    over_seeds,
)

X = "eps_multiple"
NOISE = "one seed: the grey zone is the 95 % binomial noise of a difference between independent models"
ACROSS = 3  # small panels side by side
TALL = 2.9  # inches of a panel with names at its lines
MOST_PANELS = 24


@styled
def robust_accuracy(data: ReportData) -> Figure | None:
    """Draw robust accuracy over eps_test, one panel per norm of the sweep, of the study's main arms."""
    rows = data.robustness
    if rows.empty:
        return None
    shown = rows[rows["name"].isin(main_arms(rows))]
    note = interval_words(shown, ["name", "eval_norm"])
    note += " Dashed vertical line: the eps trained with, where trained on the norm of the sweep."
    if left_out := rows["name"].nunique() - shown["name"].nunique():
        note += f" Not drawn, but in the main table and in the map of every arm: {left_out} more."
    norms = _norms(shown)
    figure = new_figure(_accuracy_title(data, shown), note, TALL * len(norms))
    axes = figure.subplots(len(norms), squeeze=False)[:, 0]
    top = min(1.0, 0.1 * np.ceil(10 * shown["accuracy"].max() + 0.5))  # room above the highest curve
    for norm, ax in zip(norms, axes, strict=True):
        sweep = shown[shown["eval_norm"] == norm]
        _describe(ax, sweep, norm)
        ax.set_ylim(0, top)
        per_cent(ax.yaxis)
        ends = _lines(ax, over_seeds(sweep, ["name", X]), data.styles)
        ax.set_ylabel("robust accuracy")
        label_lines(ax, ends, {name: data.styles[name].colour for name in ends})
    return figure


def _accuracy_title(data: ReportData, rows: pd.DataFrame) -> str:
    """Say how robust the arms that are drawn are at the reference eps of the training norm."""
    at = rows[rows["eval_norm"].eq(data.norm) & np.isclose(rows[X], 1.0)]
    means = at.groupby("name", sort=False)["accuracy"].mean()
    if means.empty:
        return "Robust accuracy over the size of the test perturbation"
    where = f"At {NORMS[data.norm]} {eps_text(data.eps)}"
    best = f"{where}, {short_names(list(means.index))[str(means.idxmax())]} keeps {percent(means.max())}"
    plain = at.loc[is_plain_at(at) & (at["init"] == "random"), "accuracy"].mean()
    return best if np.isnan(plain) or np.isclose(plain, means.max()) else f"{best}, plain AT {percent(plain)}"


@styled
def difference_to_at(data: ReportData) -> Figure | None:
    """Draw what the study's main arms gain over plain AT, in points."""
    rows = _against_at(data)
    note = "Paired with plain AT of the same seed, init and training norm; "
    return _differences(data, rows, main_arms(rows[~is_frontier(rows)]), "plain AT", note)


@styled
def gain_from_pretraining(data: ReportData) -> Figure | None:
    """Draw what the main pre-trained arms gain over the same training from random weights."""
    rows = differences_to_random(data.robustness, data.study.findings.floor)
    note = "Paired with the same training of the same seed from random weights; "
    return _differences(data, rows, main_arms(rows), "random weights", note)


@styled
def every_difference(data: ReportData) -> Figure | None:
    """Draw the difference to plain AT in a small panel per arm, where there are more than one panel can show."""
    rows = _against_at(data)
    rows = rows[(rows["eval_norm"] == data.norm) & ~is_frontier(rows)]
    if rows["name"].nunique() <= len(main_arms(rows)):
        return None
    at = _at_reference(rows).groupby("name")["difference"].mean()
    title = f"Of {len(at)} arms {trained_on(rows)}, {int((at > 0).sum())} are above plain AT at the reference eps"
    return _small_panels(data, rows, title, "all other arms")


@styled
def difference_by_weight(data: ReportData) -> Figure | None:
    """Draw the difference to plain AT in a small panel per method and weight, for methods with several weights."""
    rows = _against_at(data)
    rows = rows[(rows["eval_norm"] == data.norm) & several_weights(rows)]
    if rows.empty:
        return None
    means = rows[rows[X] > 0].groupby("weight")["difference"].mean()
    title = "By SSL weight, mean difference to plain AT: "
    title += ", ".join(f"{signed(value)} at w {weight:g}" for weight, value in means.items())
    return _small_panels(data, rows, title, "the other weights and methods")


def several_weights(rows: pd.DataFrame) -> pd.Series:
    """Return which rows belong to a method that was trained with several SSL weights."""
    family = [name for name in COLUMNS if name not in ("weight", "budget")]
    return (rows.groupby(family, dropna=False)["weight"].transform("nunique") > 1) & rows["budget"].isna()


def _against_at(data: ReportData) -> pd.DataFrame:
    return differences_to_at(data.robustness, data.study.findings.floor)


def _at_reference(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[np.isclose(rows[X].astype(float), 1.0)]


def _difference_title(data: ReportData, rows: pd.DataFrame, chosen: list[str], base: str) -> str:
    """Say over which range the differences of the arms that are drawn lie at the reference eps."""
    at = _at_reference(rows[rows["name"].isin(chosen) & (rows["eval_norm"] == data.norm)])
    if at.empty:
        return f"Difference to {base}"
    means = at.groupby("name")["difference"].mean()
    count = f"these {len(means)} arms differ" if len(means) > 1 else f"{means.index[0]} differs"
    span = f"{signed(means.min())} to {signed(means.max())}" if len(means) > 1 else signed(means.iloc[0])
    return f"At {NORMS[data.norm]} {eps_text(data.eps)}, {count} from {base} by {span} points"


def _differences(data: ReportData, rows: pd.DataFrame, chosen: list[str], base: str, note: str) -> Figure | None:
    """Draw a panel per norm of the sweep; base: what differences are to; note: what the figure's note begins with."""
    shown = rows[rows["name"].isin(chosen)]
    if len(set(shown[X])) < 2:
        return None
    title = _difference_title(data, rows, chosen, base)
    note += interval_words(shown, ["name", "eval_norm"], single=NOISE)
    frontier = rows[is_frontier(rows)]
    if len(frontier):
        note += " Thin grey: plain AT trained with another eps, what AT alone can trade. It may leave the panel."
    note += f" Left out where what it is compared with is below {data.study.findings.floor:g} %."
    norms = [norm for norm in _norms(shown) if len(set(shown.loc[shown["eval_norm"] == norm, X])) > 1]
    figure = new_figure(title, note, TALL * len(norms))
    axes = figure.subplots(len(norms), squeeze=False, sharey=True)[:, 0]
    for norm, ax in zip(norms, axes, strict=True):
        sweep = shown[shown["eval_norm"] == norm]
        _describe(ax, sweep, norm)
        ax.set_ylim(*_reach(shown))
        _noise_zone(ax, sweep)
        ax.axhline(0, color=INK, linewidth=1.2)
        _lines(ax, over_seeds(frontier[frontier["eval_norm"] == norm], ["name", X], "difference"), data.styles)
        ends = _lines(ax, over_seeds(sweep, ["name", X], "difference"), data.styles)
        ax.set_ylabel("difference (points)")
        label_lines(ax, ends, {name: data.styles[name].colour for name in ends})
    return figure


def _small_panels(data: ReportData, rows: pd.DataFrame, title: str, others: str) -> Figure:
    """Draw a panel per arm with all others in grey behind it; others: what these are."""
    names = names_in(rows, data.arms)[:MOST_PANELS]
    note = f"{interval_words(rows, ['name', 'eval_norm'], single=NOISE)} Grey: {others}."
    columns = min(ACROSS, len(names))
    lines = -(-len(names) // columns)
    figure = new_figure(title, note, 0.4 + 1.55 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    short, reach = short_names(names), _reach(rows[rows["name"].isin(names)])
    behind = over_seeds(rows, ["name", X], "difference")
    for ax in axes.ravel()[len(names) :]:
        ax.axis("off")
    for name, ax in zip(names, axes.ravel(), strict=False):
        for _, line in behind.groupby("name", sort=False):
            ax.plot(line[X], line["mean"], color=FAINT, linewidth=0.8, zorder=1)
        sweep = rows[rows["name"] == name]
        _noise_zone(ax, sweep)
        ax.axhline(0, color=INK, linewidth=0.9)
        _lines(ax, over_seeds(sweep, ["name", X], "difference"), data.styles)
        ax.set_ylim(*reach)
        ax.set_title(fold(short[name], 26), fontsize=8.5)
    for ax in axes[-1]:
        ax.set_xlabel("eps / reference")
    for ax in axes[:, 0]:
        ax.set_ylabel("points")
    return figure


def _norms(frame: pd.DataFrame) -> list[str]:
    return [norm for norm in NORMS if norm in set(frame["eval_norm"])]


def _lines(ax: Axes, means: pd.DataFrame, styles: ArmStyles) -> dict[str, float]:
    """Draw a line with its band per arm, the frontier thin and below; return the heights of the lines' right ends."""
    ends = {}
    for name in (name for name in styles if name in set(means["name"])):
        line, style = means[means["name"] == name].sort_values(X), styles[name]
        ax.plot(line[X], line["mean"], label=name, zorder=1.5 if style.thin else 2.5, **style.line())
        if not style.thin and line["low"].notna().any():
            ax.fill_between(line[X], line["low"], line["high"], color=style.colour, alpha=0.13, linewidth=0)
        ends[name] = float(line["mean"].iloc[-1])
    return ends


def _noise_zone(ax: Axes, sweep: pd.DataFrame) -> None:
    """Shade the differences that chance alone makes, where there is one seed and so no spread to show."""
    if sweep.empty or len(set(sweep["seed"])) > 1:
        return
    at = sweep.drop_duplicates(X).sort_values(X)
    half = noise_of_difference(at["base"], at["n"])
    ax.fill_between(at[X], -half, half, color=MUTED, alpha=0.13, linewidth=0, zorder=0.5)


def _reach(differences: pd.DataFrame) -> tuple[float, float]:
    """Return y limits that hold every arm and its band."""
    means = over_seeds(differences, ["name", "eval_norm", X], "difference")
    ends = means[["mean", "low", "high"]].to_numpy()
    least = 3.0
    if len(set(differences["seed"])) == 1:
        least = max(least, float(noise_of_difference(differences["base"], differences["n"]).max()))
    return 1.1 * min(-least, float(np.nanmin(ends))), 1.1 * max(least, float(np.nanmax(ends)))


def _describe(ax: Axes, sweep: pd.DataFrame, norm: str) -> None:
    """Name the panel and its axis, and mark eps_train of the arms that were trained on the norm of the sweep."""
    ax.set_title(f"tested on {NORMS[norm]}")
    multiples = sorted(set(sweep[X]))
    largest = sweep.sort_values(X).iloc[-1]
    eps_axis(ax, norm, multiples, float(largest["eps"] / largest[X]) if largest[X] else 1.0)
    span = max(multiples[-1], 1.0)
    ax.set_xlim(-0.02 * span, 1.02 * span)
    if (sweep["norm"] == norm).any():
        ax.axvline(1.0, color=INK, linewidth=1, dashes=(4, 3), zorder=1)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
        ax.annotate("training eps", (1.0, 0.99), (4, 0), fontsize=8, color=MUTED, **place)
