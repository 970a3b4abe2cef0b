"""The adapter to AutoAttack's own code. Needs the optional package, like the adapter itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ssrob.attacks.autoattack import autoattack_sweep
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.sweep import attack_sweep
from ssrob.config.fields import ConfigError
from ssrob.registry import optional
from ssrob.scheduling import preflight
from tests.attack_models import digits_test, linear_distance, linear_problem, robust_cnn
from tests.conftest import tiny_config
from torch import Tensor

EPS = [0.0, 0.05, 0.1]


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)  # what Python does for a failed import
    with pytest.raises(ValueError, match=r"needs AutoAttack's code: pip install 'ssrob\[autoattack\]'"):
        autoattack_sweep(robust_cnn(), *digits_test(5), eps=EPS)


def test_a_study_is_told_so_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find_spec", lambda _: None)
    config = tiny_config(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.preset: 'autoattack' needs AutoAttack's code: pip install"):
        preflight.open_study(config | {"evaluate": config["evaluate"] | {"preset": "autoattack"}})


def test_what_the_reference_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="takes gradients in float32, found bfloat16"):
        autoattack_sweep(robust_cnn(), *digits_test(5), eps=EPS, gradients_in="bfloat16")
    model, x, labels = linear_problem(3, 4)
    with pytest.raises(ValueError, match="needs >= 4 classes, found 3"):
        autoattack_sweep(model, x, labels, eps=EPS)
    with pytest.raises(ValueError, match=r"call ssrob\.attacks\.autoattack\.autoattack_sweep"):
        attack_sweep(robust_cnn(), *digits_test(5), eps=EPS, preset="autoattack")


@pytest.fixture
def reference() -> None:
    pytest.importorskip("pyautoattack", reason="the optional package pyautoattack is not installed")


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_the_nearest_boundaries_of_a_linear_model(norm: str) -> None:
    model, x, labels = linear_problem(5, 30)
    distance = linear_distance(model, x, labels, GEOMETRIES[norm])
    eps = torch.quantile(distance.float(), torch.tensor([0.3, 0.6])).tolist()
    result = autoattack_sweep(model, x, labels, norm=norm, eps=eps, attacks=["apgd-ce", "apgd-t"])
    expected = (distance[None] > torch.tensor(eps)[:, None]).double().mean(1)
    # Of 30 images one lies at each quantile itself, where rounding decides.
    assert (result.accuracy - expected).abs().max() <= 1 / 30 + 1e-6


@pytest.mark.usefixtures("reference")
def test_the_result_is_that_of_a_sweep_and_nothing_global_has_moved() -> None:
    model, (x, labels) = robust_cnn(), digits_test(24)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    seen: list[tuple[int, int]] = []
    settings = {"eps": EPS, "attacks": ["apgd-ce", "apgd-t"], "block": 16}
    store: dict[str, dict[str, Tensor]] = {}
    result = autoattack_sweep(model, x, labels, **settings, store=store, progress=lambda *call: seen.append(call))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert result.accuracy[0] == result.clean_correct.double().mean()
    assert (result.accuracy.diff() <= 0).all()
    assert result.accuracy[-1] < result.accuracy[0]
    assert set(result.attack) <= {"none", "clean", "apgd-ce", "apgd-t"}
    found = result.distance.isfinite() & result.clean_correct
    assert (result.distance[found] > 0).all()
    assert (result.distance[found] <= EPS[-1]).all()
    assert min(result.gradients, result.forwards) > 0
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(store) == 2
    again = autoattack_sweep(model, x, labels, **settings, store=store)
    assert (again.distance.equal(result.distance), again.gradients) == (True, result.gradients)


@pytest.mark.usefixtures("reference")
def test_a_block_goes_on_after_the_last_attack_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, labels) = robust_cnn(), digits_test(24)
    settings = {"eps": EPS, "attacks": ["apgd-ce", "apgd-t"], "block": 16}
    whole = autoattack_sweep(model, x, labels, **settings)

    class Stopping(dict[str, dict[str, Tensor]]):
        """Stops after every second entry, as a signal would."""

        def __setitem__(self, key: str, value: dict[str, Tensor]) -> None:
            super().__setitem__(key, {name: tensor.clone() for name, tensor in value.items()})
            self.count = getattr(self, "count", 0) + 1
            if self.count % 2 == 0:
                raise InterruptedError

    store, stops = Stopping(), 0
    while True:
        try:
            result = autoattack_sweep(model, x, labels, **settings, store=store)
            break
        except InterruptedError:
            stops += 1
    assert stops > 3
    assert result.distance.equal(whole.distance)
    assert result.attack == whole.attack
    assert (result.gradients, result.forwards) == (whole.gradients, whole.forwards)
    assert not any("runs" in outcome for outcome in store.values())


@pytest.mark.usefixtures("reference")
def test_it_agrees_with_our_own_attacks() -> None:
    """At one eps, APGD-CE and APGD-T against "standard": either may break an image that the other leaves."""
    model, (x, labels) = robust_cnn(), digits_test(60)
    theirs = autoattack_sweep(model, x, labels, eps=[0.15], attacks=["apgd-ce", "apgd-t"])
    ours = attack_sweep(model, x, labels, eps=[0.15], preset="standard")
    assert 0 < theirs.accuracy.item() < theirs.clean_correct.double().mean()
    assert abs(theirs.accuracy.item() - ours.accuracy.item()) <= 2 / 60
