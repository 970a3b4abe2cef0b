"""Sweeps with a known truth: to count how often findings are wrong, and how large a study has to be.

Plain AT trained at s x eps has the mean robust accuracy A(m, s) = 78 - 32 m + 16 (s - 1)(m - 0.95) - 3 (s -
1)^2 per cent at m x eps: it gains below and loses above 0.95 x eps as s falls, which is what makes AT's own
frontier. Every cell is plain AT at some s, plus a gain per grid point. Each seed moves a cell's curve up or
down (`seed_sd`, half of it common to all cells of the seed) and tilts it. An image is robust at m if its rank
(uniform, by a Gaussian copula of an image part, an image x cell part and a rest) lies below the curve, so
that the mean over images is the curve exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri
from ssrob.analysis.contrasts import SCALES
from ssrob.analysis.controls import TWO, passes_of
from ssrob.analysis.findings import judged_claim
from ssrob.analysis.standard_error import FloatArray
from ssrob.analysis.sweeps import Cell, IntArray, Sweep, Sweeps, left_out
from ssrob.analysis.verdicts import verdict
from ssrob.config.findings import Findings, paper_claims
from ssrob.config.variants import built_in_variants, control_of
from ssrob.storage.tables import ALL_EXAMPLES, ARMS, ROBUSTNESS

VARIANTS = built_in_variants()
JOINT = "at_ssl_joint"
READINGS = tuple(paper_claims()["C2"].compare)
METHODS = (*paper_claims()["C4"].against, JOINT)
GRID: FloatArray = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2])
REFERENCE = 8 / 255
PLAIN = Cell("at", "random", None, None, "linf", 1.0, None, "best")
PASSES = {  # of a training step with a ten-step attack and rotation (docs/method/methods.md)
    "at": 23.0,
    **dict.fromkeys(READINGS, 26.0),
    "at_ssl_attack_only": 43.0,
    **dict.fromkeys(("at_ssl_joint_clean", JOINT, "at_ssl_separate", TWO), 46.0),
    "at_ssl_ensemble": 52.0,
}
NO_GRADIENT_PASSES, PRETRAINING = 24.0, 3.0  # passes of a BatchNorm control, and of SSL pre-training
PARTS = (0.8, 0.1, 0.1)  # of the variance of an image's rank: image, image x cell, rest


@dataclass(frozen=True)
class Truth:
    """What a cell's mean curve is: plain AT at `like`, plus points below, at and above eps_train."""

    like: float = 1.0
    below: float = 0.0
    at: float = 0.0
    above: float = 0.0

    def curve(self) -> FloatArray:
        """Return mean robust accuracy over `GRID`, (E,) in per cent."""
        s = self.like - 1
        plain = 78 - 32 * GRID + 16 * s * (GRID - 0.95) - 3 * s**2
        added: FloatArray = plain + np.select([GRID < 1, GRID == 1], [self.below, self.at], self.above)
        return added


@dataclass(frozen=True)
class Size:
    """How large a simulated study is, and how much its seeds scatter (points)."""

    seeds: int = 3
    images: int = 1000
    seed_sd: float = 0.3
    differ: bool = False  # arms scatter differently, by factors from 0.375 to 3
    outliers: float = 0.0  # share of models that lie five times as far off
    looks: tuple[int, ...] = ()  # numbers of seeds at which it is judged; none: at the end alone


@dataclass(frozen=True)
class World:
    """A study with a known truth: its cells and the truth of each."""

    truths: Mapping[Cell, Truth]

    def with_truth(self, truth: Truth, *cells: Cell) -> "World":
        """Return the world with another truth in some cells."""
        return World({**self.truths, **dict.fromkeys(cells, truth)})

    def without(self, *cells: Cell) -> "World":
        """Return the world in which some cells were never trained."""
        return World({cell: truth for cell, truth in self.truths.items() if cell not in cells})


def method_cell(variant: str, init: str = "random", weight: float = 0.5) -> Cell:
    """Return the cell of a method in a simulated study."""
    return PLAIN._replace(variant=variant, init=init, task="rotation", weight=weight)


def no_gradient(cell: Cell) -> Cell:
    """Return a method's BatchNorm control."""
    return cell._replace(variant=control_of(cell.variant, "no_gradient", VARIANTS) or f"no control of {cell.variant}")


def longer(cell: Cell) -> Cell:
    """Return plain AT with a method's passes."""
    return PLAIN._replace(init=cell.init, budget=passes_of(cell))


def lengthened(cell: Cell) -> Cell:
    """Return a method with the joint method's passes."""
    return cell._replace(budget=passes_of(method_cell(JOINT)))


