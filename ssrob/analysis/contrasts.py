"""What is compared, per seed: differences, the distance from AT's own frontier, and the slope in the SSL weight.

A contrast holds one value per seed, and the same values with each group of images left out (see
`statistics`). Seeds are paired: a contrast has the seeds that all its cells share.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from ssrob.analysis.moderation import NO_PRIOR, Prior
from ssrob.analysis.standard_error import BoolArray, FloatArray
from ssrob.analysis.statistics import Estimate, exact_mcnemar, paired_t
from ssrob.analysis.sweeps import Cell, IntArray, Sweeps

SCALES = (0.5, 0.75, 1.0, 1.25)  # plain AT at these multiples of the reference eps is the frontier
_FINE = np.linspace(SCALES[0], SCALES[-1], 301)


@dataclass(frozen=True)
class Contrast:
    """One value per seed, (1 + GROUPS, S) in points; without them, `missing` says why."""

    per_seed: FloatArray | None
    n: int = 0
    missing: tuple[str, ...] = ()
    outcomes: tuple[BoolArray, BoolArray] | None = None  # one seed: whether each image is robust, ours and theirs

    def estimate(self, alpha: float, prior: Prior = NO_PRIOR) -> Estimate | None:
        """Return the effect over seeds; with one seed McNemar on images where it applies; None without any value."""
        if self.per_seed is None:
            return None
        return exact_mcnemar(*self.outcomes, alpha) if self.outcomes else paired_t(self.per_seed, alpha, prior)


def difference(sweeps: Sweeps, ours: Cell, theirs: Cell, at: IntArray) -> Contrast:
    """Subtract mean robust accuracies over the grid points `at`: ours - theirs, paired by seed.

    One seed: the outcomes on the same images at the grid point nearest the middle of `at`.
    """
    points, gap = _paired(sweeps, [ours, theirs], at)
    if points is None:
        return Contrast(None, missing=gap)
    outcomes = _outcomes(sweeps, (ours, theirs), at) if points.shape[-1] == 1 else None
    return Contrast(points[0, 0] - points[0, 1], sweeps.images(ours, at), outcomes=outcomes)


def beyond_frontier(
    sweeps: Sweeps, ours: Cell, plain: Cell, sides: tuple[IntArray, IntArray], than: Cell | None = None
) -> Contrast:
    """Say how far a cell lies beyond what plain AT reaches by its eps_train alone, in points below eps_train.

    A model is a point (a, b): mean robust accuracy over the grid points above and below eps_train; `sides`
    are those below and those above. Plain AT at `SCALES` gives one curve per seed, (a(s), b(s)), by monotone
    cubic (PCHIP) interpolation in the scale s. The frontier at a is F(a) = max of b(s) over all s with
    a(s) >= a: the best accuracy below eps_train of any plain AT that is at least as robust above it. The
    value is b - F(a) of the same seed, less that of the cell `than` if one is given. Above the largest a(s),
    F is taken at that end, which can only be too high. Under the smallest a(s), a smaller eps_train might do
    better than the curve shows: F is at least the largest b(s), which says that a cell lies under the
    frontier, never beyond it.
    """
    frontier = [plain._replace(eps_scale=scale) for scale in SCALES]
    cells = [ours] if than is None else [ours, than]
    points, gap = _paired(sweeps, [*cells, *frontier], *sides)
    if points is None:
        return Contrast(None, missing=gap)
    rows = slice(None) if np.isfinite(points).all() else slice(1)
    (b, a), (b_plain, a_plain) = points[:, : len(cells), rows], points[:, len(cells) :, rows]
    distance = b - np.array([frontier_at(each, a_plain, b_plain) for each in a])
    outside = a[:, 0] < a_plain[:, 0].min(axis=0)
    if (outside[0] & (distance[0, 0] > 0)).any() or outside[1:].any():
        return Contrast(None, missing=(f"plain AT with an eps_train under {SCALES[0]:g} × eps, where {ours} lies",))
    per_seed = np.full_like(points[0, 0], np.nan)
    per_seed[rows] = distance[0] - distance[1:].sum(axis=0)
    return Contrast(per_seed, sweeps.images(ours, np.concatenate(sides)))


def frontier_at(a: FloatArray, above: FloatArray, below: FloatArray) -> FloatArray:
    """Return F(a), (R, S), of the curve through (above, below), each (len(SCALES), R, S); see `beyond_frontier`."""
    fine_above, fine_below = np.moveaxis(PchipInterpolator(SCALES, np.stack([above, below], axis=1))(_FINE), 1, 0)
    reached = np.where(fine_above >= a, fine_below, -np.inf).max(axis=0)
    end = np.take_along_axis(fine_below, fine_above.argmax(axis=0)[None], axis=0)[0]
    crossing: FloatArray = np.where(np.isfinite(reached), reached, end)
    return crossing


def slope(sweeps: Sweeps, cells: list[Cell], at: IntArray) -> Contrast:
    """Fit, per seed, mean robust accuracy over `at` by a line in the SSL weight: points per unit of weight."""
    points, gap = _paired(sweeps, cells, at)
    if points is None:
        return Contrast(None, missing=gap)
    weights = np.array([cell.weight for cell in cells], dtype=np.float64)
    centred = (weights - weights.mean()) / ((weights - weights.mean()) ** 2).sum()
    return Contrast(np.tensordot(centred, points[0], axes=1), sweeps.images(cells[0], at))


def middle(grid: FloatArray, at: IntArray) -> int:
    """Return the one of the grid points `at` that is nearest the middle of their range, the smaller of two."""
    points = grid[at]
    return int(at[np.abs(points - (points[0] + points[-1]) / 2).round(9).argmin()])


def _paired(sweeps: Sweeps, cells: list[Cell], *sides: IntArray) -> tuple[FloatArray | None, tuple[str, ...]]:
    """Return mean accuracies over each side's grid points, (sides, cells, 1 + GROUPS, S), or what is missing.

    The seeds are those that all cells share, with an accuracy on every side.
    """
    absent = [cell for cell in cells if cell not in sweeps.cells]
    if absent:
        names = [f"{cell} (more than one model fits)" if cell in sweeps.ambiguous else str(cell) for cell in absent]
        return None, tuple(names)
    if not all(map(len, sides)):
        return None, ("a grid point in the interval where plain AT is above the floor",)
    points = [[sweeps.points(cell, at) for cell in cells] for at in sides]
    seeds = sorted(set.intersection(*(set(each) for side in points for each in side)))
    if not seeds:
        return None, (f"a seed shared by {', '.join(map(str, cells))}",)
    return np.array([[np.stack([each[seed] for seed in seeds], axis=1) for each in side] for side in points]), ()


def _outcomes(sweeps: Sweeps, pair: tuple[Cell, Cell], at: IntArray) -> tuple[BoolArray, BoolArray] | None:
    """Return, for the one shared seed, whether each image is robust at the middle of `at`; None if not known."""
    seed = min(set.intersection(*(set(sweeps.points(cell, at)) for cell in pair)))
    mine, other = (sweeps.cells[cell][seed] for cell in pair)
    if mine.images is None or other.images is None or mine.survived is None or other.survived is None:
        return None
    _, here, there = np.intersect1d(mine.images, other.images, assume_unique=True, return_indices=True)
    k = middle(sweeps.grid, at)
    return (mine.survived[here] > k, other.survived[there] > k) if len(here) else None
