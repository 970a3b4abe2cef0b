"""The findings table: primary cells with verdicts, what they rest on, and exploratory cells."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ssrob.analysis.claims import at_eps, evidence, exploratory_cells, primary_cells, tested
from ssrob.analysis.comparisons import Comparisons, comparisons_by_measure
from ssrob.analysis.evidence import AdjustedEvidence, Comparison, Evidence
from ssrob.analysis.looks import judged_claim
from ssrob.analysis.statistics import Estimate
from ssrob.analysis.verdicts import verdict
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
        word, note = verdict(each)
        decided = {"primary": True, "p": each.p, "test": _test(each), "verdict": word, "note": note}
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
    settings, estimate = comparisons.settings, part.estimate or Estimate(math.nan, 0, test="")
    return {
        "claim": claim,
        "question": f"{settings.all_claims[claim].words()}? against {part.name}",
        "cell": part.cell,
        "primary": False,
        "effect": estimate.effect,
        "low": estimate.low,
        "high": estimate.high,
        "p": part.deciding_p(settings),
        "seeds": estimate.seeds,
        "n": part.n,
        "detectable": estimate.detectable(part.alternative, settings.look_alpha),
        "test": estimate.test,
        "verdict": "",
        "note": _aside(evidence, part),
    }


def _test(judged: AdjustedEvidence) -> str:
    """Name the test of a primary row, with what it is part of."""
    evidence, estimate = judged.evidence, judged.evidence.shown.estimate
    if estimate is None or estimate.seeds < 2:
        return estimate.test if estimate else ""
    names = {
        "TOST": evidence.shown.alternative == "equivalent",
        f"intersection-union over {len(evidence.parts)} methods": evidence.weakest,
        estimate.test: True,
        f"Holm over {judged.cells} cells": judged.cells > 1,
    }
    return ", ".join(name for name, applies in names.items() if applies)


def _aside(evidence: Evidence, part: Comparison) -> str:
    """Say what a row without a verdict shows."""
    if part.estimate is None:
        return f"{evidence.subject} {evidence.where}: not compared, missing: {'; '.join(part.missing)}."
    estimate = part.estimate
    words = f"{evidence.subject}: {signed(estimate.effect)} against {part.name} {part.where or evidence.where}"
    if math.isnan(estimate.low):
        return f"{words}; exploratory, without an interval."
    return f"{words}; exploratory, the interval {'includes' if estimate.low <= 0 <= estimate.high else 'excludes'} 0."
