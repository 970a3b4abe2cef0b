"""The door of the workflow: what would fail after hours of training is refused before any job starts."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.corruptions.fingerprint import fingerprint
from ssrob.data.leakage import check_no_overlap, check_unseen
from ssrob.data.types import DataError
from ssrob.planning.plan import Plan, make_plan
from ssrob.registry.corruptions import CORRUPTIONS, Corruption
from ssrob.scheduling.disk_usage import estimate
from ssrob.scheduling.preflight import open_study
from ssrob.storage.store import MANIFEST, Store, StoreError, write_json
from tests.conftest import ROOT, snakemake, tiny_config
from tests.image_files import folder_data


def finish(store: Store, stage: Any, **files: object) -> Path:
    """Publish a stage with JSON files as its outputs; return its folder."""
    out = store.work(stage.path) / "out"
    out.mkdir(parents=True)
    for name, value in files.items():
        write_json(out / f"{name}.json", value)
    store.publish(stage, out, {})
    return store.folder(stage.path)


CIFAR = {"name": "cifar10", "source": "cifar10"}
WNIDS = ("n01440764", "n02123045")


def publish(file: Path) -> None:
    """Write an array laid out as CIFAR-10-C's, sparse and of zeros."""
    shape = (50_000,) if file.stem == "labels" else (50_000, 32, 32, 3)
    np.lib.format.open_memmap(file, "w+", np.uint8, shape)


def refused(folder: Path, **corruptions: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_study(tiny_config(folder / "results", data=CIFAR, corrupt=corruptions), "study.yaml")
    return str(caught.value)


def test_published_corruptions_are_looked_for_before_anything_is_trained(tmp_path: Path) -> None:
    names = ["fog", "contrast"]
    official = tmp_path / "cifar10c"
    message = refused(tmp_path, names=names, official=str(official))
    assert message == f"corrupt.official: no such folder: {official}"
    assert "no such folder: xxx" in refused(tmp_path, names=names, official="x" * 5000)
    official.mkdir()
    publish(official / "fog.npy")
    message = refused(tmp_path, names=names, official=str(official))
    assert message.endswith("must hold labels.npy and a file for each of `names`, found no labels.npy, contrast.npy")
    for name in ("labels", "contrast"):
        publish(official / f"{name}.npy")
    asked = {"names": names, "official": str(official)}
    assert open_study(tiny_config(tmp_path / "results", data=CIFAR, corrupt=asked))
    with pytest.raises(ConfigError, match=r"official: .* is of 32x32 colour images, found images of \(8, 8, 1\)"):
        open_study(tiny_config(tmp_path / "results", corrupt=asked))
    with (official / "fog.npy").open("r+b") as file:
        file.truncate(10_000_000)
    assert "fog.npy is damaged or not a .npy array" in refused(tmp_path, **asked)


def test_published_folders_of_images_are_looked_for_too(tmp_path: Path) -> None:
    names, tree = ["fog", "contrast"], tmp_path / "imagenetc"
    for severity in (1, 2):
        (tree / f"fog/{severity}").mkdir(parents=True)
    asked = {"names": names, "severities": [1, 2], "official": str(tree)}
    message = refused(tmp_path, **asked)
    assert message.endswith("must hold a folder for each of `names`, found no contrast/1, contrast/2")
    (tree / "contrast/1").mkdir(parents=True)
    (tree / "contrast/2").mkdir()
    assert open_study(tiny_config(tmp_path / "results", corrupt=asked)), "images are compared when they are known"


def imagenet_c(folder: Path) -> dict[str, Any]:
    """Write a data set of twelve test images and corruptions of them; return the parts of a config that name both."""
    data = folder_data(folder / "images", {f"{split}/{name}": 6 for split in ("train", "val") for name in WNIDS})
    for name, severity in itertools.product(("fog", "contrast"), (1, 5)):
        shutil.copytree(folder / "images/val", folder / f"published/{name}/{severity}")
    asked = {"names": ["fog", "contrast"], "severities": [1, 5], "official": str(folder / "published")}
    training = {"epochs": 1, "batch_size": 5}
    return {
        "data": data.model_dump(mode="json", exclude_unset=True),
        "corrupt": asked,
        "evaluate": {"preset": "fast", "eps": [0, 1], "images": 12},
        "finetune": training,
        "arms": [{"variant": "at", "norm": "linf"}],
    }


def other_size(folder: Path) -> None:
    for image in (folder / "images").rglob("*.png"):
        Image.open(image).resize((9, 9)).save(image)


PUBLISHED: list[tuple[Callable[[Path], object], str]] = [
    (
        lambda folder: shutil.rmtree(folder / f"published/contrast/5/{WNIDS[1]}"),
        r"contrast/5: expected a folder for each class, found no n02123045$",
    ),
    (
        lambda folder: (folder / f"published/contrast/1/{WNIDS[0]}/003.png").unlink(),
        r"n01440764: expected the images of \S*/n01440764, but only one of them has 003.png$",
    ),
    (
        lambda folder: (folder / f"images/val/{WNIDS[0]}/003.png").unlink(),
        r"published: 1 of 11 labels differ from those of the test split",
    ),
    (other_size, r"published: is of 8x8 colour images, found images of \(9, 9, 3\)$"),
]


@pytest.mark.parametrize(("damage", "message"), PUBLISHED)
def test_published_folders_that_do_not_fit_are_refused_before_anything_is_trained(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "results", **imagenet_c(tmp_path))
    assert open_study(config)
    damage(tmp_path)
    config["evaluate"]["images"] = 11
    with pytest.raises(ConfigError, match=rf"^corrupt\.official: \S*{message}"):
        open_study(config)


def test_a_corruption_of_a_plugin_has_no_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRUPTIONS, "darken", Corruption("plugin:darken", severities=((0.1,),) * 5))
    for name in ("labels", "fog"):
        (tmp_path / f"{name}.npy").touch()
    assert refused(tmp_path, names=["fog", "darken"], official=str(tmp_path)).endswith("found no darken.npy")


