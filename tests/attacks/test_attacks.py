"""Geometry, PGD and every evaluation attack by itself."""

import pytest
import torch
import torch.nn.functional as F
from ssrob import seeding
from ssrob.attacks import logit_losses
from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES, Geometry
from ssrob.attacks.steppers.pgd import pgd
from ssrob.registry import attacks
from ssrob.registry.presets import AttackConfig, AttackPlan
from ssrob.seeding import generator
from tests.attack_models import climb, digits_test, linear_distance, linear_problem, robust_cnn
from torch import Tensor, nn

CONFIGS = {
    "pgd": AttackConfig("pgd", "margin", 10),
    "apgd": AttackConfig("apgd", "margin", 20),
    "fmn": AttackConfig("fmn", "margin", 20, start="clean"),
    "square": AttackConfig("square", "margin", 50),
}
SLACK = 1e-6  # x + delta rounds each pixel to float32: up to 6e-8 for a pixel, times 8 for the length of 64 pixels


@pytest.fixture(params=attacks.NORMS)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return GEOMETRIES[request.param]


def images(count: int = 32, side: int = 8) -> Tensor:
    """Random images, a tenth of the pixels exactly at the ends of the range."""
    draws = torch.rand(count, 3, side, side, generator=generator(0, "images"))
    return (1.2 * draws - 0.1).clamp(0, 1)


def keys(count: int) -> Tensor:
    return seeding.example_keys(torch.arange(count), 0, "test")


def test_names_are_those_of_the_tables():
    assert tuple(GEOMETRIES) == attacks.NORMS
    assert tuple(CONFIGS) == tuple(attacks.ATTACKS)
    assert tuple(logit_losses.UNTARGETED) == attacks.UNTARGETED_LOSSES
    assert tuple(logit_losses.TARGETED) == attacks.TARGETED_LOSSES


def test_geometries_are_named_alike_in_every_process(geometry: Geometry):
    """Their text is part of the key under which a finished block is found again, so it must hold no address."""
    assert repr(geometry) in {"Linf()", "L2()"}


def test_start_is_inside_and_centred(geometry: Geometry):
    x = torch.full((4000, 1, 4, 4), 0.5)
    eps = torch.full((4000,), 0.25)
    for source in (generator(0, "start"), keys(4000)):
        delta = geometry.start(x, eps, source) - x
        assert geometry.norm(delta).max() <= 0.25 + SLACK
        # The mean of 4000 draws of |delta| <= 0.25 has a standard error under 0.25 / sqrt(4000) = 0.004.
        assert delta.mean(0).abs().max() < 0.016
        radius = geometry.norm(delta) / 0.25
        expected = 16 / 17 if geometry.name == "linf" else 0.5  # max of 16 uniforms; U(0, 1) radius
        assert radius.mean() == pytest.approx(expected, abs=0.02)  # 4 standard errors of 0.29 / sqrt(4000)


def test_random_direction_and_radius_are_independent():
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = GEOMETRIES["l2"].start(x, 0.25, keys(4000)) - x
    pair = torch.stack([delta.flatten(1).norm(dim=1), delta[:, 0, 0, 0].abs() / delta.flatten(1).norm(dim=1)])
    assert torch.corrcoef(pair)[0, 1].abs() < 0.06  # 4 / sqrt(4000)


def test_project_is_the_nearest_point_and_idempotent(geometry: Geometry):
    x = images()
    eps = torch.linspace(0, 1, len(x))
    far = x + 2 * torch.randn(x.shape, generator=generator(0, "far"))
    near = geometry.project(x, far, eps)
    assert (near >= 0).all()
    assert (near <= 1).all()
    assert (geometry.norm(near - x) <= eps + SLACK).all()
    assert near[0].equal(x[0])  # eps = 0
    torch.testing.assert_close(geometry.project(x, near, eps), near, atol=2e-7, rtol=0)  # one float32 rounding
    inside = geometry.project(x, near, eps * 2)
    torch.testing.assert_close(inside, near, atol=2e-7, rtol=0)


