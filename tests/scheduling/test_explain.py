"""Why a stage is run again or is not, on a finished study and on what was changed in its config or its folder."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.scheduling.explain import find_stage, identity, known_stages, nearest, reasons_to_run
from ssrob.storage.store import Store, StoreError
from tests.conftest import Finished, reopen, tiny_config

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]


def test_a_changed_setting_is_found_below_the_stages_that_it_changes(finished: Finished) -> None:
    """The sweep is not changed itself, but the training of its model is: both have the finished one as nearest."""
    _, config = finished
    store = Store(Path(config["results"]))
    plan = make_plan(parse_study(config | {"finetune": config["finetune"] | {"lr": 0.05}}))
    stages = known_stages(plan, store)
    arm, old = plan.arms[0], make_plan(parse_study(config)).arms[0]
    for path, was, where in (
        (arm.finetune, old.finetune, "training."),
        (arm.evaluate["best"], old.evaluate["best"], "model: training."),
    ):
        other = nearest(stages[path], stages, store)
        expected = {f"{where}lr": ("0.05", "not set")}  # before, it had the default
        assert other is not None
        assert (other.path, other.done, other.differences) == (was, True, expected)
    assert reasons_to_run(stages[arm.evaluate["best"]], plan, store)[0] == f"{arm.finetune} is not finished"
    assert "the study does not ask for it" in reasons_to_run(stages[old.finetune], plan, store)[0]


def test_identity_names_all_that_decides_the_result(finished: Finished) -> None:
    plan = make_plan(parse_study(finished[1]))
    found = identity(plan.stages[plan.arms[2].evaluate["best"]], plan.stages)
    assert found["preset"] == "fast"
    assert found["model: init: variant"] == "ssl", "of the pre-training that the model starts from"
    assert found["model: data: source"] == found["data: source"] == "digits"


def test_what_is_finished_and_sound_has_no_reason_to_run(finished: Finished) -> None:
    plan = make_plan(parse_study(finished[1]))
    store = Store(plan.study.results)
    assert [path for path, stage in plan.stages.items() if reasons_to_run(stage, plan, store)] == []


def test_damage_is_a_reason(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config = finished
    shutil.copytree(config["results"], tmp_path / "results")
    plan = make_plan(parse_study(config | {"results": str(tmp_path / "results")}))
    store, arm = Store(plan.study.results), plan.arms[0]
    sweep = plan.stages[arm.evaluate["best"]]
    with (store.folder(sweep.path) / "robustness.parquet").open("ab") as file:
        file.write(b"x")
    assert "robustness.parquet: missing, truncated or altered" in reasons_to_run(sweep, plan, store)[0]
    reopen(store, sweep.path)
    assert "there is no manifest" in reasons_to_run(sweep, plan, store)[0]
    monkeypatch.setitem(STAGES, "corrupt", replace(STAGES["corrupt"], revision=99))
    assert (
        "another revision of the code; it has revision 99"
        in reasons_to_run(plan.stages[arm.corrupt["best"]], plan, store)[0]
    )


def test_a_stage_is_named_by_as_much_as_means_one() -> None:
    stages = {path: Stage(*path.split("/"), {}) for path in ("data/digits-15b1", "probe/a-77", "probe/ab-78")}
    for text, path in (
        ("d", "data/digits-15b1"),
        ("probe/a-77", "probe/a-77"),
        ("ab", "probe/ab-78"),
        ("78", "probe/ab-78"),
    ):
        assert find_stage(text, stages).path == path
    with pytest.raises(StoreError, match=r"(?s)'probe/a' means 2 stages; there are\n  probe/a-77\n  probe/ab-78"):
        find_stage("probe/a", stages)
    with pytest.raises(StoreError, match="'zz' means no stage"):
        find_stage("zz", stages)


def ssrob(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ssrob", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_person_runs_one_stage_and_is_told_about_it(tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(tiny_config(tmp_path / "results")))
    early = ssrob("run", config, "probe/digits")
    assert early.returncode == 2
    assert "is made from data/digits-" in early.stderr
    assert "run that first" in early.stderr
    assert ssrob("run", config, "data").returncode == 0
    done = ssrob("explain", "data/dig", "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    for words in ("finished", "revision of data: 1", "source: digits", "torch", "Nothing makes it run again."):
        assert words in done.stdout
    assert "expected a config and a stage, or --stage" in ssrob("run", config).stderr
