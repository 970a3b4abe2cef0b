"""CUDA graphs: a function's kernels are captured once and replayed, instead of being launched one by one.

A step of adversarial training is thousands of short kernels; on a fast GPU launching them takes longer than running
them. A capture fixes addresses and shapes: inputs are copied into its own buffers, outputs stay in place.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssrob.formatting import first_line
from ssrob.hardware.device import kernel_settings

Tensors = dict[str, Tensor]
WARM_UPS = 2  # calls before a capture: libraries choose kernels and allocate their workspaces
MAX_CAPTURES = 4  # each costs a few steps; a function that changes more often is not worth capturing

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """What captures and replays; tests replace it."""

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        """Run a function as it will be captured."""

    def capture(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Capture a function without running it; return where its outputs will lie, and what replays it."""


class CudaGraphs:
    """CUDA graphs, warmed up and captured on a stream of their own."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        """Run the function on the capture stream, ordered with the work before and after it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        for tensor in outputs.values():
            tensor.record_stream(current)
        return outputs

    def capture(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Capture the function; raises RuntimeError if it does what cannot be captured, such as a synchronisation."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            outputs = function()
        return outputs, graph.replay


@dataclass(frozen=True)
class _Capture:
    key: Hashable
    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], None]


class GraphedStep:
    """`function(inputs) -> outputs`, tensors by name, captured after two calls and replayed from then on.

    The function may change tensors of `state()` in place and must have no other effect; what it does may depend on the
    inputs and the state alone. A change of a shape, type or layout, or of the address of a tensor of the state leads to
    a new capture. What cannot be captured, or changes too often, is called directly, and the log says why. Without a
    backend (on a CPU) every call is direct.
    """

    def __init__(
        self, function: Callable[[Tensors], Tensors], state: Callable[[], Iterable[Tensor]], backend: Backend | None
    ):
        self.function = function
        self._state, self._backend = state, backend
        self._capture: _Capture | None = None
        self._expected: Hashable = None
        self._calls, self._captures = 0, 0

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """Return the outputs; those of a replay are overwritten by the next one."""
        inputs = dict(inputs)
        if self._backend is None:
            return self.function(inputs)
        key = (
            torch.is_grad_enabled(),
            kernel_settings(),
            tuple(map(_address, self._state())),
            tuple((n, *_layout(t)) for n, t in inputs.items()),
        )
        if self._capture is None or self._capture.key != key:
            return self._prepare(self._backend, key, inputs)
        for name, buffer in self._capture.inputs.items():
            buffer.copy_(inputs[name], non_blocking=True)
        self._capture.replay()
        return self._capture.outputs

    def _prepare(self, backend: Backend, key: Hashable, inputs: Tensors) -> Tensors:
        """Call directly until the same key came often enough, then capture and replay."""
        if key != self._expected:
            self._capture, self._expected, self._calls = None, key, 0
        if self._calls < WARM_UPS:
            self._calls += 1
            return backend.warm_up(lambda: self.function(inputs))
        if self._captures == MAX_CAPTURES:
            return self._give_up(inputs, f"what it depends on has changed {MAX_CAPTURES} times")
        buffers = {name: tensor.clone() for name, tensor in inputs.items()}
        try:
            outputs, replay = backend.capture(lambda: self.function(buffers))
        except RuntimeError as error:
            return self._give_up(inputs, first_line(error))
        self._captures += 1
        self._capture = _Capture(key, buffers, outputs, replay)
        _log.info("steps are captured and replayed (capture %d)", self._captures)
        replay()
        return outputs

    def _give_up(self, inputs: Tensors, reason: str) -> Tensors:
        self._backend = None
        _log.warning("steps are launched one by one from here on: %s", reason)
        return self.function(inputs)


def _address(tensor: Tensor) -> Hashable:
    return tensor.data_ptr(), tensor.requires_grad, *_layout(tensor)


def _layout(tensor: Tensor) -> tuple[Hashable, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