def test_float_and_per_image_eps_agree(geometry: Geometry):
    x, far = images(), images().flip(0)
    amounts = torch.full((len(x),), 0.125)
    assert geometry.project(x, far, 0.125).equal(geometry.project(x, far, amounts))
    assert geometry.step(x, far, 0.125).equal(geometry.step(x, far, amounts))


def test_step_has_the_length_asked_for_and_climbs_most(geometry: Geometry):
    x, gradient = images(), torch.randn(images().shape, generator=generator(0, "gradient"))
    delta = geometry.step(x, gradient, 0.1) - x
    torch.testing.assert_close(geometry.norm(delta), torch.full((len(x),), 0.1), atol=SLACK, rtol=0)
    climbed = (delta * gradient).flatten(1).sum(1)
    torch.testing.assert_close(climbed, 0.1 * geometry.dual_norm(gradient), atol=1e-5, rtol=1e-5)  # 192 terms
    assert geometry.step(x, torch.zeros_like(x), 0.1).equal(x)


def test_pgd_reaches_the_optimum_of_a_linear_loss(geometry: Geometry):
    x = 0.4 + 0.2 * images()
    weight = torch.randn(x.shape, generator=generator(0, "weight"))
    adv = pgd(lambda z: (z * weight).flatten(1).sum(1), x, geometry=geometry, eps=0.05, steps=5, step_size=0.03)
    gained = ((adv - x) * weight).flatten(1).sum(1)
    torch.testing.assert_close(gained, 0.05 * geometry.dual_norm(weight), atol=1e-5, rtol=1e-5)  # 192 terms


def test_pgd_is_deterministic_given_its_generator_and_refuses_two_starts(geometry: Geometry):
    x = images()

    def run(seed: int) -> Tensor:
        return pgd(
            lambda z: z.square().flatten(1).sum(1),
            x,
            geometry=geometry,
            eps=0.1,
            steps=2,
            step_size=0.01,
            generator=generator(seed, "pgd"),
        )

    assert run(0).equal(run(0))
    assert not run(0).equal(run(1))
    with pytest.raises(ValueError, match="not both"):
        pgd(run, x, geometry=geometry, eps=0.1, steps=1, step_size=0.1, generator=generator(0), start=x)


def test_pgd_gives_a_copy_even_without_a_step(geometry: Geometry):
    x = images()
    for start in (None, x):
        adv = pgd(F.relu, x, geometry=geometry, eps=0.1, steps=0, step_size=0.1, start=start)
        assert adv.equal(x)
        assert adv.data_ptr() != x.data_ptr()


def test_pgd_under_autocast_and_no_grad(geometry: Geometry):
    model, (x, y) = robust_cnn(), digits_test(16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        adv = pgd(
            lambda z: F.cross_entropy(model(z), y, reduction="none"),
            x,
            geometry=geometry,
            eps=0.2,
            steps=3,
            step_size=0.1,
        )
    assert adv.dtype == torch.float32
    assert geometry.norm(adv - x).max() <= 0.2 + SLACK
    assert F.cross_entropy(model(adv), y) > F.cross_entropy(model(x), y)


@pytest.mark.parametrize("kind", CONFIGS)
def test_budget_against_a_clone(geometry: Geometry, kind: str):
    """The budget is judged against a copy made beforehand: an attack that moves its input cannot hide."""
    model, (x, y) = robust_cnn(), digits_test(48)
    before, eps = x.clone(), torch.linspace(0, 0.6, 48)
    adv = climb(CONFIGS[kind], geometry, lambda z: logit_losses.margin(model(z), y), x=x, eps=eps, keys=keys(48))
    assert x.equal(before)
    assert adv.min() >= 0
    assert adv.max() <= 1
    if not CONFIGS[kind].row.minimises_norm:
        assert (geometry.norm(adv - before) <= eps + SLACK).all()
        raised = logit_losses.margin(model(adv), y) - logit_losses.margin(model(before), y)
        assert raised[-24:].mean() > 0  # Square cannot fail to gain by luck on 24 images


@pytest.mark.parametrize("kind", CONFIGS)
def test_frozen_gives_the_model_back(kind: str):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).train()
    model[1].eval()
    model[3].bias.requires_grad_(False)
    x, y = digits_test(8)
    model(x).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    global_state = torch.get_rng_state()
    linf, eps = GEOMETRIES["linf"], torch.full((8,), 0.1)
    with frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        climb(CONFIGS[kind], linf, lambda z: logit_losses.margin(model(z), y), x=x, eps=eps, keys=keys(8))
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, True, False]
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    after = [p.grad for p in model.parameters()]
    assert all((a is b is None) or a.equal(b) for a, b in zip(after, grads, strict=True))
    assert torch.get_rng_state().equal(global_state)


