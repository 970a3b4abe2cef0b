"""The self-checks: silent for a sound evaluation, and each flag raised by something made to deserve it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ssrob.attacks import gradient_masking
from ssrob.attacks.per_eps import attack_each_eps
from ssrob.attacks.result import SweepResult
from ssrob.attacks.sanity_checks import check
from ssrob.attacks.sweep import attack_sweep
from ssrob.registry.attacks import CHECKS
from ssrob.registry.presets import PRESETS, AttackConfig, AttackPlan
from tests.attack_models import digits_test, robust_cnn
from torch import Tensor, nn

DRAWS = torch.Generator().manual_seed(0)
EPS = [0.0, 0.1, 0.2, 0.3]
WEAK = AttackPlan((AttackConfig("pgd", "cross_entropy", 1, step_ratio=0.02),))
PLAN = AttackPlan((AttackConfig("pgd", "cross_entropy", 20), AttackConfig("apgd", "dlr", 20, start="warm")))


class Wrapped(nn.Module):
    """The robust CNN with something done to its images and its logits."""

    def __init__(self, change=lambda z: z, before=lambda x: x) -> None:
        super().__init__()
        self.inner, self.change, self.before = robust_cnn(), change, before
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.inner(self.before(x)))


class Saturated(Wrapped):
    """Units driven so far into their flat parts that no gradient comes through."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(1e4 * super().forward(x)) + 1e-3 * super().forward(x).detach()


class RandomLayer(Wrapped):
    """Dropout that is always on."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.1, training=True))


class TrainMode(Wrapped):
    """BatchNorm that refuses to leave train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.eval()

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if hasattr(self, "norm"):
            self.norm.train()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class Purifier(Wrapped):
    """Takes a gradient step on its own input before it classifies it."""

    def __init__(self, step) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            own = nn.Parameter(x.detach().clone())
            energy = super().forward(own).logsumexp(1).sum()
        return super().forward(x + 0 * self.step(own, energy))


def by_grad(own: Tensor, energy: Tensor) -> Tensor:
    return torch.autograd.grad(energy, own)[0]


def by_optimiser(own: nn.Parameter, energy: Tensor) -> Tensor:
    energy.backward()
    torch.optim.SGD([own], lr=0.01).step()
    return own.detach()


def flags(model: nn.Module, plan: AttackPlan = PLAN, result: SweepResult | None = None) -> set[str]:
    x, y = digits_test(40)
    result = result or attack_sweep(model, x, y, eps=EPS, preset=plan)
    found = {flag.name for flag in check(model, x, y, result, preset=plan, queries=100)}
    assert found <= set(CHECKS)
    return found


def test_silent_for_a_sound_evaluation():
    assert flags(robust_cnn()) == set()
    assert flags(robust_cnn(), PRESETS["fast"]) == set()


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (lambda: Wrapped(lambda z: z + 0.01 * torch.rand(z.shape, generator=DRAWS)), {"randomised"}),
        (RandomLayer, {"randomised"}),
        (lambda: Wrapped(lambda z: z.softmax(1)), {"softmax"}),
        (lambda: Wrapped(lambda z: 1e4 * z), {"zero_gradient"}),  # the cross-entropy saturates
        (Saturated, {"zero_gradient", "square_stronger"}),
        (lambda: Wrapped(lambda z: (z * 4).round() / 4), {"zero_gradient", "square_stronger"}),
        (lambda: Wrapped(before=lambda x: (16 * x).round() / 16), {"zero_gradient", "square_stronger"}),
        (lambda: Wrapped(lambda z: 0 * z), {"constant", "zero_gradient"}),
        (TrainMode, {"train_mode", "changed"}),
        (lambda: Wrapped(lambda z: z - z.mean(0)), {"batch_dependent"}),
        (lambda: Purifier(by_grad), {"dynamic"}),
        (lambda: Purifier(by_optimiser), {"dynamic"}),
    ],
)
def test_raised_by_a_model_that_hides(model, names: set[str]):
    assert names <= flags(model())


