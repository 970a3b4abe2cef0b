"""Sweeps by cell and seed: the accuracies that findings compare. The only part of the findings that reads tables."""

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ssrob.analysis.standard_error import FloatArray
from ssrob.config.findings import Measure
from ssrob.planning.names import SHARED, ArmColumns, arm_label

GROUPS = 50  # groups of images, each left out once (jackknife)
IntArray = NDArray[np.int64]


class Cell(NamedTuple):
    """One setting of training: all that its seeds share. Only the sweep in the training norm is used."""

    variant: str
    init: str
    task: str | None
    weight: float | None
    norm: str
    eps_scale: float
    budget: str | None
    checkpoint: str
    init_task: str | None = None  # of the pre-training

    def __str__(self) -> str:
        """Return the arm's name for people (`arm_label`), without norm and checkpoint."""
        return _label(self)


@functools.cache
def _label(cell: Cell) -> str:
    columns = {name: getattr(cell, name) for name in SHARED if name != "norm"}
    return arm_label(ArmColumns(**columns, seed=0), init_task=cell.init_task if cell.init_task != cell.task else None)


@dataclass(frozen=True)
class Sweep:
    """One model over eps. accuracy (1 + GROUPS, E) in per cent: row 0 over all images, row g without group g."""

    accuracy: FloatArray
    n: IntArray  # (E,) images at each grid point
    images: IntArray | None = None  # (N,) rows of the test split, ascending
    survived: IntArray | None = None  # (N,) grid points survived by each: robust at grid point k iff survived > k
    passes: float = math.nan


