"""From evidence to a verdict: one table of rules, read from the top; the first that applies decides."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ssrob.analysis.statistics import Alternative, Estimate, holm, p_opposite, p_value
from ssrob.analysis.sweeps import Cell
from ssrob.config.findings import Findings
from ssrob.formatting import interval, signed

LEAST_SEEDS = 3  # of two, intervals cover too little where arms scatter differently (benchmarks/coverage.py)


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
    def tested(self) -> bool:
        """Say whether there is a p value: something to compare, several seeds and some spread."""
        return self.estimate is not None and self.estimate.seeds > 1 and not math.isnan(self.estimate.p)


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
    def shown(self) -> Comparison:
        """Return the part whose numbers stand in the table: the first, or the one furthest from being shown."""
        if not self.weakest:
            return self.parts[0]
        return max(self.parts, key=lambda part: -math.inf if part.estimate is None else -_strength(part))

    @property
    def missing(self) -> str:
        """Name the parts without which the claim cannot be looked at."""
        return _names(part for part in self.parts if part.estimate is None)


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
        """Return the estimate that is shown."""
        estimate = self.evidence.shown.estimate
        assert estimate is not None
        return estimate

    def failing(self, parts: list[Comparison]) -> Comparison | None:
        """Return the first part that is not shown at level alpha."""
        p_values = ((part, _p(part, self.settings)) for part in parts)
        return next((part for part, p in p_values if not p < self.settings.look_alpha), None)


def judge(family: list[Evidence], settings: Findings) -> list[AdjustedEvidence]:
    """Correct the p values over a claim's primary cells, in each direction on its own.

    A claim holds for a cell only if all its parts and controls hold, so that the largest p value is one for
    the whole (intersection-union, Berger 1982); Holm over these keeps the chance of any false `supported` in
    a claim at alpha.
    """
    everything = [[_p(part, settings) for part in evidence.parts + evidence.controls] for evidence in family]
    support = holm([float(np.max(each)) for each in everything])  # NaN if any is: something was not tested
    opposite = [holm([_opposite(part, settings) for part in evidence.parts]) for evidence in family]
    against = holm([float(np.min(each)) for each in opposite])
    shown = holm([deciding_p(each.shown, settings) for each in family])
    return [
        AdjustedEvidence(evidence, settings, shown[i], support[i], against[i], len(family))
        for i, evidence in enumerate(family)
    ]


def deciding_p(part: Comparison, settings: Findings) -> float:
    """Return the p value that tables show, of the alternative; with one seed McNemar's, which decides nothing."""
    if part.estimate is not None and part.estimate.seeds < 2:
        return part.estimate.p
    return _p(part, settings)


def verdict(judged: AdjustedEvidence) -> tuple[str, str]:
    """Return `supported`, `contradicted`, `inconclusive` or `underpowered`, and why in one sentence.

    The level of the test guards against false findings, whatever its power. What is not shown is `underpowered` if
    the study could not have shown it, `inconclusive` if it had the power.
    """
    name, why = next((name, why) for applies, name, why in RULES if applies(judged))
    reason = why(judged) + _when(judged, decided=name in ("supported", "contradicted"))
    weak = _underpowered(judged, judged.evidence.shown) if name in ("supported", "contradicted") else ""
    if weak:
        reason += f"; found with little power ({weak}), so its size is likely overstated"
    return name, describe(judged.evidence, reason)


def _when(judged: AdjustedEvidence, *, decided: bool) -> str:
    """Say at which look a verdict was made, and when the next is."""
    if not judged.look:
        return ""
    later = [look for look in judged.settings.looks if look > judged.look]
    after = f", the next look is at {later[0]}" if later and not decided else ""
    return f"; at the look with {judged.look} seeds{after}"


def describe(evidence: Evidence, why: str) -> str:
    """Write the note: what was found, where, and why it reads as it does."""
    estimate = evidence.shown.estimate
    remark = f"; {evidence.remark}" if evidence.remark else ""
    if evidence.missing or estimate is None:
        return f"{evidence.subject} {evidence.where}: {why}{remark}."
    verb = "gains" if estimate.effect >= 0 else "loses"
    return (
        f"{evidence.subject} {verb} {abs(estimate.effect):.1f} points {evidence.shown.where or evidence.where} "
        f"against {evidence.shown.name}; {why}{remark}."
    )


def _few_seeds(judged: AdjustedEvidence) -> str:
    few = [part for part in judged.evidence.parts if part.estimate is not None and part.estimate.seeds < LEAST_SEEDS]
    if not few:
        return ""
    named = "" if judged.evidence.shown in few else f" of {_list(part.name for part in few)}"
    seeds = min(part.estimate.seeds for part in few if part.estimate is not None)
    if seeds == 1:
        return f"one seed{named} says nothing about another"
    return f"{seeds} seeds{named} say too little about others: a verdict takes {LEAST_SEEDS}"


def _absent_controls(judged: AdjustedEvidence) -> str:
    absent = [part for part in judged.evidence.controls if not _decides(part)]
    return f"controls are missing ({_names(absent)})" if absent else ""