def test_raised_by_a_weak_attack():
    assert {"square_stronger", "single_step_stronger", "large_eps"} <= flags(robust_cnn(), WEAK)


def test_raised_by_an_attack_that_has_not_settled():
    """Six steps too short to reach the budget: twice as many go on to break images."""
    short = AttackPlan((AttackConfig("pgd", "cross_entropy", 6, start="clean", step_ratio=0.4),))
    x, y = digits_test(150)
    result = attack_sweep(robust_cnn(), x, y, eps=[0.1, 0.2], preset=short)
    longer = AttackPlan((AttackConfig("pgd", "cross_entropy", 12, start="clean", step_ratio=0.8),))
    assert attack_sweep(robust_cnn(), x, y, eps=[0.2], preset=longer).accuracy < result.accuracy[-1] - 0.05
    names = {flag.name for flag in check(robust_cnn(), x, y, result, preset=longer, audit=150, queries=5)}
    assert "more_steps_stronger" in names


def test_raised_by_a_sweep_that_claims_too_much():
    x, y = digits_test(40)
    weak = attack_sweep(robust_cnn(), x, y, eps=EPS, preset=WEAK)
    assert {"sweep_weaker", "single_step_stronger"} <= flags(robust_cnn(), PLAN, weak)


def test_raised_by_a_table_that_is_not_of_this_model():
    x, y = digits_test(40)
    result = attack_sweep(robust_cnn(), x, y, eps=EPS, preset=PLAN)
    assert "unconfirmed" in flags(robust_cnn(), PLAN, replace(result, confirmed=torch.arange(40) % 4 > 0))
    assert "clean_differs" in flags(robust_cnn(), PLAN, replace(result, clean_correct=~result.clean_correct))
    other = Wrapped(lambda z: z.roll(1, 1))
    assert "clean_differs" in flags(other, PLAN, result)


def test_what_was_found_is_looked_at_again(monkeypatch: pytest.MonkeyPatch):
    """A model that misclassifies while it is attacked, and not afterwards, is not confirmed."""
    x, y = digits_test(40)
    assert attack_sweep(robust_cnn(), x, y, eps=EPS, preset=PLAN).confirmed.all()
    whole = robust_cnn()
    monkeypatch.setattr("ssrob.attacks.sweep.confirmed", _with_other(whole))
    assert not attack_sweep(whole, x, y, eps=EPS, preset=PLAN).confirmed.all()


def _with_other(model: nn.Module):
    from ssrob.attacks.verify import confirmed

    forgiving = Wrapped(lambda z: z + 100 * F.one_hot(digits_test(40)[1], 10)[: len(z)])
    return lambda _, geometry, found, batch: confirmed(forgiving, geometry, found, batch)


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


def test_watching_for_autograd_gives_the_profiler_back():
    import sys

    def mine(*_: object) -> None:
        return None

    sys.setprofile(mine)
    try:
        assert not list(gradient_masking._dynamic(robust_cnn(), digits_test(1)[0]))
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_of_each_eps_is_that_of_this_eps_alone(norm: str):
    x, y = digits_test(50)
    rows, eps = torch.arange(50) + 7, [0.0, 0.1, 0.2, 0.5]
    plan = AttackPlan((AttackConfig("fmn", "margin", 10, start="clean"), *PRESETS["fast"].attacks))
    together = attack_each_eps(robust_cnn(), (x, y, rows), norm=norm, eps=eps, preset=plan)
    for value, robust in zip(eps, together, strict=True):
        alone = attack_sweep(robust_cnn(), x, y, norm=norm, eps=[value], preset=plan, index=rows)
        assert (alone.robust[0] != robust).sum() <= 1  # rounding in another batch
    assert attack_each_eps(robust_cnn(), (x[:0], y[:0], rows[:0]), norm=norm, eps=eps, preset=plan).shape == (4, 0)


def test_the_guide_explains_every_check():
    guide = (Path(__file__).parents[2] / "docs/method/evaluation.md").read_text()
    assert all(f"`{name}`" in guide for name in CHECKS)
