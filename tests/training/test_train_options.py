"""Options of training: weight averaging, what was removed. Exact values, and the same bits resumed."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.config.study import Study
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import Stage
from ssrob.runtime import checkpoint, runner
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table
from ssrob.training.ema import WeightAverage
from ssrob.training.fit import fit
from ssrob.training.validate import validate
from tests.conftest import tiny_config
from tests.trainings import plan_of, set_up

AT = [{"variant": "at", "norm": "linf"}]


def finetuning(folder: Path, **training: Any) -> tuple[Stage, Store]:
    """Plan one adversarial training with changed settings, and prepare its data."""
    plan, store = plan_of(folder, finetune=tiny_config(folder)["finetune"] | training, arms=AT)
    runner.run(next(iter(plan.of_kind("data").values())), store, device="cpu")
    return next(iter(plan.of_kind("finetune").values())), store


def small_network() -> Network:
    return build(Architecture("resnet", {"depth": 8, "width": 2}, (1, 8, 8), [0.5], [0.25], {"class": 3}), seed=0)


def test_the_average_has_the_values_of_its_formula() -> None:
    network = small_network()
    average = WeightAverage(network, decay=0.3)
    expected = {name: value.double() for name, value in network.state_dict().items()}
    for t in range(6):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(t + 1)
        average.update(network, t)
        d = min(0.3, (1 + t) / (10 + t))  # 0.1, 2/11, 0.25, 4/13 -> 0.3, ...
        for name, value in network.state_dict().items():
            counts = not value.is_floating_point()
            expected[name] = value.double() if counts else d * expected[name] + (1 - d) * value.double()
    found = average.network.state_dict()
    assert any("num_batches_tracked" in name for name in found)
    assert any("running_var" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-6, atol=1e-6)  # float32, six updates
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_the_average_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    stage, store = finetuning(tmp_path, ema=0.5, epochs=2)
    state, task = set_up(stage, store)
    assert state.average
    replayed = {name: value.double() for name, value in state.network.state_dict().items()}
    validated: dict[str, float] = {}
    for metrics in fit(state, task):
        t = state.step - 1
        d = min(0.5, (1 + t) / (10 + t))
        for name, value in state.network.state_dict().items():
            replayed[name] = d * replayed[name] + (1 - d) * value.double()
        if "passes" in metrics:
            validated = {name: float(value) for name, value in metrics.items() if name.startswith("validation/")}
            assert validated == validate(state.average.network, task.spec, *task.validation)
    assert not torch.equal(state.network.heads["class"].weight, state.average.network.heads["class"].weight)
    runner.run(stage, store, device="cpu")
    saved = load_file(store.output(stage.path, "last.safetensors"))
    for name, value in saved.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), replayed[name], rtol=1e-5, atol=1e-6)  # float32, six updates
    best = load_file(store.output(stage.path, "best.safetensors"))
    assert all(torch.equal(value, state.best["weights"][name]) for name, value in best.items())
    records = read_table(store.output(stage.path, "training.parquet")).query("step == 6")
    assert validated.items() <= dict(zip(records["metric"], records["value"], strict=True)).items()


def test_options_change_the_key_and_their_defaults_do_not(tmp_path: Path) -> None:
    def key(**training: Any) -> str:
        changed = tiny_config(tmp_path)["finetune"] | training
        return next(iter(make_plan(parse_study(tiny_config(tmp_path, finetune=changed))).of_kind("finetune")))

    assert key() == key(ema=None)
    assert key() != key(ema=0.9)


REMOVED = {"early_stop": (None, 3), "label_smoothing": (0.0, 0.1), "record_every": (1, 10)}


@pytest.mark.parametrize("name", REMOVED)
def test_an_option_that_was_removed_says_so_and_its_default_is_accepted(name: str, tmp_path: Path) -> None:
    default, value = REMOVED[name]

    def study(given: float | None) -> Study:
        return parse_study(tiny_config(tmp_path, finetune=tiny_config(tmp_path)["finetune"] | {name: given}))

    assert study(default).finetune == parse_study(tiny_config(tmp_path)).finetune
    with pytest.raises(ConfigError, match=f"finetune: {name} was removed: .*found {value}"):
        study(value)


class Clock:
    """Time that advances on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.01, 0.3, 1.0, 60.0])
def test_checkpoints_take_at_most_two_per_cent_and_lose_at_most_an_interval(cost: float) -> None:
    clock = Clock()
    interval = checkpoint.Interval(clock)
    saved, work, tick = [], 0.0, 0.5
    while len(saved) < 20:
        clock.now += tick
        work += tick
        if interval.due():
            with interval.saving():
                clock.now += cost
            saved.append(work)
    gaps = [after - before for before, after in itertools.pairwise(saved)]
    assert saved[0] == 20, "the first one, before its cost is known"
    assert all(max(20, 50 * cost) <= gap <= max(20, 50 * cost) + tick for gap in gaps)
    assert cost * len(gaps) <= 0.02 * (sum(gaps) + cost * len(gaps))


def test_the_interval_follows_a_disk_that_becomes_slow_and_quick_again() -> None:
    clock = Clock()
    interval = checkpoint.Interval(clock)
    lengths = []
    for cost in (0.1, 5.0, 0.1, 0.1):
        began = clock.now
        while not interval.due():
            clock.now += 0.25
        lengths.append(clock.now - began)
        with interval.saving():
            clock.now += cost
    assert lengths == pytest.approx([20, 20, 250, 20])
