"""The corrupt stage: images made here or the published files, and what is recorded of either."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.corruptions import corrupt as make
from ssrob.corruptions.fingerprint import fingerprint
from ssrob.data.test_split import open_test
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime import runner
from ssrob.stages import corrupt
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table
from tests.conftest import tiny_config
from tests.reference_corruptions import crops
from torch import nn

CLASSES = ("cat", "dog")
TESTS = {"names": ["contrast", "frost"], "severities": [1, 5]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 32x32 images of two classes: 16 to train on, 12 to test on."""
    folder, draws = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 6)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draws.integers(0, 128, (32, 32, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files laid out as CIFAR-10-C for the twelve test images: a few rows of sparse arrays, of one grey level each."""
    folder = tmp_path_factory.mktemp("published")
    labels = np.zeros(10_000, np.uint8)
    labels[6:12] = 1
    np.save(folder / "labels.npy", np.tile(labels, 5))
    for name in TESTS["names"]:
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (50_000, 32, 32, 3))
        for severity in (1, 5):
            array[(severity - 1) * 10_000 : (severity - 1) * 10_000 + 12] = 20 * severity
    return folder


def planned(folder: Path, images: Path, **corruptions: Any) -> tuple[Plan, Store]:
    data = {"name": "pets", "source": "folder", "path": str(images), "validation": 0.25}
    training = {"epochs": 1, "batch_size": 6, "lr": 0.01, "validation_steps": 1}
    plan = make_plan(
        parse_study(
            tiny_config(folder, data=data, finetune=training, arms=[{"variant": "standard"}], corrupt=corruptions)
        )
    )
    return plan, Store(plan.study.results)


def run(plan: Plan, store: Store) -> tuple[list[tuple[str, int, int]], dict[str, str]]:
    """Run a plan's data, training and corruption test; return its rows and what it recorded."""
    for stage in plan.stages.values():
        if stage.kind != "evaluate":
            runner.run(stage, store, device="cpu")
    (stage,) = plan.of_kind("corrupt").values()
    table = read_table(store.output(stage.path, "corruptions.parquet"))
    return list(zip(table["corruption"], table["severity"], table["n"], strict=True)), store.provenance(stage.path)[
        "corruptions"
    ]


def test_the_published_files_are_used_when_the_config_names_them(
    tmp_path: Path, images: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict = corrupt.predict

    def look(model: nn.Module, pixels: np.ndarray, device: torch.device) -> np.ndarray:
        seen.extend(np.unique(pixels).tolist())
        return predict(model, pixels, device)

    monkeypatch.setattr(corrupt, "predict", look)
    plan, store = planned(tmp_path, images, **TESTS, official=str(published))
    rows, facts = run(plan, store)
    assert rows == [(name, severity, 12) for name in TESTS["names"] for severity in (1, 5)]
    assert seen == [20, 100, 20, 100]
    files = fingerprint(published)
    assert facts == {"images": "official files", "severities": "cifar", "frost": "official files", "files": files}
    elsewhere, _ = planned(tmp_path, images, **TESTS, official="/elsewhere")
    made, _ = planned(tmp_path, images, **TESTS)
    assert list(elsewhere.stages) == list(plan.stages)  # where the files lie is no part of a key
    assert list(made.of_kind("corrupt")) != list(plan.of_kind("corrupt"))  # that they were used is


def test_published_folders_are_used_as_published_arrays_are(tmp_path: Path, images: Path) -> None:
    tree = tmp_path / "published"
    for name, severity in (("contrast", 1), ("contrast", 5), ("frost", 1), ("frost", 5)):
        copied = tree / name / str(severity)
        shutil.copytree(images / "test", copied)
    plan, store = planned(tmp_path, images, **TESTS, official=str(tree))
    rows, facts = run(plan, store)
    assert rows == [(name, severity, 12) for name in TESTS["names"] for severity in (1, 5)]
    assert (facts["images"], facts["severities"]) == ("official files", "imagenet")
    (stage,) = plan.of_kind("corrupt").values()
    pixels, labels, index = open_test(store.folder(stage.parents["data"]))
    source = corrupt.Corrupted(pixels, index, official=tree, classes=CLASSES)
    assert np.array_equal(source.at("frost", 5), pixels)  # each image is found by its number
    with pytest.raises(ValueError, match=r"2 of 12 labels differ from those of the test split"):
        source.check(np.roll(labels, 1))
    with pytest.raises(ValueError, match=r"is of 32x32 colour images, found images of \(16, 16, 3\)"):
        corrupt.Corrupted(pixels[:, :16, :16], index, official=tree, classes=CLASSES).check(labels)


def test_what_the_images_were_made_with_is_recorded(tmp_path: Path, images: Path) -> None:
    plan, store = planned(tmp_path, images, **TESTS)
    _, facts = run(plan, store)
    assert facts == {"images": "made here", "severities": "cifar", "frost": "procedural texture"}


def test_files_of_other_images_are_refused(published: Path) -> None:
    pixels, index = np.zeros((12, 32, 32, 3), np.uint8), np.arange(12)
    labels = np.repeat([0, 1], 6)
    source = corrupt.Corrupted(pixels, index, official=published)
    source.check(labels)
    with pytest.raises(ValueError, match=r"2 of 12 labels differ from those of the test split.*original order"):
        source.check(np.roll(labels, 1))
    with pytest.raises(ValueError, match="1 of 12 labels differ"):
        corrupt.Corrupted(pixels, np.append(index[:11], 10_000), official=published).check(labels)
    with pytest.raises(ValueError, match=r"is of 32x32 colour images, found images of \(32, 32, 1\)"):
        corrupt.Corrupted(pixels[..., :1], index, official=published).check(labels)


def test_a_severity_table_is_taken_by_name(tmp_path: Path, images: Path) -> None:
    plan, store = planned(tmp_path, images, names=["contrast"], severities=[5], table="imagenet")
    assert run(plan, store)[1]["severities"] == "imagenet"
    usual, _ = planned(tmp_path, images, names=["contrast"], severities=[5])
    assert usual.of_kind("corrupt").keys() != plan.of_kind("corrupt").keys()
    pixels = np.full((2, 32, 32, 3), 200, np.uint8)
    pixels[0, :16] = 20
    named = corrupt.Corrupted(pixels, np.arange(2), table="imagenet").at("contrast", 5)
    assert (named == make(pixels, "contrast", 5, table="imagenet")).all()
    with pytest.raises(ConfigError, match=r"give either table or official"):
        planned(tmp_path, images, table="cifar", official="/a")


def test_photographs_and_files_are_not_given_both(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match=r"give either frost .* or official"):
        planned(tmp_path, images, **TESTS, official="/a", frost="/b")


def test_images_made_ahead_are_the_same_and_come_in_order() -> None:
    source = corrupt.Corrupted(crops(6, 32), np.arange(6))
    tests = [(name, severity) for name in ("glass_blur", "snow", "elastic_transform") for severity in (1, 5)]
    alone, ahead = (list(corrupt.corrupted_images(source, tests, workers)) for workers in (1, 4))
    assert [test for test, _ in ahead] == tests
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(alone, ahead, strict=True))


def test_making_images_ahead_ends_with_the_test_that_fails() -> None:
    source = corrupt.Corrupted(crops(6, 32), np.arange(6))
    images = corrupt.corrupted_images(source, [("fog", 1), ("rain", 1), *[("fog", 2)] * 100], 2)
    next(images)
    with pytest.raises(ValueError, match="unknown corruption 'rain'"):
        next(images)


def test_shares_are_those_of_the_predictions() -> None:
    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.mean((1, 2, 3))
            return self.scale * torch.stack([0.5 - bright, bright - 0.5], 1)

    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (10, 32, 32, 3)).astype(np.uint8) // np.arange(1, 11)[:, None, None, None]
    pixels = pixels.astype(np.uint8)
    labels = draws.integers(0, 2, 10)
    table = corrupt.run_tests(Bright(), corrupt.Corrupted(pixels, np.arange(10)), labels, [("brightness", 5)])
    bright = make(pixels, "brightness", 5).mean((1, 2, 3)) > 127.5
    assert corrupt.shares(table).tolist() == [(bright == labels).mean()]
