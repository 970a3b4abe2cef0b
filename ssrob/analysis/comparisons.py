"""A study's comparisons: which grid points count, and what all of them together say of the spread over seeds."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from ssrob.analysis.contrasts import SCALES, Contrast, beyond_frontier, difference, middle, slope
from ssrob.analysis.detection_sweeps import detection_sweeps
from ssrob.analysis.evidence import Comparison
from ssrob.analysis.moderation import Prior, fit_prior
from ssrob.analysis.statistics import Alternative
from ssrob.analysis.sweeps import Cell, IntArray, Sweeps, from_tables
from ssrob.config.findings import Findings, Measure
from ssrob.config.variants import Variant, built_in_variants

Interval = tuple[float, float]
AT_EPS: Interval = (1.0, 1.0)
METRICS: dict[Measure, str] = {"robust_accuracy": "mean robust accuracy", "auroc": "mean AUROC"}


@dataclass(frozen=True)
class Comparisons:
    """A study's sweeps, how claims become verdicts, and the priors of the spread over seeds found so far.

    variants: those of the study, which say who is a control of whom. Default: the shipped ones.
    """

    sweeps: Sweeps
    settings: Findings
    variants: Mapping[str, Variant] = field(default_factory=built_in_variants)
    priors: dict[Hashable, Prior] = field(default_factory=dict)

    @cached_property
    def whole(self) -> Sweeps:
        """The sweeps without groups of images."""
        return self.sweeps.without_groups()

    def inside(self, interval: Interval) -> IntArray:
        """Return the grid points in an interval of multiples of the reference eps, ends included.

        The point at eps_train is a question of its own: it belongs to no wider interval.
        """
        grid, (low, high) = self.sweeps.grid, interval
        chosen = (grid >= low - 1e-6) & (grid <= high + 1e-6)
        if high > low:
            chosen &= np.abs(grid - 1) > 1e-6
        return np.flatnonzero(chosen)

    def kept(self, plain: Cell, interval: Interval) -> IntArray:
        """Return the grid points of an interval where plain AT, mean over its seeds, is not below the floor."""
        inside = self.inside(interval)
        sweeps = self.sweeps.cells.get(plain, {}).values()
        if not sweeps:
            return inside
        mean = np.array([sweep.accuracy[0] for sweep in sweeps]).mean(axis=0)
        kept: IntArray = inside[~(mean[inside] < self.settings.floor)]
        return kept

    def remark(self, plain: Cell, interval: Interval) -> str:
        """Name the grid points that the floor leaves out; empty if it leaves out none."""
        dropped = np.setdiff1d(self.inside(interval), self.kept(plain, interval))
        if not len(dropped):
            return ""
        points = ", ".join(f"{multiple:g}" for multiple in self.sweeps.grid[dropped])
        return f"left out, as plain AT is under {self.settings.floor:g} %: {points} × eps"

    def find(self, cell: Cell) -> Cell:
        """Return the cell, or the same without a weight, or without a task, where only that was trained."""
        nearest = [cell, cell._replace(weight=None), cell._replace(weight=None, task=None)]
        return next((each for each in nearest if each in self.sweeps.cells), cell)

    def difference(self, name: str, alternative: Alternative, pair: tuple[Cell, Cell], at: IntArray) -> Comparison:
        """Compare mean robust accuracies over grid points: first cell - second cell."""
        ours, theirs = pair
        contrast = difference(self.sweeps, ours, theirs, at)
        tested = self.sweeps.grid[[middle(self.sweeps.grid, at)] if contrast.outcomes else at]
        where = f"at {tested[0]:g} × eps" if len(tested) < len(at) else ""
        metric = f"{METRICS[self.sweeps.measure]} at {', '.join(f'{multiple:g}' for multiple in tested) or 'no'} × eps"
        cell = f"{ours} - {theirs} | {place(ours)} | {metric}"
        estimate = contrast.estimate(self.settings.look_alpha, self._prior_of_differences(theirs, at))
        return Comparison(name, alternative, estimate, contrast.missing, contrast.n, cell, where, pair)

    def frontier(self, alternative: Alternative, ours: Cell, plain: Cell, than: Cell | None = None) -> Comparison:
        """Compare with AT's own frontier: how far a cell lies beyond it, or how much further than another cell."""
        primary = self.settings.primary
        sides = self.kept(plain, primary.below), self.kept(plain, primary.above)
        contrast = beyond_frontier(self.sweeps, ours, plain, sides, than)
        metric = "accuracy below eps_train, above the best plain AT that is as robust above it"
        metric += f", more than {than}" if than else ""
        curve = [plain._replace(eps_scale=scale) for scale in SCALES]
        prior = self._prior(
            ("frontier", plain, than),
            [cell for cell in self._alike(plain) if cell not in (*curve, than)],
            lambda cell: beyond_frontier(self.whole, cell, plain, sides, than),
        )
        estimate, cell = contrast.estimate(self.settings.look_alpha, prior), f"{ours} | {place(ours)} | {metric}"
        cells = (ours, *curve, *([than] if than else []))
        return Comparison("AT's own frontier", alternative, estimate, contrast.missing, contrast.n, cell, cells=cells)

    def slope(self, alternative: Alternative, cells: list[Cell], at: IntArray, subject: str) -> Comparison:
        """Fit the trend in the SSL weight over cells that differ in it alone."""
        contrast = slope(self.sweeps, cells, at)
        # Of independent arms with variance v, a difference has 2 v and a slope v / sum of squared deviations.
        weights = np.array([cell.weight for cell in cells], dtype=np.float64)
        prior = self._prior_of_differences(cells[0], at).scaled(0.5 / float(((weights - weights.mean()) ** 2).sum()))
        cell = f"{subject} | {place(cells[0])} | points per unit of weight"
        estimate, name = contrast.estimate(self.settings.look_alpha, prior), "the slope in the weight"
        return Comparison(name, alternative, estimate, contrast.missing, contrast.n, cell, cells=tuple(cells))

    def _alike(self, cell: Cell) -> list[Cell]:
        """Return the cells of the same norm and checkpoint: arms that are trained alike."""
        place = (cell.norm, cell.checkpoint)
        return [each for each in self.sweeps.cells if (each.norm, each.checkpoint) == place]

    def _prior_of_differences(self, theirs: Cell, at: IntArray) -> Prior:
        """Fit the prior to the differences of all arms from the same one, over the same grid points."""
        others = [cell for cell in self._alike(theirs) if cell != theirs]
        return self._prior(
            ("difference", theirs, tuple(at)), others, lambda cell: difference(self.whole, cell, theirs, at)
        )

    def _prior(self, key: Hashable, cells: list[Cell], contrast_of: Callable[[Cell], Contrast]) -> Prior:
        if key not in self.priors:
            per_seed = [contrast.per_seed[0] for contrast in map(contrast_of, cells) if contrast.per_seed is not None]
            several = [values for values in per_seed if len(values) > 1]
            self.priors[key] = fit_prior(
                [float(values.var(ddof=1)) for values in several], [len(values) - 1 for values in several]
            )
        return self.priors[key]


def comparisons_by_measure(
    tables: Mapping[str, pd.DataFrame], settings: Findings, variants: Mapping[str, Variant]
) -> list[Comparisons]:
    """Return a study's comparisons of robust accuracy, and of AUROC if it tested detection.

    tables: robustness, examples and arms of `collect` by name, and ood_scores if there is one.
    """
    sweeps = [from_tables(tables["robustness"], tables["examples"], tables["arms"])]
    if "ood_scores" in tables and len(tables["ood_scores"]):
        sweeps.append(detection_sweeps(tables["ood_scores"], tables["arms"], settings.primary.score))
    return [Comparisons(each, settings, variants) for each in sweeps]


def place(cell: Cell) -> str:
    """Say which norm and checkpoint."""
    return f"{cell.norm}, {cell.checkpoint} checkpoint"
