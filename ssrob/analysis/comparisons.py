"""Asking the sweeps: which grid points count, and comparisons as parts of a claim."""

from dataclasses import dataclass

import numpy as np

from ssrob.analysis.contrasts import Contrast, beyond_frontier, difference, middle
from ssrob.analysis.statistics import Wants
from ssrob.analysis.sweeps import Cell, IntArray, Sweeps
from ssrob.analysis.verdicts import Part
from ssrob.config.study import Findings

Interval = tuple[float, float]
AT_EPS: Interval = (1.0, 1.0)


@dataclass(frozen=True)
class Question:
    """A study's sweeps, and how claims become verdicts."""

    sweeps: Sweeps
    settings: Findings

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
        return f"left out, as plain AT is under {self.settings.floor:g} %: {points} x eps"

    def find(self, cell: Cell) -> Cell:
        """Return the cell, or the same without a weight where only that was trained (its weights are fixed)."""
        unweighted = cell._replace(weight=None)
        return unweighted if cell not in self.sweeps.cells and unweighted in self.sweeps.cells else cell

    def difference(self, name: str, wants: Wants, pair: tuple[Cell, Cell], at: IntArray) -> Part:
        """Compare mean robust accuracies over grid points: first cell - second cell."""
        ours, theirs = pair
        contrast = difference(self.sweeps, ours, theirs, at)
        tested = self.sweeps.grid[[middle(self.sweeps.grid, at)] if contrast.outcomes else at]
        where = f"at {tested[0]:g} x eps" if len(tested) < len(at) else ""
        metric = f"mean robust accuracy at {', '.join(f'{multiple:g}' for multiple in tested) or 'no'} x eps"
        return self.part(name, wants, contrast, f"{ours} - {theirs} | {place(ours)} | {metric}", where)

    def frontier(self, wants: Wants, ours: Cell, plain: Cell, than: Cell | None = None) -> Part:
        """Compare with AT's own frontier: how far a cell lies beyond it, or how much further than another cell."""
        primary = self.settings.primary
        sides = self.kept(plain, primary.below), self.kept(plain, primary.above)
        contrast = beyond_frontier(self.sweeps, ours, plain, sides, than)
        metric = "accuracy below eps_train, above the best plain AT that is as robust above it"
        metric += f", more than {than}" if than else ""
        return self.part("AT's own frontier", wants, contrast, f"{ours} | {place(ours)} | {metric}")

    def part(self, name: str, wants: Wants, contrast: Contrast, cell: str, where: str = "") -> Part:
        """Estimate a contrast; where: the grid point, if it is one of several."""
        return Part(name, wants, contrast.estimate(self.settings.alpha), contrast.missing, contrast.n, cell, where)


def place(cell: Cell) -> str:
    """Say which norm and checkpoint."""
    return f"{cell.norm}, {cell.checkpoint} checkpoint"
