"""The attack on a score against a linear score, whose optimum is known."""

import torch
from ssrob.ood.attack import attack_score
from ssrob.ood.metrics import detection
from ssrob.seeding import example_keys

WEIGHTS = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
X = 0.25 + 0.5 * torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def linear(x: torch.Tensor) -> torch.Tensor:
    return (x * WEIGHTS).sum((1, 2, 3))


def attack(x: torch.Tensor, *, inside: bool, score=linear, steps: int = 10) -> torch.Tensor:
    keys = example_keys(torch.arange(len(x)), 0, "a")
    adv, scores = attack_score(score, x, inside=inside, eps=0.1, steps=steps, keys=keys)
    assert torch.equal(scores, score(adv))
    return adv


def test_a_linear_score_moves_by_eps_times_the_l1_norm():
    before = X.clone()
    for inside, sign in ((True, -1), (False, 1)):
        adv = attack(X, inside=inside)
        assert torch.allclose(linear(adv) - linear(X), sign * 0.1 * WEIGHTS.abs().sum(), atol=1e-4)
        assert (adv - X).abs().max() <= 0.1 + 1e-6
        assert 0 <= adv.min() <= adv.max() <= 1
    assert torch.equal(X, before)


def test_an_attack_that_would_help_the_detector_leaves_the_image():
    peak = X.clone()

    def peaked(x: torch.Tensor) -> torch.Tensor:
        return -(x - peak).square().sum((1, 2, 3))  # no image scores higher than the original

    assert torch.equal(attack(X, inside=False, score=peaked, steps=1), X)


def test_an_image_is_attacked_alike_in_any_company():
    assert torch.equal(attack(X[:2], inside=True), attack(X, inside=True)[:2])


def test_detection_falls_under_attack():
    outside = X - 0.02 * WEIGHTS.sign()
    clean = detection(linear(X), linear(outside), resamples=2)
    attacked = detection(linear(attack(X, inside=True)), linear(attack(outside, inside=False)), resamples=2)
    assert attacked.auroc.value < clean.auroc.value
