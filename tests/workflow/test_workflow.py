"""The workflow as people run it: which jobs a change needs, counted by dry runs of a finished study."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.scheduling.job_scheduler import JobScheduler
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.registry.stages import STAGES
from ssrob.runtime.fork_client import ADDRESS
from ssrob.scheduling.due import due_part
from ssrob.storage import heartbeat
from ssrob.storage.store import Store, sha256
from ssrob.storage.tables import read_table
from tests.conftest import ROOT, Finished, jobs, snakemake, tiny_config

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]


CLOSING = {"collect": 1, "report": 1, "track": 1}


def test_a_finished_study_has_everything(finished: Finished) -> None:
    _, config = finished
    plan = make_plan(parse_study(config))
    store = Store(plan.study.results)
    assert all(store.done(path) for path in plan.stages)
    names = {path.stem for path in (plan.folder / "tables").glob("*.parquet")}
    assert names == {
        "arms",
        "training",
        "robustness",
        "examples",
        "checks",
        "corruptions",
        "detection",
        "ood_scores",
        "calibration",
        "probes",
        "diagnostics",
        "stages",
        "not_run",
        "findings",
    }
    assert (plan.folder / "report.html").stat().st_size > 10_000
    assert (plan.study.results / "mlflow.db").exists()
    assert not list(store.root.glob("work/*/*")), "nothing is left unfinished"


def test_detection_and_calibration_of_finished_models_take_their_stages_alone(
    finished: Finished, tmp_path: Path
) -> None:
    folder, config = finished
    shutil.copytree(folder / "results", tmp_path / "results")
    ood = {"sets": ["blobs"], "images": 40, "neighbours": 5, "train_images": 100, "attacked_images": 8, "steps": 2}
    calibrate = {"images": 40, "bins": 5, "corruptions": ["contrast"], "steps": 2}
    more = config | {"results": str(tmp_path / "results"), "ood": ood, "calibrate": calibrate}
    assert jobs(tmp_path, more) == {"ood": 3, "calibrate": 3, **CLOSING}
    done = snakemake(tmp_path, more)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = make_plan(parse_study(more))
    tables = {name: read_table(plan.folder / "tables" / f"{name}.parquet") for name in ("detection", "calibration")}
    assert {len(table["arm"].unique()) for table in tables.values()} == {3}
    assert {len(table) for table in tables.values()} == {4 + 6 + 4 + 3, 3 * 2 * 4}


def test_jobs_run_in_forks_of_one_process(finished: Finished) -> None:
    """None says why it would run without; and the process that they are forked from has gone."""
    folder, config = finished
    logs = [*Path(config["results"]).glob("stages/*/*/job.log"), *Path(config["results"]).glob("studies/*/*/*.log")]
    assert len(logs) > 10
    assert not [log for log in logs if "fork server" in log.read_text()]
    until(lambda: not processes_in(folder))


def processes_in(folder: Path) -> list[Path]:
    """Find the processes that work in a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or one that has just ended
            found += [each] * (os.readlink(each / "cwd") == str(folder))
    return found


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_a_workflow_that_is_stopped_leaves_a_checkpoint_and_no_process(
    number: signal.Signals, whole_group: bool, tmp_path: Path
) -> None:
    """Ctrl-C reaches Snakemake and its jobs; where Snakemake alone is killed, its job goes on, and is asked to end."""
    config = tiny_config(tmp_path / "results", arms=[{"variant": "standard", "norm": "linf"}])
    config["finetune"] = config["finetune"] | {"epochs": 10_000}
    plan = make_plan(parse_study(config))
    store, training = Store(plan.study.results), plan.arms[0].finetune
    log = store.folder(training) / "log.txt"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--configfile", tmp_path / "study.yaml"]
    workflow = subprocess.Popen([*command, "--cores", "1"], cwd=tmp_path, start_new_session=True)
    until(lambda: log.is_file() and "epoch 2:" in log.read_text())
    (os.killpg if whole_group else os.kill)(workflow.pid, number)
    assert workflow.wait(LONG) != 0
    if not whole_group:
        os.kill(json.loads((store.work(training) / heartbeat.FILE).read_text())["pid"], signal.SIGTERM)
    until(lambda: not processes_in(tmp_path))
    assert (store.work(training) / "checkpoint.pt").is_file()
    assert "fork server" not in (store.folder(training) / "job.log").read_text()


