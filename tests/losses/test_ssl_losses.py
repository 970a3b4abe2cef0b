"""Jigsaw, contrastive and VICReg losses against their formulas, written again as loops in numpy and float64."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ssrob.data.views import view
from ssrob.losses import contrastive, jigsaw, vicreg
from ssrob.losses.batch import Batch, Model, Task, task_at
from ssrob.planning.specs import Objective
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES, loss_row
from ssrob.seeding import generator
from torch import Tensor

Array = NDArray[np.float64]
B, SHAPE, OUTPUTS = 4, (1, 6, 6), 3
COARSE, FINE = (2, 12), (3, 30)  # tiles per side, orders
THEIRS = (5.0, 5.0, 0.2)  # a fifth of the weights of VICReg's authors


def linear(outputs: int = OUTPUTS, scale: float = 1.0) -> Model:
    """A model in float64 whose outputs are sums of pixels; the scales of the outputs differ."""
    weight = torch.randn(36, outputs, generator=generator(0, "weight"), dtype=torch.float64)
    weight = weight * scale * torch.linspace(0.2, 1, outputs)
    return lambda x, head="class": x.flatten(1).to(weight.dtype) @ weight[: x[0].numel()]


@pytest.fixture
def batch() -> Batch:
    x = 0.3 + 0.3 * torch.rand(B, *SHAPE, generator=generator(0, "x"), dtype=torch.float64)
    views = {name: load(row.draw)(B, generator(1, name), **row.arguments) for name, row in LOSSES.items() if row.draw}
    return Batch(x, torch.zeros(B, dtype=torch.int64), views)


def task(name: str, x: Tensor, batch: Batch) -> Task:
    """What a training gives a loss at images x."""
    return task_at(Objective(train={"clean": {name: 1.0}}), name, x, batch)


def embedded(model: Model, x: Tensor, views: Tensor) -> list[Array]:
    return [model(view(x, each)).numpy() for each in views.unbind(1)]


def nt_xent(first: Array, second: Array, temperature: float) -> float:
    """Chen et al. 2020, equation 1 and algorithm 1: views 2k - 1 and 2k are of image k."""
    z = [row for pair in zip(first, second, strict=True) for row in pair]
    total = 0.0
    for k in range(len(first)):
        for i, j in ((2 * k, 2 * k + 1), (2 * k + 1, 2 * k)):
            similar = [float(z[i] @ other / np.linalg.norm(z[i]) / np.linalg.norm(other)) for other in z]
            denominator = sum(np.exp(s / temperature) for m, s in enumerate(similar) if m != i)
            total -= np.log(np.exp(similar[j] / temperature) / denominator)
    return total / len(z)


def vicreg_terms(first: Array, second: Array) -> tuple[float, float, float]:
    """Bardes et al. 2022: invariance (eq. 5), variance (1, 2) and covariance (3, 4), scaled as in their code."""
    n, d = first.shape
    invariance = sum((first[i, j] - second[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (first, second):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        c = [[sum((z[i, a] - mean[a]) * (z[i, b] - mean[b]) for i in range(n)) / (n - 1) for b in range(d)]
             for a in range(d)]  # fmt: skip
        variance += sum(max(0.0, 1 - np.sqrt(c[j][j] + 0.0001)) for j in range(d)) / d / 2
        covariance += sum(c[a][b] ** 2 for a in range(d) for b in range(d) if a != b) / d
    return float(invariance), float(variance), float(covariance)


def contrastive_oracle(x: Tensor, batch: Batch) -> float:
    return nt_xent(*embedded(linear(), x, batch.drawn["contrastive"]), temperature=0.5)


def vicreg_oracle(x: Tensor, batch: Batch) -> float:
    invariance, variance, covariance = vicreg_terms(*embedded(linear(), x, batch.drawn["vicreg"]))
    return (25 * invariance + 25 * variance + 1 * covariance) / 5


def jigsaw_oracle(x: Tensor, batch: Batch) -> float:
    """The sum over the batch, as an attack maximises it."""
    numbers, total = batch.drawn["jigsaw"], 0.0
    for image, number in zip(x.numpy(), numbers, strict=True):
        logits = linear(12)(torch.from_numpy(cut_and_place(image, jigsaw.orders(4, 12)[number], 2))[None])[0].numpy()
        total -= logits[number] - np.log(np.exp(logits).sum())
    return float(total)


def cut_and_place(image: Array, order: tuple[int, ...], side: int) -> Array:
    """Place tile order[j] at place j, by slices; image (C, H, W), H and W multiples of side."""
    _, height, width = image.shape
    tall, wide = height // side, width // side
    out = np.empty_like(image)
    for place, tile in enumerate(order):
        to, source = divmod(place, side), divmod(tile, side)
        taken = image[:, source[0] * tall : (source[0] + 1) * tall, source[1] * wide : (source[1] + 1) * wide]
        out[:, to[0] * tall : (to[0] + 1) * tall, to[1] * wide : (to[1] + 1) * wide] = taken
    return out


CASES: dict[str, tuple[Callable[[Tensor, Batch], float], int, bool]] = {  # oracle, outputs, coupled over the batch
    "contrastive": (contrastive_oracle, OUTPUTS, True),
    "vicreg": (vicreg_oracle, OUTPUTS, True),
    "jigsaw": (jigsaw_oracle, 12, False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_formula(name: str, batch: Batch) -> None:
    oracle, outputs, coupled = CASES[name]
    loss = load(LOSSES[name].function)(linear(outputs), batch.x, task(name, batch.x, batch))
    assert loss.shape == (B,)
    if coupled:
        assert (loss == loss[0]).all()
        assert loss[0].item() == pytest.approx(oracle(batch.x, batch), rel=1e-9)  # float64; views drawn in float32
    else:
        assert loss.sum().item() == pytest.approx(oracle(batch.x, batch), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_formula_by_finite_differences(name: str, batch: Batch) -> None:
    oracle, outputs, coupled = CASES[name]
    x = batch.x.clone().requires_grad_()
    loss = load(LOSSES[name].function)(linear(outputs), x, task(name, x, batch))
    (gradient,) = torch.autograd.grad(loss.mean() if coupled else loss.sum(), x)
    step = 1e-5
    for index in itertools.product(range(B), [0], range(0, 6, 2), range(1, 6, 2)):
        moved = [batch.x.clone(), batch.x.clone()]
        moved[0][index] += step
        moved[1][index] -= step
        slope = (oracle(moved[0], batch) - oracle(moved[1], batch)) / (2 * step)
        # Central differences in float64: their error is of the order of step^2 = 1e-10, and rounding over the step.
        assert gradient[index].item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_the_formulas_are_tested_where_every_part_of_them_acts(batch: Batch) -> None:
    first, second = embedded(linear(), batch.x, batch.drawn["vicreg"])
    assert all(term > 1e-3 for term in vicreg_terms(first, second))
    spread = np.concatenate([first.std(axis=0, ddof=1), second.std(axis=0, ddof=1)])
    assert spread.min() < 0.9
    wide = embedded(linear(scale=20), batch.x, batch.drawn["vicreg"])
    assert min(each.std(axis=0, ddof=1).max() for each in wide) > 1, "the hinge is off for some outputs"
    loss = vicreg.regularised(*map(torch.from_numpy, wide), THEIRS)
    invariance, variance, covariance = vicreg_terms(*wide)
    assert loss.item() == pytest.approx(5 * invariance + 5 * variance + covariance / 5, rel=1e-9)


def test_vicreg_of_collapsed_outputs_is_its_variance_term() -> None:
    constant = torch.full((6, 4), 0.7)
    assert vicreg.regularised(constant, constant, THEIRS).item() == pytest.approx(
        5 * (1 - 0.01), abs=1e-5
    )  # root of 1e-4


def test_vicreg_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 2, found 1"):
        vicreg.regularised(torch.zeros(1, 3), torch.zeros(1, 3), THEIRS)


def test_contrastive_accuracy_is_finding_the_other_view(batch: Batch) -> None:
    same = Batch(batch.x, batch.y, {"contrastive": batch.drawn["contrastive"][:, :1].expand(-1, 2, -1)})
    assert contrastive.correct(linear(), batch.x, task("contrastive", batch.x, same)).all(), (
        "the partner is the same view"
    )
    given = task("contrastive", batch.x, batch)
    collapsed = contrastive.correct(lambda x, head="class": torch.ones(len(x), 3), batch.x, given)
    assert collapsed.shape == (B,)
    assert collapsed.sum() <= 1, "nothing sets the partner apart"
    first, second = embedded(linear(), batch.x, batch.drawn["contrastive"])
    z = np.concatenate([first, second])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = [max((j for j in range(2 * B) if j != i), key=lambda j, i=i: z[i] @ z[j]) == i + B for i in range(B)]
    assert contrastive.correct(linear(), batch.x, given).tolist() == expected


@pytest.mark.parametrize("name", ["contrastive", "vicreg"])
def test_half_precision_stops_at_the_head(name: str, batch: Batch) -> None:
    x = batch.x.float()
    weight = torch.randn(36, 3, generator=generator(0))

    def model(images: Tensor, head: str = "class") -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return images.flatten(1) @ weight

    loss = load(LOSSES[name].function)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(model, x, task(name, x, batch))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(model, x, task(name, x, batch)))


@pytest.mark.parametrize(("side", "count"), [COARSE, FINE])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 32, 32), (3, 12, 7)])
def test_tiles_are_placed_as_slices_are(side: int, count: int, shape: tuple[int, int, int]) -> None:
    x = torch.rand(count, *shape, generator=generator(0))
    shuffled = jigsaw.shuffle(x, torch.arange(count), side, count)
    height, width = (size // side * side for size in shape[1:])
    top, left = (shape[1] - height) // 2, (shape[2] - width) // 2
    inner = x[:, :, top : top + height, left : left + width].numpy()
    orders = jigsaw.orders(side**2, count)
    expected = np.stack([cut_and_place(image, order, side) for image, order in zip(inner, orders, strict=True)])
    assert np.array_equal(shuffled.numpy(), expected)


def test_an_image_without_room_for_the_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="3 x 3 tiles needs images as large, found 2 x 8"):
        jigsaw.shuffle(torch.zeros(1, 1, 2, 8), torch.zeros(1, dtype=torch.int64), 3, 30)


def differing(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(i != j for i, j in zip(a, b, strict=True))


@pytest.mark.parametrize(("tiles", "count"), [(4, 12), (5, 10)])
def test_orders_are_chosen_greedily_far_apart(tiles: int, count: int) -> None:
    chosen = [tuple(range(tiles))]
    while len(chosen) < count:
        left = [order for order in itertools.permutations(range(tiles)) if order not in chosen]
        distances = {order: [differing(order, other) for other in chosen] for order in left}
        chosen.append(max(left, key=lambda order: (min(distances[order]), sum(distances[order]))))
    assert jigsaw.orders(tiles, count) == tuple(chosen)


@pytest.mark.parametrize(("side", "count", "least"), [(*COARSE, 3), (*FINE, 7)])
def test_any_two_orders_differ_as_documented(side: int, count: int, least: int) -> None:
    orders = jigsaw.orders(side**2, count)
    assert len(set(orders)) == count
    assert orders[0] == tuple(range(side**2))
    assert min(differing(a, b) for a, b in itertools.combinations(orders, 2)) == least


def test_more_orders_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"4 tiles have 24 orders.*found 25"):
        jigsaw.orders(4, 25)


def test_heads_have_an_output_per_order_and_draws_are_balanced() -> None:
    for name, (_, count) in (("jigsaw", COARSE), ("jigsaw_3x3", FINE)):
        row = loss_row(name)
        assert row.draw is not None
        assert row.widths == {name: count}
        counts = torch.bincount(load(row.draw)(100, generator(0), **row.arguments), minlength=count)
        assert len(counts) == count
        assert counts.max() - counts.min() <= 1
        few = torch.cat([load(row.draw)(5, generator(0, step), **row.arguments) for step in range(400)])
        # 2,000 draws: 67 expected in the larger set, 5 standard errors are 40.
        assert torch.bincount(few, minlength=count).min() > 2000 / count - 5 * np.sqrt(2000 / count)


def test_jigsaw_knows_when_it_is_right(batch: Batch) -> None:
    numbers = batch.drawn["jigsaw"]
    given = task("jigsaw", batch.x, batch)
    right = jigsaw.correct(lambda x, head="class": torch.eye(12)[numbers], batch.x, given)
    wrong = jigsaw.correct(lambda x, head="class": torch.eye(12)[(numbers + 1) % 12], batch.x, given)
    assert right.all()
    assert not wrong.any()
