"""Memory layouts and precisions on a CPU: right against float64, and none of them where a kernel is broken."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ssrob.evaluate import attack_sweep
from ssrob.hardware.device import memory_format
from ssrob.models.network import Network
from ssrob.training.train_step import compute_gradients, sample_batch
from tests.hardware.test_device import CPU, VARIANTS, images, network_of, spec_of
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

LAYOUTS = [torch.contiguous_format, torch.channels_last]


class WeightGradients(TorchDispatchMode):
    """Counts the gradients of convolutions' weights, and notes the shapes of those in channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.in_channels_last = 0, list[torch.Size]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution_backward.default:
            _, x, weight, *_, (_, of_weight, _) = args
            self.count += of_weight
            last = torch.channels_last in (suggest_memory_format(x), suggest_memory_format(weight))
            self.in_channels_last += [weight.shape] if of_weight and last else []
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("variant", "task"),
    [*((variant, "rotation") for variant in VARIANTS)]
    + [("at_ssl_joint", task) for task in ("jigsaw", "jigsaw_3x3", "contrastive", "vicreg")],
)
def test_no_training_step_differentiates_weights_in_channels_last(variant: str, task: str, channels: int) -> None:
    shape = (channels, 9, 9) if task == "jigsaw_3x3" else (channels, 8, 8)
    spec = spec_of(variant, task=task, augment=["crop", "flip"])
    batch = sample_batch(spec, *images(8, shape), 0)
    with WeightGradients() as seen:
        compute_gradients(network_of(spec, shape), spec, batch, norms=True)
    assert seen.count > 0
    assert seen.in_channels_last == []


def test_a_network_is_trained_in_contiguous_layout_whatever_its_backbone_was_built_in() -> None:
    network = network_of(spec_of("at"), (3, 8, 8)).to(memory_format=torch.channels_last)
    network.to(device=CPU, memory_format=memory_format(CPU))
    assert all(parameter.is_contiguous() for parameter in network.parameters())


class Shortcut(nn.Module):
    """A network with the convolution whose weight gradient is broken, with trainable weights, one of them hidden."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.stem, self.shortcut = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1, 2, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=draw)
        self.hidden = [torch.rand(10, 8, 1, 1, generator=draw).requires_grad_()]  # no parameter of the module

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.shortcut(self.stem(x).relu()), self.hidden[0], stride=2).mean(dim=(2, 3))


@pytest.mark.parametrize("own", LAYOUTS)
@pytest.mark.parametrize("layout", ["model", "channels_last"])
def test_a_sweep_in_the_middle_of_a_training_differentiates_no_weights(own: torch.memory_format, layout: str) -> None:
    """A network with trainable weights, in its own layout or not, while the graph of a training step is alive."""
    model, x = Shortcut().eval().to(memory_format=own), images(6, (3, 8, 8))[0]
    labels, weights = model(x).argmax(dim=1), list(model.parameters())
    pending = model(x).square().sum()
    places, strides = [each.data_ptr() for each in weights], [each.stride() for each in weights]
    expected = torch.autograd.grad(pending, model.stem.bias, retain_graph=True)[0]
    with WeightGradients() as seen:
        attack_sweep(model, x, labels, eps=[0.1], preset="fast", layout=layout)
    assert seen.count == 0
    assert ([each.data_ptr() for each in weights], [each.stride() for each in weights]) == (places, strides)
    assert all(each.requires_grad and each.grad is None for each in [*weights, *model.hidden])
    assert torch.equal(torch.autograd.grad(pending, model.stem.bias)[0], expected)


# Kernel, stride, channels in and out, images, side: the layers of the backbones, small and odd sizes among them.
SHAPES = [*itertools.product((1, 3), (1, 2), (1, 3, 4, 6, 8, 16), (4, 16), (1, 16), (7, 8))]
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 2e-2}  # 2^-24 and 2^-8 each, of the sum of the terms' sizes


def safe(kernel: int, stride: int, inputs: int, layout: torch.memory_format) -> bool:
    """Whether a weight gradient may be computed: see `ssrob.hardware.device.memory_format`."""
    return not (layout == torch.channels_last and (kernel, stride) == (1, 2) and inputs < 8)


def deviations(layout: torch.memory_format, dtype: torch.dtype, shape: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """Compare a convolution's output, input gradient and (where that is safe) weight gradient with float64's."""
    kernel, stride, inputs, outputs, count, side = shape
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(count, inputs, side, side, generator=draw).to(dtype)
    weight = (torch.rand(outputs, inputs, kernel, kernel, generator=draw) - 0.5).to(dtype)

    def compute(x: Tensor, weight: Tensor, sized: bool = False) -> list[Tensor]:
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_(of_weight)
        y = F.conv2d(x, weight, stride=stride, padding=kernel // 2)
        slope = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype)
        slope = slope.abs() if sized else slope
        return [y.detach(), *torch.autograd.grad(y, [x, weight] if of_weight else [x], slope)]

    of_weight = safe(kernel, stride, inputs, layout)
    found = compute(x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout))
    exact, sizes = compute(x.double(), weight.double()), compute(x.double(), weight.double().abs(), sized=True)
    for name, *values in zip(("output", "input gradient", "weight gradient"), found, exact, sizes, strict=False):
        value, true, size = values
        yield name, float(((value.double() - true).abs() / size.clamp(min=1e-3)).max())


def check_grid() -> None:
    """Print what of the grid deviates."""
    torch.set_num_threads(1)
    for layout, dtype, shape in itertools.product(LAYOUTS, TOLERANCE, SHAPES):
        for name, deviation in deviations(layout, dtype, shape):
            if not deviation <= TOLERANCE[dtype]:
                print(layout, dtype, shape, name, deviation)


@pytest.mark.parametrize("instructions", ["", "AVX2"])
def test_convolutions_are_right_in_every_layout_and_precision(instructions: str) -> None:
    """In a process of its own, where glibc looks for writes past the end of a block: a broken kernel ends it."""
    environment = os.environ | {"MALLOC_CHECK_": "3", "LD_PRELOAD": "libc_malloc_debug.so.0"}
    environment |= {"ONEDNN_MAX_CPU_ISA": instructions} if instructions else {}
    command = [sys.executable, "-c", f"from {__name__} import check_grid; check_grid()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_shipped_backbones_are_covered_by_the_grid() -> None:
    network: Network = network_of(spec_of("at"), (3, 8, 8))
    kinds = {(each.kernel_size[0], each.stride[0]) for each in network.modules() if isinstance(each, nn.Conv2d)}
    assert kinds <= {(kernel, stride) for kernel, stride, *_ in SHAPES}
