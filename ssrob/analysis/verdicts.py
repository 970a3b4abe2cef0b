"""From evidence to a verdict: one table of rules, read from the top; the first that applies decides."""

from collections.abc import Callable

from ssrob.analysis.evidence import AdjustedEvidence, Comparison, Evidence, lacking
from ssrob.config.findings import Findings
from ssrob.formatting import interval, signed

LEAST_SEEDS = 3  # of two, intervals cover too little where arms scatter differently (benchmarks/coverage.py)
DECIDED = ("supported", "contradicted")


def verdict(judged: AdjustedEvidence) -> tuple[str, str]:
    """Return `supported`, `contradicted`, `inconclusive` or `underpowered`, and why in one sentence.

    The level of the test guards against false findings, whatever its power. What is not shown is `underpowered` if
    the study could not have shown it, `inconclusive` if it had the power.
    """
    name, why = next((name, why) for name, reason in RULES if (why := reason(judged)))
    why += _when(judged, decided=name in DECIDED)
    if name in DECIDED and (weak := _underpowered(judged, judged.evidence.shown)) and _may_be_luck(judged):
        why += f"; found with little power ({weak}), so its size is likely overstated"
    return name, describe(judged.evidence, why)


def _may_be_luck(judged: AdjustedEvidence) -> bool:
    """Say whether the effect may be one that such a study sees by luck alone: its interval reaches below that size.

    Estimates of an effect that is found in almost every study are not overstated on average (Gelman and Carlin 2014).
    """
    estimate = judged.estimate
    least = estimate.detectable(judged.evidence.shown.alternative, judged.settings.look_alpha)
    return min(abs(estimate.low), abs(estimate.high)) < least


def _when(judged: AdjustedEvidence, *, decided: bool) -> str:
    """Say at which look a verdict was made, and when the next is."""
    if not judged.look:
        return ""
    later = [look for look in judged.settings.looks if look > judged.look]
    after = f", the next look is at {later[0]}" if later and not decided else ""
    return f"; at the look with {judged.look} seeds{after}"


def describe(evidence: Evidence, why: str) -> str:
    """Write the note: what was found, where, and why it reads as it does."""
    shown = evidence.shown
    remark = f"; {evidence.remark}" if evidence.remark else ""
    if evidence.missing or shown.estimate is None:
        return f"{evidence.subject} {evidence.where}: {why}{remark}."
    change = f"{'gains' if shown.estimate.effect >= 0 else 'loses'} {abs(shown.estimate.effect):.1f} points"
    return f"{evidence.subject} {change} {shown.where or evidence.where} against {shown.name}; {why}{remark}."


def _missing(judged: AdjustedEvidence) -> str:
    missing = judged.evidence.missing
    return f"not compared, missing: {missing}" if missing else ""


def _few_seeds(judged: AdjustedEvidence) -> str:
    few = [part for part in judged.evidence.parts if part.estimate is not None and part.estimate.seeds < LEAST_SEEDS]
    if not few:
        return ""
    names = dict.fromkeys(part.name for part in few)
    named = "" if judged.evidence.shown in few else f" of {'; '.join(names)}"
    seeds = min(part.known.seeds for part in few)
    if seeds == 1:
        return f"one seed{named} says nothing about another"
    return f"{seeds} seeds{named} say too little about others: a verdict takes {LEAST_SEEDS}"


def _no_spread(judged: AdjustedEvidence) -> str:
    every = all(part.tested for part in judged.evidence.parts)
    return "" if every else "the seeds do not differ at all, so there is no spread to test against"


def _opposite(judged: AdjustedEvidence) -> str:
    return "the opposite of the claim" if judged.against < judged.settings.look_alpha else ""


def _not_shown(judged: AdjustedEvidence) -> str:
    part = judged.failing(judged.evidence.parts)
    if part is None:
        return ""
    weak = _underpowered(judged, part)
    ending = f"; {weak}" if weak else ""
    if part.alternative == "equivalent":
        if _outside(part, judged.settings):
            interval_ = interval(part.known.low, part.known.high, sign=True)
            return f"a loss is no benefit, and no equivalence either: the interval ({interval_}) lies below the margin"
        level = 100 * (1 - 2 * judged.settings.look_alpha)
        return f"the {level:g} % interval is not within {judged.settings.margin:g} points of 0{ending}"
    named = "" if part is judged.evidence.shown else f" of {part.name}"
    estimate = part.known
    where = "includes 0" if estimate.p >= judged.settings.look_alpha else "lies on the wrong side of 0"
    return f"the interval{named} ({interval(estimate.low, estimate.high, sign=True)}) {where}{ending}"


def _absent_controls(judged: AdjustedEvidence) -> str:
    absent = [part for part in judged.evidence.controls if not (part.tested and part.known.seeds >= LEAST_SEEDS)]
    return f"controls are missing ({lacking(absent)})" if absent else ""


def _failed_control(judged: AdjustedEvidence) -> str:
    part = judged.failing(judged.evidence.controls)
    if part is None:
        return ""
    weak = _underpowered(judged, part)
    return f"but this does not hold against {part.name} ({signed(part.known.effect)}){f': {weak}' if weak else ''}"


def _all_hold(judged: AdjustedEvidence) -> str:
    names = ", ".join(part.name for part in judged.evidence.controls)
    return f"this also holds against {names}" if judged.support < judged.settings.look_alpha else ""


def _not_after_holm(judged: AdjustedEvidence) -> str:
    return f"not after Holm's correction over the claim's {judged.cells} cells"


def _weak_after_holm(judged: AdjustedEvidence) -> str:
    weak = _underpowered(judged, judged.evidence.shown)
    return f"{_not_after_holm(judged)}; {weak}" if weak else ""


def _underpowered(judged: AdjustedEvidence, part: Comparison) -> str:
    """Say what a comparison could have shown at least, if that is more than the study asks for; empty otherwise."""
    if part.estimate is None:
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


def _weak(judged: AdjustedEvidence, parts: list[Comparison]) -> bool:
    """Say whether the first comparison that is not shown could not have been, and its opposite is not shown either."""
    part, settings = judged.failing(parts), judged.settings
    if part is None or part.p_opposite(settings) < settings.look_alpha or _outside(part, settings):
        return False
    return bool(_underpowered(judged, part))


def _outside(part: Comparison, settings: Findings) -> bool:
    """Say whether the whole interval of an equivalence lies below its margin: a loss, which is no gain either."""
    estimate = part.estimate
    return part.alternative == "equivalent" and estimate is not None and estimate.high < -settings.margin


RULES: tuple[tuple[str, Callable[[AdjustedEvidence], str]], ...] = (  # the reason is empty where a rule does not apply
    ("inconclusive", _missing),
    ("inconclusive", lambda judged: judged.waiting),
    ("underpowered", _few_seeds),
    ("inconclusive", _no_spread),
    ("contradicted", _opposite),
    ("underpowered", lambda judged: _not_shown(judged) if _weak(judged, judged.evidence.parts) else ""),
    ("inconclusive", _not_shown),
    ("inconclusive", _absent_controls),
    ("underpowered", lambda judged: _failed_control(judged) if _weak(judged, judged.evidence.controls) else ""),
    ("inconclusive", _failed_control),
    ("supported", _all_hold),
    ("underpowered", _weak_after_holm),
    ("inconclusive", _not_after_holm),
)
