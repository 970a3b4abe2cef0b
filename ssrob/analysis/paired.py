"""Two methods of training, or two models, on the same images: paired differences with their intervals."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ssrob.analysis.standard_error import BoolArray, FloatArray
from ssrob.analysis.statistics import Estimate, exact_mcnemar, paired_t
from ssrob.analysis.sweeps import GROUPS
from ssrob.registry.attacks import NORMS
from ssrob.registry.corruptions import BENCHMARK
from ssrob.storage.tables import read_table

ALPHA = 0.05
COLUMNS = ("test", "eps", "corruption", "a", "b", "difference", "low", "high", "p", "seeds", "n", "method")


@dataclass(frozen=True)
class Outcomes:
    """Whether each image was classified correctly, by S models (seeds) of one kind.

    clean (S, N); robust: norm -> eps -> (S, N); corrupted: (corruption, severity) -> (S, M). Images and seeds stand in
    the same order as in what it is compared with.
    """

    clean: BoolArray
    robust: Mapping[str, Mapping[float, BoolArray]]
    corrupted: Mapping[tuple[str, int], BoolArray] = field(default_factory=dict)


def paired_table(a: Outcomes, b: Outcomes) -> pd.DataFrame:
    """Return a row per test that both have, `COLUMNS`; a and b are accuracies in per cent, a - b is in points.

    test: clean, linf, l2 or corruption. A corruption is the mean over the severities that both have; "mean of 15" is
    over the benchmark's corruptions, "mean of all K" over all K.
    """
    return pd.DataFrame(list(_rows(a, b)), columns=list(COLUMNS))


def outcomes_of(examples: pd.DataFrame, eps: Mapping[str, Iterable[float]], corrupted: Path | None) -> Outcomes:
    """Return the outcomes of one model, as one seed.

    examples: rows of its sweeps as `tables.EXAMPLES`; eps: the eps of each norm, of which 0 is left out; corrupted: the
    file of its test on corruptions, if it has one.
    """
    sweeps = {norm: examples[examples["eval_norm"] == norm].sort_values("example") for norm in eps}
    failed = {norm: rows["first_failed"].to_numpy() for norm, rows in sweeps.items()}
    robust = {norm: {float(e): (failed[norm] > e)[None] for e in grid if e > 0} for norm, grid in eps.items()}
    clean = next(iter(sweeps.values()))["clean_correct"].to_numpy(dtype=bool)[None]
    return Outcomes(clean, robust, unpacked(read_table(corrupted)) if corrupted else {})


def unpacked(corrupted: pd.DataFrame) -> dict[tuple[str, int], BoolArray]:
    """Return a table of `tables.CORRUPTED` as (1, M) bool by corruption and severity."""
    bits = [
        np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(bool)[None]
        for packed, n in zip(corrupted["correct"], corrupted["n"], strict=True)
    ]
    return dict(zip(zip(corrupted["corruption"], corrupted["severity"], strict=True), bits, strict=True))


def difference(a: NDArray[Any], b: NDArray[Any], alpha: float = ALPHA) -> Estimate:
    """Estimate mean(a) - mean(b) in points; a, b (S, N) in [0, 1], paired by seed and by image.

    One seed: of right and wrong exact McNemar with the interval of Bonett and Price (2012), of shares the paired t
    interval over images; either says nothing about another seed. Several: `statistics.paired_t`, over seeds and images.
    """
    if len(a) == 1 and a.dtype == bool:
        return exact_mcnemar(a[0], b[0], alpha)
    per_image = 100 * (a.astype(np.float64) - b.astype(np.float64))
    if len(a) == 1:
        return paired_t(per_image, alpha)
    return paired_t(_without_groups(per_image), alpha)


def _without_groups(per_image: FloatArray) -> FloatArray:
    """Return the mean per seed, and the same with each group of images left out: (1 + groups, S)."""
    size = per_image.shape[1]
    group = np.arange(size) % min(GROUPS, size)
    kept = [per_image[:, group != each].mean(axis=1) for each in range(min(GROUPS, size))] if size > 1 else []
    return np.stack([per_image.mean(axis=1), *kept])


def _rows(a: Outcomes, b: Outcomes) -> Iterator[tuple[object, ...]]:
    yield _row("clean", 0.0, "", a.clean, b.clean)
    for norm in (norm for norm in NORMS if norm in a.robust and norm in b.robust):
        for eps in sorted(a.robust[norm].keys() & b.robust[norm].keys()):
            if eps > 0:
                yield _row(norm, eps, "", a.robust[norm][eps], b.robust[norm][eps])
    shared = [test for test in a.corrupted if test in b.corrupted]
    names = list(dict.fromkeys(name for name, _ in shared))
    means = {name: [test for test in shared if test[0] == name] for name in names}
    groups = {f"mean of {len(BENCHMARK)}": [test for test in shared if test[0] in BENCHMARK]}
    groups = groups if set(BENCHMARK) <= set(names) else {}
    groups |= {f"mean of all {len(names)}": shared} if len(names) > 1 and set(names) != set(BENCHMARK) else {}
    for title, tests in (groups | means).items():
        shares = (np.mean([each.corrupted[test] for test in tests], axis=0) for each in (a, b))
        yield _row("corruption", math.nan, title, *shares)


def _row(test: str, eps: float, corruption: str, a: NDArray[Any], b: NDArray[Any]) -> tuple[object, ...]:
    estimate = difference(a, b)
    shares = 100 * float(a.mean()), 100 * float(b.mean())
    numbers = estimate.effect, estimate.low, estimate.high, estimate.p
    return (test, eps, corruption, *shares, *numbers, len(a), a.shape[1], estimate.test)
