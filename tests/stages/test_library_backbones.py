"""A vision transformer of timm and a ResNet of torchvision through all stages of a study, and evaluated without one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ssrob.models.serialization import load_network
from ssrob.runtime import runner
from tests.trainings import only, plan_of, run_training, run_until

VIT = {"name": "timm", "arch": "vit_tiny_patch16_224", "img_size": 8, "patch_size": 4}
VIT |= {"embed_dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"name": "torchvision", "arch": "resnet18"}
STEP = {"epochs": 0.5, "batch_size": 100, "lr": 0.05, "validation_steps": 1, "validation_images": 20}


def run_all(folder: Path, **changes: Any) -> tuple[Any, Any]:
    plan, store = plan_of(folder, pretrain=STEP, finetune=STEP, **changes)
    for stage in plan.stages.values():
        runner.run(stage, store, device="cpu")
    return plan, store


def test_a_vision_transformer_goes_through_every_stage(tmp_path: Path) -> None:
    arms = [
        {"variant": ["at", "at_ssl_joint"], "norm": "linf"},
        {"variant": "at", "norm": "linf", "init": "ssl"},
        {"variant": "at", "norm": "linf", "init": "ssl", "tune": "head"},
    ]
    plan, store = run_all(tmp_path, model=VIT, arms=arms)
    assert {stage.kind for stage in plan.stages.values()} >= {"pretrain", "finetune", "evaluate", "probe", "corrupt"}
    frozen = only(plan, "finetune", tune="head")
    before = load_network(store.folder(frozen.parents["init"]) / "last.safetensors")
    after = load_network(store.folder(frozen.path) / "last.safetensors")
    assert torch.equal(before.backbone.model.pos_embed, after.backbone.model.pos_embed), "frozen weights stay"
    assert not torch.equal(before.backbone.model.pos_embed, torch.zeros_like(before.backbone.model.pos_embed))
    tuned = only(plan, "finetune", variant="at", init=None)
    assert not torch.equal(
        load_network(store.folder(tuned.path) / "last.safetensors").backbone.model.pos_embed,
        before.backbone.model.pos_embed,
    )


def test_a_vision_transformer_learns_to_withstand_attacks(tmp_path: Path) -> None:
    settings = {"epochs": 8, "batch_size": 50, "lr": 0.3, "validation_steps": 5, "validate_every": 8}
    plan, store = plan_of(
        tmp_path,
        model=VIT | {"embed_dim": 48, "depth": 1, "num_heads": 3},
        data={"name": "digits", "source": "digits"},
        arms=[{"variant": "at", "norm": "linf"}],
        finetune=settings | {"validation_images": 100},
    )
    trained = run_training(plan, store)["at"]
    records = pd.read_parquet(store.folder(trained.path) / "training.parquet").set_index("metric")["value"]
    assert records["validation/clean_accuracy"] > 0.6  # 0.85 here; guessing is 0.1
    assert records["validation/robust_accuracy"] > 0.3


def test_a_torchvision_resnet_with_batchnorm_branches_and_an_average_of_its_weights(tmp_path: Path) -> None:
    split = {"perturb": {"adv": {"xent": 1}}, "train": {"adv": {"xent": 1}, "clean": {"xent": 1}}}
    few = {"preset": "fast", "eps": [0, 1], "images": 10, "audit_images": 4, "audit_queries": 5}
    plan, store = plan_of(
        tmp_path,
        model=RESNET,
        variants={"split": split | {"batchnorm": {"clean": "clean"}}},
        arms=[{"variant": "split", "norm": "linf"}],
        finetune=STEP | {"ema": 0.9},
        evaluate=few,
        corrupt={"names": ["contrast"], "severities": [1], "images": 10},
        diagnose=False,
        probe=False,
    )
    trained = run_training(plan, store)["split"]
    runner.run(only(plan, "evaluate"), store, device="cpu")
    network = load_network(store.folder(trained.path) / "best.safetensors")
    norm = network.backbone.model.network.bn1
    assert not torch.equal(norm.running_mean, norm.branches["clean"].running_mean)
    rows = pd.read_parquet(store.folder(only(plan, "evaluate").path) / "robustness.parquet")
    assert len(rows) == 2 * 10  # both norms


def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    vit = {"model": VIT, "arms": [{"variant": "at_ssl_joint", "norm": "linf"}], "finetune": STEP | {"epochs": 2}}
    whole, parted = (plan_of(tmp_path / name, **vit) for name in ("whole", "parted"))
    run_training(*whole)
    plan, store = parted
    runner.run(only(plan, "data"), store, device="cpu")
    run_until(only(plan, "finetune"), store, 3)
    run_training(plan, store)
    one, other = (
        load_network(s.folder(only(p, "finetune").path) / "last.safetensors").state_dict() for p, s in (whole, parted)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("model", [VIT, RESNET])
def test_a_compiled_backbone_is_the_same_function(model: dict[str, Any]) -> None:
    from ssrob.models.network import Architecture, build

    arguments = {key: value for key, value in model.items() if key != "name"}
    network = build(Architecture(model["name"], arguments, (1, 8, 8), [0.4], [0.3], {"class": 10}), seed=0)
    x = torch.rand(4, 1, 8, 8)
    plain = network.eval()(x)
    network.backbone.compile(dynamic=False, backend="aot_eager")
    assert torch.allclose(network(x), plain, atol=1e-5)  # float32