def test_photographs_are_looked_for_until_every_model_is_tested(tmp_path: Path) -> None:
    corruptions = {"names": ["frost"], "frost": str(tmp_path / "photos")}
    assert refused(tmp_path, **corruptions) == f"corrupt.frost: no such folder: {tmp_path / 'photos'}"
    config = tiny_config(tmp_path / "results", corrupt=corruptions)
    plan = make_plan(parse_study(config))
    for stage in plan.of_kind("corrupt").values():
        finish(Store(plan.study.results), stage)
    assert open_study(config), "a finished test needs its photographs no more"


def test_pre_training_sees_no_image_that_is_tested_on(tmp_path: Path) -> None:
    arms = [{"variant": "at", "norm": "linf", "init": "ssl"}]

    def opened(**extra: Any) -> Plan:
        data = {"name": "more", "source": "digits"} | extra
        return open_study(tiny_config(tmp_path / "results", pretrain_data=data, arms=arms))

    assert opened(train_images=300)
    for field, value in (("split_seed", 1), ("test_share", 0.1)):
        with pytest.raises(DataError, match=rf"'more': {field}: it has images of 'digits', which sets its test images"):
            opened(**{field: value})


def test_pre_training_on_grey_images_for_colour_ones_is_refused(tmp_path: Path) -> None:
    colour = folder_data(tmp_path / "images", dict.fromkeys(("ant", "bee"), 20))
    extra = colour.model_dump(mode="json", exclude_unset=True)
    config = tiny_config(tmp_path / "results", pretrain_data=extra)
    with pytest.raises(DataError, match="'tiny': source: must have grey images, as 'digits' has; found colour images"):
        open_study(config)
    for image in (tmp_path / "images").rglob("*.png"):
        Image.open(image).convert("L").save(image)
    assert open_study(config)


def test_files_that_hold_test_images_are_no_data_for_pre_training(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "test-0"):
        (tmp_path / f"{name}.parquet").touch()
    data = Data(name="mine", source="parquet", path=tmp_path)
    check_no_overlap(data, data.model_copy(update={"name": "same", "label_column": None}))
    with pytest.raises(DataError, match=r"'all': train: .*test-0.parquet holds the test images of 'mine'"):
        check_no_overlap(data, data.model_copy(update={"name": "all", "train": ["*.parquet"]}))
    (tmp_path / "test-0.parquet").unlink()
    with pytest.raises(DataError, match=r"'bare': label_column: .* expected the same, found None"):
        check_no_overlap(data, data.model_copy(update={"name": "bare", "label_column": None}))


@pytest.mark.parametrize("seen", ["d", "d/test", "d/test/ant"])
def test_folders_that_hold_test_images_are_no_data_for_pre_training(tmp_path: Path, seen: str) -> None:
    data = folder_data(tmp_path / "d", {"train/ant": 1, "train/bee": 1, "test/ant": 1, "test/bee": 1})
    for name in ("train", tmp_path / "d"):
        check_no_overlap(data, Data(name="same", source="folder", path=tmp_path / "d" / name, label_column=None))
    if seen == "d":  # without train/ everything is seen
        (tmp_path / "d/train").rename(tmp_path / "d/more")
    with pytest.raises(DataError, match=r"'all': path: .* holds the test images of 'tiny'"):
        check_no_overlap(data, Data(name="all", source="folder", path=tmp_path / seen, label_column=None))


