"""Robust accuracy against the size of the test perturbation, and its difference to plain adversarial training."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssrob.formatting import NORMS
from ssrob.reporting.figures.arms import Panel, is_frontier, main_panels, panels, trained_on
from ssrob.reporting.figures.style import (
    INK,
    MUTED,
    Look,
    Looks,
    eps_axis,
    legend_beside,
    new_figure,
    per_cent,
    styled,
)
from ssrob.reporting.figures.summary import interval_words, noise_of_difference, over_seeds

X = "eps_multiple"
MOST_BANDS = 6  # in one panel; more blend into one grey
NOISE = "one seed: the grey zone is the 95 % binomial noise of a difference between independent models"


@styled
def robust_accuracy(robustness: pd.DataFrame, looks: Looks) -> Figure:
    """Draw robust accuracy over eps_test, one column per norm of the sweep; rows as `tables.ROBUSTNESS` with names.

    Of a study with many arms the main comparison alone is drawn, one panel per training norm.
    """
    parts = main_panels(robustness)
    shown = robustness[robustness["name"].isin(set().union(*(part["name"] for _, part in parts)))]
    note = interval_words(shown, ["name", "eval_norm"])
    note += " Dashed vertical line: the eps trained with, where trained on the norm of the sweep."
    if is_frontier(shown).any():
        note += " Thin grey lines: plain AT trained with another eps, each marked by a short tick on the axis."
    if left_out := robustness["name"].nunique() - shown["name"].nunique():
        note += f" {left_out} other arms: in the map of every arm and in the figures of differences."
    title = f"Robust accuracy over the size of the test perturbation{trained_on(shown)}"
    figure, rows = _grid(title, note, shown, parts)
    top = min(1.0, 0.1 * np.ceil(10 * shown["accuracy"].max() + 0.5))  # room above the highest curve
    for (told, part), axes in zip(parts, rows, strict=True):
        for norm, ax in zip(_norms(shown), axes[:-1], strict=True):
            sweep = part[part["eval_norm"] == norm]
            _describe(ax, sweep, norm, told)
            ax.set_ylim(0, top)
            per_cent(ax.yaxis)
            _lines(ax, over_seeds(sweep, ["name", X]), looks)
        axes[0].set_ylabel("robust accuracy")
        legend_beside(axes[-1], _entries(part, looks))
    return figure


@styled
def difference_to_at(differences: pd.DataFrame, looks: Looks, floor: float) -> Figure:
    """Draw what each arm gains over plain AT, in points; rows as `summary.differences_to_at` returns them."""
    title = f"Gain or loss against plain adversarial training{trained_on(differences)}"
    note = "Paired with plain AT of the same seed, init and training norm; "
    return _differences(differences, looks, (title, note), floor, panels(differences))


@styled
def gain_from_pretraining(differences: pd.DataFrame, looks: Looks, floor: float) -> Figure:
    """Draw what each pre-trained arm gains over its random twin; rows as `summary.differences_to_random` makes them."""
    title = f"Gain or loss from pre-training{trained_on(differences)}"
    note = "Paired with the same way of training, seed and norm from random initialisation; "
    return _differences(differences, looks, (title, note), floor, panels(differences))


@styled
def difference_by_weight(differences: pd.DataFrame, looks: Looks, floor: float) -> Figure:
    """Draw the same for ways with several SSL weights, a panel each, with plain AT's frontier in every one."""
    title = f"Gain or loss against plain adversarial training by SSL weight{trained_on(differences)}"
    note = "Darker: a larger weight. Paired with plain AT of the same seed, init and training norm; "
    frontier = is_frontier(differences)
    parts = [
        (_way(rows), pd.concat([rows, differences[frontier]]))
        for _, rows in differences[~frontier].groupby(["variant", "task", "init"], sort=False)
    ]
    return _differences(differences, _by_weight(differences[~frontier], looks), (title, note), floor, parts)


def _way(rows: pd.DataFrame) -> str:
    """Name a way of training without its weight."""
    row = rows.iloc[0]
    return f"{row['variant']} {row['task']}" + (f" from {row['init']}" if row["init"] != "random" else "")


def _by_weight(rows: pd.DataFrame, looks: Looks) -> Looks:
    """Give the names of the rows colours from light to dark by weight; other looks stay."""
    weights = sorted(set(rows["weight"]))
    colours = colormaps["viridis_r"](np.linspace(0.15, 0.95, len(weights)))
    chosen = rows.drop_duplicates("name").set_index("name")["weight"].map(weights.index)
    return {
        name: dataclasses.replace(look, colour=tuple(colours[chosen[name]][:3])) if name in chosen.index else look
        for name, look in looks.items()
    }


def _differences(
    differences: pd.DataFrame, looks: Looks, words: tuple[str, str], floor: float, parts: list[Panel]
) -> Figure:
    """Draw a row of panels per part; words: the figure's title, and what its note begins with."""
    title, note = words
    note += interval_words(differences, ["name", "eval_norm"], single=NOISE)
    if is_frontier(differences).any():
        note += " Thin grey: plain AT trained with another eps, the frontier of what AT alone can trade."
        note += " It may leave the panel."
    note += f" Left out where what it is compared with is below {floor:g} %."
    figure, rows = _grid(title, note, differences, parts)
    for (told, part), axes in zip(parts, rows, strict=True):
        for norm, ax in zip(_norms(differences), axes[:-1], strict=True):
            sweep = part[part["eval_norm"] == norm]
            _describe(ax, sweep, norm, told)
            ax.set_ylim(*_reach(part))
            _noise_zone(ax, sweep)
            ax.axhline(0, color=INK, linewidth=1.2)
            _lines(ax, over_seeds(sweep, ["name", X], "difference"), looks)
        axes[0].set_ylabel("difference (points)")
        legend_beside(axes[-1], _entries(part, looks))
    return figure


