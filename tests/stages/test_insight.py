"""What looks into models: probes of pre-trained backbones, and gradients and transfer between two losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from ssrob.analysis import collect
from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.config.loader import parse_study
from ssrob.data.prepared import Prepared
from ssrob.losses.batch import Model, Task
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.evaluation_specs import own_tasks, study_tasks
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import DiagnoseSpec, Objective, ProbeSpec, TrainSpec
from ssrob.registry.losses import LOSSES, Loss
from ssrob.runtime import runner
from ssrob.seeding import generator
from ssrob.stages import diagnose, probe
from ssrob.storage import tables
from ssrob.storage.store import Store
from ssrob.storage.tables import DIAGNOSED, PROBED, read_table
from tests.conftest import tiny_config
from torch import Tensor

PROBE = ProbeSpec(
    reference={"linf": 0.1}, steps=3, train_images=60, images=40, neighbours=5, temperature=0.1, init_seed=3
)
DIAGNOSIS = DiagnoseSpec(
    task="rotation", own_head=False, norm="linf", eps=0.05, steps=5, images=40, head_images=100, head_epochs=2
)


def make_network(heads: dict[str, Any] | None = None) -> Network:
    shape = (1, 8, 8)
    return build(
        Architecture("resnet", {"depth": 8, "width": 4}, shape, [0.5], [0.5], heads or {"class": 10}), 3
    ).eval()


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = generator(seed, "images")
    return torch.rand(count, 1, 8, 8, generator=draw), torch.randint(10, (count,), generator=draw)


# --- probes ---


def test_the_knn_votes_as_scikit_learn_s() -> None:
    draw = generator(0, "features")
    train, labels, x = torch.randn(80, 6, generator=draw), torch.arange(80) % 4, torch.randn(30, 6, generator=draw)
    knn = probe.KNN(F.normalize(train, dim=1), labels, 4, neighbours=7, temperature=0.1)
    theirs = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
    shares = theirs.fit(train.numpy(), labels.numpy()).predict_proba(x.numpy())
    assert knn.votes(x).softmax(dim=1).numpy() == pytest.approx(shares, abs=1e-5)


def test_soft_votes_are_those_of_all_neighbours() -> None:
    draw = generator(0, "features")
    train, labels, x = torch.randn(20, 3, generator=draw), torch.arange(20) % 4, torch.randn(5, 3, generator=draw)
    some, every = (probe.KNN(F.normalize(train, dim=1), labels, 4, count, 0.1) for count in (2, 20))
    assert torch.allclose(some.soft_votes(x), every.votes(x), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_probe_is_logistic_regression_on_standardised_features(classes: int) -> None:
    draw = generator(0, "features")
    features, labels = 5 + 3 * torch.randn(90, 4, generator=draw), torch.arange(90) % classes
    features = features + labels[:, None]
    logits = probe._linear(features, labels, classes)
    scaled = ((features - features.mean(dim=0)) / features.std(dim=0)).double().numpy()
    theirs = LogisticRegression(max_iter=1000).fit(scaled, labels.numpy()).predict_proba(scaled)
    assert logits(features).softmax(dim=1).numpy() == pytest.approx(theirs, abs=1e-4)


def test_the_linear_probe_never_names_a_class_without_images() -> None:
    features, labels = torch.randn(40, 4, generator=generator(0, "x")), torch.arange(40) % 2
    logits = probe._linear(features, labels, 5)(features)
    assert set(logits.argmax(dim=1).tolist()) <= {0, 1}
    assert torch.isfinite(logits).all()


def test_the_untrained_network_has_its_own_start_and_statistics_of_the_images() -> None:
    x, _ = images(50)
    trained = make_network({"rotation": 4})
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    fresh = probe.untrained(trained, 3, x)
    start = make_network({"rotation": 4})
    same = {name: torch.equal(value, start.state_dict()[name]) for name, value in fresh.state_dict().items()}
    assert all(same[name] for name in same if "running" not in name and "tracked" not in name)
    assert not all(same[name] for name in same if name.endswith("running_mean"))
    assert not fresh.training


def test_an_attacked_probe_is_never_better_than_a_clean_one_and_eps_0_changes_nothing() -> None:
    train, held_out = images(60), images(40, seed=1)
    with frozen(make_network()) as network:
        fitted = probe.fit(network, train, 10, PROBE)
        accuracies = []
        for eps in (0.0, 0.1, 0.3):
            spec = PROBE.model_copy(update={"reference": {"linf": eps}})
            table = probe.measure(fitted, train, spec)  # the training images, which the probes know
            assert list(table["n"]) == [60] * 4
            accuracies.append(list(tables.shares(table)))
        assert len(probe.measure(fitted, held_out, PROBE)) == 4
    clean, none, some = accuracies[0][:2], accuracies[0][2:], accuracies[2][2:]
    assert none == clean
    assert all(attacked < 0.5 * right for attacked, right in zip(some, clean, strict=True))


# --- diagnoses ---


def twin(model: Model, x: Tensor, task: Task) -> Tensor:
    """Cross-entropy once more, by another name."""
    return F.cross_entropy(model(x), task.labels, reduction="none")


def opposite(model: Model, x: Tensor, task: Task) -> Tensor:
    """Three times the negative of cross-entropy."""
    return -3 * F.cross_entropy(model(x), task.labels, reduction="none")


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("twin", "opposite"):
        monkeypatch.setitem(LOSSES, name, Loss(f"{__name__}:{name}", forwards=(name,), self_supervised=True))


def measured(task: str, network: Network, **changes: Any) -> pd.DataFrame:
    spec = DIAGNOSIS.model_copy(update={"task": task, "eps": 0.3, "steps": 10} | changes)
    return diagnose.measure(network, spec, *images(40))


@pytest.mark.usefixtures("twins")
def test_a_loss_compared_with_itself_has_cosine_one_and_transfers_fully() -> None:
    rows = measured("twin", make_network())
    assert rows["cosine"].to_numpy() == pytest.approx(1.0)
    assert rows["ssl_gradient"].to_numpy() == pytest.approx(rows["supervised_gradient"].to_numpy())
    losses = rows.groupby("images")["supervised_loss"].mean()
    assert losses["ssl"] == pytest.approx(losses["supervised"], rel=0.05)  # the same attack from another start
    assert losses["ssl"] - losses["clean"] > 3 * abs(losses["noise"] - losses["clean"])


@pytest.mark.usefixtures("twins")
def test_an_opposite_loss_has_cosine_minus_one_and_its_attack_helps_the_classifier() -> None:
    rows = measured("opposite", make_network())
    assert rows["cosine"].to_numpy() == pytest.approx(-1.0)
    assert (rows["ssl_gradient"] / rows["supervised_gradient"]).to_numpy() == pytest.approx(3.0)
    losses = rows.groupby("images")["supervised_loss"].mean()
    assert losses["ssl"] < losses["clean"] < losses["supervised"]
    assert rows["ssl_correct"].isna().all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_has_the_size_of_the_attack(norm: str) -> None:
    x = torch.full((6, 3, 8, 8), 0.5)
    spec = DIAGNOSIS.model_copy(update={"norm": norm})
    drawn = diagnose.noise(x, spec, generator(0, "noise"))
    assert GEOMETRIES[norm].norm(drawn - x) == pytest.approx(torch.full((6,), spec.eps), rel=1e-5)
    edge = diagnose.noise(torch.zeros_like(x), spec, generator(0, "noise"))
    assert edge.min() == 0
    assert torch.equal(diagnose.noise(x, spec, generator(0, "noise")), drawn)


def test_a_gradient_that_vanishes_has_no_cosine() -> None:
    cosine = diagnose._cosine(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert cosine[0].item() == pytest.approx(2**-0.5)
    assert torch.isnan(cosine[1])


def test_a_measurement_gives_the_network_back_as_it_was() -> None:
    network = make_network({"class": 10, "rotation": 4})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured("rotation", network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


# --- as stages ---


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """Plain AT, AT from contrastive pre-training and a joint way on VICReg, with their probes and diagnoses."""
    torch.set_num_threads(1)
    arms = [
        {"variant": "at_ssl_joint", "norm": "linf", "task": "vicreg"},
        {"variant": "at", "norm": "l2", "init": "ssl", "task": "contrastive"},
    ]
    plan = make_plan(parse_study(tiny_config(tmp_path_factory.mktemp("insight"), arms=arms)))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        if stage.kind not in ("evaluate", "corrupt"):
            runner.run(stage, store, device="cpu")
    return plan, store


def test_every_pre_trained_model_is_probed_and_every_model_diagnosed(study: tuple[Plan, Store]) -> None:
    plan, store = study
    joint, plain = plan.arms
    assert (joint.probe, joint.init_task, plain.init_task) == (None, None, "contrastive")
    assert list(joint.diagnose) == list(plain.diagnose) == ["vicreg"]
    assert plain.probe is not None
    probes = read_table(store.output(plain.probe, "probes.parquet"))
    assert list(probes) == list(PROBED)
    assert len(probes) == 2 * 2 * 3  # networks, probes, clean and two norms
    heads = {}
    for arm in plan.arms:
        rows = read_table(store.output(arm.diagnose["vicreg"], "diagnosis.parquet"))
        assert list(rows) == list(DIAGNOSED)
        heads[arm.variant] = set(rows["head"])
        assert set(rows["images"]) == {"clean", "supervised", "ssl", "noise"}
        assert rows["cosine"].abs().max() <= 1 + 1e-9
        assert sorted(rows.loc[(rows["head"] == "fitted") & (rows["images"] == "ssl"), "example"]) == list(range(40))
    assert heads == {"at_ssl_joint": {"own", "fitted"}, "at": {"fitted"}}


def test_attacks_raise_the_loss_that_they_climb(study: tuple[Plan, Store]) -> None:
    plan, store = study
    rows = read_table(store.output(plan.arms[0].diagnose["vicreg"], "diagnosis.parquet"))
    means = rows[rows["head"] == "own"].groupby("images")[["supervised_loss", "ssl_loss"]].mean()
    assert means["supervised_loss"].idxmax() == "supervised"
    assert means["ssl_loss"].idxmax() == "ssl"


def test_the_collected_tables_carry_them(study: tuple[Plan, Store]) -> None:
    plan, store = study
    (probes,) = collect._probes(plan, store)
    assert set(probes["init_task"]) == {"contrastive"}
    assert probes["accuracy"].between(0, 1).all()
    diagnostics = pd.concat(collect._ROWS["diagnostics"](plan, store))
    assert len(diagnostics) == (2 + 1) * 4
    assert (diagnostics["cosine_q05"] <= diagnostics["cosine_q95"]).all()


def test_a_fitted_head_learns_and_leaves_the_rest(study: tuple[Plan, Store]) -> None:
    plan, store = study
    data = Prepared(store.folder(plan.stages[plan.arms[0].finetune].parents["data"]))
    network = make_network()
    fitted, longer = (
        diagnose.with_fitted_head(network, data, DIAGNOSIS.model_copy(update={"head_epochs": epochs}))
        for epochs in (1, 20)
    )
    for name, value in network.state_dict().items():
        assert torch.equal(fitted.state_dict()[name], value), name
    x, y = torch.from_numpy(data.train()[0][:100].copy()).permute(0, 3, 1, 2) / 255, torch.zeros(100).long()
    rows = [diagnose.measure(each, DIAGNOSIS, x, y) for each in (fitted, longer)]
    first, second = (each.loc[each["images"] == "clean", "ssl_loss"].mean() for each in rows)
    assert second < first


# --- what is asked ---


def test_a_task_that_is_only_attacked_has_no_head_of_its_own() -> None:
    attacked = {
        "adv": {"maximise": {"xent": 1, "rotation": 1}, "norm": "linf", "eps": 0.1, "steps": 1, "step_size": 0.1}
    }
    assert own_tasks(Objective(perturb=attacked, train={"adv": {"xent": 1.0}})) == []
    assert own_tasks(Objective(train={"clean": {"xent": 1.0, "rotation": 0.0, "vicreg": 0.5}})) == ["vicreg"]


def test_a_plain_model_is_held_against_every_task_of_the_study(tmp_path: Path) -> None:
    arms = [{"variant": ["at", "at_ssl_joint"], "norm": "linf", "task": ["rotation", "vicreg"]}]
    plan = make_plan(parse_study(tiny_config(tmp_path, arms=arms)))
    assert study_tasks(plan.study) == ["rotation", "vicreg"]
    assert [sorted(arm.diagnose) for arm in plan.arms if arm.task is None] == [["rotation", "vicreg"]]
    assert sorted(task for arm in plan.arms if arm.task for task in arm.diagnose) == ["rotation", "vicreg"]


def test_both_can_be_turned_off(tmp_path: Path) -> None:
    plan = make_plan(parse_study(tiny_config(tmp_path, probe=False, diagnose=False)))
    assert not plan.of_kind("probe")
    assert not plan.of_kind("diagnose")
    assert all(arm.probe is None and not arm.diagnose for arm in plan.arms)


def test_two_pre_trainings_of_one_name_are_two_arms_with_names_of_their_own(tmp_path: Path) -> None:
    arms = [{"variant": "at", "norm": "linf", "init": "ssl", "task": ["rotation", "jigsaw"]}]
    plan = make_plan(parse_study(tiny_config(tmp_path, arms=arms)))
    assert list(collect.labels(plan).values()) == [
        "AT, l-inf, from rotation pre-training",
        "AT, l-inf, from jigsaw pre-training",
    ]
    both = [{"variant": ["at", "at_ssl_joint"], "norm": "linf", "init": "ssl"}]
    labels = list(collect.labels(make_plan(parse_study(tiny_config(tmp_path, arms=both)))).values())
    assert [name.partition("from")[2] for name in labels] == [" SSL pre-training", " SSL pre-training"], (
        "one task goes without saying, for all arms"
    )
    spec = TrainSpec.model_validate(plan.stages[str(plan.arms[0].pretrain)].spec)
    assert spec.task == plan.arms[0].init_task == "rotation"


def test_the_overfitting_gap_is_best_less_last() -> None:
    rows = [(e, "validation/robust_accuracy", value) for e, value in ((1.0, 0.3), (2.0, 0.5), (3.0, 0.42))]
    records = pd.DataFrame([(*row[:1], *row) for row in rows], columns=["step", "epoch", "metric", "value"])
    assert collect.overfitting(records, 2.0) == pytest.approx(0.08)
    assert np.isnan(collect.overfitting(records.assign(metric="validation/clean_accuracy"), 2.0))
