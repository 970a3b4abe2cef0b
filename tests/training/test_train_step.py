"""A training step: by hand, which images are made, what is minimised, and that an attack leaves no trace."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ssrob.config.loader import parse_study
from ssrob.config.training import Training
from ssrob.models.feature_cache import FeatureCache
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.specs import Objective, TrainSpec
from ssrob.training.perturbations import image_sets
from ssrob.training.train_step import compute_gradients, gradient_norms, loss_terms, sample_batch, weighted_sum
from tests.conftest import tiny_config
from tests.trainings import make


def objective_of(name: str, folder: Path, *, weight: float = 0.5, norm: Any = "linf", **changes: Any) -> Objective:
    study = parse_study(tiny_config(folder, **changes))
    return resolve_objective(study, study.variants[name], norm=norm, task="rotation", weight=weight)


def test_a_step_by_hand_gives_the_same_gradients(tmp_path: Path) -> None:
    """PGD adversarial training with rotation on clean images, written in plain PyTorch from the definitions."""
    objective = objective_of("at_ssl_clean", tmp_path, weight=0.5)
    spec = TrainSpec.model_validate(
        {"data": "x", "variant": "x", "seed": 3, "model": {"name": "resnet"}}
        | {"objective": objective, "training": Training()}
    )
    network, images = make(objective)
    by_hand, eps, size = copy.deepcopy(network), objective.perturb["adv"].eps, objective.perturb["adv"].step_size
    batch = sample_batch(spec, images.x, images.y, step=7)
    found = compute_gradients(network, spec, batch)

    x, y, k = images.x, images.y, batch.drawn["rotation"]
    by_hand.eval()  # the attack uses BatchNorm's running statistics
    adv = batch.starts["adv"]
    for _ in range(objective.perturb["adv"].steps):
        adv = adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(by_hand(adv), y, reduction="sum"), adv)
        adv = (x + (adv.detach() + size * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    by_hand.train()
    rotated = torch.stack([torch.rot90(image, int(turn), dims=(1, 2)) for image, turn in zip(x, k, strict=True)])
    loss = F.cross_entropy(by_hand(adv), y) + 0.5 * F.cross_entropy(by_hand(rotated, head="rotation"), k)
    loss.backward()

    assert found["loss/total"].item() == pytest.approx(loss.item(), rel=1e-6)  # float32, another order of sums
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(found[f"gradient/{name}"], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    statistics = dict(by_hand.named_buffers())
    for name, tensor in network.named_buffers():
        torch.testing.assert_close(tensor, statistics[name], rtol=1e-6, atol=1e-6, msg=name)


VARIANTS = ["standard", "ssl_standard", "at", "trades", "at_ssl_clean", "at_ssl_adv", "at_ssl_attack_only"]
VARIANTS += ["at_ssl_joint_clean", "at_ssl_joint", "at_ssl_separate", "at_ssl_ensemble", "at_two", "trades_ssl_joint"]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_variant_stays_in_its_budget_and_leaves_no_trace(name: str, norm: str, tmp_path: Path) -> None:
    objective = objective_of(name, tmp_path, norm=norm)
    network, batch = make(objective)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = batch.x.clone()
    images = image_sets(network, objective, batch, 0, 0)
    assert torch.equal(batch.x, x), "an attack never writes into its input"
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "BatchNorm moved"
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(module.training for module in network.modules())
    assert set(images) == {"clean", *objective.perturb}
    for each, perturbation in objective.perturb.items():
        delta = (images[each] - x).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert (size <= perturbation.eps + 1e-6).all()  # float32
        assert size.max() > 0.5 * perturbation.eps, "the attack moved"
        assert images[each].min() >= 0
        assert images[each].max() <= 1


def test_the_total_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    objective = objective_of("at_ssl_ensemble", tmp_path, weight=0.6)
    network, batch = make(objective)
    images = image_sets(network, objective, batch, 0, 0)
    terms = loss_terms(FeatureCache(network), objective, images, batch)
    value = {(term.image_set, term.loss): term.value.item() for term in terms}
    expected = 0.5 * (value["adv", "xent"] + value["adv_ssl", "xent"])
    expected += 0.3 * (value["adv", "rotation"] + value["adv_ssl", "rotation"])
    assert weighted_sum(terms).item() == pytest.approx(expected, rel=1e-6)


def test_a_joint_attack_maximises_the_sum_and_a_supervised_one_the_label_alone(tmp_path: Path) -> None:
    """Each attack is the better one at what it maximises: the SSL loss is higher at the joint one's images."""
    joint, adv = objective_of("at_ssl_joint", tmp_path, weight=5), objective_of("at_ssl_adv", tmp_path, weight=5)
    network, batch = make(joint)
    network.eval()
    losses = {}
    for name, objective in (("joint", joint), ("supervised", adv)):
        images = image_sets(network, objective, batch, 0, 0)
        terms = loss_terms(FeatureCache(network), adv, images, batch)
        losses[name] = {term.loss: term.value.item() for term in terms}
    assert losses["joint"]["rotation"] > losses["supervised"]["rotation"]
    assert losses["joint"]["xent"] < losses["supervised"]["xent"]


def test_the_second_perturbation_of_a_control_is_another_one(tmp_path: Path) -> None:
    objective = objective_of("at_two", tmp_path)
    network, batch = make(objective)
    images = image_sets(network, objective, batch, 0, 0)
    assert not torch.equal(images["adv"], images["adv_two"])


def test_gradient_norms_are_those_of_the_weighted_parts(tmp_path: Path) -> None:
    objective = objective_of("at_ssl_adv", tmp_path, weight=0.5)
    network, batch = make(objective)
    network.eval()
    images = image_sets(network, objective, batch, 0, 0)
    parameters = list(network.backbone.parameters())
    found = gradient_norms(loss_terms(FeatureCache(network), objective, images, batch), parameters)
    for name, loss, weight in (("ssl", "rotation", 0.5), ("supervised", "xent", 1.0)):
        term = next(t for t in loss_terms(FeatureCache(network), objective, images, batch) if t.loss == loss)
        gradients = torch.autograd.grad(weight * term.value, parameters)
        expected = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert found[f"gradient_norm/{name}"].item() == pytest.approx(
            expected.item(), rel=1e-4
        )  # another summation order
    ratio = found["gradient_norm/ssl"] / found["gradient_norm/supervised"]
    assert found["gradient_norm/ratio"].item() == pytest.approx(ratio.item(), rel=1e-6)


def test_there_is_no_ratio_without_both_losses(tmp_path: Path) -> None:
    objective = objective_of("at", tmp_path)
    network, batch = make(objective)
    terms = loss_terms(FeatureCache(network), objective, image_sets(network, objective, batch, 0, 0), batch)
    assert gradient_norms(terms, list(network.backbone.parameters())) == {}
