"""The ImageNet studies: planned at 1.3 million images, and run to the end in miniature."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from ssrob.config.loader import load_config, parse_study
from ssrob.planning.plan import make_plan
from ssrob.runtime import runner
from ssrob.scheduling.disk_usage import estimate
from ssrob.scheduling.workload import image_counts, passes
from ssrob.seeding import normal
from ssrob.storage.store import Store, prepared_facts
from ssrob.storage.tables import read_table
from tests.conftest import ROOT
from tests.image_files import encoded, pixels

TRAIN, TEST, CLASSES = 1_281_167, 50_000, 1000
NAMES = ("ant", "bee", "cow")


def config(name: str, results: Path, **changes: Any) -> dict[str, Any]:
    return load_config(ROOT / f"config/{name}.yaml") | {"results": str(results)} | changes


@pytest.mark.parametrize("name", ["imagenet", "imagenet100"])
def test_the_shipped_studies_can_be_planned(name: str, tmp_path: Path) -> None:
    plan = make_plan(parse_study(config(name, tmp_path)))
    [spec] = {
        str(stage.spec["objective"]["perturb"])
        for stage in plan.of_kind("finetune").values()
        if stage.spec["variant"] == "at" and stage.spec.get("budget") is None
    }
    assert "'steps': 1" in spec
    assert len(plan.arms) == (8 if name == "imagenet" else 24)


def write_index(folder: Path) -> None:
    """Write the labels of as many images as ImageNet has, all of them the same small image."""
    image = encoded(pixels(1, size=8)[0])
    for name, count in (("train", TRAIN), ("test", TEST)):
        images = pa.array([image], pa.binary()).take(pa.array(np.zeros(count, np.int32)))
        table = pa.table({"image": images, "label": np.arange(count) % CLASSES})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=200_000)


def test_plan_and_disk_are_right_at_the_size_of_imagenet(tmp_path: Path) -> None:
    write_index(tmp_path)
    names = [f"class {k}" for k in range(CLASSES)]
    data = {"name": "imagenet", "source": "parquet", "path": str(tmp_path), "size": 224, "validation": 0.004}
    study = config("imagenet", tmp_path / "results", data=data | {"test_images": 5000, "classes": names})
    plan = make_plan(parse_study(study))
    store = Store(plan.study.results)
    train = TRAIN - round(0.004 * TRAIN)
    [path] = (f"data/{key}" for key in plan.of_kind("data"))
    assert image_counts(plan, store)[path] == (train, 5000)
    [at] = (s for s in plan.of_kind("finetune").values() if s.spec["variant"] == "standard")
    assert passes(at, (train, 5000)) == 3 * 15 * train  # a forward, and a backward of two, in each epoch
    needed = estimate(plan, store)
    decoded = (TRAIN - train + 5000) * 224 * 224 * 3
    assert needed.by_kind["data"] == pytest.approx(decoded + (TRAIN + 5000) * 24, rel=0.01)
    assert needed.by_kind["data"] < 2e9 < TRAIN * 224 * 224 * 3
    assert needed.unknown == []


def write_photographs(folder: Path) -> None:
    """Write 150 training and 15 test images of 224 pixels and more, one colour a class."""
    number = 0
    for split, count in (("train", 50), ("val", 5)):
        for label, name in enumerate(NAMES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = 0.1 * normal(torch.tensor([number]), (3, 8, 8)) + 0.4
                coarse[:, label] += 0.3
                fine = torch.nn.functional.interpolate(coarse, (240, 224 + 10 * (i % 5)), mode="bilinear")
                found = (fine.clamp(0, 1) * 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
                Image.fromarray(found).save(folder / split / name / f"{i}.jpg", quality=90)
                number += 1


def test_a_miniature_runs_to_the_end(tmp_path: Path) -> None:
    write_photographs(tmp_path / "images")
    shipped = load_config(ROOT / "config/imagenet.yaml")
    data = shipped["data"] | {
        "path": str(tmp_path / "images"),
        "storage": "files",
        "validation": 0.1,
        "test_images": 12,
    }
    training = shipped["finetune"] | {"epochs": 2, "batch_size": 27, "replicas": 1, "precision": "float32"}
    study = config(
        "imagenet",
        tmp_path / "results",
        data=data,
        model={"name": "resnet", "depth": 8, "width": 4, "stem_stride": 4},
        finetune=training | {"validation_steps": 1},
        arms=[{"variant": "at_ssl_adv"}],
        evaluate={"preset": "fast", "eps": [0, 1], "images": 6, "audit_images": 0},
        corrupt={"names": ["gaussian_noise", "jpeg_compression"], "severities": [1, 5], "images": 9},
        diagnose={"images": 6, "steps": 1, "head_images": 30, "head_epochs": 1},
        findings={},
    )
    plan = make_plan(parse_study(study))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        runner.run(stage, store, device="cpu")
    [path] = (f"data/{key}" for key in plan.of_kind("data"))
    facts = prepared_facts(store, path)
    assert (facts["shape"], facts["counts"]) == ([3, 224, 224], {"train": 135, "validation": 15, "test": 12})
    assert store.output(path, "train_images.npy").stat().st_size < 16 * 224 * 224 * 3
    arm = plan.arms[0]
    table = read_table(store.output(arm.evaluate["best"], "robustness.parquet"))
    assert len(table) == 6
    assert store.provenance(arm.corrupt["best"])["corruptions"]["severities"] == "imagenet"
