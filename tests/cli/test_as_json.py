"""`--json` says to programs what the commands say to people; the exit code of `plan` says whether a study can start."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssrob import cli
from tests.conftest import Finished, tiny_config
from typer.testing import CliRunner


def answer(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path / "results")))
    return str(path)


def test_a_plan(config: str) -> None:
    plan = answer("plan", config, "--speed", "1000")
    assert plan["study"] == "tiny"
    assert plan["can_start"] is True
    finetune = plan["kinds"]["finetune"]
    assert (finetune["stages"], finetune["done"]) == (3, 0)
    assert finetune["seconds_to_do"] == pytest.approx(finetune["passes_to_do"] / 1000)


def test_a_plan_that_cannot_start_is_an_error_to_a_script(config: str, tmp_path: Path) -> None:
    wrong = ["plan", config, "--set", "data.test_images=100000"]
    plan = answer(*wrong, code=1)
    assert plan["can_start"] is False
    assert "test_images" in plan["refusal"]
    said = CliRunner().invoke(cli.app, wrong)
    assert said.exit_code == 1
    assert "It cannot start here: " in said.output


def test_stages_and_their_states(finished: Finished, tmp_path: Path) -> None:
    _, settings = finished
    path = tmp_path / "finished.yaml"
    path.write_text(yaml.safe_dump(settings))
    stages = answer("ls", str(path))["stages"]
    assert stages
    assert all(row["state"] == "done" and row["bytes"] > 0 and row["seconds"] >= 0 for row in stages)
    status = answer("status", str(path))
    assert status["states"]["done"] == len(stages)
    assert status["unfinished"] == []


def test_what_is_not_done_is_listed(config: str) -> None:
    status = answer("status", config)
    assert {row["state"] for row in status["unfinished"]} == {"waiting"}
    assert len(status["unfinished"]) == status["states"]["waiting"]


def test_short_help() -> None:
    for command in ([], ["plan"]):
        result = CliRunner().invoke(cli.app, [*command, "-h"])
        assert result.exit_code == 0
        assert "Usage:" in result.output