def passes(cell: Cell) -> float:
    """Return the passes of a cell, in the unit of `PASSES`; a method that a study adds costs what the joint does."""
    budgets = {passes_of(method_cell(name)): PASSES[name] for name in METHODS}
    budgets[pretrained_longer().budget or ""] = PASSES["at"] + PRETRAINING
    role = VARIANTS[cell.variant].role if cell.variant in VARIANTS else "method"
    usual = NO_GRADIENT_PASSES if role == "no_gradient" else PASSES.get(cell.variant, PASSES[JOINT])
    return budgets.get(cell.budget or "", usual) + (PRETRAINING if cell.init != "random" else 0.0)


def pretrained_longer() -> Cell:
    """Return AT from random weights with the passes of pre-training and AT."""
    return PLAIN._replace(budget=passes_of(PLAIN._replace(init="ssl"), "rotation"))


def study(*claims: str) -> World:
    """Return a study with the cells that claims (default: all) and their controls need, all equal to plain AT."""
    cells = [PLAIN._replace(eps_scale=scale) for scale in SCALES]
    for claim in claims or CLAIM_CELLS:
        cells += CLAIM_CELLS[claim]
    return World({cell: Truth(like=cell.eps_scale) for cell in cells})


def with_controls(*cells: Cell) -> list[Cell]:
    """Return methods with their controls."""
    return [made for cell in cells for made in (cell, longer(cell), no_gradient(cell))]


RANDOM_METHODS = [method_cell(name) for name in READINGS]
SSL_METHODS = [method_cell(name, "ssl") for name in READINGS]
SSL_PLAIN = PLAIN._replace(init="ssl")
LENGTHENED = [lengthened(method_cell(name)) for name in METHODS if PASSES[name] < PASSES[JOINT]]
CLAIM_CELLS = {
    "C2": with_controls(*RANDOM_METHODS),
    "C3": with_controls(*RANDOM_METHODS),
    "C4": [*map(method_cell, METHODS), *with_controls(method_cell(JOINT)), PLAIN._replace(variant=TWO), *LENGTHENED],
    "C5a": [SSL_PLAIN, pretrained_longer()],
    "C5b": [SSL_PLAIN, *with_controls(*SSL_METHODS)],
}


def nulls(size: float, margin: float = 1.0) -> dict[tuple[str, str], World]:
    """Return, by claim and name, worlds in which the claim is false; `size`: points of what explains it away.

    Each is the hardest of its kind: all that the claim needs holds by `size`, but for one part or control,
    which is exactly at its bound.
    """
    up, down = Truth(below=size, at=size, above=size), Truth(above=-size)
    gain, slide = Truth(below=size), Truth(like=0.6)
    longer_cells, no_gradient_cells = (
        [longer(cell) for cell in RANDOM_METHODS],
        [no_gradient(cell) for cell in RANDOM_METHODS],
    )
    weights = [method_cell(name, weight=weight) for name in READINGS for weight in (0.1, 0.5, 2.0)]
    beaten = [cell for cell in SSL_METHODS for cell in (longer(cell), no_gradient(cell))]
    c2, c3, c4, c5a, c5b = map(study, CLAIM_CELLS)
    joint, pretrained = method_cell(JOINT), SSL_PLAIN
    return {
        ("C2", "no effect"): c2,
        ("C2", "along AT's own frontier"): c2.with_truth(slide, *RANDOM_METHODS),
        ("C2", "AT at equal passes gains as much"): c2.with_truth(gain, *RANDOM_METHODS, *longer_cells),
        ("C2", "BatchNorm alone gains as much"): c2.with_truth(gain, *RANDOM_METHODS, *no_gradient_cells),
        ("C3", "no effect"): c3,
        ("C3", "along AT's own frontier"): c3.with_truth(slide, *RANDOM_METHODS),
        ("C3", "AT at equal passes loses as much"): c3.with_truth(down, *RANDOM_METHODS, *longer_cells),
        ("C3", "no slope in the weight"): c3.with_truth(down, *weights),
        ("C4", "no effect"): c4,
        ("C4", "a tie with one other method"): c4.with_truth(up, joint, method_cell("at_ssl_adv")),
        ("C4", "a cheaper method gains as much at equal passes"): c4.with_truth(up, joint, LENGTHENED[0]),
        ("C4", "two perturbations gain as much"): c4.with_truth(up, joint, PLAIN._replace(variant=TWO)),
        ("C5a", "no effect"): c5a,
        ("C5a", "longer AT gains as much"): c5a.with_truth(up, pretrained, pretrained_longer()),
        ("C5b", "a gain at the margin"): c5b.with_truth(up, *beaten).with_truth(Truth(at=margin), *SSL_METHODS),
        ("C5b", "a loss at the margin"): c5b.with_truth(up, *beaten).with_truth(Truth(at=-margin), *SSL_METHODS),
        ("C5b", "a gain below eps_train alone"): c5b.with_truth(up, *beaten).with_truth(
            Truth(below=margin), *SSL_METHODS
        ),
    }


