"""Detection metrics against scikit-learn, and intervals against what they promise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from ssrob.ood.metrics import detection


def scores(seed: int, inside: int, outside: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    found = generator.normal(1, 1, inside), generator.normal(0, 1, outside)
    return tuple(part.round(1) for part in found) if ties else found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("inside", "outside"), [(200, 200), (20, 7), (1, 1), (19, 300), (333, 41)])
def test_values_are_those_of_scikit_learn(inside, outside, ties):
    ours, theirs = scores(inside, inside, outside, ties=ties)
    found = detection(ours, theirs, resamples=2)
    labels, pooled = np.repeat([1, 0], [inside, outside]), np.concatenate([ours, theirs])
    assert found.auroc.value == pytest.approx(roc_auc_score(labels, pooled), abs=1e-12)
    assert found.aupr.value == pytest.approx(average_precision_score(labels, pooled), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, pooled, drop_intermediate=False)
    assert found.fpr.value == fpr[tpr >= 0.95 - 1e-12][0]


def test_separated_sets_and_equal_ones():
    apart = detection([2, 3, np.inf], [0, 1, -np.inf], resamples=10)
    assert (apart.auroc.value, apart.aupr.value, apart.fpr.value) == (1, 1, 0)
    same = detection([1, 1], [1, 1, 1], resamples=10)
    assert (same.auroc.value, same.aupr.value, same.fpr.value) == (0.5, 0.4, 1)
    turned = detection([0, 1], [2, 3], resamples=10)
    assert (turned.auroc.value, turned.fpr.value) == (0, 1)


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth = 0.7602499389065233  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    found = [detection(*scores(seed, 150, 150), resamples=200, level=0.5).auroc for seed in range(200)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert 0.38 < covered < 0.62  # one half within 3.5 standard errors of 200 draws
    assert all(interval.low < interval.value < interval.high for interval in found)


def test_intervals_repeat_themselves_however_they_are_cut(monkeypatch):
    ours, theirs = scores(0, 50, 60)
    once = detection(ours, theirs, seed=3, resamples=40)
    assert once == detection(ours, theirs, seed=3, resamples=40)
    assert once != detection(ours, theirs, seed=4, resamples=40)
    assert once.fpr.low <= once.fpr.value <= once.fpr.high


@pytest.mark.parametrize("wrong", [[], [[1.0]], [1.0, np.nan]])
def test_scores_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="scores of the images outside must be"):
        detection([1.0], wrong)
    with pytest.raises(ValueError, match="scores of the images inside must be"):
        detection(wrong, [1.0])
