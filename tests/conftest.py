"""Small things that many tests need."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config import parse_study
from ssrob.spec import Study
from ssrob.store import MANIFEST, TOKEN, Store

ROOT = Path(__file__).parents[1]


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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side; more threads than cores make them many times slower."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_study(tmp_path: Path) -> Study:
    return parse_study(tiny_config(tmp_path / "results"))
