"""False support, on studies whose claims are known to be false. `benchmarks/power.py` draws 2,000 of each."""

import numpy as np
import pytest
from scipy.stats import binom
from tests.simulated import Size, nulls, supported

STUDIES = 60
# Large effects, so that everything but the one part under test is shown: the hardest case for a false verdict.
WORLDS = nulls(size=8.0, margin=4.0)
# More than this of them happens to a 5 % test once in 2,000 cases.
ALLOWED = int(binom.ppf(0.9995, STUDIES, 0.05))


@pytest.mark.parametrize("case", WORLDS, ids="-".join)
def test_a_false_claim_is_rarely_supported(case: tuple[str, str]) -> None:
    size = Size(seeds=4, images=200)
    found = [
        supported(case[0], WORLDS[case], size, np.random.default_rng([seed, len(case[1])]), margin=4.0)
        for seed in range(STUDIES)
    ]
    assert sum(found) <= ALLOWED