def _grid(title: str, note: str, frame: pd.DataFrame, parts: list[Panel]) -> tuple[Figure, list[list[Axes]]]:
    """Make a row of axes per panel: one per norm of the sweep, and one for the legend."""
    norms = len(_norms(frame))
    heights = [max(2.9, 0.7 + 0.2 * part["name"].nunique()) for _, part in parts]
    figure = new_figure(title, note, 11.0 if norms > 1 else 8.6, 1.0 + sum(heights))
    ratios = [1.0] * norms + [0.62 if norms > 1 else 0.55]
    grid = {"width_ratios": ratios, "height_ratios": heights}
    axes = figure.subplots(len(parts), norms + 1, squeeze=False, gridspec_kw=grid)
    return figure, [list(row) for row in axes]


def _norms(frame: pd.DataFrame) -> list[str]:
    return [norm for norm in NORMS if norm in set(frame["eval_norm"])]


def _entries(part: pd.DataFrame, looks: Looks) -> dict[str, Look]:
    names = set(part["name"])
    return {name: look for name, look in looks.items() if name in names}


def _lines(ax: Axes, means: pd.DataFrame, looks: Looks) -> None:
    """Draw a line per arm, the frontier below the others, with bands while there are few enough to see through."""
    thin = means["name"].map({name: look.thin for name, look in looks.items()}).astype(bool)
    few = means.loc[~thin, "name"].nunique() <= MOST_BANDS
    for name, look in looks.items():
        line = means[means["name"] == name].sort_values(X)
        if line.empty:
            continue
        ax.plot(line[X], line["mean"], label=name, zorder=1.5 if look.thin else 2.5, **look.line())
        if few and not look.thin and line["low"].notna().any():
            ax.fill_between(line[X], line["low"], line["high"], color=look.colour, alpha=0.13, linewidth=0)
    if not few:
        _typical_interval(ax, means[~thin])


def _typical_interval(ax: Axes, means: pd.DataFrame) -> None:
    """Show the median interval once, in a corner, where a band per line would hide the lines."""
    half = float(((means["high"] - means["low"]) / 2).median())
    low, high = ax.get_ylim()
    if not half > 0.004 * (high - low):  # too small to be seen
        return
    at_top = low >= 0  # accuracies fall and leave the upper right free; differences leave the lower left
    y = high - 0.12 * (high - low) - half if at_top else low + 0.02 * (high - low) + half
    x = float(means[X].max()) * (0.97 if at_top else 0.03)
    ax.errorbar([x], [y], yerr=[half], color=INK, capsize=3, linewidth=1.2, zorder=3)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": MUTED, "bbox": box}
    ax.annotate("median interval", (x, y), (-7 if at_top else 7, 0), ha="right" if at_top else "left", **place)


def _noise_zone(ax: Axes, sweep: pd.DataFrame) -> None:
    """Shade the differences that chance alone makes, where there is one seed and so no spread to show."""
    if sweep.empty or len(set(sweep["seed"])) > 1:
        return
    at = sweep.drop_duplicates(X).sort_values(X)
    half = noise_of_difference(at["base"], at["n"])
    ax.fill_between(at[X], -half, half, color=MUTED, alpha=0.13, linewidth=0, zorder=0.5)


def _reach(differences: pd.DataFrame) -> tuple[float, float]:
    """Return y limits that hold every arm and its band; the frontier, which reaches far, decides nothing."""
    arms = differences[~is_frontier(differences)]
    means = over_seeds(arms if len(arms) else differences, ["name", "eval_norm", X], "difference")
    ends = means[["mean", "low", "high"]].to_numpy()
    least = 3.0
    if len(set(differences["seed"])) == 1:
        least = max(least, float(noise_of_difference(differences["base"], differences["n"]).max()))
    return 1.1 * min(-least, float(np.nanmin(ends))), 1.1 * max(least, float(np.nanmax(ends)))


def _describe(ax: Axes, sweep: pd.DataFrame, norm: str, told: str) -> None:
    """Name the panel and its axis, and mark eps_train of the arms that were trained on the norm of the sweep."""
    ax.set_title(" · ".join(filter(None, [f"tested on {NORMS[norm]}", told])))
    if sweep.empty:
        return
    multiples = sorted(set(sweep[X]))
    largest = sweep.sort_values(X).iloc[-1]
    eps_axis(ax, norm, multiples, float(largest["eps"] / largest[X]) if largest[X] else 1.0)
    span = max(multiples[-1], 1.0)
    ax.set_xlim(-0.02 * span, 1.02 * span)
    for scale in sorted(set(sweep.loc[sweep["norm"] == norm, "eps_scale"])):
        if scale == 1:
            ax.axvline(scale, color=INK, linewidth=1, dashes=(4, 3), zorder=1)
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
            ax.annotate("training eps", (scale, 0.99), (4, 0), fontsize=8, color=MUTED, **place)
        else:
            ax.axvline(scale, ymax=0.035, color=MUTED, linewidth=1.2, zorder=1)
