"""Scores, metrics and calibration error beside those of pytorch-ood, where it is installed (seen to agree with 0.4.0).

It calls images outside positive, and scores them higher; their roles are exchanged here.
"""

import numpy as np
import pytest
import torch
from ssrob.calibration import expected_calibration_error
from ssrob.ood import scores
from ssrob.ood.metrics import detection

peer = pytest.importorskip("pytorch_ood", reason="pytorch-ood, an independent implementation, is not installed")

LOGITS = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_scores_are_minus_those_of_the_peer():
    assert torch.allclose(scores.max_softmax(LOGITS), -peer.detector.MaxSoftmax.score(LOGITS))
    assert torch.allclose(scores.max_logit(LOGITS), -peer.detector.MaxLogit.score(LOGITS))
    assert torch.allclose(scores.energy(LOGITS, 2.0), -peer.detector.EnergyBased.score(LOGITS, 2.0))
    features, bank = torch.randn(2, 60, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nearest = peer.detector.KNN(None, k=9).fit_features(bank, torch.zeros(60, dtype=torch.long))
    assert torch.allclose(scores.nearest_neighbour(features, bank, 9), -nearest.predict_features(features), atol=1e-7)


@pytest.mark.parametrize("digits", [1, 12])  # with ties and without
def test_metrics_are_those_of_the_peer(digits):
    draws = np.random.default_rng(0)
    inside, outside = draws.normal(1, 1, 300).round(digits), draws.normal(0, 1, 200).round(digits)
    found = detection(inside, outside, resamples=2)
    values = torch.from_numpy(np.concatenate([inside, outside]))
    labels = torch.from_numpy(np.repeat([-1, 0], [300, 200]))
    assert found.auroc.value == pytest.approx(float(peer.metrics.functional.auroc(values, labels)), abs=1e-12)
    assert found.fpr.value == pytest.approx(float(peer.metrics.functional.fpr_at_tpr(values, labels)), abs=1e-12)
    area = float(peer.metrics.functional.aupr(values, labels))  # by trapezia; here average precision, as scikit-learn's
    assert found.aupr.value == pytest.approx(area, abs=0.005)


def test_calibration_error_is_that_of_the_peer():
    draws = np.random.default_rng(0)
    confidence = draws.random(300)
    hit = draws.random(300) < confidence**2
    error = peer.metrics.calibration_error(torch.from_numpy(confidence), torch.from_numpy(hit), p="1", beta=20)
    assert expected_calibration_error(confidence, hit, 15) == pytest.approx(error, abs=1e-12)