@dataclass(frozen=True)
class Sweeps:
    """A study's sweeps: grid (E,) in multiples of the reference eps, and the sweeps of every cell by seed."""

    grid: FloatArray
    cells: dict[Cell, dict[int, Sweep]]
    ambiguous: set[Cell] = field(default_factory=set)  # more than one model fits: none is used
    measure: Measure = "robust_accuracy"
    # Not copied by `replace`: other cells have other means.
    _means: dict[tuple[Cell, bytes], dict[int, FloatArray]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def without_groups(self) -> "Sweeps":
        """Return the same with the accuracies over all images alone: what the seeds' spread needs, at less cost."""
        cells = {
            cell: {seed: replace(sweep, accuracy=sweep.accuracy[:1]) for seed, sweep in seeds.items()}
            for cell, seeds in self.cells.items()
        }
        return replace(self, cells=cells)

    def points(self, cell: Cell, at: IntArray) -> dict[int, FloatArray]:
        """Return, per seed, the mean accuracy over grid points `at`: (1 + GROUPS,) in per cent; NaN seeds left out."""
        key = (cell, at.tobytes())  # all comparisons of a study take the same few of them
        if key not in self._means:
            seeds = sorted(self.cells.get(cell, {}).items())
            means = ((seed, sweep.accuracy[:, at].mean(axis=1)) for seed, sweep in seeds)
            self._means[key] = {seed: mean for seed, mean in means if np.isfinite(mean[0])}
        return self._means[key]

    def images(self, cell: Cell, at: IntArray) -> int:
        """Return the number of test images per seed at grid points `at`, the least; 0 for an unknown cell."""
        return min((int(sweep.n[at].min()) for sweep in self.cells.get(cell, {}).values()), default=0)

    def passes(self, cell: Cell) -> float:
        """Return the mean training cost of a cell in passes; NaN if unknown."""
        return float(np.mean([sweep.passes for sweep in self.cells.get(cell, {}).values()] or [math.nan]))


def from_tables(robustness: pd.DataFrame, examples: pd.DataFrame, arms: pd.DataFrame) -> Sweeps:
    """Read the sweeps in the training norm of the models that claims are about."""
    rows_of_models = claimed(robustness)
    rows_of_models = rows_of_models[rows_of_models["eval_norm"] == rows_of_models["norm"]]
    grid = np.unique(rows_of_models["eps_multiple"].dropna().to_numpy(dtype=np.float64).round(6))
    passes = dict(zip(arms["arm"], arms["passes"], strict=True))
    outcomes = _by_sweep(examples)
    sweeps = Sweeps(grid, {})
    for (arm, checkpoint), rows in rows_of_models.groupby(["arm", "checkpoint"], sort=True):
        cell = cell_of(rows.iloc[0])
        seen = outcomes.get((arm, checkpoint, cell.norm))
        add(sweeps, cell, int(rows["seed"].iloc[0]), _sweep(rows, seen, grid, float(passes.get(arm, math.nan))))
    return without_ambiguous(sweeps)


def claimed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models that claims are about: all weights were trained, on perturbed images."""
    return rows[rows["norm"].notna() & (rows["tune"] != "head")]


def add(sweeps: Sweeps, cell: Cell, seed: int, sweep: Sweep) -> None:
    """Add a sweep to a study's; a cell that has one of the seed is ambiguous."""
    if seed in sweeps.cells.setdefault(cell, {}):
        sweeps.ambiguous.add(cell)
    sweeps.cells[cell][seed] = sweep


def without_ambiguous(sweeps: Sweeps) -> Sweeps:
    """Return the sweeps of the cells that mean one model for each seed."""
    return replace(sweeps, cells={cell: each for cell, each in sweeps.cells.items() if cell not in sweeps.ambiguous})


def _sweep(rows: pd.DataFrame, seen: pd.DataFrame | None, grid: FloatArray, passes: float) -> Sweep:
    """Take the accuracies from the rows of a sweep and, where the outcome of each image is known, leave out groups."""
    rows = rows.sort_values("eps_multiple")
    at = np.searchsorted(grid, rows["eps_multiple"].round(6))
    n = np.full(len(grid), rows["n"].min())
    accuracy = np.full((1 + GROUPS, len(grid)), np.nan)
    accuracy[0, at] = 100 * rows["accuracy"].to_numpy(dtype=np.float64)
    if seen is None or len(rows) < len(grid) or seen["first_failed"].isna().any():
        return Sweep(accuracy, n, passes=passes)
    seen = seen.sort_values("example")
    images = seen["example"].to_numpy(dtype=np.int64)
    failed = seen["first_failed"].to_numpy(dtype=np.float64) * (1 - 1e-6)  # equal to a grid point but for rounding
    survived = np.searchsorted(rows["eps"].to_numpy(dtype=np.float64), failed).astype(np.int64)
    accuracy[1:] = 100 * left_out(images, survived, len(grid))
    return Sweep(accuracy, n, images, survived, passes)


def left_out(images: IntArray, survived: IntArray, size: int) -> FloatArray:
    """Return robust accuracies 0..1 with each group of images left out, (GROUPS, E); NaN with too few images."""
    group = images % GROUPS
    members = np.bincount(group, minlength=GROUPS)
    if members.min() < 1:
        return np.full((GROUPS, size), np.nan)
    counts = np.bincount(group * (size + 1) + survived, minlength=GROUPS * (size + 1)).reshape(GROUPS, size + 1)
    alive = members[:, None] - counts.cumsum(axis=1)[:, :size]
    rest: FloatArray = (alive.sum(axis=0) - alive) / (len(images) - members)[:, None]
    return rest


def cell_of(row: "pd.Series[Any]") -> Cell:
    """Return the cell of a row that has its columns."""
    values: dict[str, Any] = {name: None if pd.isna(value := row[name]) else value for name in Cell._fields}
    values["weight"] = None if values["weight"] is None else round(float(values["weight"]), 6)
    values["eps_scale"] = round(float(values["eps_scale"]), 6)
    return Cell(**values)


def _by_sweep(examples: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    grouped = examples.groupby(["arm", "checkpoint", "eval_norm"], sort=False)
    return dict(iter(grouped[["example", "first_failed"]]))
