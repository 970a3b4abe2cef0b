"""Judging a study at planned looks, so that it can stop when the answer is known.

A look at n seeds takes the first n of them and has the level alpha / number of looks: whatever happens at the looks,
all together stay at alpha (union bound). With three looks an interval is 2.39 / 1.96 = 1.22 times as wide as with one.
A cell that is decided at a look keeps that verdict. What no open claim needs need not be trained for later seeds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ssrob.analysis.claims import evidence, primary_cells, tested
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.evidence import AdjustedEvidence, judge
from ssrob.analysis.sweeps import Cell, Sweeps
from ssrob.analysis.verdicts import DECIDED, verdict
from ssrob.config.findings import Findings
from ssrob.config.variants import Variant, built_in_variants


def judged_claim(
    sweeps: Sweeps, settings: Findings, claim: str, variants: Mapping[str, Variant] | None = None
) -> list[AdjustedEvidence]:
    """Judge the primary cells of a claim: by all seeds, or as at the last look that is reached."""
    comparisons = Comparisons(sweeps, settings, variants or built_in_variants())
    if not settings.looks:
        return _judged(comparisons, claim)
    judged_at = [each for _, each in _at_looks(comparisons, claim)]
    if judged_at:
        return judged_at[-1]
    waiting = f"the first look is at {settings.looks[0]} seeds"
    return [replace(each, waiting=waiting) for each in _judged(comparisons, claim)]


def needed(*measures: Comparisons) -> dict[int, set[Cell]]:
    """Return, by look that all open claims have reached, the cells that claims take which are still open after it.

    measures: the study's comparisons of each measure (`comparisons_by_measure`).
    """
    settings = measures[0].settings
    claims = {name: each for each in measures for name, row in settings.all_claims.items() if tested(each, row)}
    histories = {name: dict(_at_looks(comparisons, name)) for name, comparisons in claims.items()}
    needed: dict[int, set[Cell]] = {}
    for look in settings.looks:
        open_claims = [name for name in claims if not _closed_before(histories[name], look)]
        if not all(look in histories[name] for name in open_claims):
            break
        still = [each for name in open_claims for each in histories[name][look] if not _is_decided(each)]
        needed[look] = set().union(*map(_cells, still))
    return needed


def _closed_before(history: dict[int, list[AdjustedEvidence]], look: int) -> bool:
    return any(earlier < look and all(map(_is_decided, judged)) for earlier, judged in history.items())


def _at_looks(comparisons: Comparisons, claim: str) -> Iterable[tuple[int, list[AdjustedEvidence]]]:
    """Yield a claim's cells at each look that is reached; those decided earlier as they were then."""
    decided: dict[int, AdjustedEvidence] = {}
    for look in comparisons.settings.looks:
        there = Comparisons(_first_seeds(comparisons.sweeps, look), comparisons.settings, comparisons.variants)
        judged = [replace(each, look=look) for each in _judged(there, claim)]
        if not all(_reached(there.sweeps, each, look) for i, each in enumerate(judged) if i not in decided):
            return
        now = [decided.get(i, each) for i, each in enumerate(judged)]
        yield look, now
        decided = {i: each for i, each in enumerate(now) if _is_decided(each)}
        if len(decided) == len(now):
            return


def _judged(comparisons: Comparisons, claim: str) -> list[AdjustedEvidence]:
    row = comparisons.settings.all_claims[claim]
    family = [evidence(comparisons, row, cell) for cell in primary_cells(comparisons, row)]
    return judge(family, comparisons.settings)


def _reached(sweeps: Sweeps, judged: AdjustedEvidence, look: int) -> bool:
    """Say whether every arm that the study has of what a claim takes has the seeds of a look."""
    return all(len(sweeps.cells[cell]) >= look for cell in _cells(judged) if cell in sweeps.cells)


def _cells(judged: AdjustedEvidence) -> set[Cell]:
    return {cell for part in judged.evidence.comparisons for cell in part.cells}


def _is_decided(judged: AdjustedEvidence) -> bool:
    return verdict(judged)[0] in DECIDED


def _first_seeds(sweeps: Sweeps, n: int) -> Sweeps:
    """Return the sweeps of the first n seeds of the study, in ascending order."""
    seeds = sorted({seed for by_seed in sweeps.cells.values() for seed in by_seed})[:n]
    cells = {cell: {seed: by_seed[seed] for seed in seeds if seed in by_seed} for cell, by_seed in sweeps.cells.items()}
    return replace(sweeps, cells={cell: by_seed for cell, by_seed in cells.items() if by_seed})
