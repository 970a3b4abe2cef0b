"""The Makefile hands over a folder of images as it was given, and nothing that was not asked for."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ssrob.config.loader import load_study
from tests.conftest import ROOT

CONFIG = "config/quickstart.yaml"


def commands(*arguments: str, target: str = "study", **environment: str) -> list[list[str]]:
    """Return what a target would run, as words."""
    command = ["make", "-n", "-o", ".venv/.ready", target, *arguments]
    environment = {"PATH": os.environ["PATH"]} | environment
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
    return [shlex.split(line) for line in printed.splitlines()]


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
    *_, hint, workflow, _, where = commands(f"DATA={given}")
    (override,) = [word for word in workflow if word.startswith("data=")]
    assert where == ["ssrob", "where", CONFIG, "--set", override]
    command = shlex.split(hint[1].partition(": ")[2])
    assert command == [".venv/bin/ssrob", "status", CONFIG, "--set", override, "--watch"]
    data = load_study(ROOT / CONFIG, [override]).data
    assert (data.name, str(data.path), data.source) == (name, path, "parquet")


def test_data_of_the_environment_are_no_images() -> None:
    assert not any("data=" in word for words in commands(DATA="x") for word in words)


@pytest.mark.parametrize("target", ["study", "gpu-study", "ui"])
def test_a_config_s_path_may_have_a_space(target: str) -> None:
    words = commands("CONFIG=my configs/a.yaml", target=target)[-1]
    assert "my configs/a.yaml" in words


def test_the_numeric_tests_run_again_with_the_instruction_set_held_down() -> None:
    """Every folder of tests that computes with torch kernels, or is named here with its reason."""
    assert "make test-avx2" in (ROOT / ".ci" / "run").read_text()
    (command,) = commands(target="test-avx2")
    folders = {Path(word).name for word in command if word.startswith("tests/")}
    assert all((ROOT / "tests" / name).exists() for name in folders)
    no_kernels = {"analysis", "cli", "config", "planning", "reporting", "scheduling", "storage", "tracking"}
    whole_studies = {"external", "runtime", "slurm", "workflow"}  # the same kernels once more, in minutes
    others = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert others <= folders | no_kernels | whole_studies, "neither among the numeric tests nor among the others"


def test_torch_obeys_what_holds_the_instruction_set_down() -> None:
    (command,) = commands(target="test-avx2")
    held = dict(word.split("=") for word in command[: command.index("pytest")])
    code = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | held
    )
    assert done.stdout == "AVX2 False\n"