def test_frozen_gives_the_model_back_after_an_error():
    model = nn.Linear(2, 2).train()
    with pytest.raises(KeyError), frozen(model):
        raise KeyError
    assert model.training
    assert model.weight.requires_grad


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_do_not_depend_on_the_batch(geometry: Geometry, kind: str):
    model, x, y = linear_problem(4)
    eps = 0.5 * linear_distance(model, x, y, geometry).float()

    def run(rows: slice) -> Tensor:
        loss_at = lambda z: logit_losses.margin(model(z), y[rows])  # noqa: E731
        return climb(CONFIGS[kind], geometry, loss_at, x=x[rows], eps=eps[rows], keys=keys(64)[rows])

    torch.testing.assert_close(run(slice(0, 64))[10:20], run(slice(10, 20)), atol=1e-6, rtol=0)  # float32


def test_logit_losses_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0, 0.0, -1.0]])
    one, two = torch.tensor([1]), torch.tensor([2])
    assert logit_losses.margin(logits, one).item() == -2.0
    assert logit_losses.margin(logits, two).item() == 2.0
    assert logit_losses.dlr(logits, one).item() == pytest.approx(-2 / 3)  # (2 - 4) / (4 - 1)
    assert logit_losses.dlr(logits, two).item() == pytest.approx(2 / 3)
    assert logit_losses.targeted_margin(logits, one, two).item() == -2.0
    assert logit_losses.targeted_dlr(logits, one, two).item() == pytest.approx(-2 / 3.5)  # 4 - (1 + 0) / 2
    scaled = logit_losses.targeted_dlr(100 * logits, one, two)
    assert scaled.item() == pytest.approx(-2 / 3.5)


def test_plans_refuse_what_has_no_effect():
    for wrong, message in [
        ({"kind": "pdg"}, "did you mean 'pgd'"),
        ({"loss": "hinge"}, "unknown attack loss 'hinge'"),
        ({"start": "zero"}, "unknown attack start"),
        ({"steps": 0}, "steps and restarts must be >= 1"),
        ({"kind": "apgd", "step_ratio": 2.0}, "step_ratio is for pgd"),
        ({"step_ratio": -1.0}, "step_ratio is for pgd"),
        ({"kind": "fmn"}, "fmn takes loss margin"),
        ({"restarts": 2, "start": "warm"}, "restarts > 1 need random starts"),
    ]:
        with pytest.raises(ValueError, match=message):
            AttackConfig(**{"kind": "pgd", "loss": "cross_entropy", "steps": 5, **wrong})
    twice = AttackConfig("pgd", "margin", 5)
    with pytest.raises(ValueError, match="different attacks"):
        AttackPlan((twice, twice))
    with pytest.raises(ValueError, match="different attacks"):
        AttackPlan(())


def test_plans_adapt_to_few_classes():
    plan = AttackPlan((AttackConfig("pgd", "dlr", 5), AttackConfig("pgd", "targeted_dlr", 5, restarts=9)))
    assert [(a.loss, a.restarts) for a in plan.for_classes(2).attacks] == [("margin", 1), ("targeted_margin", 1)]
    assert [(a.loss, a.restarts) for a in plan.for_classes(3).attacks] == [("dlr", 1), ("targeted_margin", 2)]
    assert plan.for_classes(10) == plan
