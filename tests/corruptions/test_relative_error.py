"""Mean corruption error against a baseline, by hand."""

import pandas as pd
import pytest
from ssrob.corruptions import BENCHMARK, NAMES, corruption_errors, mce


def table(error, names=NAMES, severities=(1, 2, 3)) -> pd.DataFrame:
    rows = [(name, severity, 1 - error(name, severity)) for name in names for severity in severities]
    return pd.DataFrame(rows, columns=["corruption", "severity", "accuracy"])


def test_by_hand():
    """Errors are summed over the severities before they are divided: (0.1 + 0.2 + 0.3) / (0.2 + 0.4 + 1.2)."""
    baseline = table(lambda _, severity: {1: 0.2, 2: 0.4, 3: 1.2}[severity] / 2)
    model = table(lambda name, severity: severity / 20 if name == "fog" else severity * 0.15)
    errors = corruption_errors(model, baseline)
    assert list(errors.index) == list(BENCHMARK)
    assert errors["fog"] == pytest.approx(1 / 3)
    assert errors["snow"] == pytest.approx(1)
    assert mce(model, baseline) == pytest.approx(100 * (14 + 1 / 3) / 15)
    assert mce(model, baseline, NAMES) == pytest.approx(100 * (18 + 1 / 3) / 19)
    assert mce(baseline, baseline) == pytest.approx(100)


def test_order_of_rows_and_other_columns_do_not_matter():
    baseline = table(lambda name, severity: severity / 10)
    model = table(lambda name, severity: len(name) / 100).assign(arm="at", n=500)
    assert mce(model.sample(frac=1, random_state=0), baseline) == mce(model, baseline)


@pytest.mark.parametrize(
    ("model", "baseline", "message"),
    [
        (table(lambda *_: 0.1, NAMES[1:]), table(lambda *_: 0.1), "model: lacks gaussian_noise"),
        (table(lambda *_: 0.1), table(lambda *_: 0.1)[1:], "baseline: lacks gaussian_noise at one severity"),
        (table(lambda *_: 0.1), table(lambda *_: 0.1)[:0], "baseline: lacks gaussian_noise"),
        (
            table(lambda *_: 0.1),
            table(lambda *_: 0.1, severities=(1, 5)),
            "the same severities, found 1, 2, 3 and 1, 5",
        ),
        (table(lambda *_: 0.1), table(lambda name, _: name != "frost"), "baseline: has no error on frost"),
        (pd.concat([table(lambda *_: 0.1)] * 2), table(lambda *_: 0.1), "model: has several rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(model: pd.DataFrame, baseline: pd.DataFrame, message: str):
    with pytest.raises(ValueError, match=message):
        corruption_errors(model, baseline)
