"""Each attack as a plain function over batch sizes, dimensions and norms, against a linear model's closed form."""

import subprocess
import sys

import pytest
import torch
from ssrob.attacks import apgd, fmn, pgd, square
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.registry.attacks import ATTACKS, NORMS
from tests.attack_models import Linear, digits_test, linear_distance, robust_cnn
from torch import Tensor, nn

SHAPES = [(1, 2, 3), (1, 5, 5), (3, 8, 8)]
BOUNDED = {"pgd": pgd, "apgd": apgd, "square": square}
QUERIES = {"queries": 300}


def problem(batch: int, shape: tuple[int, int, int], classes: int = 2) -> tuple[Linear, Tensor, Tensor]:
    """Images in [0.45, 0.55] and a linear model of them, in float64; labels are its own."""
    draws = torch.Generator().manual_seed(batch)
    x = 0.45 + 0.1 * torch.rand(batch, *shape, generator=draws)
    size = x[0].numel()
    weight = torch.randn(classes, size, generator=draws)
    model = Linear(weight, -weight @ torch.full((size,), 0.5)).eval()
    return model, x, model(x).argmax(1)


def broken(model: nn.Module, adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(adv).argmax(1) != y


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_the_boundary_is_crossed_just_beyond_its_distance(name: str, batch: int, shape, norm: str):
    model, x, y = problem(batch, shape)
    before, distance = x.clone(), linear_distance(model, x, y, GEOMETRIES[norm]).float()
    beyond, short = (BOUNDED[name](model, x, y, norm=norm, eps=share * distance) for share in (1.02, 0.98))
    assert broken(model, beyond, y).all()
    assert not broken(model, short, y).any()
    for adv, share in ((beyond, 1.02), (short, 0.98)):
        assert adv.shape == x.shape
        assert (adv >= 0).all()
        assert (adv <= 1).all()
        assert (GEOMETRIES[norm].norm(adv - before) <= share * distance + 1e-6).all()  # float32 rounding of x + delta
    assert x.equal(before)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_nearest_point_lies_on_the_boundary(batch: int, shape, norm: str):
    model, x, y = problem(batch, shape)
    distance = linear_distance(model, x, y, GEOMETRIES[norm])
    adv = fmn(model, x, y, norm=norm)
    ratio = GEOMETRIES[norm].norm(adv - x) / distance
    assert broken(model, adv, y).all()
    assert ratio.min() >= 1 - 1e-4  # float32 images
    assert ratio.max() < 1.03  # the radius changes by up to 5 % in a step, by 0.1 % in the last


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("batch", [1, 16])
def test_queries_alone_cross_it_at_some_distance(batch: int, shape, norm: str):
    model, x, y = problem(batch, shape)
    distance = linear_distance(model, x, y, GEOMETRIES[norm]).float()
    with torch.no_grad():  # and the model gives no gradient
        adv = square(model, x, y, norm=norm, eps=3 * distance, **QUERIES)
        assert not broken(model, square(model, x, y, norm=norm, eps=0.98 * distance, **QUERIES), y).any()
    assert broken(model, adv, y).double().mean() >= 0.9
    assert (GEOMETRIES[norm].norm(adv - x) <= 3 * distance + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [*BOUNDED, "fmn"])
def test_a_target_is_reached(name: str, norm: str):
    model, x, y = problem(8, (1, 5, 5), classes=4)
    targets = (y + 1) % 4
    settings = {"eps": 0.5 if norm == "linf" else 2.0} | (QUERIES if name == "square" else {})
    attack = BOUNDED.get(name, fmn)
    adv = attack(model, x, y, norm=norm, targets=targets, **({} if name == "fmn" else settings))
    assert (model(adv).argmax(1) == targets).double().mean() >= (0.75 if name == "square" else 1)


def test_eps_is_a_number_a_fraction_or_one_per_image():
    x, y = digits_test(3)
    model, quarter = robust_cnn(), 64 / 255
    known = pgd(model, x, y, eps=quarter, steps=3)
    for eps in ("64/255", [quarter] * 3, torch.full((3,), quarter, dtype=torch.float64)):
        assert pgd(model, x, y, eps=eps, steps=3).equal(known)
    assert pgd(model, x.numpy(), y.numpy(), eps=quarter, steps=3).equal(known)
    for wrong in ("8 levels", -0.1, 8, [0.1, 0.2], None):
        with pytest.raises(ValueError, match="eps"):
            pgd(model, x, y, eps=wrong)
    with pytest.raises(ValueError, match="unknown norm"):
        fmn(model, x, y, norm="l1")
    with pytest.raises(ValueError, match="unknown attack loss"):
        apgd(model, x, y, eps=0.1, loss="hinge")


def test_draws_and_the_model_stay_what_they_are():
    model, (x, y) = robust_cnn(), digits_test(6)
    state, rng = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    for attack in BOUNDED.values():
        short = {"queries": 5} if attack is square else {"steps": 3}
        first, again, other = (attack(model, x, y, eps=0.1, seed=seed, **short) for seed in (0, 0, 1))
        assert first.equal(again)
        assert not first.equal(other)
    assert torch.get_rng_state().equal(rng)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_row_of_the_table_is_a_function_and_importing_it_loads_no_torch():
    import ssrob.attacks

    assert set(ssrob.attacks.__all__) == set(ATTACKS)
    code = "import sys, ssrob.attacks; assert 'pgd' in dir(ssrob.attacks); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "from ssrob.attacks import pgd; import ssrob.attacks.sweep, ssrob.attacks as a; assert callable(a.pgd)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
