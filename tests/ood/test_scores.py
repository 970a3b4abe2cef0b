"""Scores against their formulas, by other means."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors
from ssrob.ood import scores

LOGITS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_logit_scores_are_their_formulas():
    plain = LOGITS.numpy()
    assert scores.max_softmax(LOGITS).numpy() == pytest.approx(softmax(plain, axis=1).max(1), abs=1e-12)
    assert scores.max_logit(LOGITS).numpy() == pytest.approx(plain.max(1))
    assert scores.energy(LOGITS).numpy() == pytest.approx(logsumexp(plain, axis=1), abs=1e-12)
    assert scores.energy(LOGITS, 4.0).numpy() == pytest.approx(4 * logsumexp(plain / 4, axis=1), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_nearest_neighbours_are_those_of_scikit_learn(k):
    generator = np.random.default_rng(0)
    bank, features = generator.normal(size=(40, 6)), generator.normal(size=(7, 6)) * 10
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (bank, features)]
    expected = NearestNeighbors(n_neighbors=k).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    found = scores.nearest_neighbour(torch.from_numpy(features), torch.from_numpy(bank), k)
    assert -found.numpy() == pytest.approx(expected, abs=1e-7)  # the root of a cancelled difference


@pytest.mark.parametrize("k", [0, 4])
def test_neighbours_that_do_not_exist_are_refused(k):
    with pytest.raises(ValueError, match=r"k must be 1\.\.3"):
        scores.nearest_neighbour(torch.ones(2, 2), torch.ones(3, 2), k)


def test_the_rotation_scores_are_the_papers():
    turned = torch.randn(4, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for image in range(9):
        loss = np.mean([-np.log(softmax(turned[turn, image].numpy())[turn]) for turn in range(4)])
        assert float(scores.rotation_loss(turned)[image]) == pytest.approx(-loss, abs=1e-12)
        from_uniform = entropy(np.full(5, 0.2), softmax(LOGITS[image].numpy()))
        assert float(scores.rotation(LOGITS, turned)[image]) == pytest.approx(from_uniform - loss, abs=1e-12)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4, 4), (4, 9, 10)])
def test_outputs_of_another_head_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be \(4, B, 4\), found"):
        scores.rotation_loss(torch.zeros(shape))


def test_scores_rise_with_confidence_and_have_gradients():
    sure = torch.tensor([[9.0, 0, 0], [1.0, 0, 0]], requires_grad=True)
    for score in (scores.max_softmax, scores.max_logit, scores.energy):
        high, low = score(sure)
        assert high > low
        assert torch.autograd.grad(low, sure)[0][1, 0] > 0


def test_a_training_image_has_a_finite_gradient():
    features = torch.tensor([[1.0, 0.0]], requires_grad=True)
    score = scores.nearest_neighbour(features, torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 1)
    assert torch.autograd.grad(score.sum(), features)[0].isfinite().all()
