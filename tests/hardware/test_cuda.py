"""What only a GPU can show: recordings, resuming and precision there. Skipped without one."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.attacks.auto_batch import MOST, batch_for
from ssrob.attacks.sweep import attack_sweep
from ssrob.data.prepared import Prepared
from ssrob.hardware import device
from ssrob.hardware.cuda_graphs import CudaGraphs, GraphedStep, Tensors
from ssrob.planning.plan import Plan
from ssrob.planning.specs import TrainSpec
from ssrob.runtime import checkpoint
from ssrob.training.fit import fit, graphed_step, training_step
from ssrob.training.train_step import compute_gradients, sample_batch
from tests.hardware.test_cuda_graphs import WAYS, prepared, specs, training
from tests.hardware.test_device import Watch, images, network_of, spec_of

__all__ = ["prepared"]  # a fixture
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _numerics() -> Iterator[None]:
    with device.numerics(CUDA):
        yield


def in_half(spec: TrainSpec) -> TrainSpec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"precision": "bfloat16"})})


@pytest.mark.parametrize("way", WAYS)
def test_a_replayed_training_has_the_bits_of_a_direct_one(
    way: str, prepared: tuple[Plan, Prepared], caplog: pytest.LogCaptureFixture
) -> None:
    plan, data = prepared
    spec = in_half(specs(plan)[way])
    direct, task = training(spec, data, None, CUDA)
    expected = list(fit(direct, task))
    replayed, task = training(spec, data, CudaGraphs(CUDA), CUDA)
    with caplog.at_level(logging.INFO, "ssrob.hardware.cuda_graphs"):
        found = list(fit(replayed, task))
    assert "steps are captured and replayed (capture 1)" in caplog.messages
    assert not any("one by one" in message for message in caplog.messages)
    assert found == expected
    for name, value in direct.network.state_dict().items():
        assert torch.equal(replayed.network.state_dict()[name], value), name


def test_a_training_that_goes_on_has_the_bits_of_one_that_never_stopped(
    prepared: tuple[Plan, Prepared], tmp_path: Path
) -> None:
    plan, data = prepared
    spec = in_half(specs(plan)["at_ssl_joint-rotation"])
    whole, task = training(spec, data, CudaGraphs(CUDA), CUDA)
    for _ in fit(whole, task):
        if whole.step == 5:
            checkpoint.save(whole.to_dict(), tmp_path / "checkpoint.pt")
    resumed, task = training(spec, data, CudaGraphs(CUDA), CUDA)
    resumed.load(checkpoint.load(tmp_path / "checkpoint.pt", CUDA))
    assert resumed.step == 5
    assert list(fit(resumed, task))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


@pytest.mark.parametrize("backend", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_no_step_synchronises(way: str, backend: bool, prepared: tuple[Plan, Prepared]) -> None:
    """Past the first steps: an epoch's order is copied to the device at its start, recording synchronises."""
    plan, data = prepared
    spec = in_half(specs(plan)[way])
    state, task = training(spec, data, CudaGraphs(CUDA) if backend else None, CUDA)
    task.batches.batch_size = 20  # many steps in an epoch
    compute = graphed_step(state, task)
    for _ in range(4):
        training_step(state, task, compute)
        state.step += 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            training_step(state, task, compute)
            state.step += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_synchronises_is_not_recorded_and_computing_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def function(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * inputs["x"].sum().item()}

    compute = GraphedStep(function, lambda: [], CudaGraphs(CUDA))
    with caplog.at_level(logging.WARNING, "ssrob.hardware.cuda_graphs"):
        for value in range(1, 6):
            found = compute({"x": torch.full((2,), float(value), device=CUDA)})["y"]
            assert found.tolist() == [2.0 * value * value] * 2
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("steps are launched one by one from here on: ")


def test_half_precision_ends_where_it_does_on_a_cpu() -> None:
    spec, shape = spec_of("at_ssl_joint", "l2", precision="bfloat16"), (3, 8, 8)
    network = network_of(spec, shape).to(device=CUDA, memory_format=torch.channels_last)
    x, y = images(8, shape)
    batch = sample_batch(spec, x.to(CUDA), y.to(CUDA), 0)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    with Watch() as watch:
        found = compute_gradients(network, spec, batch)
    half = {name for name, given, made in watch.seen if torch.bfloat16 in [*given, *made]}
    assert "convolution" in half
    assert half.isdisjoint(["_log_softmax", "nll_loss_forward", "linalg_vector_norm", "clamp"])
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_single_precision_is_that_of_a_cpu() -> None:
    """Without TensorFloat-32, whose 10 bits would be off by about 1e-3."""
    spec, shape = spec_of("standard"), (3, 16, 16)
    network, (x, _) = network_of(spec, shape).eval(), images(8, shape)
    expected = network(x)
    found = network.to(CUDA)(x.to(CUDA)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)  # float32, other orders of sums


@pytest.mark.parametrize("half", [False, True])
def test_verdicts_do_not_depend_on_the_batch(half: bool) -> None:
    spec = spec_of("standard")
    network = network_of(spec).eval().to(CUDA)
    x, _ = images(1000)
    labels = network(x.to(CUDA)).argmax(1).cpu()
    settings: dict[str, Any] = {
        "eps": [0.0, 0.01, 0.02],
        "preset": "fast",
        "gradients_in": "bfloat16" if half else "float32",
    }
    found = [attack_sweep(network, x, labels, batch_size=size, **settings).robust for size in (64, 256, None)]
    for other in found[1:]:
        assert (other != found[0]).double().mean() <= 1e-3


def test_the_batch_for_a_card_is_a_power_of_two_and_always_the_same() -> None:
    network = network_of(spec_of("standard")).eval().to(CUDA)
    image = images(1)[0].to(CUDA)
    sizes = {batch_for(network, image) for _ in range(2)}
    assert len(sizes) == 1
    size = sizes.pop()
    assert 1 <= size <= MOST
    assert size.bit_count() == 1
