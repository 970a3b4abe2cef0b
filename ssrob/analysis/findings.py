"""The findings table: primary cells with verdicts, what they rest on, and exploratory cells."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ssrob.analysis.claims import CLAIMS, at_eps, exploratory_cells, primary_cells
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.statistics import least_shown
from ssrob.analysis.sweeps import Sweeps, from_tables
from ssrob.analysis.verdicts import AdjustedEvidence, Comparison, Evidence, deciding_p, judge, verdict
from ssrob.config.study import Findings
from ssrob.formatting import signed
from ssrob.storage.tables import FINDINGS

QUESTIONS = {
    "C2": "SSL inside AT raises robust accuracy below eps_train",
    "C3": "SSL inside AT lowers robust accuracy above eps_train, and over several weights more with a larger one",
    "C4": "SSL in the loss and in the attack at once is the strongest way",
    "C5a": "SSL pre-training improves AT",
    "C5b": "after SSL pre-training, SSL inside AT brings no further benefit",
}
Row = dict[str, Any]


def findings(robustness: pd.DataFrame, examples: pd.DataFrame, arms: pd.DataFrame, settings: Findings) -> pd.DataFrame:
    """Turn a study's tables into effects, intervals and verdicts (columns `tables.FINDINGS`).

    robustness, examples and arms as `tables.ROBUSTNESS`, `ALL_EXAMPLES` and `ARMS`. Every claim has its
    primary rows whatever was trained; what is missing is named in the note. Without `examples` the intervals
    hold for these very test images alone, and a single seed is not tested.
    """
    comparisons = Comparisons(from_tables(robustness, examples, arms), settings)
    rows = [row for claim in CLAIMS for row in [*_primary(comparisons, claim), *_exploratory(comparisons, claim)]]
    return pd.DataFrame(rows, columns=list(FINDINGS))


def judged_claim(sweeps: Sweeps, settings: Findings, claim: str) -> list[AdjustedEvidence]:
    """Judge the primary cells of a claim."""
    comparisons = Comparisons(sweeps, settings)
    family = [CLAIMS[claim](comparisons, cell) for cell in primary_cells(comparisons, claim)]
    return judge(family, settings)


def _primary(comparisons: Comparisons, claim: str) -> Iterator[Row]:
    """Return the rows with verdicts, then what each rests on."""
    judged = judged_claim(comparisons.sweeps, comparisons.settings, claim)
    for each in judged:
        name, note = verdict(each)
        told = {"primary": True, "p": each.p, "test": _test(each), "verdict": name, "note": note}
        yield _row(comparisons, claim, each.evidence, each.evidence.shown) | told
    for each in judged:
        yield from _rests_on(comparisons, claim, each.evidence)


def _exploratory(comparisons: Comparisons, claim: str) -> Iterator[Row]:
    for cell in exploratory_cells(comparisons, claim):
        evidence = CLAIMS[claim](comparisons, cell)
        yield _row(comparisons, claim, evidence, evidence.shown)
        yield from _rests_on(comparisons, claim, evidence)
    if claim == "C3":
        ways = {*primary_cells(comparisons, claim), *exploratory_cells(comparisons, claim)}
        for cell in sorted(ways, key=lambda cell: tuple(map(str, cell))):
            evidence = at_eps(comparisons, cell)
            yield _row(comparisons, claim, evidence, evidence.shown) | {
                "question": "the difference at eps_train itself"
            }


def _rests_on(comparisons: Comparisons, claim: str, evidence: Evidence) -> Iterator[Row]:
    """Return the parts and controls that there are, besides the part that was shown."""
    parts = evidence.parts if evidence.weakest else evidence.parts[1:]
    for part in [*parts, *evidence.controls]:
        if part.estimate:
            yield _row(comparisons, claim, evidence, part)


def _row(comparisons: Comparisons, claim: str, evidence: Evidence, part: Comparison) -> Row:
    """Write one comparison as an exploratory row; its p value is not corrected."""
    found = part.estimate
    told = {"claim": claim, "question": f"{QUESTIONS[claim]}? against {part.name}", "cell": part.cell, "primary": False}
    row: Row = told | {name: math.nan if found is None else getattr(found, name) for name in ("effect", "low", "high")}
    row["detectable"] = least_shown(found, part.alternative, comparisons.settings.alpha) if found else math.nan
    row |= {"p": deciding_p(part, comparisons.settings)}
    row |= {"seeds": found.seeds if found else 0, "n": part.n, "test": found.test if found else ""}
    return row | {"verdict": "", "note": _aside(evidence, part)}


def _test(judged: AdjustedEvidence) -> str:
    """Name the test of a primary row, with what it is part of."""
    evidence, found = judged.evidence, judged.evidence.shown.estimate
    if found is None or found.seeds < 2:
        return found.test if found else ""
    kinds = ["TOST"] if evidence.shown.alternative == "equivalent" else []
    kinds += [f"intersection-union over {len(evidence.parts)} ways"] if evidence.weakest else []
    return ", ".join([*kinds, found.test, *([f"Holm over {judged.cells} cells"] if judged.cells > 1 else [])])


def _aside(evidence: Evidence, part: Comparison) -> str:
    """Say what a row without a verdict shows."""
    if part.estimate is None:
        return f"{evidence.subject} {evidence.where}: not compared, missing: {'; '.join(part.missing)}."
    found = part.estimate
    told = f"{evidence.subject}: {signed(found.effect)} against {part.name} {part.where or evidence.where}"
    if math.isnan(found.low):
        return f"{told}; exploratory, without an interval."
    return f"{told}; exploratory, the interval {'includes' if found.low <= 0 <= found.high else 'excludes'} 0."
