"""How large a study has to be: from finished seeds to what each claim could detect, and at what cost."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from ssrob.analysis.claims import evidence, primary_cells, tested
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.evidence import Comparison
from ssrob.analysis.statistics import least_shown
from ssrob.analysis.sweeps import Cell

MOST_SEEDS = 1000
SIZES = (1.0, 2.0)  # points
MORE_IMAGES = 1000  # the step in test images that is weighed against one more seed


@dataclass(frozen=True)
class Cost:
    """What one model of a cell costs: seconds of training, and of its test as it was run; NaN if unknown."""

    training: float = math.nan
    testing: float = math.nan


@dataclass(frozen=True)
class Outlook:
    """What one cell of a claim could detect at a planned size, and what other sizes it would take.

    detectable: points, by the comparison (of parts and controls) that can detect least. seeds and images: by size of
    the effect (points), how many seeds at the planned images, and images at the planned seeds; None where no number
    suffices. hours: core-hours of the plan, and of each such number of seeds and of images. advice: which step pays
    more.
    """

    claim: str
    cell: str
    limiting: str
    now: float
    detectable: float
    seeds: Mapping[float, int | None]
    images: Mapping[float, int | None]
    hours: float
    hours_seeds: Mapping[float, float]
    hours_images: Mapping[float, float]
    advice: str


@dataclass(frozen=True)
class _Study:
    """The comparisons that a cell's claim rests on, the cells that they take, and what these cost."""

    parts: list[Comparison]
    cells: frozenset[Cell]
    alpha: float
    costs: Mapping[Cell, Cost]

    @property
    def measured(self) -> int:
        """The test images of the finished seeds."""
        return max(part.n for part in self.parts)

    def detectable(self, seeds: int, images: int) -> float:
        """Return what all comparisons could detect."""
        return max(self.of_part(part, seeds, images) for part in self.parts)

    def of_part(self, part: Comparison, seeds: int, images: int) -> float:
        variances, more_images = part.known.variances, images / part.n if part.n else 1.0
        assert variances is not None
        return least_shown(variances.planned(part.known.seeds, seeds, more_images), part.alternative, self.alpha)

    def hours(self, seeds: int, images: int) -> float:
        """Return the core-hours of all cells, tests growing with their images; NaN if some cost is unknown."""
        costs = [self.costs.get(cell, Cost()) for cell in self.cells]
        return seeds * sum(each.training + images / self.measured * each.testing for each in costs) / 3600


def outlook(
    comparisons: Comparisons, seeds: int, images: Mapping[str, int], costs: Mapping[Cell, Cost]
) -> list[Outlook]:
    """Return the outlook of every claim with two or more finished seeds; images: planned test images, by claim.

    For AUROC the images of the other sets grow with the test images.
    """
    sweeps, settings, outlooks = comparisons.sweeps, comparisons.settings, list[Outlook]()
    for name, row in settings.all_claims.items():
        for ours in primary_cells(comparisons, row) if tested(comparisons, row) else []:
            gathered = evidence(comparisons, row, ours)
            parts = gathered.comparisons
            known = [part for part in parts if part.estimate is not None and part.estimate.variances is not None]
            cells = frozenset(cell for part in parts for cell in part.cells if cell in sweeps.cells)
            if known:
                study = _Study(known, cells, settings.look_alpha, costs)
                outlooks.append(_outlook(name, str(ours), study, seeds, images[name]))
    return outlooks


def _outlook(claim: str, cell: str, study: _Study, seeds: int, images: int) -> Outlook:
    worst = max(study.parts, key=lambda part: study.of_part(part, seeds, images))
    more_seeds = {size: _least_seeds(study, size, images) for size in SIZES}
    more_images = {size: _least_images(study, size, seeds) for size in SIZES}
    return Outlook(
        claim,
        cell,
        worst.name,
        study.of_part(worst, worst.known.seeds, worst.n),
        study.detectable(seeds, images),
        more_seeds,
        more_images,
        study.hours(seeds, images),
        {size: study.hours(n, images) if n else math.nan for size, n in more_seeds.items()},
        {size: study.hours(seeds, n) if n else math.nan for size, n in more_images.items()},
        _advice(study, seeds, images),
    )


def _least_seeds(study: _Study, size: float, images: int) -> int | None:
    """Return the fewest seeds, three at least, that detect an effect; None if the images alone forbid it."""
    seeds = bisect_left(
        range(MOST_SEEDS + 1), True, lo=3, key=lambda planned: study.detectable(planned, images) <= size
    )
    return seeds if seeds <= MOST_SEEDS else None


def _least_images(study: _Study, size: float, seeds: int) -> int | None:
    """Return the fewest test images, to two digits, that detect an effect; None if the seeds alone forbid it."""
    low, high = 10, 10_000_000
    if study.detectable(seeds, high) > size:
        return None
    while high > 1.02 * low:
        middle = round(math.sqrt(low * high))
        low, high = (low, middle) if study.detectable(seeds, middle) <= size else (middle, high)
    return int(float(f"{high:.1e}"))


def _advice(study: _Study, seeds: int, images: int) -> str:
    """Say whether a further seed or 1,000 further images lower the smallest detectable effect more per core-hour."""
    now, hours = study.detectable(seeds, images), study.hours(seeds, images)
    by_seed = (now - study.detectable(seeds + 1, images), study.hours(seeds + 1, images) - hours)
    by_images = (now - study.detectable(seeds, images + MORE_IMAGES), study.hours(seeds, images + MORE_IMAGES) - hours)
    if math.isnan(hours):
        return ""
    gain = [step / cost if cost > 0 else math.inf for step, cost in (by_seed, by_images)]
    return "a seed more" if gain[0] >= gain[1] else f"{MORE_IMAGES:,} images more"
