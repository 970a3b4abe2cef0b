"""What a perturbation lives on: image, views, or the one view; views drawn anew; what makes no sense is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.config.training import Training
from ssrob.losses.batch import Batch, task_at, views_at
from ssrob.losses.rotation import rotate
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.specs import TrainSpec
from ssrob.registry.lookup import load
from ssrob.training import perturbations
from ssrob.training.perturbations import draw_starts, draw_views, image_sets
from ssrob.training.train_step import GRADIENT, compute_gradients
from tests.conftest import tiny_config
from tests.trainings import make, objective_of

COPIES = {"maximise": {"xent": 1, "ssl": "w"}, "layout": "copies"}
JOINT = {"perturb": {"adv": COPIES}, "train": {"adv": {"xent": 1, "ssl": "w"}}}
SEPARATE = {
    "perturb": {"adv": {"xent": 1}, "adv_ssl": {"maximise": {"ssl": 1}, "layout": "copies"}},
    "train": {"adv": {"xent": 1}, "adv_ssl": {"ssl": "w"}},
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("task", ["rotation", "contrastive", "jigsaw_3x3"])
def test_with_copies_a_joint_attack_is_separate_attacks_bit_for_bit(norm: str, task: str, tmp_path: Path) -> None:
    """Sign steps and steps of length one ignore the weight; here it is a power of two, so that rounding does too."""
    given = {"norm": norm, "task": task, "weight": 0.5}
    joint, separate = (objective_of(tmp_path, each, **given) for each in (JOINT, SEPARATE))
    found = []
    for objective in (joint, separate):
        network, batch = make(objective)
        images = image_sets(network, objective, batch, 0, 7)
        views = [image for name, image in images.items() if ":" in name]
        found.append([images["adv"], *views])
        drawn = draw_starts(objective, batch, 0, 7)
        spec = TrainSpec.model_validate(
            {"data": "x", "variant": "x", "seed": 0, "model": {"name": "resnet"}, "objective": objective}
            | {"training": Training()}
        )
        gradients = {
            name: g for name, g in compute_gradients(network, spec, drawn).items() if name.startswith(GRADIENT)
        }
        found[-1] += [gradients[name] for name in sorted(gradients)]
    assert len(found[0]) == len(found[1]) > 25
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][0], batch.x)


def test_a_joint_attack_on_copies_maximises_the_sum_of_all_losses_at_once(tmp_path: Path) -> None:
    """One simultaneous attack on all tensors, written again, for a weight that is no power of two."""
    objective = objective_of(tmp_path, JOINT)
    network, batch = make(objective)
    batch = draw_starts(objective, batch, 0, 0)
    found = perturbations.perturb(network, objective, batch)
    perturbation, k = objective.perturb["adv"], batch.drawn["rotation"]
    network.eval()
    bases = [batch.x, rotate(batch.x, k)]
    moved = [batch.starts["adv"].clone(), batch.starts["adv:rotation"].clone()]
    for _ in range(perturbation.steps):
        moved = [each.detach().requires_grad_() for each in moved]
        loss = torch.nn.functional.cross_entropy(network(moved[0]), batch.y)
        loss = loss + 0.3 * torch.nn.functional.cross_entropy(network(moved[1], head="rotation"), k)
        gradients = torch.autograd.grad(loss, moved)
        stepped = [each + perturbation.step_size * g.sign() for each, g in zip(moved, gradients, strict=True)]
        moved = [
            torch.maximum(torch.minimum(each, base + perturbation.eps), base - perturbation.eps).clamp(0, 1)
            for each, base in zip(stepped, bases, strict=True)
        ]
    assert torch.allclose(found["adv"], moved[0], atol=1e-6)  # float32: x + (adv - x)
    assert torch.allclose(found["adv:rotated"], moved[1], atol=1e-6)


def test_copies_are_bounded_in_the_space_of_their_views(tmp_path: Path) -> None:
    objective = objective_of(tmp_path, JOINT, task="contrastive", norm="l2")
    network, batch = make(objective)
    images = image_sets(network, objective, batch, 0, 0)
    for number, base in enumerate(views_at(objective, "contrastive", batch.x, batch)):
        moved = images["adv:contrastive_" + ("first", "second")[number]]
        size = (moved - base).flatten(1).norm(dim=1)
        assert size.max() <= 0.5 + 1e-6  # float32
        assert size.min() > 0.1
        assert moved.min() >= 0
        assert moved.max() <= 1


def test_two_perturbations_of_the_same_views_start_apart(tmp_path: Path) -> None:
    one = {"maximise": {"ssl": 1}, "layout": "copies"}
    objective = objective_of(tmp_path, {"perturb": {"a": one, "b": one}, "train": {"a": {"ssl": 1}, "b": {"ssl": 1}}})
    _, batch = make(objective)
    starts = draw_starts(objective, batch, 0, 0).starts
    assert not torch.equal(starts["a:rotation"], starts["b:rotation"])


def test_only_the_named_views_move(tmp_path: Path) -> None:
    one = {"maximise": {"contrastive": 1}, "layout": "copies", "views": "contrastive_second"}
    objective = objective_of(tmp_path, {"perturb": {"adv": one}, "train": {"adv": {"contrastive": 1}}})
    network, batch = make(objective)
    images, (first, second) = (
        image_sets(network, objective, batch, 0, 0),
        views_at(objective, "contrastive", batch.x, batch),
    )
    assert torch.equal(images["adv:contrastive_first"], first)
    assert (images["adv:contrastive_second"] - second).abs().amax() == pytest.approx(0.1, abs=1e-6)
    assert torch.equal(images["adv"], batch.x)


def test_a_single_image_is_the_view_and_carries_both_labels(tmp_path: Path) -> None:
    objective = objective_of(
        tmp_path, {"perturb": {"adv": COPIES | {"layout": "single"}}, "train": {"adv": {"xent": 1, "ssl": "w"}}}
    )
    network, batch = make(objective)
    images = image_sets(network, objective, batch, 0, 0)
    turned = rotate(batch.x, batch.drawn["rotation"])
    assert images["adv"] is images["adv:rotated"]
    assert (images["adv"] - turned).abs().amax() == pytest.approx(0.1, abs=1e-6)


def test_without_weight_a_single_variant_is_its_control(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    given: dict[str, Any] = {"norm": "linf", "task": "jigsaw"}
    off = resolve_objective(study, study.variants["at_ssl_single"], weight=0.0, **given)
    assert off == resolve_objective(study, study.variants["at_ssl_single_views"], weight=0.5, **given)
    for name in ("at_ssl_copies", "at_ssl_copies_views", "at_ssl_adv_views", "at_ssl_separate_views"):
        at = resolve_objective(study, study.variants["at"], weight=0.0, **given)
        without = resolve_objective(study, study.variants[name], weight=0.0, **given)
        changes: dict[str, Any] = {"layout": "shared"}
        perturb = {each: p.model_copy(update=changes) for each, p in without.perturb.items()}
        assert without.model_copy(update={"perturb": perturb}) == at, name


def test_the_classes_at_the_views_are_learnt_by_the_control(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path))
    for task in ("rotation", "contrastive"):
        objective = resolve_objective(study, study.variants["at_ssl_clean_views"], norm="linf", task=task, weight=0.5)
        network, batch = make(objective)
        network.eval()
        row = objective.row("views_xent")
        found = load(row.function)(network, batch.x, task_at(objective, "views_xent", batch.x, batch))
        logits = [network(each) for each in views_at(objective, task, batch.x, batch)]
        expected = sum(-each.log_softmax(dim=1)[range(16), batch.y] for each in logits) / len(logits)
        assert torch.allclose(found, expected, atol=1e-5)
        assert objective.heads == {}


def test_a_perturbation_has_a_step_size_of_its_own(tmp_path: Path) -> None:
    attack = {"maximise": {"xent": 1}, "step_size": "1/100", "eps_scale": 0.5}
    given = {"perturb": {"adv": attack}, "train": {"adv": {"xent": 1}}}
    adv = objective_of(tmp_path, given, eps_scale=2.0).perturb["adv"]
    assert (adv.eps, adv.step_size) == (0.1, 0.02)


def at(layout: str, **given: Any) -> dict[str, Any]:
    return {"maximise": {"xent": 1, "ssl": 1}, "layout": layout} | given


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "single contrastive": (
        {"perturb": {"adv": at("single")}, "train": {"adv": {"xent": 1, "ssl": 1}}},
        "contrastive",
        "layout single needs a task with one view; 'contrastive' has contrastive_first, contrastive_second",
    ),
    "single trades": (
        {"perturb": {"adv": at("single", maximise={"kl_to_clean": 1})}, "train": {"adv": {"kl_to_clean": 1}}},
        "rotation",
        "'kl_to_clean' compares with the image before the view",
    ),
    "trained and not maximised": (
        {"perturb": {"adv": at("copies", maximise={"xent": 1})}, "train": {"adv": {"xent": 1, "ssl": 1}}},
        "rotation",
        "it maximises nothing that moves what 'rotation' sees",
    ),
    "another's view": (
        {"perturb": {"adv": at("copies", views="shuffled")}, "train": {"adv": {"xent": 1, "ssl": 1}}},
        "rotation",
        "views: found 'shuffled'; it could move rotated, x",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case: str, tmp_path: Path) -> None:
    variant, task, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        objective_of(tmp_path, variant, task=task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perturb": {"adv": at("shared", resample=True)}}, "resample was removed: views are drawn once per training"),
        ({"perturb": {"adv": at("shared", views="x")}}, "views needs layout 'copies', found 'shared'"),
        ({"perturb": {"adv": at("copies", view="jigsaw")}}, "view needs layout 'single', found 'copies'"),
        ({"perturb": {"adv": at("sharde")}}, "layout: Input should be 'shared', 'copies' or 'single', found 'sharde'"),
        ({"batchnorm": {"clear": "aux"}}, "batchnorm.clear: no such perturbation; defined: clean, adv"),
        ({"weight_schedule": {"ssl": {"until": 0.5}}}, "weight_schedule was removed: weights are the same"),
        ({"normalise_weights": True}, "normalise_weights was removed: write weights that sum to one; found True"),
        ({"attack_mode": "train"}, "attack_mode was removed: attacks run with BatchNorm in eval mode"),
        ({"batchnorm": {"adv": "aux"}}, "no image set of train is left to the branch 'main'"),
    ],
)
def test_a_typo_is_refused_at_the_door(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = {"perturb": {"adv": at("shared")}, "train": {"adv": {"xent": 1, "ssl": 1}}}
    with pytest.raises(ConfigError, match=message):
        parse_study(tiny_config(tmp_path, variants={"mine": base | changes}))


def test_draws_name_their_losses(tmp_path: Path) -> None:
    """A control and its way see the same views, and a single way without an SSL term has some."""
    study = parse_study(tiny_config(tmp_path))
    given: dict[str, Any] = {"norm": "linf", "task": "jigsaw", "weight": 0.5}
    batch = Batch(torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64))
    names = ("at_ssl_adv", "at_ssl_adv_views", "at_ssl_single", "at_ssl_single_views")
    drawn = [draw_views(resolve_objective(study, study.variants[name], **given), batch, 0, 5).drawn for name in names]
    assert all(set(views) == {"jigsaw"} for views in drawn)
    assert all(torch.equal(views["jigsaw"], drawn[0]["jigsaw"]) for views in drawn)
