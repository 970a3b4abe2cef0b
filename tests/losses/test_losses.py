"""Losses against their formulas, written a second time in plain numpy."""

import numpy as np
import pytest
import torch
from ssrob.losses.batch import Batch, Task, task_at
from ssrob.losses.rotation import draw, rotate, rotation
from ssrob.losses.supervised import correct, kl_to_clean, xent
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.specs import Objective
from ssrob.registry.lookup import load
from ssrob.registry.losses import LOSSES, Widths, loss_row
from ssrob.seeding import generator
from torch import Tensor


@pytest.fixture
def network() -> Network:
    heads: dict[str, Widths] = {"class": 5}
    heads |= {name: widths for name in LOSSES for name, widths in loss_row(name).widths.items()}
    given = Architecture("resnet", {"depth": 8, "width": 4}, (3, 8, 8), [0.5] * 3, [0.25] * 3, heads)
    return build(given, seed=0).eval()


@pytest.fixture
def batch() -> Batch:
    draws = generator(0, "test")
    x = torch.rand(8, 3, 8, 8, generator=draws)
    y = torch.randint(5, (8,), generator=draws)
    return Batch(x, y, {name: load(row.draw)(8, draws, **row.arguments) for name, row in LOSSES.items() if row.draw})


def task(name: str, x: Tensor, batch: Batch) -> Task:
    """What a training gives a loss at images x."""
    return task_at(Objective(train={"clean": {name: 1.0}}), name, x, batch)


def softmax(logits: Tensor) -> np.ndarray:
    values = logits.detach().double().numpy()
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_cross_entropy_is_the_log_of_the_label_s_probability(network: Network, batch: Batch) -> None:
    expected = -np.log(softmax(network(batch.x))[np.arange(8), batch.y.numpy()])
    assert xent(network, batch.x, task("xent", batch.x, batch)).detach().numpy() == pytest.approx(
        expected, abs=1e-5
    )  # float32 logits


def test_kl_is_the_sum_over_classes_of_p_log_p_over_q(network: Network, batch: Batch) -> None:
    moved = (batch.x + 0.2 * torch.randn(batch.x.shape, generator=generator(1))).clamp(0, 1)
    p, q = softmax(network(batch.x)), softmax(network(moved))
    expected = (p * np.log(p / q)).sum(axis=1)
    assert kl_to_clean(network, moved, task("kl_to_clean", moved, batch)).detach().numpy() == pytest.approx(
        expected, abs=1e-5
    )
    assert (
        kl_to_clean(network, batch.x, task("kl_to_clean", batch.x, batch)).abs().max() < 1e-6
    )  # the same images: zero


def test_the_gradient_of_kl_reaches_both_sides(network: Network, batch: Batch) -> None:
    """TRADES descends through the clean prediction too (Zhang et al. 2019, eq. 5)."""
    moved, clean = batch.x.clone().add(0.1).clamp(0, 1).requires_grad_(), batch.x.clone().requires_grad_()
    loss = kl_to_clean(network, moved, Task(clean, batch.y)).sum()
    for gradient in torch.autograd.grad(loss, [moved, clean]):
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("turns", range(4))
def test_a_turn_is_numpy_s_counter_clockwise_quarter_turn(turns: int) -> None:
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).float()
    turned = rotate(x, torch.full((2,), turns))
    expected = np.rot90(x.numpy(), turns, axes=(2, 3))
    assert np.array_equal(turned.numpy(), expected)


def test_rotation_loss_is_the_cross_entropy_of_each_image_s_own_turn(network: Network, batch: Batch) -> None:
    k = batch.drawn["rotation"]
    turned = torch.stack([torch.rot90(image, int(turn), dims=(1, 2)) for image, turn in zip(batch.x, k, strict=True)])
    expected = -np.log(softmax(network(turned, head="rotation"))[np.arange(8), k.numpy()])
    assert rotation(network, batch.x, task("rotation", batch.x, batch)).detach().numpy() == pytest.approx(
        expected, abs=1e-5
    )


def test_rotation_s_input_gradient_is_that_of_the_turned_image_turned_back(network: Network, batch: Batch) -> None:
    x = batch.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rotation(network, x, task("rotation", x, batch)).sum(), x)
    k = batch.drawn["rotation"]
    turned = rotate(batch.x, k).requires_grad_()
    loss = torch.nn.functional.cross_entropy(network(turned, head="rotation"), k, reduction="sum")
    (inner,) = torch.autograd.grad(loss, turned)
    assert torch.allclose(gradient, rotate(inner, (4 - k) % 4), atol=1e-6)  # same numbers, another order of sums


def test_turns_are_balanced_in_a_batch() -> None:
    counts = torch.bincount(draw(100, generator(0)), minlength=4)
    assert counts.tolist() == [25, 25, 25, 25]


def test_rotation_of_oblong_images_is_refused() -> None:
    with pytest.raises(ValueError, match="square images, found 4 x 6"):
        rotate(torch.zeros(1, 1, 4, 6), torch.tensor([1]))


def test_correct_counts_what_argmax_says(network: Network, batch: Batch) -> None:
    expected = softmax(network(batch.x)).argmax(axis=1) == batch.y.numpy()
    assert correct(network, batch.x, task("xent", batch.x, batch)).tolist() == expected.tolist()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_catalog_keeps_the_contract(name: str, network: Network, batch: Batch) -> None:
    row = loss_row(name)
    counted: list[int] = []
    handle = network.backbone.register_forward_hook(lambda *_: counted.append(1))
    assert name.startswith(load(row.function).__name__), "the key is the function's name, or begins with it"
    loss = load(row.function)(network, batch.x, task(name, batch.x, batch))
    handle.remove()
    assert loss.shape == (8,)
    assert loss.dtype == torch.float32
    assert len(counted) == len(row.forwards), "the catalog tells what the loss costs"
    assert (loss >= 0).all()