def truths(effect: float) -> dict[str, World]:
    """Return, by claim, worlds in which it is true by `effect` points; for C5b the gain left inside the margin."""
    up = Truth(below=effect, at=effect, above=effect)
    c2, c3, c4, c5a, c5b = map(study, CLAIM_CELLS)
    return {
        "C2": c2.with_truth(Truth(below=effect), *RANDOM_METHODS),
        "C3": c3.with_truth(Truth(above=-effect), *RANDOM_METHODS),
        "C4": c4.with_truth(up, method_cell(JOINT)),
        "C5a": c5a.with_truth(up, SSL_PLAIN),
        "C5b": c5b.with_truth(up, *SSL_METHODS),
    }


def draw(world: World, size: Size, generator: np.random.Generator) -> dict[Cell, dict[int, IntArray]]:
    """Draw a study: per cell and seed the number of grid points that each image survives, (N,)."""
    shares = np.sqrt(PARTS)
    image = shares[0] * generator.standard_normal(size.images)
    common = generator.standard_normal(size.seeds) * np.sqrt(0.5)
    drawn: dict[Cell, dict[int, IntArray]] = {}
    for cell, truth in world.truths.items():
        of_cell = image + shares[1] * generator.standard_normal(size.images)
        rank = of_cell + shares[2] * generator.standard_normal((size.seeds, size.images))
        own, tilt = generator.standard_normal((2, size.seeds)) * np.sqrt([[0.35], [0.15]])
        factor = np.exp(generator.uniform(np.log(0.375), np.log(3))) if size.differ else 1.0
        factor = factor * np.where(generator.random(size.seeds) < size.outliers, 5.0, 1.0) if size.outliers else factor
        moved = size.seed_sd * ((common + own * factor)[:, None] + (tilt * factor)[:, None] * np.sign(GRID - 1))
        curves = np.minimum.accumulate(truth.curve() + moved, axis=1)
        bounds = ndtri((curves / 100).clip(0, 1))  # falling: survived are the bounds above an image's rank
        drawn[cell] = {seed: np.searchsorted(-bounds[seed], -rank[seed]) for seed in range(size.seeds)}
    return drawn


def sweeps_of(drawn: dict[Cell, dict[int, IntArray]]) -> Sweeps:
    """Make the sweeps of a drawn study."""
    cells = {cell: {seed: _sweep(each, passes(cell)) for seed, each in seeds.items()} for cell, seeds in drawn.items()}
    return Sweeps(GRID, cells)


def tables_of(drawn: dict[Cell, dict[int, IntArray]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write a drawn study as the tables robustness, examples and arms."""
    parts: list[tuple[pd.DataFrame, pd.DataFrame, dict[str, object]]] = []
    for cell, seeds in drawn.items():
        for seed, survived in seeds.items():
            arm = {"arm": f"{cell}-{cell.norm}-s{seed}", **cell._asdict(), "seed": seed}
            arm |= {"eps_train": REFERENCE * cell.eps_scale, "eval_norm": cell.norm}
            eps = GRID * REFERENCE
            accuracy = (survived[:, None] > np.arange(len(GRID))).mean(axis=0)
            values = {"eps": eps, "eps_multiple": GRID, "accuracy": accuracy, "n": len(survived)}
            failed = np.append(eps, np.inf)[survived]
            examples = {"example": np.arange(len(survived)), "first_failed": failed}
            parts.append((pd.DataFrame(arm | values), pd.DataFrame(arm | examples), arm | {"passes": passes(cell)}))
    robustness, outcomes, arms = zip(*parts, strict=True)
    return (
        pd.concat(robustness).reindex(columns=list(ROBUSTNESS)),
        pd.concat(outcomes).reindex(columns=list(ALL_EXAMPLES)),
        pd.DataFrame(list(arms)).reindex(columns=list(ARMS)),
    )


def supported(claim: str, world: World, size: Size, generator: np.random.Generator, *, margin: float = 1.0) -> bool:
    """Draw a study and say whether any primary cell of a claim comes out as supported, at any of its looks."""
    settings = Findings(margin=margin, looks=list(size.looks))
    judged = judged_claim(sweeps_of(draw(world, size, generator)), settings, claim)
    return any(verdict(each)[0] == "supported" for each in judged)


def _sweep(survived: IntArray, passes: float) -> Sweep:
    """Make a sweep from the number of grid points that each image survived, (N,)."""
    images = np.arange(len(survived))
    accuracy = np.vstack([(survived[:, None] > np.arange(len(GRID))).mean(0), left_out(images, survived, len(GRID))])
    return Sweep(100 * accuracy, np.full(len(GRID), len(survived)), images, survived, passes)
