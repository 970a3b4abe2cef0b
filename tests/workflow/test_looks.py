"""A study with planned looks, run to its end: by `make study`, in portions, and as the pilot of a larger one."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from ssrob import cli
from ssrob.cli.common import plan_and_store
from ssrob.planning.plan import make_plan
from tests.conftest import ROOT, tiny_config
from typer.testing import CliRunner

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]
TRAINED = {"at": 4, "open": 4, "close": 3}


def config(folder: Path, **changes: Any) -> Path:
    """Write a study of four seeds: a claim that the first look decides, and one that no look does.

    A difference of less than 1,000 points is shown by any three seeds. A gain at this level is not: with two degrees of
    freedom it would have to be some 60 times its standard error.
    """
    perturb = {"perturb": {"adv": {"maximise": {"xent": 1}}}}
    train = {"close": {"clean": {"xent": 0.5}, "adv": {"xent": 0.5}}, "open": {"adv": {"xent": 0.5}}}
    claims = {"near": {"compare": "close", "expect": "equivalent"}, "more": {"compare": "open"}}
    study = tiny_config(
        folder / "results",
        seeds=[0, 1, 2, 3],
        variants={name: perturb | {"train": terms} for name, terms in train.items()},
        arms=[{"variant": ["at", "close", "open"], "norm": "linf"}],
        findings={"looks": [3, 4], "claims": claims, "margin": 1000, "alpha": 0.0005, "floor": 0},
        corrupt={"names": ["contrast"], "severities": [1], "images": 20},
        probe=False,
        diagnose=False,
    )
    study["evaluate"] |= {"images": 60}  # a group of images to leave out takes more than 50
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes))
    return path


def ssrob(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


def trained(path: Path) -> Counter[str]:
    """Count by variant the models that are trained and due."""
    plan, store = plan_and_store(str(path), None)
    return Counter(arm.variant for arm in plan.arms if store.done(arm.finetune))


def verdicts(path: Path) -> dict[str, tuple[str, int, str]]:
    """Return, by claim, verdict, seeds and note in the tables of what is due now."""
    plan, _ = plan_and_store(str(path), None)
    table = pd.read_parquet(plan.folder / "tables" / "findings.parquet")
    rows = table[table["primary"]][["claim", "verdict", "seeds", "note"]]
    return {claim: tuple(rest) for claim, *rest in rows.itertuples(index=False)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the study after `make study`."""
    path = config(tmp_path_factory.mktemp("looks"))
    command = ["make", "-o", ".venv/.ready", "study", f"CONFIG={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_make_study_trains_what_is_open_after_a_look_and_no_more(finished: Path) -> None:
    assert trained(finished) == TRAINED
    near, more = verdicts(finished)["near"], verdicts(finished)["more"]
    assert near[:2] == ("supported", 3)
    assert "at the look with 3 seeds" in near[2]
    assert more[0] in ("inconclusive", "underpowered")
    assert "at the look with 4 seeds" in more[2]
    assert ssrob("look", finished, code=1).split() == ["look", "no", "further", "models", "are", "due"]


def test_a_portion_goes_on_after_a_look_to_the_same_verdicts(finished: Path, tmp_path: Path) -> None:
    """The same study without its record of looks, and without the tests of the last two seeds."""
    path, stages = config(tmp_path), Path("results", "stages")
    shutil.copytree(finished.parent / stages, tmp_path / stages)
    plan, _ = plan_and_store(str(path), None)
    late = [arm.evaluate["best"] for arm in make_plan(plan.study).arms if arm.seed >= 2]
    for stage in late:
        shutil.rmtree(tmp_path / stages / stage, ignore_errors=True)
    assert "5 stages finished" in ssrob("portion", path, "--budget", "1h")
    assert trained(path) == TRAINED
    ssrob("collect", path)
    assert verdicts(path) == verdicts(finished)


def test_a_pilot_says_what_a_larger_study_could_detect(finished: Path, tmp_path: Path) -> None:
    larger = config(tmp_path, seeds=list(range(20)))
    said = ssrob("power", larger, "--pilot", finished)
    assert "20 seeds and 60 test images are planned" in said
    assert all(f"{claim}: " in said for claim in ("near", "more"))
    assert "core-hours" in said
    assert "no model of the study" in str(CliRunner().invoke(cli.app, ["power", str(larger)]).exception)
