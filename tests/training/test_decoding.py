"""Training on images that stay in their files: the bits of a decoded array, resumed to the same bits, shared by two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.data.types import DataError
from ssrob.planning.plan import Plan
from ssrob.runtime import runner
from ssrob.scheduling.staleness import check_sources
from ssrob.storage.store import Store, sha256
from tests.conftest import tiny_config
from tests.image_files import folder_data
from tests.trainings import only, plan_of, run_training, run_until

FILES = ("last.safetensors", "training.parquet")
BARE = {"model": {"name": "bare", "width": 4}, "plugins": ["tests.bare_network"]}
COUNTS = {f"{split}/{name}": count for split, count in (("train", 30), ("test", 5)) for name in ("ant", "bee", "cow")}


def planned(folder: Path, augment: list[str], storage: str = "files", **training: Any) -> tuple[Plan, Store]:
    images = folder / "images"
    if not images.exists():
        folder_data(images, COUNTS)
    data = {"name": "tiny", "source": "folder", "path": str(images), "size": 8, "storage": storage}
    each = {"epochs": 3, "batch_size": 20, "augment": augment, "validation_steps": 1} | training
    rest = {"arms": [{"variant": "at", "norm": "linf"}], "probe": "off", "diagnose": "off"} | BARE
    return plan_of(folder / f"results-{storage}", data=data, finetune=each, **rest)


def test_where_images_are_kept_changes_no_bit(tmp_path: Path) -> None:
    (one, first), (other, second) = (planned(tmp_path, ["crop", "flip"], storage) for storage in ("pixels", "files"))
    assert list(one.stages) == list(other.stages)
    for plan, store in ((one, first), (other, second)):
        run_training(plan, store)
    path = only(one, "finetune").path
    for name in FILES:
        assert sha256(first.output(path, name)) == sha256(second.output(path, name)), name


def test_resized_crops_are_resumed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, ["resized_crop", "flip"], "pixels")
    other, disturbed = planned(tmp_path, ["resized_crop", "flip"])
    run_training(plan, store)
    runner.run(only(other, "data"), disturbed, device="cpu")
    stage = only(other, "finetune")
    run_until(stage, disturbed, 5)
    run_until(stage, disturbed, 2)
    runner.run(stage, disturbed, device="cpu")
    assert "resumed at step 9" in (disturbed.folder(stage.path) / "log.txt").read_text()
    for name in FILES:
        assert sha256(store.output(stage.path, name)) == sha256(disturbed.output(stage.path, name)), name


def test_two_replicas_train_on_halves_of_the_same_crops(tmp_path: Path) -> None:
    weights = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        plan, store = planned(folder, ["resized_crop"], replicas=count)
        run_training(plan, store)
        weights.append(load_file(store.output(only(plan, "finetune").path, "last.safetensors")))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)  # float32, twelve steps


@pytest.mark.parametrize("storage", ["pixels", "files"])
def test_files_that_are_gone_are_missed_before_a_training_that_needs_them(storage: str, tmp_path: Path) -> None:
    plan, store = planned(tmp_path, ["flip"], storage)
    runner.run(only(plan, "data"), store, device="cpu")
    check_sources(plan, store)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    if storage == "pixels":  # the array has all of them
        check_sources(plan, store)
        return
    with pytest.raises(DataError, match=r"'tiny': path: training images of data/tiny-\w+ stay in .*finetune/\S* needs"):
        check_sources(plan, store)


def test_two_ways_to_crop_are_refused(tmp_path: Path) -> None:
    training = tiny_config(tmp_path)["finetune"] | {"augment": ["crop", "resized_crop"]}
    with pytest.raises(ConfigError, match="augment: give crop"):
        parse_study(tiny_config(tmp_path, finetune=training))
