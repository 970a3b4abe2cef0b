"""The network within one computation: each batch of images goes through the backbone once, for all heads."""

import contextlib
import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ssrob.config.variants import MAIN
from ssrob.models.network import CLASS_HEAD


class FeatureCache:
    """A network that remembers the features of the images that it has seen, by the identity of their tensor.

    The losses of one training step share images, for instance both terms of TRADES the clean ones:

    >>> model = FeatureCache(network)
    >>> logits, turns = model(x), model(x, head="rotation")  # one pass through the backbone, one through each head

    During an attack the clean images stay as they are. Their features are computed once, without a gradient, and every
    step begins with these alone:

    >>> start = FeatureCache(network)
    >>> start.precompute(x, "clean")
    >>> model = start.fork("adv")  # knows the features of x
    >>> gap = model(x + d) - model(x)  # one pass, of x + d: a new tensor

    branches: image set -> branch of BatchNorm, where it is not the main one. Images go through the branch of the set
    that `for_image_set` or `fork` names, but for the `clean` ones and those that were precomputed for another.
    """

    def __init__(self, network: nn.Module, branches: Mapping[str, str] | None = None, clean: Tensor | None = None):
        self._network, self._branches = network, dict(branches or {})
        self.image_set = "clean"
        # A tensor as a key is compared by identity, and kept alive.
        self._image_sets: dict[Tensor, str] = {} if clean is None else {clean: "clean"}
        self._features: dict[Tensor, Tensor] = {}
        self._outputs: dict[tuple[Tensor, str], Tensor] = {}

    def __call__(self, x: Tensor, head: str = CLASS_HEAD) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, outputs of the head)."""
        if (x, head) not in self._outputs:
            with self._in_branch(x):
                features = self._features_of(x)
                self._outputs[x, head] = self._network.heads[head](features).float()  # type: ignore[index, operator]
        return self._outputs[x, head]

    def for_image_set(self, name: str) -> "FeatureCache":
        """Return the same computation for the images of a set; what one of both computes, the other knows."""
        other = copy.copy(self)
        other.image_set = name
        return other

    def precompute(self, x: Tensor, image_set: str) -> None:
        """Compute the features of images (B, C, H, W) of a set that stay as they are, without a gradient."""
        self._image_sets[x] = image_set
        with torch.no_grad(), self._in_branch(x):
            self._features_of(x)

    def fork(self, image_set: str) -> "FeatureCache":
        """Return a new computation for the images of a set, which knows the features known so far."""
        other = self.for_image_set(image_set)
        other._features, other._outputs = dict(self._features), {}
        return other

    def _features_of(self, x: Tensor) -> Tensor:
        if x not in self._features:
            self._features[x] = self._network.features(x)  # type: ignore[operator]
        return self._features[x]

    def _in_branch(self, x: Tensor) -> contextlib.AbstractContextManager[None]:
        if not self._branches:
            return contextlib.nullcontext()
        branch = self._branches.get(self._image_sets.get(x, self.image_set), MAIN)
        inside: contextlib.AbstractContextManager[None] = self._network.in_branch(branch)  # type: ignore[operator]
        return inside
