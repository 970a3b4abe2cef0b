"""The findings table: primary cells with verdicts, what they rest on, and exploratory cells."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ssrob.analysis.claims import at_eps, evidence, exploratory_cells, primary_cells, tested
from ssrob.analysis.comparisons import Comparisons, comparisons_by_measure
from ssrob.analysis.looks import judged_claim
from ssrob.analysis.verdicts import AdjustedEvidence, Comparison, Evidence, deciding_p, verdict
from ssrob.config.findings import Findings
from ssrob.config.variants import Variant, built_in_variants
from ssrob.formatting import signed
from ssrob.storage.tables import FINDINGS

Row = dict[str, Any]


def findings(
    robustness: pd.DataFrame,
    examples: pd.DataFrame,
    arms: pd.DataFrame,
    settings: Findings,
    variants: Mapping[str, Variant] | None = None,
    *,
    scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Turn a study's tables into effects, intervals and verdicts (columns `tables.FINDINGS`).

    robustness, examples and arms as `tables.ROBUSTNESS`, `ALL_EXAMPLES` and `ARMS`. A claim has rows if what it
    compares was trained; what else is missing is named in the note. Without `examples` the intervals hold for
    these very test images alone, and a single seed is not tested. variants: the study's; default: the shipped ones.
    scores: as `tables.OOD_SCORES`, for claims on detection.
    """
    tables = {"robustness": robustness, "examples": examples, "arms": arms}
    tables |= {} if scores is None else {"ood_scores": scores}
    rows = []
    for comparisons in comparisons_by_measure(tables, settings, variants or built_in_variants()):
        judged = [name for name, claim in settings.all_claims.items() if tested(comparisons, claim)]
        rows += [row for name in judged for row in [*_primary(comparisons, name), *_exploratory(comparisons, name)]]
    return pd.DataFrame(rows, columns=list(FINDINGS)).astype({"primary": bool})


def _primary(comparisons: Comparisons, claim: str) -> Iterator[Row]:
    """Return the rows with verdicts, then what each rests on."""
    judged = judged_claim(comparisons.sweeps, comparisons.settings, claim, comparisons.variants)
    for each in judged:
        name, note = verdict(each)
        decided = {"primary": True, "p": each.p, "test": _test(each), "verdict": name, "note": note}
        yield _row(comparisons, claim, each.evidence, each.evidence.shown) | decided
    for each in judged:
        yield from _rests_on(comparisons, claim, each.evidence)


def _exploratory(comparisons: Comparisons, claim: str) -> Iterator[Row]:
    row = comparisons.settings.all_claims[claim]
    others = exploratory_cells(comparisons, row)
    for cell in others:
        result = evidence(comparisons, row, cell)
        yield _row(comparisons, claim, result, result.shown)
        yield from _rests_on(comparisons, claim, result)
    if row.where == "above":
        for cell in sorted({*primary_cells(comparisons, row), *others}, key=lambda cell: tuple(map(str, cell))):
            result = at_eps(comparisons, cell)
            question = {"question": "the difference at eps_train itself"}
            yield _row(comparisons, claim, result, result.shown) | question


def _rests_on(comparisons: Comparisons, claim: str, evidence: Evidence) -> Iterator[Row]:
    """Return the parts and controls that there are, besides the part that was shown."""
    parts = evidence.parts if evidence.weakest else evidence.parts[1:]
    for part in [*parts, *evidence.controls]:
        if part.estimate:
            yield _row(comparisons, claim, evidence, part)


def _row(comparisons: Comparisons, claim: str, evidence: Evidence, part: Comparison) -> Row:
    """Write one comparison as an exploratory row; its p value is not corrected."""
    estimate = part.estimate
    question = f"{comparisons.settings.all_claims[claim].words()}? against {part.name}"
    row: Row = {"claim": claim, "question": question, "cell": part.cell, "primary": False}
    row |= {name: math.nan if estimate is None else getattr(estimate, name) for name in ("effect", "low", "high")}
    row["detectable"] = estimate.detectable(part.alternative, comparisons.settings.look_alpha) if estimate else math.nan
    row |= {"p": deciding_p(part, comparisons.settings)}
    row |= {"seeds": estimate.seeds if estimate else 0, "n": part.n, "test": estimate.test if estimate else ""}
    return row | {"verdict": "", "note": _aside(evidence, part)}


def _test(judged: AdjustedEvidence) -> str:
    """Name the test of a primary row, with what it is part of."""
    evidence, estimate = judged.evidence, judged.evidence.shown.estimate
    if estimate is None or estimate.seeds < 2:
        return estimate.test if estimate else ""
    kinds = ["TOST"] if evidence.shown.alternative == "equivalent" else []
    kinds += [f"intersection-union over {len(evidence.parts)} methods"] if evidence.weakest else []
    return ", ".join([*kinds, estimate.test, *([f"Holm over {judged.cells} cells"] if judged.cells > 1 else [])])


def _aside(evidence: Evidence, part: Comparison) -> str:
    """Say what a row without a verdict shows."""
    if part.estimate is None:
        return f"{evidence.subject} {evidence.where}: not compared, missing: {'; '.join(part.missing)}."
    estimate = part.estimate
    words = f"{evidence.subject}: {signed(estimate.effect)} against {part.name} {part.where or evidence.where}"
    if math.isnan(estimate.low):
        return f"{words}; exploratory, without an interval."
    return f"{words}; exploratory, the interval {'includes' if estimate.low <= 0 <= estimate.high else 'excludes'} 0."
