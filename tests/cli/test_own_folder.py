"""A study in a folder of one's own: `ssrob init` writes a config, `ssrob study` runs the packaged workflow on it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from ssrob import cli
from ssrob.cli.workflow import shipped
from ssrob.config.loader import load_study
from tests.conftest import ROOT, tiny_config
from typer.testing import CliRunner

PLUGIN = """
from ssrob.registry.backbones import BACKBONES, Backbone
BACKBONES["mine"] = Backbone("ssrob.models.resnet:resnet", {"depth": 8, "width": 4, "stem_stride": 1})
"""


def ssrob(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "ssrob", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("like", ["quickstart", "digits", "cifar10-small"])
def test_a_config_to_start_from(tmp_path: Path, like: str) -> None:
    result = CliRunner().invoke(cli.app, ["init", str(tmp_path / "new" / "mine.yaml"), "--from", like])
    assert result.exit_code == 0, result.output
    assert load_study(tmp_path / "new" / "mine.yaml").study == "mine"
    assert (tmp_path / "new" / "schema.json").read_text() == (ROOT / "config" / "schema.json").read_text()
    first, _, rest = (tmp_path / "new" / "mine.yaml").read_text().partition("\n")
    assert first == "# yaml-language-server: $schema=schema.json"
    assert rest


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    result = CliRunner().invoke(cli.app, ["init", str(tmp_path / "mine.yaml")])
    assert isinstance(result.exception, ValueError)
    assert "already exists" in str(result.exception)
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    unknown = CliRunner().invoke(cli.app, ["init", str(tmp_path / "x.yaml"), "--from", "quickstrat"])
    assert "did you mean 'quickstart'" in str(unknown.exception)


@pytest.mark.study
def test_a_study_runs_in_any_folder_with_the_plugins_beside_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "my \N{LATIN SMALL LETTER E WITH ACUTE}tude"
    folder.mkdir()
    model = {"name": "mine"}
    (folder / "backbone_of_mine.py").write_text(PLUGIN)
    config = tiny_config(Path("results"), plugins=["backbone_of_mine"], model=model, probe=False, diagnose=False)
    config["arms"] = [{"variant": "at", "norm": "linf"}]
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    dry = ssrob(folder, "study", "mine.yaml", "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert not (folder / "results" / "studies").exists()
    done = ssrob(folder, "study", "mine.yaml", "--cores", "1", "--set", "finetune.epochs=0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = folder.glob("results/studies/tiny/*/report.html")
    assert str(report) in done.stdout
    (stage,) = folder.glob("results/stages/finetune/*/stage.json")
    assert '"epochs": 0.5' in stage.read_text().replace('"epochs":0.5', '"epochs": 0.5')


def test_a_mistake_is_answered_before_the_workflow_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny_config(tmp_path, seeds=3)))
    refused = ssrob(tmp_path, "study", "mine.yaml")
    assert refused.returncode == 2
    assert "mine.yaml:" in refused.stderr
    assert "seeds: expected a list" in refused.stderr
    assert not (tmp_path / ".snakemake").exists()


def test_the_wheel_carries_the_workflow() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {
        name: f"ssrob/shipped/{name}" for name in ("Snakefile", "workflow", "config", "envs")
    }
    assert all(shipped(name).exists() for name in wheel["force-include"])