def _not_shown(judged: AdjustedEvidence) -> str:
    part = judged.failing(judged.evidence.parts)
    if part is None:
        return ""
    assert part.estimate is not None
    weak = _underpowered(judged, part)
    ending = f"; {weak}" if weak else ""
    if part.alternative == "equivalent":
        level = 100 * (1 - 2 * judged.settings.look_alpha)
        return f"the {level:g} % interval is not within {judged.settings.margin:g} points of 0{ending}"
    named = "" if part is judged.evidence.shown else f" of {part.name}"
    where = "includes 0" if part.estimate.p >= judged.settings.look_alpha else "lies on the wrong side of 0"
    return f"the interval{named} ({interval(part.estimate.low, part.estimate.high, sign=True)}) {where}{ending}"


def _failed_control(judged: AdjustedEvidence) -> str:
    part = judged.failing(judged.evidence.controls)
    if part is None:
        return ""
    assert part.estimate is not None
    weak = _underpowered(judged, part)
    ending = f": {weak}" if weak else ""
    return f"but this does not hold against {part.name} ({signed(part.estimate.effect)}){ending}"


def _underpowered(judged: AdjustedEvidence, part: Comparison | None) -> str:
    """Say what a comparison could have shown at least, if that is more than the study asks for; empty otherwise."""
    if part is None or part.estimate is None:
        return ""
    estimate, settings = part.estimate, judged.settings
    least = estimate.detectable(part.alternative, settings.look_alpha)
    bounded = part.alternative in ("equivalent", "not_greater")
    asked = settings.margin if bounded else settings.detectable
    if not least > asked:
        return ""
    sizes = f"{estimate.seeds} seeds and {part.n} images" if part.n else f"{estimate.seeds} seeds"
    what = "show a margin of" if bounded else "detect"
    return f"{sizes} could only {what} {least:.1f} points, the study asks for {asked:g}"


def _open_but_weak(judged: AdjustedEvidence, parts: list[Comparison]) -> bool:
    """Say whether the first comparison that is not shown could not have been, and its opposite is not shown either."""
    part = judged.failing(parts)
    if part is None or _opposite(part, judged.settings) < judged.settings.look_alpha or _outside(part, judged.settings):
        return False
    return bool(_underpowered(judged, part))


def _outside(part: Comparison, settings: Findings) -> bool:
    """Say whether the whole interval of an equivalence lies below its margin: a loss, which is no gain either."""
    estimate = part.estimate
    return part.alternative == "equivalent" and estimate is not None and estimate.high < -settings.margin


def _names(parts: Iterable[Comparison]) -> str:
    """Name what parts lack, each thing once."""
    lacking = [name for part in parts for name in part.missing or (f"more seeds for {part.name}",)]
    return _list(lacking)


def _list(names: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(names))


def _not_after_holm(judged: AdjustedEvidence) -> str:
    return f"not after Holm's correction over the claim's {judged.cells} cells"


Rule = tuple[Callable[[AdjustedEvidence], bool], str, Callable[[AdjustedEvidence], str]]
RULES: tuple[Rule, ...] = (
    (
        lambda j: bool(j.evidence.missing),
        "inconclusive",
        lambda j: f"not compared, missing: {j.evidence.missing}",
    ),
    (
        lambda j: bool(j.waiting),
        "inconclusive",
        lambda j: j.waiting,
    ),
    (
        lambda j: bool(_few_seeds(j)),
        "underpowered",
        _few_seeds,
    ),
    (
        lambda j: not all(part.tested for part in j.evidence.parts),
        "inconclusive",
        lambda j: "the seeds do not differ at all, so there is no spread to test against",
    ),
    (
        lambda j: j.against < j.settings.look_alpha,
        "contradicted",
        lambda j: "the opposite of the claim",
    ),
    (
        lambda j: _open_but_weak(j, j.evidence.parts),
        "underpowered",
        _not_shown,
    ),
    (
        lambda j: j.failing(j.evidence.parts) is not None,
        "inconclusive",
        _not_shown,
    ),
    (
        lambda j: bool(_absent_controls(j)),
        "inconclusive",
        _absent_controls,
    ),
    (
        lambda j: _open_but_weak(j, j.evidence.controls),
        "underpowered",
        _failed_control,
    ),
    (
        lambda j: j.failing(j.evidence.controls) is not None,
        "inconclusive",
        _failed_control,
    ),
    (
        lambda j: j.support < j.settings.look_alpha,
        "supported",
        lambda j: "this also holds against " + ", ".join(part.name for part in j.evidence.controls),
    ),
    (
        lambda j: bool(_underpowered(j, j.evidence.shown)),
        "underpowered",
        lambda j: f"{_not_after_holm(j)}; {_underpowered(j, j.evidence.shown)}",
    ),
    (
        lambda j: True,
        "inconclusive",
        _not_after_holm,
    ),
)


def _decides(part: Comparison) -> bool:
    """Say whether a comparison has the seeds for a verdict."""
    return part.tested and part.estimate is not None and part.estimate.seeds >= LEAST_SEEDS


def _p(part: Comparison, settings: Findings) -> float:
    estimate = part.estimate
    return p_value(estimate, part.alternative, settings.margin) if estimate and part.tested else math.nan


def _opposite(part: Comparison, settings: Findings) -> float:
    estimate = part.estimate
    return p_opposite(estimate, part.alternative, settings.margin) if estimate and part.tested else math.nan


def _strength(part: Comparison) -> float:
    """Return the signed t value of what is wanted: the smaller, the weaker."""
    assert part.estimate is not None
    sign = -1 if part.alternative == "loss" else 1
    return sign * part.estimate.effect / (part.estimate.se if part.estimate.se > 0 else 1.0)
