"""Disk use: estimated before a study starts, near to what it takes, and refused where it cannot fit."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ssrob.cli.plan_view import plan_text
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.formatting import file_size
from ssrob.models.network import Architecture, build
from ssrob.planning.plan import make_plan
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.losses import Widths
from ssrob.runtime import runner
from ssrob.scheduling import disk_usage
from ssrob.scheduling.parameter_count import SIZES, network_numbers
from ssrob.scheduling.preflight import open_study
from ssrob.storage.store import Store
from tests.conftest import tiny_config

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"depth": 14, "width": 2},
    "preactresnet18": {"width": 2},
    "wideresnet": {"depth": 16, "width": 2},
    "torchvision": {"arch": "shufflenet_v2_x0_5"},
    "timm": {"arch": "resnet10t", "stem_width": 8},
}


@pytest.mark.parametrize("name", sorted({*BACKBONES, *SIZES}))
def test_the_numbers_of_a_network_are_known_before_it_is_trained(name: str) -> None:
    heads: dict[str, Widths] = {"class": 7, "rotation": 4, "contrastive": (32, 16, 8)}
    small = SMALL.get(name, {"width": 2})
    network = build(Architecture(name, small, (3, 8, 8), (0.5,) * 3, (0.2,) * 3, heads), seed=0)
    stored = sum(tensor.numel() for key, tensor in network.state_dict().items() if "num_batches" not in key)
    assert network_numbers(name, small, 3, heads.values()) == stored
    assert network_numbers("unheard_of", {}, 3, []) is None


def test_what_a_study_takes_is_near_the_estimate(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "results",
        arms=[{"variant": "at_ssl_joint", "norm": "linf"}],
        model={"name": "resnet", "depth": 8, "width": 16},
        data={"name": "digits", "source": "digits"},
    )
    plan = make_plan(parse_study(config))
    store = Store(plan.study.results)
    expected = disk_usage.estimate(plan, store).by_kind
    assert f"of disk (data {file_size(expected['data'])}, finetune " in plan_text(plan, store, {})
    for stage in plan.stages.values():
        runner.run(stage, store, device="cpu")
        taken = sum(file.stat().st_size for file in store.folder(stage.path).iterdir())
        assert taken < 1.2 * expected[stage.kind], stage.kind
        assert taken > 0.3 * (expected[stage.kind] - disk_usage.SMALL), stage.kind
    assert disk_usage.estimate(plan, store).by_kind.keys() == {"report", "MLflow"}
    assert "of disk" not in plan_text(plan, store, {})


def test_a_study_that_cannot_fit_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path / "not" / "there" / "results")
    assert open_study(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda where: SimpleNamespace(free=2_000_000))
    message = rf"this study needs about .* MB of disk \(data .*, MLflow .*\); 2\.0 MB are free in {tmp_path}; make room"
    with pytest.raises(ConfigError, match=message):
        open_study(config)
    assert open_study(config, starts=False), "a job of a running study goes on"
