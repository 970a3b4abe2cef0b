"""Every SSL task in training: attacked, trained, pre-trained with, selected by; absent at weight zero."""

from pathlib import Path

import pytest
import torch
from ssrob.config.loader import parse_study
from ssrob.losses.batch import Batch, task_at
from ssrob.models.serialization import load_network
from ssrob.planning.cost import step_passes
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES
from ssrob.storage.store import sha256
from ssrob.storage.tables import read_table
from ssrob.training.perturbations import draw_views, image_sets
from ssrob.training.validate import _batch_sizes, score, validate
from tests.conftest import tiny_config
from tests.trainings import make, only, trained_plan

TASKS = [name for name, row in LOSSES.items() if row.self_supervised]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_attacked_trained_and_carried_over(task: str, tmp_path: Path) -> None:
    arms = [
        {"variant": "at", "norm": "linf"},
        {"variant": "at_ssl_joint", "norm": "linf", "weight": [0, 0.5]},
        {"variant": "at_ssl_joint", "norm": "linf", "init": "adversarial_ssl"},
    ]
    plan, store = trained_plan(tmp_path, ssl={"task": task, "weights": [0.5]}, arms=arms)
    at, off = only(plan, "finetune", variant="at"), only(plan, "finetune", weight=0.0)
    assert sha256(store.output(at.path, "last.safetensors")) == sha256(store.output(off.path, "last.safetensors"))
    what = "accuracy" if LOSSES[task].correct else "loss"
    given = {f"loss/adv/{task}", f"validation/clean_{task}_{what}", f"validation/robust_{task}_{what}"}
    pretrain = only(plan, "pretrain")
    for stage in (only(plan, "finetune", weight=0.5, init=None), pretrain):
        metrics = read_table(store.output(stage.path, "training.parquet"))
        assert given <= set(metrics["metric"])
        assert metrics["value"].notna().all()
    carried = only(plan, "finetune", init="adversarial_ssl")
    assert "init: backbone taken from" in (store.folder(carried.path) / "log.txt").read_text()
    rebuilt = load_network(store.output(pretrain.path, "last.safetensors"))
    assert set(rebuilt.heads) == set(LOSSES[task].heads)


@pytest.mark.parametrize("task", TASKS)
def test_a_joint_attack_climbs_the_task_and_leaves_no_trace(task: str, tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path, threat={"l2": {"eps": 0.5, "steps": 5}, "linf": {"eps": 0.1}}))
    objective = resolve_objective(study, study.variants["at_ssl_separate"], norm="l2", task=task, weight=0.5)
    network, batch = make(objective)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = image_sets(network, objective, batch, 0, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert (images["adv_ssl"] - batch.x).flatten(1).norm(dim=1).max() <= 0.5 + 1e-6
    loss = load(LOSSES[task].function)
    network.eval()
    with torch.no_grad():
        values = {name: loss(network, x, task_at(objective, task, x, batch)).mean() for name, x in images.items()}
    assert values["adv_ssl"] > values["adv"], "the attack on the task raises its loss more than one on the classes"
    assert values["adv_ssl"] > values["clean"]


@pytest.mark.parametrize(("task", "forwards"), [("jigsaw", 1), ("contrastive", 2), ("vicreg", 2)])
def test_two_views_cost_two_forwards(task: str, forwards: int, tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    passes = [
        step_passes(resolve_objective(study, study.variants["at_ssl_joint"], norm="linf", task=task, weight=weight))
        for weight in (0, 0.5)
    ]
    assert passes[1].forwards - passes[0].forwards == forwards * (2 + 1)  # two attack steps and the training step
    assert passes[1].full_backwards - passes[0].full_backwards == forwards


def test_views_are_drawn_once_per_step_and_anew_in_the_next(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    objective = resolve_objective(study, study.variants["at_ssl_joint"], norm="linf", task="vicreg", weight=0.5)
    batch = Batch(torch.zeros(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64))
    first, again, other = (draw_views(objective, batch, 0, step).drawn["vicreg"] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_an_accuracy_the_checkpoint_with_the_lowest_loss_is_the_best() -> None:
    epochs = [{"validation/clean_vicreg_loss": loss} for loss in (1.2, 0.7, 0.9)]
    assert max(epochs, key=score) == epochs[1]
    assert score({"validation/clean_vicreg_loss": 0.2, "validation/robust_vicreg_loss": 0.5}) == -0.5
    mixed = {"validation/clean_vicreg_loss": 0.2, "validation/clean_jigsaw_accuracy": 0.4}
    assert score(mixed) == 0.4
    with pytest.raises(ValueError, match="nothing to select a checkpoint by"):
        score({})


def test_the_best_epoch_of_a_pretraining_by_its_loss(tmp_path: Path) -> None:
    training = tiny_config(tmp_path)["pretrain"] | {"epochs": 3}
    arms = [{"variant": "at", "norm": "linf", "init": "ssl"}]
    plan, store = trained_plan(tmp_path, ssl={"task": "vicreg"}, pretrain=training, arms=arms)
    stage = only(plan, "pretrain")
    table = read_table(store.output(stage.path, "training.parquet"))
    losses = table[table["metric"] == "validation/clean_vicreg_loss"].set_index("epoch")["value"]
    log = (store.folder(stage.path) / "log.txt").read_text()
    assert f"best epoch {losses.idxmin():g}, validation loss {losses.min():.3g}" in log
    assert f"clean vicreg loss {losses.iloc[0]:.3g}" in log


def test_several_tasks_pretrain_together(tmp_path: Path) -> None:
    both = {"both": {"train": {"clean": {"rotation": 1, "vicreg": 0.5}}}}
    arms = [{"variant": "at", "norm": "linf", "init": "both"}]
    plan, store = trained_plan(tmp_path, pretraining=both, arms=arms)
    stage = only(plan, "pretrain")
    metrics = read_table(store.output(stage.path, "training.parquet"))
    assert {"validation/clean_rotation_accuracy", "validation/clean_vicreg_loss"} <= set(metrics["metric"])
    last = metrics[metrics["step"] == 1].set_index("metric")["value"]
    parts = last["loss/clean/rotation"] + 0.5 * last["loss/clean/vicreg"]
    assert last["loss/total"] == pytest.approx(parts, rel=1e-6)  # float32


def test_validation_leaves_no_image_alone(tmp_path: Path) -> None:
    assert [_batch_sizes(n) for n in (1, 500, 501, 1000, 1001, 1002)] == [
        [1], [500], [501], [500, 500], [500, 501], [500, 500, 2]
    ]  # fmt: skip
    plan = make_plan(parse_study(tiny_config(tmp_path, ssl={"task": "vicreg"})))
    spec = TrainSpec.model_validate(only(plan, "pretrain").spec)
    network, _ = make(spec.objective)
    validated = validate(network, spec, torch.rand(501, 1, 8, 8), torch.zeros(501, dtype=torch.int64))
    assert validated["validation/clean_vicreg_loss"] > 0