def test_the_limit_of_starts_that_the_workflow_takes_off_is_where_snakemake_has_it() -> None:
    assert "job_rate_limiter" in JobScheduler.__init__.__code__.co_names
    assert "job_rate_limiter" in JobScheduler.schedule.__code__.co_names  # where a timer is started after every look
    assert "workflow.scheduler.job_rate_limiter = None" in (ROOT / "workflow" / "rules" / "common.smk").read_text()


LONG = 300.0  # seconds in which a loaded machine gets anywhere


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_numbers_fit_together(finished: Finished) -> None:
    """Robust accuracy falls along eps, starts at clean accuracy, and is the share of rows that did not fail."""
    _, config = finished
    folder = make_plan(parse_study(config)).folder / "tables"
    robustness, examples = read_table(folder / "robustness.parquet"), read_table(folder / "examples.parquet")
    assert len(robustness) == 3 * 2 * 4
    for (arm, norm), curve in robustness.groupby(["arm", "eval_norm"]):
        rows = examples[(examples["arm"] == arm) & (examples["eval_norm"] == norm)]
        assert curve["accuracy"].is_monotonic_decreasing
        assert curve["accuracy"].iloc[0] == rows["clean_correct"].mean()
        for row in curve.itertuples():
            assert row.accuracy == (rows["distance"] > row.eps).mean()
            assert row.low <= row.accuracy <= row.high
    corruptions = read_table(folder / "corruptions.parquet")
    assert len(corruptions) == 3 * 2 * 2
    arms = read_table(folder / "arms.parquet").set_index("variant")
    assert arms.loc["at_ssl_joint", "passes"] == (6 + 4 + 4) * 1  # two steps with two forwards each, then two


def test_nothing_changed_nothing_runs(finished: Finished) -> None:
    assert jobs(*finished) == {}


def test_touched_files_run_nothing(finished: Finished) -> None:
    folder, config = finished
    for number, path in enumerate(sorted((folder / "results").rglob("*"))):
        os.utime(path, (1_700_000_000 - number, 1_700_000_000 - number))
    assert jobs(folder, config) == {}


def test_a_copy_elsewhere_runs_nothing(finished: Finished, tmp_path: Path) -> None:
    """As after `cp -r` or a fresh clone beside old results: no notes of Snakemake, other times, another path."""
    folder, config = finished
    shutil.copytree(folder / "results", tmp_path / "moved" / "results", copy_function=shutil.copyfile)
    assert jobs(tmp_path / "moved", config | {"results": str(tmp_path / "moved" / "results")}) == {}


