"""Arguments of losses from a config."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.losses import jigsaw
from ssrob.losses.batch import task_at, views_at
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.registry.lookup import load
from ssrob.training.train_step import as_tensors, from_tensors, sample_batch
from tests.conftest import tiny_config
from tests.losses.test_ssl_losses import nt_xent, vicreg_terms
from tests.trainings import make, only


def objective_with(folder: Path, task: str, name: str = "at_ssl_joint", **arguments: float) -> Objective:
    study = parse_study(tiny_config(folder, losses={task: arguments}))
    return resolve_objective(study, study.variants[name], norm="linf", task=task, weight=0.5)


def test_heads_and_draws_of_a_puzzle_follow_its_arguments(tmp_path: Path) -> None:
    objective = objective_with(tmp_path, "jigsaw", grid=3, permutations=50)
    assert objective.heads == {"jigsaw": 50}
    network, batch = make(objective)
    assert batch.drawn["jigsaw"].max() >= 12
    (shuffled,) = views_at(objective, "jigsaw", batch.x, batch)
    assert shuffled.shape == (16, 1, 6, 6), "8 x 8 images in thirds"
    assert torch.equal(shuffled, jigsaw.shuffle(batch.x, batch.drawn["jigsaw"], 3, 50))
    loss = load(objective.row("jigsaw").function)(network.eval(), batch.x, task_at(objective, "jigsaw", batch.x, batch))
    expected = torch.nn.functional.cross_entropy(
        network(shuffled, head="jigsaw"), batch.drawn["jigsaw"], reduction="none"
    )
    assert torch.equal(loss, expected)


def test_orders_of_large_puzzles_are_far_apart() -> None:
    orders = jigsaw.orders(16, 20)
    assert len(set(orders)) == 20
    assert orders[0] == tuple(range(16))
    assert all(sorted(order) == list(range(16)) for order in orders)
    least = min(
        sum(a != b for a, b in zip(one, other, strict=True)) for one, other in itertools.combinations(orders, 2)
    )
    assert least >= 14  # 20 random orders would have about 11


def test_arguments_reach_the_formulas(tmp_path: Path) -> None:
    objective = objective_with(tmp_path, "contrastive", temperature=0.1, hidden=8, outputs=5)
    assert objective.heads == {"contrastive": (8, 5)}
    network, batch = make(objective)
    network.eval()
    outputs = [
        network(each, head="contrastive").detach().double().numpy()
        for each in views_at(objective, "contrastive", batch.x, batch)
    ]
    task = task_at(objective, "contrastive", batch.x, batch)
    loss = load(objective.row("contrastive").function)(network, batch.x, task)[0].item()
    assert loss == pytest.approx(nt_xent(outputs[0], outputs[1], temperature=0.1), rel=1e-4)  # float32
    objective = objective_with(tmp_path, "vicreg", invariance=1, variance=2.5, covariance=0)
    network, batch = make(objective)
    network.eval()
    outputs = [
        network(each, head="vicreg").detach().double().numpy() for each in views_at(objective, "vicreg", batch.x, batch)
    ]
    invariance, variance, _ = vicreg_terms(outputs[0][:, :40], outputs[1][:, :40])
    task = task_at(objective, "vicreg", batch.x, batch)
    cut = load(objective.row("vicreg").function)(lambda x, head: network(x, head=head)[:, :40], batch.x, task)[0].item()
    assert cut == pytest.approx(invariance + 2.5 * variance, rel=1e-4)


def test_a_default_in_writing_changes_no_key_and_another_value_does(tmp_path: Path) -> None:
    arms = [{"variant": ["at", "at_ssl_joint"], "norm": "linf"}]

    def keys(**losses: Any) -> list[str]:
        study = parse_study(tiny_config(tmp_path, ssl={"task": "jigsaw"}, arms=arms, losses=losses))
        plan = make_plan(study)
        return [arm.finetune for arm in plan.arms]

    plain, same, other = keys(), keys(jigsaw={"grid": 2}, vicreg={"hidden": 8}), keys(jigsaw={"permutations": 20})
    assert plain == same
    assert plain[0] == other[0], "AT uses no puzzle"
    assert plain[1] != other[1]


def test_a_control_uses_the_arguments_of_its_task(tmp_path: Path) -> None:
    objective = objective_with(tmp_path, "jigsaw", "at_ssl_adv_views", grid=3, permutations=50)
    assert objective.arguments == {"jigsaw": {"grid": 3, "permutations": 50}, "views_xent": {"task": "jigsaw"}}
    _, batch = make(objective)
    assert views_at(objective, "jigsaw", batch.x, batch)[0].shape == (16, 1, 6, 6)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (
            {"jigsaw": {"gird": 3}},
            r"unknown argument of jigsaw 'gird' \(did you mean 'grid'\?\); known: grid, permutations",
        ),
        ({"jigsaw": {"grid": 2.5}}, "jigsaw: grid must be a whole number >= 1, found 2.5"),
        ({"jigsaw": {"permutations": 25}}, r"permutations of 4 tiles must be 2\.\.24, found 25"),
        ({"jigsaw": {"grid": 9}}, r"grid must be 2\.\.8 tiles per side, found 9"),
        ({"contrastive": {"temperature": 0}}, "temperature must be > 0, found 0"),
        ({"vicreg": {"variance": -1}}, "variance must be a number >= 0, found -1"),
        ({"xent": {"temperature": 1}}, "unknown argument of xent 'temperature'"),
    ],
)
def test_arguments_are_checked_at_the_door(losses: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_study(tiny_config(tmp_path, losses=losses))


def test_a_drawn_batch_survives_as_tensors(tmp_path: Path) -> None:
    given = {
        "perturb": {"adv": {"xent": 1, "ssl": 1}, "own": {"maximise": {"ssl": 1}, "layout": "copies"}},
        "train": {"adv": {"xent": 1}, "own": {"ssl": 1}},
    }
    plan = make_plan(
        parse_study(tiny_config(tmp_path, variants={"mine": given}, arms=[{"variant": "mine", "norm": "l2"}]))
    )
    spec = TrainSpec.model_validate(only(plan, "finetune").spec)
    batch = sample_batch(spec, torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), 3)
    again = from_tensors(as_tensors(batch))
    for name in ("drawn", "starts"):
        first, second = getattr(batch, name), getattr(again, name)
        assert first
        assert set(first) == set(second)
        assert all(torch.equal(first[key], second[key]) for key in first)
