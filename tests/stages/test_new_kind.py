"""A kind of stage takes one module and one row: it is planned, run, listed, counted and tracked like the others."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssrob.cli import plan_view, status_view
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.registry.stages import STAGES
from ssrob.runtime import job
from ssrob.scheduling.disk_usage import estimate
from ssrob.scheduling.priority import blocks
from ssrob.storage.store import Store
from ssrob.tracking.describe import run_name, run_params
from tests.conftest import jobs, tiny_config

pytestmark = pytest.mark.study
PLUGIN = "tests.stages.new_kind"
ARMS = [{"variant": "standard", "norm": "linf"}]


@pytest.fixture(autouse=True)
def _row() -> Iterator[None]:
    """Import the module anew, for this test alone: other tests know nothing of its row."""
    importlib.import_module(PLUGIN)
    yield
    del sys.modules[PLUGIN], STAGES["count"]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(parse_study(tiny_config(tmp_path / "results", arms=ARMS, plugins=[PLUGIN])))


def test_it_is_planned_and_run(plan: Plan) -> None:
    (stage,) = plan.of_kind("count").values()
    store, lines = Store(plan.study.results), list[str]()
    for each in plan.stages.values():
        if each.kind in ("data", "finetune", "count"):
            assert job.run(each, store, "cpu", lines.append) == 0, lines
    count = json.loads(store.output(stage.path, "count.json").read_text())["numbers"]
    assert f"{count} numbers" in lines[-1]
    assert count > 1000


def test_it_is_shown_by_plan_status_and_disk(plan: Plan) -> None:
    (stage,) = plan.of_kind("count").values()
    store = Store(plan.study.results)
    text = plan_view.plan_text(plan, store, {"count": 1_000_000.0})
    row = next(line for line in text.splitlines() if line.split()[:1] == ["count"])
    assert row.split()[1:5] == ["1", "0", "1", "120.0"], "60 test images, two million passes for each"
    assert "2 m" in row
    assert stage.path in status_view.stages_text(plan, store)
    assert "count" in status_view.status_text(plan, store, time.time())
    assert estimate(plan, store).by_kind["count"] == 180_000_000
    assert blocks(plan)[-1].stages == (stage.path,)
    assert stage.gpus == 0
    assert (run_name(plan, stage), run_params(plan, stage)["test.unit"]) == (
        "count: standard training, seed 0",
        "numbers",
    )


def test_the_workflow_has_a_rule_for_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "results", arms=ARMS, plugins=[PLUGIN])
    assert jobs(tmp_path, config)["count"] == 1
