"""A library's network as a backbone: initialised as the library does, from a generator, and without its classifier."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.formatting import one_line
from ssrob.models.split_batchnorm import main_name

_RATES = ("drop_rate", "drop_path_rate", "dropout", "attention_dropout")  # attributes with the share to drop
_OF_LAYERS = ("p", "drop_prob", "prob")  # the same in layers that do nothing else


class LibraryBackbone(nn.Module):
    """A network that maps images (B, C, H, W), normalised, to features (B, D).

    make: returns the network without its classifier, and D; it may draw from torch's global generator, whose state is
    restored. It is called with the CPU as default device, since constructors compute tables of positions and the like.
    Dropout and stochastic depth are off: a step is a function of its seed, and an attack needs a loss that is fixed.
    """

    def __init__(self, make: Callable[[], tuple[nn.Module, int]]):
        super().__init__()
        self._make = make
        self.model, self.features = self._seeded_model(seed=0)

    def initialise(self, generator: torch.Generator) -> None:
        """Fill every tensor as the library does for a new network, with draws that depend on the generator alone."""
        fresh, _ = self._seeded_model(int(torch.randint(2**62, (), generator=generator)))
        values = dict(itertools.chain(fresh.named_parameters(), fresh.named_buffers()))
        with torch.no_grad():
            for name, tensor in itertools.chain(self.model.named_parameters(), self.model.named_buffers()):
                tensor.copy_(values[main_name(name)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), normalised -> (B, D)."""
        features: Tensor = self.model(x)
        return features

    def _seeded_model(self, seed: int) -> tuple[nn.Module, int]:
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model, features = self._make()
        _switch_dropout_off(model)
        return model, features


def checked_call(what: str, make: Callable[[], Any]) -> Any:
    """Call a library's constructor; raises a one-line ValueError where it does not take what it is given."""
    try:
        return make()
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ValueError(f"model: {what} cannot be made: {one_line(error)}") from error


def _switch_dropout_off(model: nn.Module) -> None:
    for module in model.modules():
        kind = type(module).__name__
        for rate in (*_RATES, *(_OF_LAYERS if "Drop" in kind or kind == "StochasticDepth" else ())):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
