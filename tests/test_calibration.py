"""Calibration against scikit-learn and by hand."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss
from ssrob.calibration import calibration, expected_calibration_error, fit_temperature


def outputs(count: int, classes: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is right at sharpness 1, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, classes))
    labels = np.array([generator.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return sharpness * logits, labels


@pytest.mark.parametrize(("count", "classes"), [(300, 10), (40, 2), (16, 3)])
def test_nll_and_brier_are_scikit_learns(count, classes):
    logits, labels = outputs(count, classes, 1.7)
    probabilities = softmax(logits, axis=1)
    found = calibration(logits, labels)
    assert found.nll == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), abs=1e-12)
    assert found.brier == pytest.approx(((probabilities - np.eye(classes)[labels]) ** 2).sum(1).mean(), abs=1e-12)
    cooled = log_loss(labels, softmax(logits / 1.7, axis=1), labels=range(classes))
    assert calibration(logits, labels, temperature=1.7).nll == pytest.approx(cooled, abs=1e-12)


def test_ece_by_hand():
    """Bins of 2 and 2: |(0.5 + 0.6) / 2 - 1 / 2| and |(0.8 + 0.9) / 2 - 1|, each of half of the images."""
    found = expected_calibration_error([0.9, 0.5, 0.8, 0.6], [True, True, True, False], bins=2)
    assert found == pytest.approx((0.05 + 0.15) / 2)
    assert expected_calibration_error([0.9, 0.5, 0.8, 0.6], [True, True, True, False], bins=1) == pytest.approx(0.05)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_is_a_loop_over_the_bins(bins):
    logits, labels = outputs(500, 5, 2.0)
    probabilities = softmax(logits, axis=1)
    order = np.argsort(probabilities.max(1))
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for part in np.array_split(order, bins):
        expected += len(part) / 500 * abs(confidence[part].mean() - hit[part].mean())
    assert calibration(logits, labels, bins=bins).ece == pytest.approx(expected, abs=1e-12)
    assert calibration(logits, labels, bins=bins).bins == bins


def test_the_order_of_equal_confidences_does_not_matter():
    generator = np.random.default_rng(0)
    confidence, hit = np.repeat([0.3, 0.7, 1.0], [11, 30, 9]), generator.random(50) < 0.6
    orders = [generator.permutation(50) for _ in range(9)]
    found = [expected_calibration_error(confidence[order], hit[order], 4) for order in orders]
    assert found == pytest.approx([found[0]] * 9, abs=1e-12)


def test_the_temperature_is_the_sharpness_of_the_logits():
    for sharpness in (0.5, 1.0, 3.0):
        logits, labels = outputs(4000, 10, sharpness)
        temperature = fit_temperature(logits, labels)
        assert temperature == pytest.approx(sharpness, rel=0.05)  # 4000 labels: standard error about 2 %
        best = calibration(logits, labels, temperature=temperature)
        for other in (0.98, 1.02):
            assert calibration(logits, labels, temperature=other * temperature).nll > best.nll
        assert calibration(logits, labels, temperature=temperature).ece < 0.03
    perfect = np.eye(3)[[0, 1, 2]]
    assert 0.01 <= fit_temperature(perfect, [0, 1, 2]) < 0.05  # where the NLL is 0 in float64


@pytest.mark.parametrize(
    ("logits", "labels", "keywords", "message"),
    [
        (np.zeros((3, 2)), [0, 1], {}, r"found \(3, 2\) and \(2,\)"),
        (np.zeros(3), [0, 1, 0], {}, r"logits must be \(N, K\)"),
        (np.zeros((2, 2)), [0, 2], {}, r"labels must be integers 0..1, found int64 0..2"),
        (np.zeros((2, 2)), [0.0, 1.0], {}, "labels must be integers"),
        (np.full((2, 2), np.nan), [0, 1], {}, "logits must be finite, found 4"),
        (np.zeros((2, 2)), [0, 1], {"temperature": 0.0}, "temperature must be above 0"),
        (np.zeros((2, 2)), [0, 1], {"bins": 3}, r"bins must be 1..2 \(the images\), found 3"),
    ],
)
def test_wrong_inputs_are_refused(logits, labels, keywords, message):
    with pytest.raises(ValueError, match=message):
        calibration(logits, labels, **{"bins": 1, **keywords})