@pytest.mark.parametrize(
    ("only", "trained", "found"),
    [
        ([], {}, "none"),
        (["bee"], {}, "bee"),
        (["bee", "rose"], {"hold_out": ["rose"]}, "bee, rose"),
        (["bee"], {"only": ["bee", "rose"]}, "bee"),
        (["bee"], {"hold_out": ["bee", "rose"]}, None),
        (["bee"], {"only": ["rose", "tulip"]}, None),
    ],
)
def test_the_same_data_set_is_outside_by_other_classes_alone(
    only: list[str], trained: dict[str, Any], found: str | None
) -> None:
    mine, outside = Data(name="a", source="cifar100", **trained), Data(name="b", source="cifar100", only=only)
    if found is None:
        check_unseen(outside, mine)
        return
    with pytest.raises(DataError, match=rf"'b': only: .* 'a' holds out, as both are cifar100; found {found}$"):
        check_unseen(outside, mine)


def test_photographs_that_changed_between_two_models_are_noticed(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"ice")
    config = tiny_config(tmp_path / "results", corrupt={"names": ["frost"], "frost": str(photos)})
    plan = make_plan(parse_study(config))
    store, (tested, *_) = Store(plan.study.results), plan.of_kind("corrupt").values()
    out = store.work(tested.path) / "out"
    out.mkdir(parents=True)
    store.publish(tested, out, {"corruptions": {"files": fingerprint(photos)}})
    assert open_study(config)
    (photos / "a.png").write_bytes(b"snow")
    with pytest.raises(ConfigError, match=r"frost: .*photos has other files than when corrupt/.* was made; remove"):
        open_study(config)


def test_messages_name_the_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^study\.yaml: seeds: "):
        open_study(tiny_config(tmp_path, seeds=[]), "study.yaml")


@pytest.mark.parametrize("damage", ["cut", "gone", "no JSON"])
def test_prepared_data_that_was_damaged_is_told(damage: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "results")
    plan = make_plan(parse_study(config))
    store, (stage,) = Store(plan.study.results), plan.of_kind("data").values()
    about = {"shape": [1, 8, 8], "counts": {"train": 360, "validation": 40, "test": 60}}
    file = finish(store, stage, data=about) / "data.json"
    assert estimate(plan, store).by_kind["finetune"] > 0
    assert open_study(config)
    if damage == "cut":
        file.write_text(file.read_text()[:-9])
    elif damage == "gone":
        file.unlink()
    else:
        shutil.rmtree(file.parent)
        (store.root / "text").mkdir()
        (store.root / "text" / "data.json").write_text("[1]")
        store.publish(stage, store.root / "text", {})
    with pytest.raises(StoreError, match=r"data\.json: .*remove the folder .*data/digits-\w+ and run again"):
        open_study(config)
    assert (file.parent / MANIFEST).is_file()


@pytest.mark.study
def test_the_workflow_tells_damaged_results_without_a_traceback(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "results")
    plan = make_plan(parse_study(config))
    store, (stage,) = Store(plan.study.results), plan.of_kind("data").values()
    (finish(store, stage, data={}) / "data.json").unlink()
    done = snakemake(tmp_path / "run", config, "--dry-run")
    assert done.returncode != 0
    assert "data.json: missing, truncated or altered; remove the folder" in done.stdout
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr


@pytest.mark.study
def test_the_workflow_refuses_a_key_that_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text((ROOT / "config" / "quickstart.yaml").read_text() + "seeds: [5]\n")
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--directory", tmp_path, "--dry-run"]
    done = subprocess.run([*command, "--configfile", path], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the key 'seeds' is given twice" in done.stdout + done.stderr
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("section", "images", "field"),
    [
        ("evaluate", 451, "evaluate.images"),
        ("evaluate", {"l2": 451}, "evaluate.images.l2"),
        ("corrupt", 451, "corrupt.images"),
    ],
)
def test_more_test_images_than_there_are(section: str, images: Any, field: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    del config["data"]["test_images"]
    with pytest.raises(ConfigError) as caught:
        open_study(config | {section: config[section] | {"images": images}})
    assert str(caught.value) == f"{field}: must be 1..449 (the test images there are), found 451"


def test_images_of_a_norm_that_the_study_does_not_test(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config["evaluate"] |= {"images": {"l2": 20}}
    del config["threat"]["l2"]
    with pytest.raises(ConfigError, match=r"unknown norm in evaluate\.images 'l2'; known: linf"):
        open_study(config)
