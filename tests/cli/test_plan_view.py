"""What `ssrob plan` says of a study that has not begun."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from ssrob import cli
from ssrob.cli.plan_view import plan_text
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.scheduling.due import due_part
from ssrob.storage.store import Store
from tests.conftest import tiny_config
from typer.testing import CliRunner


def test_a_study_in_words(tmp_path: Path) -> None:
    threat = {"linf": {"eps": "8/255", "steps": 2}}
    arms = [{"variant": "at", "init": ["random", "ssl"], "norm": "linf", "seeds": [0]}]
    plan = make_plan(parse_study(tiny_config(tmp_path, threat=threat, arms=arms)))
    text = plan_text(plan, Store(plan.study.results), {})
    assert text.startswith("tiny: 2 models (1 seed), 2 still to train, results in ")
    rows = re.findall(r"^ AT, l-inf 8/255(.*?) +0 +(\d+) +no", text, re.MULTILINE)
    at = 2 * 2 + 3  # forward and input gradient of two steps; forward and parameter gradient
    assert rows == [("", str(at)), (", from rotation pre-training", str(at + 3))], (
        "pre-training on clean images is counted"
    )


def test_seeds_that_wait_for_a_look_are_named(tmp_path: Path) -> None:
    arms = [{"variant": "at", "norm": "linf"}]
    for looks, said in (
        ([], "5 models (5 seeds), 5 still"),
        ([3], "3 models (3 seeds; 2 more wait for a look), 3 still"),
    ):
        study = parse_study(tiny_config(tmp_path, arms=arms, seeds=[0, 1, 2, 3, 4], findings={"looks": looks}))
        assert said in plan_text(due_part(make_plan(study)), Store(tmp_path), {})


def test_the_network_can_be_timed_here(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(tmp_path / "results")))
    state = torch.get_rng_state()
    result = CliRunner().invoke(cli.app, ["plan", str(config), "--measure", "--speed", "corrupt=5", "--json"])
    assert result.exit_code == 0, result.output
    kinds = json.loads(result.stdout)["kinds"]
    measured = kinds["finetune"]["passes_to_do"] / kinds["finetune"]["seconds_to_do"]
    assert measured > 100
    evaluated = kinds["evaluate"]["passes_to_do"] / kinds["evaluate"]["seconds_to_do"]
    assert evaluated == pytest.approx(measured)
    assert torch.equal(torch.get_rng_state(), state)