def changed(config: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return config | {section: config[section] | values}


TRAINED_AGAIN = {"corrupt": 3, "diagnose": 3, "evaluate": 3, "finetune": 3}
CHANGES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], dict[str, int]]] = {
    "a variant": (
        lambda config: config | {"arms": [*config["arms"], {"variant": "at_ssl_clean", "norm": "linf"}]},
        {"corrupt": 1, "diagnose": 1, "evaluate": 1, "finetune": 1},
    ),
    "an eps": (lambda config: changed(config, "evaluate", eps=[0, 0.5, 0.75, 1, 2]), {"evaluate": 3}),
    "a corruption": (
        lambda config: changed(config, "corrupt", names=["gaussian_noise", "contrast", "fog"]),
        {"corrupt": 3},
    ),
    "a fine-tuning setting": (lambda config: changed(config, "finetune", lr=0.05), TRAINED_AGAIN),
    "a seed": (lambda config: config | {"seeds": [0, 1]}, TRAINED_AGAIN | {"pretrain": 1, "probe": 1}),
    "a study that shares a pre-training": (
        lambda config: config | {"study": "second", "arms": [{"variant": "trades", "norm": "linf", "init": "ssl"}]},
        {"corrupt": 1, "evaluate": 1, "finetune": 1},
    ),
    "a probe": (lambda config: changed(config, "probe", neighbours=5), {"probe": 1}),
    "no diagnosis": (lambda config: config | {"diagnose": False}, {}),
    "how verdicts are made": (lambda config: config | {"findings": {"margin": 2}}, {}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_runs_what_depends_on_it_and_nothing_else(what: str, finished: Finished) -> None:
    folder, config = finished
    change, expected = CHANGES[what]
    assert jobs(folder, change(config)) == expected | CLOSING


def test_going_back_to_an_old_config_runs_nothing(finished: Finished, tmp_path: Path) -> None:
    folder, config = finished
    shutil.copytree(folder / "results", tmp_path / "results")
    config = config | {"results": str(tmp_path / "results")}
    other = changed(config, "evaluate", eps=[0, 1])
    done = snakemake(tmp_path, other)
    assert done.returncode == 0, done.stderr
    assert jobs(tmp_path, other) == {}
    assert jobs(tmp_path, config) == {}


def test_a_second_run_without_a_fork_server_gives_the_same_bits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output of every stage, from data to tables; times and machines are separated from results."""
    monkeypatch.setenv(ADDRESS, "")
    _, config = finished
    again = config | {"results": str(tmp_path / "results"), "arms": config["arms"][:1]}
    plan = make_plan(parse_study(again))
    done = snakemake(tmp_path, again, "--until", "diagnose", "evaluate", "corrupt")
    assert done.returncode == 0, done.stderr
    old, new = Store(Path(config["results"])), Store(plan.study.results)
    compared = 0
    for path in plan.stages:
        for name in new.manifest(path)["outputs"]:
            if name != "samples.npz":  # a zip, which stores the time
                assert sha256(new.output(path, name)) == sha256(old.output(path, name)), (path, name)
                compared += 1
    assert compared > 20


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown variant": ({"arms": [{"variant": "att"}]}, ["arms.0.variant", "did you mean 'at'"]),
    "no data": ({"data": {"name": "x", "source": "parquet", "path": "/no/such/folder"}}, ["path", "/no/such/folder"]),
    "hostile name": ({"study": "x; touch hacked"}, ["study", "touch hacked"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_stops_before_any_job(what: str, tmp_path: Path) -> None:
    changes, words = BAD[what]
    done = snakemake(tmp_path / "run", tiny_config(tmp_path / "results", **changes))
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_failed_stage_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "results", arms=[{"variant": ["standard", "at"], "norm": "linf"}])
    plan = make_plan(parse_study(config))
    store = Store(plan.study.results)
    snakemake(tmp_path, config, "--until", "finetune")
    trained = plan.arms[0].finetune
    weights = store.folder(trained) / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    done = snakemake(tmp_path, config)
    assert done.returncode != 0
    assert f"{weights}: missing, truncated or altered; remove the folder" in done.stderr
    assert store.done(plan.arms[1].evaluate["best"]), "what does not depend on it went on"
    assert not store.done(plan.arms[0].evaluate["best"])
    shutil.rmtree(store.folder(trained))
    assert jobs(tmp_path, config).get("finetune") == 1


@pytest.mark.parametrize("name", ["quickstart", "cifar10-mini", "cifar10"])
def test_the_studies_of_the_repository_plan_their_jobs(name: str, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) | {"results": str(tmp_path / "results")}
    plan = due_part(make_plan(parse_study(config)))
    expected = {kind: len(plan.of_kind(kind)) for kind in STAGES}
    assert jobs(tmp_path, config) == {kind: count for kind, count in expected.items() if count} | CLOSING


def test_the_plan_command_says_what_is_done(finished: Finished, tmp_path: Path) -> None:
    _, config = finished
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    outputs = {
        command: subprocess.run(
            [sys.executable, "-m", "ssrob", command, path], capture_output=True, text=True, check=True
        ).stdout
        for command in ("plan", "ls")
    }
    assert "tiny: 3 models (1 seed), none still to train" in outputs["plan"]
    assert re.search(r"finetune\s+3\s+3\s+0\s+0\.0", outputs["plan"])
    assert outputs["ls"].count("done") == 15


def test_a_stage_s_provenance_tells_what_it_ran_on(finished: Finished) -> None:
    _, config = finished
    plan = make_plan(parse_study(config))
    facts = json.loads((Store(plan.study.results).folder(plan.arms[0].finetune) / "provenance.json").read_text())
    assert facts["versions"]["torch"]
    assert facts["device"]
    assert facts["seconds"] > 0
