"""Branches of BatchNorm: who uses which, saved and loaded, handed over."""

from pathlib import Path

import pytest
import torch
from ssrob.losses.batch import Batch, task_at
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import Architecture, Network, build
from ssrob.models.serialization import load_backbone, load_network, save_architecture, save_weights
from ssrob.planning.specs import Objective
from ssrob.registry.lookup import load
from ssrob.training.perturbations import image_sets
from ssrob.training.train_step import loss_terms
from tests.trainings import make, objective_of, only, trained_plan

TRADES = {
    "perturb": {"adv": {"kl_to_clean": 1}},
    "train": {"clean": {"xent": 1}, "adv": {"kl_to_clean": 6}},
    "batchnorm": {"adv": "aux"},
}


def network_with(*branches: str, seed: int = 0) -> Network:
    heads = {"class": 10, "contrastive": (6, 3)}
    given = Architecture("resnet", {"depth": 8, "width": 4}, (1, 8, 8), [0.5], [0.25], heads, branches=branches)
    return build(given, seed)


def disturbed(network: Network) -> Network:
    """Give every BatchNorm tensor values of its own."""
    draws = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draws))
    return network


def test_branches_change_no_other_tensor() -> None:
    plain, branched = network_with().state_dict(), network_with("aux").state_dict()
    assert all(torch.equal(tensor, branched[name]) for name, tensor in plain.items())
    added = {name for name in branched if name not in plain}
    assert all(".branches.aux." in name for name in added)
    assert "heads.contrastive.1.branches.aux.running_mean" in added
    assert "backbone.norm.branches.aux.weight" in added


def test_a_branch_normalises_by_its_own_tensors_and_is_given_back() -> None:
    network, x = disturbed(network_with("aux")).eval(), torch.rand(4, 1, 8, 8)
    plain = network_with().eval()
    kept = {name: tensor for name, tensor in network.state_dict().items() if ".branches." not in name}
    plain.load_state_dict(kept)
    assert torch.equal(network(x), plain(x))
    moved = {name.replace(".branches.aux", ""): t for name, t in network.state_dict().items() if ".branches." in name}
    plain.load_state_dict(kept | moved)
    with network.in_branch("aux"):
        assert torch.equal(network(x, head="contrastive"), plain(x, head="contrastive"))
    plain.load_state_dict(kept)
    assert torch.equal(network(x), plain(x))
    with pytest.raises(KeyError, match="no branch 'axu' of BatchNorm; there are main, aux"):
        network.choose_branch("axu")


def test_branches_are_saved_and_loaded(tmp_path: Path) -> None:
    network, x = disturbed(network_with("aux")).eval(), torch.rand(4, 1, 8, 8)
    save_weights(network.state_dict(), tmp_path / "last.safetensors")
    save_architecture(network.architecture, tmp_path / "model.json")
    assert torch.equal(load_network(tmp_path / "last.safetensors")(x), network(x))
    with network.in_branch("aux"):
        expected = network(x)
    assert torch.equal(load_network(tmp_path / "last.safetensors", branch="aux")(x), expected)
    assert not torch.equal(expected, network(x))


def test_weights_with_and_without_branches_fit_each_other() -> None:
    branched, plain = disturbed(network_with("aux")), network_with(seed=1)
    load_backbone(plain, branched.state_dict())
    assert torch.equal(plain.backbone.norm.running_var, branched.backbone.norm.running_var)
    again = network_with("other", seed=2)
    load_backbone(again, plain.state_dict())
    assert torch.equal(again.backbone.norm.branches["other"].weight, plain.backbone.norm.weight)


def prepared(objective: Objective) -> tuple[Network, Batch]:
    _, batch = make(objective)
    return disturbed(network_with(*objective.branches)), batch


def test_clean_images_keep_their_branch_where_another_set_asks(tmp_path: Path) -> None:
    """TRADES with a branch for adversarial images: K compares predictions of two branches, in attack and training."""
    objective = objective_of(tmp_path, TRADES)
    network, batch = prepared(objective)
    images = image_sets(network, objective, batch, 0, 0)
    network.eval()
    terms = loss_terms(FeatureCache(network, objective.batchnorm, clean=batch.x), objective, images, batch)
    p = network(batch.x).softmax(dim=1)
    with network.in_branch("aux"):
        q = network(images["adv"]).softmax(dim=1)
    expected = (p * (p / q).log()).sum(dim=1).mean()
    found = {term.loss: term.value for term in terms}
    assert found["kl_to_clean"].item() == pytest.approx(expected.item(), abs=1e-5)
    assert found["xent"].item() == pytest.approx(torch.nn.functional.cross_entropy(network(batch.x), batch.y).item())
    start = batch.x + 0.01
    kl = load(objective.row("kl_to_clean").function)
    with network.in_branch("aux"):
        other = kl(network, start, task_at(objective, "kl_to_clean", start, batch)).mean()
    assert abs(other.item() - expected.item()) > 1e-3, "one branch for both would give another value"


def test_a_set_that_vanishes_takes_its_branch_along(tmp_path: Path) -> None:
    given = {
        "perturb": {"adv": {"xent": 1}},
        "train": {"adv": {"xent": 1}, "clean": {"ssl": "w"}},
        "batchnorm": {"clean": "aux"},
    }
    assert objective_of(tmp_path, given, weight=0.5).branches == ("aux",)
    assert objective_of(tmp_path, given, weight=0.0).branches == ()


def test_fine_tuning_starts_from_the_main_branch(tmp_path: Path) -> None:
    rows = {
        "acl": {
            "perturb": {"adv": {"maximise": {"contrastive": 1}, "layout": "copies"}},
            "train": {"clean": {"contrastive": 0.5}, "adv": {"contrastive": 0.5}},
            "batchnorm": {"clean": "clean"},
        }
    }
    arms = [{"variant": "at", "norm": "linf", "init": "acl"}]
    plan, store = trained_plan(tmp_path, pretraining=rows, arms=arms)
    pretrain, finetune = only(plan, "pretrain"), only(plan, "finetune")
    assert "init: backbone taken from" in (store.folder(finetune.path) / "log.txt").read_text()
    trained = load_network(store.output(pretrain.path, "last.safetensors"))
    assert trained.architecture.branches == ["clean"]
    norm = trained.backbone.blocks[0].norm1
    assert not torch.equal(norm.running_mean, norm.branches["clean"].running_mean)
    assert load_network(store.output(finetune.path, "last.safetensors")).architecture.branches == []
