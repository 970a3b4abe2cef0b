"""Replaying a recording of a function's kernels (a CUDA graph) instead of launching them one by one, where possible.

A step of adversarial training is thousands of short kernels; on a fast GPU launching them takes longer than running
them. A recording fixes addresses and shapes: inputs are copied into buffers of its own, outputs stay in place.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ssrob.hardware.device import settings

Tensors = dict[str, Tensor]
WARM_UPS = 2  # calls before recording: libraries choose kernels and allocate their workspaces
MOST_RECORDINGS = 4  # each costs a few steps; a function that changes more often is not worth recording

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """What records and replays; tests replace it."""

    def warm(self, function: Callable[[], Tensors]) -> Tensors:
        """Run a function as it will be recorded."""

    def record(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record a function without running it; return where its outputs will lie, and what replays it."""


class CudaGraphs:
    """CUDA graphs, warmed up and recorded on one stream of their own."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, function: Callable[[], Tensors]) -> Tensors:
        """Run the function on the recording's stream, between what was asked for before and after."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        for tensor in outputs.values():
            tensor.record_stream(current)
        return outputs

    def record(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """Record the function; raises a RuntimeError if it does what cannot be recorded, such as a synchronisation."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            outputs = function()
        return outputs, graph.replay


@dataclass(frozen=True)
class _Recording:
    key: Hashable
    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], None]


class Recorded:
    """`function(inputs) -> outputs`, tensors by name, recorded after two calls and replayed from then on.

    The function may change tensors of `state()` in place and must have no other effect; what it does may depend on the
    inputs, the state and the guard of a call alone. A change of the guard, of a shape, type or layout, or of the place
    of a tensor of the state leads to a new recording. What cannot be recorded, or changes too often, is called
    directly, and the log says why. Without a backend (on a CPU) every call is direct.
    """

    def __init__(
        self, function: Callable[[Tensors], Tensors], state: Callable[[], Iterable[Tensor]], backend: Backend | None
    ):
        self.function = function
        self._state, self._backend = state, backend
        self._recording: _Recording | None = None
        self._expected: Hashable = None
        self._calls, self._recordings = 0, 0

    def __call__(self, inputs: Mapping[str, Tensor], guard: Hashable = ()) -> Tensors:
        """Return the outputs; those of a replay are overwritten by the next one."""
        given = dict(inputs)
        if self._backend is None:
            return self.function(given)
        key = (
            guard,
            torch.is_grad_enabled(),
            settings(),
            tuple(map(_place, self._state())),
            tuple((n, *_form(t)) for n, t in given.items()),
        )
        if self._recording is None or self._recording.key != key:
            return self._prepare(self._backend, key, given)
        for name, buffer in self._recording.inputs.items():
            buffer.copy_(given[name], non_blocking=True)
        self._recording.replay()
        return self._recording.outputs

    def _prepare(self, backend: Backend, key: Hashable, given: Tensors) -> Tensors:
        """Call directly until the same key came often enough, then record and replay."""
        if key != self._expected:
            self._recording, self._expected, self._calls = None, key, 0
        if self._calls < WARM_UPS:
            self._calls += 1
            return backend.warm(lambda: self.function(given))
        if self._recordings == MOST_RECORDINGS:
            return self._give_up(given, f"what it depends on has changed {MOST_RECORDINGS} times")
        buffers = {name: tensor.clone() for name, tensor in given.items()}
        try:
            outputs, replay = backend.record(lambda: self.function(buffers))
        except RuntimeError as error:
            return self._give_up(given, str(error).partition("\n")[0])
        self._recordings += 1
        self._recording = _Recording(key, buffers, outputs, replay)
        _log.info("steps are recorded and replayed (recording %d)", self._recordings)
        replay()
        return outputs

    def _give_up(self, given: Tensors, reason: str) -> Tensors:
        self._backend = None
        _log.warning("steps are launched one by one from here on: %s", reason)
        return self.function(given)


def _place(tensor: Tensor) -> Hashable:
    return tensor.data_ptr(), tensor.requires_grad, *_form(tensor)


def _form(tensor: Tensor) -> tuple[Hashable, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device
