"""What decides a claim: its comparisons with their p values, corrected for the number of its cells."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ssrob.analysis.statistics import Alternative, Estimate, holm, p_opposite, p_value
from ssrob.analysis.sweeps import Cell
from ssrob.config.findings import Findings


@dataclass(frozen=True)
class Comparison:
    """One comparison that a claim rests on, or one of its controls."""

    name: str  # what it is compared with, in words
    alternative: Alternative
    estimate: Estimate | None
    missing: tuple[str, ...] = ()  # what the study would have to have for it
    n: int = 0
    cell: str = ""
    where: str = ""  # the one grid point that was looked at, where the claim's interval has more (one seed)
    cells: tuple[Cell, ...] = ()  # that it takes

    @property
    def known(self) -> Estimate:
        """The estimate, of a comparison that has one."""
        assert self.estimate is not None
        return self.estimate

    @property
    def tested(self) -> bool:
        """Say whether there is a p value: something to compare, several seeds and some spread."""
        return self.estimate is not None and self.estimate.seeds > 1 and not math.isnan(self.estimate.p)

    def p(self, settings: Findings) -> float:
        """Return the p value of the alternative; NaN if it was not tested."""
        return p_value(self.known, self.alternative, settings.margin) if self.tested else math.nan

    def p_opposite(self, settings: Findings) -> float:
        """Return the p value of the alternative's opposite; NaN if it was not tested."""
        return p_opposite(self.known, self.alternative, settings.margin) if self.tested else math.nan

    def deciding_p(self, settings: Findings) -> float:
        """Return the p value that tables show, of the alternative; with one seed McNemar's, which decides nothing."""
        single = self.estimate is not None and self.estimate.seeds < 2
        return self.known.p if single else self.p(settings)

    @property
    def strength(self) -> float:
        """The signed t value of what is wanted: the smaller, the weaker."""
        estimate, sign = self.known, -1 if self.alternative == "loss" else 1
        return sign * estimate.effect / (estimate.se if estimate.se > 0 else 1.0)


@dataclass(frozen=True)
class Evidence:
    """All that decides one cell of a claim. It holds if every part and every control does (intersection-union)."""

    subject: str  # what was trained, in words
    where: str  # eps interval, in words
    parts: list[Comparison]  # the first is shown; for C4 the weakest
    controls: list[Comparison]
    remark: str = ""
    weakest: bool = False

    @property
    def comparisons(self) -> list[Comparison]:
        """Parts and controls."""
        return [*self.parts, *self.controls]

    @property
    def shown(self) -> Comparison:
        """The part whose numbers stand in the table: the first, or the one furthest from being shown."""
        if not self.weakest:
            return self.parts[0]
        return min(self.parts, key=lambda part: math.inf if part.estimate is None else part.strength)

    @property
    def missing(self) -> str:
        """The parts without which the claim cannot be looked at."""
        return lacking(part for part in self.parts if part.estimate is None)


@dataclass(frozen=True)
class AdjustedEvidence:
    """Evidence with p values corrected for the number of the claim's primary cells (Holm)."""

    evidence: Evidence
    settings: Findings
    p: float  # of the part that is shown
    support: float  # the largest of all parts and controls
    against: float  # the smallest of the parts' opposites, itself corrected for the number of parts
    cells: int  # primary cells of the claim
    look: int = 0  # the number of seeds at which it is judged; 0: all
    waiting: str = ""  # why it is not judged yet

    @property
    def estimate(self) -> Estimate:
        """The estimate that is shown."""
        return self.evidence.shown.known

    def failing(self, parts: list[Comparison]) -> Comparison | None:
        """Return the first part that is not shown at level alpha."""
        return next((part for part in parts if not part.p(self.settings) < self.settings.look_alpha), None)


def judge(family: list[Evidence], settings: Findings) -> list[AdjustedEvidence]:
    """Correct the p values over a claim's primary cells, in each direction on its own.

    A claim holds for a cell only if all its parts and controls hold, so that the largest p value is one for
    the whole (intersection-union, Berger 1982); Holm over these keeps the chance of any false `supported` in
    a claim at alpha.
    """
    every = [[part.p(settings) for part in evidence.comparisons] for evidence in family]
    support = holm([float(np.max(each)) for each in every])  # NaN if any is: something was not tested
    opposite = [holm([part.p_opposite(settings) for part in evidence.parts]) for evidence in family]
    against = holm([float(np.min(each)) for each in opposite])
    shown = holm([evidence.shown.deciding_p(settings) for evidence in family])
    return [
        AdjustedEvidence(family[i], settings, shown[i], support[i], against[i], len(family)) for i in range(len(family))
    ]


def lacking(parts: Iterable[Comparison]) -> str:
    """Name what parts lack, each thing once."""
    names = [name for part in parts for name in part.missing or (f"more seeds for {part.name}",)]
    return "; ".join(dict.fromkeys(names))
