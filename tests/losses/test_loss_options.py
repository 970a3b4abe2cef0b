"""Arguments of losses from a config, and weights that change over training."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.loader import parse_study
from ssrob.config.study import ConfigError
from ssrob.config.variants import Ramp
from ssrob.losses import jigsaw
from ssrob.losses.batch import Batch
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.registry.lookup import load
from ssrob.storage.tables import read_table
from ssrob.training.perturbations import image_sets
from ssrob.training.train_step import as_tensors, drawn, from_tensors
from tests.conftest import tiny_config
from tests.losses.test_ssl_losses import nt_xent, vicreg_terms
from tests.trainings import make, objective_of, only, trained_plan


def objective_with(folder: Path, task: str, name: str = "at_ssl_joint", **arguments: float) -> Objective:
    study = parse_study(tiny_config(folder, losses={task: arguments}))
    return resolve_objective(study, study.variants[name], norm="linf", task=task, weight=0.5)


def test_heads_and_draws_of_a_puzzle_follow_its_arguments(tmp_path: Path) -> None:
    objective = objective_with(tmp_path, "jigsaw", grid=3, permutations=50)
    assert objective.heads == {"jigsaw": 50}
    network, batch = make(objective)
    assert batch.views["jigsaw"].max() >= 12
    (shuffled,) = batch.seen("jigsaw", batch.x)
    assert shuffled.shape == (16, 1, 6, 6), "8 x 8 images in thirds"
    assert torch.equal(shuffled, jigsaw.shuffle(batch.x, batch.views["jigsaw"], 3, 50))
    loss = load(objective.row("jigsaw").function)(network.eval(), batch.x, batch)
    expected = torch.nn.functional.cross_entropy(
        network(shuffled, head="jigsaw"), batch.views["jigsaw"], reduction="none"
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
        network(each, head="contrastive").detach().double().numpy() for each in batch.seen("contrastive", batch.x)
    ]
    loss = load(objective.row("contrastive").function)(network, batch.x, batch)[0].item()
    assert loss == pytest.approx(nt_xent(outputs[0], outputs[1], temperature=0.1), rel=1e-4)  # float32
    objective = objective_with(tmp_path, "vicreg", invariance=1, variance=2.5, covariance=0)
    network, batch = make(objective)
    network.eval()
    outputs = [network(each, head="vicreg").detach().double().numpy() for each in batch.seen("vicreg", batch.x)]
    invariance, variance, _ = vicreg_terms(outputs[0][:, :40], outputs[1][:, :40])
    told = Batch(batch.x, batch.y, batch.views, arguments=batch.arguments)
    cut = load(objective.row("vicreg").function)(lambda x, head: network(x, head=head)[:, :40], batch.x, told)[0].item()
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
    assert batch.seen("jigsaw", batch.x)[0].shape == (16, 1, 6, 6)


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


def test_a_ramp_goes_from_start_to_end() -> None:
    linear, cosine = (Ramp(start=0.5, end=2, after=0.2, until=0.6, shape=shape) for shape in ("linear", "cosine"))
    for ramp in (linear, cosine):
        assert [ramp.factor(share) for share in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([0.5, 0.5, 1.25, 2, 2])
    assert linear.factor(0.3) == pytest.approx(0.875)
    assert cosine.factor(0.3) == pytest.approx(0.5 + 1.5 * (1 - 2**-0.5) / 2)
    assert linear.bends == set()
    assert Ramp(after=0.2).bends == {0.2}


def test_a_weight_follows_its_schedule_in_training(tmp_path: Path) -> None:
    ramped = {
        "perturb": {"adv": {"xent": 1, "ssl": "w"}},
        "train": {"adv": {"xent": 1, "ssl": "w"}},
        "weight_schedule": {"ssl": {"after": 0.5}},
    }
    finetune = tiny_config(tmp_path)["finetune"] | {"epochs": 2}
    arms = [{"variant": ["at", "ramped"], "norm": "linf", "weight": 0.8}]
    plan, store = trained_plan(tmp_path, variants={"ramped": ramped}, arms=arms, finetune=finetune)
    at, mine = (
        read_table(store.output(only(plan, "finetune", variant=name).path, "training.parquet")).pivot_table(
            index="step", columns="metric", values="value"
        )
        for name in ("at", "ramped")
    )
    early, late = mine.index[:3], mine.index[3:]
    assert mine["loss/total"][early].tolist() == at["loss/total"][early].tolist(), "while the weight is zero, it is AT"
    assert mine["loss/adv/rotation"].isna().tolist() == 3 * [True] + 3 * [False]
    for number, step in enumerate(late, start=3):
        factor = ((number + 0.5) / 6 - 0.5) / 0.5
        row = mine.loc[step]
        expected = row["loss/adv/xent"] + 0.8 * factor * row["loss/adv/rotation"]
        assert row["loss/total"] == pytest.approx(expected, rel=1e-5)
    assert mine["passes"].dropna().tolist() == pytest.approx([7, 7 + 14])  # two attack steps: 2n + 3, then 4n + 6


def test_the_attack_follows_the_schedule_too(tmp_path: Path) -> None:
    told = {
        "perturb": {"adv": {"xent": 1, "ssl": 1}},
        "train": {"adv": {"xent": 1, "ssl": 1}},
        "weight_schedule": {"ssl": {"start": 0.25, "end": 4}},
    }
    objective = objective_of(tmp_path, told)
    assert objective.factors(0.2) == {"rotation": pytest.approx(1.0)}
    network, batch = make(objective)
    constant = {name: each for name, each in told.items() if name != "weight_schedule"}
    heavy = {"perturb": {"adv": {"xent": 1, "ssl": 4}}, "train": constant["train"]}
    late = Batch(batch.x, batch.y, batch.views, factors={"rotation": torch.tensor(4.0)})
    found = image_sets(network, objective, late, 0, 0)["adv"]
    assert torch.equal(found, image_sets(network, objective_of(tmp_path, heavy), batch, 0, 0)["adv"])
    assert not torch.equal(found, image_sets(network, objective_of(tmp_path, constant), batch, 0, 0)["adv"])


def test_a_drawn_batch_survives_as_tensors(tmp_path: Path) -> None:
    told = {
        "perturb": {
            "adv": {"climb": {"xent": 1, "ssl": 1}, "resample": True},
            "own": {"climb": {"ssl": 1}, "layout": "copies"},
        },
        "train": {"adv": {"xent": 1}, "own": {"ssl": 1}},
        "weight_schedule": {"ssl": {"start": 0.25}},
    }
    plan = make_plan(
        parse_study(tiny_config(tmp_path, variants={"mine": told}, arms=[{"variant": "mine", "norm": "l2"}]))
    )
    spec = TrainSpec.model_validate(only(plan, "finetune").spec)
    batch = drawn(spec, torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), 3, 0.5)
    again = from_tensors(as_tensors(batch))
    for name in ("views", "starts", "resampled", "factors"):
        first, second = getattr(batch, name), getattr(again, name)
        assert first
        assert set(first) == set(second)
        assert all(torch.equal(first[key], second[key]) for key in first)
