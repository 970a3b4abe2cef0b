"""The Makefile hands over a folder of images as it was given, and nothing that was not asked for."""

import os
import shlex
import subprocess

import pytest
from ssrob.config.loader import load_study
from tests.conftest import ROOT

CONFIG = "config/quickstart.yaml"


def commands(*arguments: str, target: str = "study", **environment: str) -> list[list[str]]:
    """Return what a target would run, as words."""
    command = ["make", "-n", "-o", ".venv/.ready", target, *arguments]
    environment = {"PATH": os.environ["PATH"]} | environment
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
    return [shlex.split(line) for line in told.splitlines()]


@pytest.mark.parametrize(
    ("given", "name", "path"),
    [
        ("/data/cifar10", "cifar10", "/data/cifar10"),
        ("/data/cifar10/", "cifar10", "/data/cifar10"),
        ("photos", "photos", str(ROOT / "photos")),
        ("/data/my photos, new", "my_photos__new", "/data/my photos, new"),
    ],
)
def test_data_of_the_command_line_reach_every_command(given: str, name: str, path: str) -> None:
    *_, hint, workflow, where = commands(f"DATA={given}")
    (override,) = [word for word in workflow if word.startswith("data=")]
    assert where == ["ssrob", "where", CONFIG, "--set", override]
    told = shlex.split(hint[1].partition(": ")[2])
    assert told == [".venv/bin/ssrob", "status", CONFIG, "--set", override, "--watch"]
    data = load_study(ROOT / CONFIG, [override]).data
    assert (data.name, str(data.path), data.source) == (name, path, "parquet")


def test_data_of_the_environment_are_no_images() -> None:
    assert not any("data=" in word for words in commands(DATA="x") for word in words)


@pytest.mark.parametrize("target", ["study", "gpu-study", "ui"])
def test_a_config_s_path_may_have_a_space(target: str) -> None:
    words = commands("CONFIG=my configs/a.yaml", target=target)[-1]
    assert "my configs/a.yaml" in words
