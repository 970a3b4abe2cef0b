"""The self-checks: silent for a sound evaluation, and each flag raised by a model made to deserve it."""

import pytest
import torch
from ssrob.attacks.checks import check
from ssrob.attacks.presets import AttackConfig, AttackPlan
from ssrob.attacks.sweep import SweepResult, attack_sweep
from torch import Tensor, nn

from attack_models import digits_test, robust_cnn

DRAWS = torch.Generator().manual_seed(0)
EPS = [0.0, 0.1, 0.2, 0.3]
WEAK = AttackPlan((AttackConfig("pgd", "cross_entropy", 1, step_ratio=0.02),))
PLAN = AttackPlan((AttackConfig("pgd", "cross_entropy", 20), AttackConfig("apgd", "dlr", 20, start="warm")))


class Wrapped(nn.Module):
    """The robust CNN with something done to its logits."""

    def __init__(self, change) -> None:
        super().__init__()
        self.inner, self.change = robust_cnn(), change
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.inner(x))


def flags(model: nn.Module, plan: AttackPlan = PLAN, result: SweepResult | None = None) -> set[str]:
    x, y = digits_test(40)
    result = result or attack_sweep(model, x, y, eps=EPS, preset=plan)
    return {flag.name for flag in check(model, x, y, result, preset=plan, queries=100)}


def test_silent_for_a_sound_evaluation():
    assert flags(robust_cnn()) == set()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda z: z + 0.01 * torch.rand(z.shape, generator=DRAWS), "randomised"),
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: (z * 4).round() / 4, "zero_gradient"),
        (lambda z: (z * 4).round() / 4, "square_stronger"),
        (lambda z: 0 * z, "constant"),
    ],
)
def test_raised_by_a_model_that_hides(change, name: str):
    assert name in flags(Wrapped(change))


def test_raised_by_a_weak_attack():
    assert {"square_stronger", "large_eps"} <= flags(robust_cnn(), WEAK)


def test_raised_by_a_sweep_that_claims_too_much():
    x, y = digits_test(40)
    weak = attack_sweep(robust_cnn(), x, y, eps=EPS, preset=WEAK)
    assert "sweep_weaker" in flags(robust_cnn(), PLAN, weak)


def test_leaves_the_model_as_it_was():
    model, (x, y) = robust_cnn().train(), digits_test(10)
    try:
        with pytest.warns(UserWarning, match="train mode"):
            result = attack_sweep(model, x, y, eps=[0.1], preset="fast")
        check(model, x, y, result, preset="fast", queries=5)
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
    finally:
        model.eval()
