"""Small things that many tests need."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ssrob.config.loader import parse_study
from ssrob.config.study import Study
from ssrob.storage.store import MANIFEST, TOKEN, Store

ROOT = Path(__file__).parents[1]
pytest_plugins = ["tests.watchdog"]
Finished = tuple[Path, dict[str, Any]]


def tiny_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study on digits that trains for a few steps: every kind of stage, seconds on one core."""
    training = {"epochs": 1, "batch_size": 100, "lr": 0.1, "validation_steps": 2, "validation_images": 50}
    config = {
        "study": "tiny",
        "results": str(folder),
        "data": {"name": "digits", "source": "digits", "train_images": 400, "test_images": 60},
        "model": {"name": "resnet", "depth": 8, "width": 4},
        "threat": {"linf": {"eps": 0.1, "steps": 2}, "l2": {"eps": 0.5, "steps": 2}},
        "pretrain": training,
        "finetune": training,
        "arms": [{"variant": ["at", "at_ssl_joint"], "norm": "linf"}, {"variant": "at", "norm": "linf", "init": "ssl"}],
        "evaluate": {"preset": "fast", "eps": [0, 0.5, 1, 2], "images": 40, "audit_images": 8, "audit_queries": 20},
        "corrupt": {"names": ["gaussian_noise", "contrast"], "severities": [1, 5], "images": 40},
        "probe": {"images": 40, "train_images": 100, "steps": 2},
        "diagnose": {"images": 40, "steps": 2, "head_images": 100, "head_epochs": 1},
    }
    return config | changes


def reopen(store: Store, path: str) -> None:
    """Take away what makes a stage finished; its outputs stay."""
    for name in (TOKEN, MANIFEST):
        (store.folder(path) / name).unlink()


def snakemake(folder: Path, config: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow on a config, in a folder of its own (Snakemake keeps its notes there)."""
    folder.mkdir(exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--directory", folder, "--configfile", path]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=environment)


def jobs(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """Count by rule the jobs that a dry run would start."""
    done = snakemake(folder, config, "--dry-run")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    if "Nothing to be done" in text:
        return {}
    stats = text.rpartition("Job stats:")[2]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", stats, re.MULTILINE)}
    assert counts.pop("total") == sum(counts.values())
    counts.pop("all", None)
    return counts


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny study, run to the end: its folder and its config."""
    folder = tmp_path_factory.mktemp("study")
    config = tiny_config(folder / "results")
    done = snakemake(folder, config)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, config


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side; more threads than cores make them many times slower."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_study(tmp_path: Path) -> Study:
    return parse_study(tiny_config(tmp_path / "results"))
