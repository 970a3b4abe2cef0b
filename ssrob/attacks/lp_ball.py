"""The geometry of a threat model: where an attack starts, how it steps, and onto what it is projected.

Images are float in [0, 1]; a budget is `eps` in the same units, one float or one value per image (B,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssrob import seeding

Amount = float | Tensor  # one value, or one per image (B,)


class Geometry(ABC):
    """One l_p norm; stateless, see `GEOMETRIES` for the instances."""

    name: ClassVar[str]

    @abstractmethod
    def norm(self, delta: Tensor) -> Tensor:
        """Return the norm of each perturbation, (B, C, H, W) -> (B,)."""

    @abstractmethod
    def dual_norm(self, gradient: Tensor) -> Tensor:
        """Return the dual norm of each gradient, (B,): by how much a linear loss rises per unit of eps."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Return the step of norm 1 (0 for a zero gradient) along which a linear loss rises fastest."""

    @abstractmethod
    def noise(self, x: Tensor, source: torch.Generator | Tensor) -> Tensor:
        """Draw a perturbation inside the unit ball in the shape of x."""

    @abstractmethod
    def shrink(self, delta: Tensor, eps: Amount) -> Tensor:
        """Project perturbations onto the ball of radius eps, without the box."""

    def start(self, x: Tensor, eps: Amount, source: torch.Generator | Tensor) -> Tensor:
        """Return a random point of the ball and the box, (B, C, H, W).

        `source` is a generator (training) or per-example keys (B,) int64 of `ssrob.seeding` (evaluation).
        """
        return self.project(x, x + _spread(eps, x) * self.noise(x, source), eps)

    def step(self, adv: Tensor, gradient: Tensor, size: Amount) -> Tensor:
        """Return adv moved uphill by `size` (norm of the step; a float or (B,)), not yet projected."""
        return adv + _spread(size, adv) * self.direction(gradient)

    def project(self, x: Tensor, adv: Tensor, eps: Amount) -> Tensor:
        """Project onto the budget and the box; x, adv (B, C, H, W) -> same. Madry et al. 2018, eq. 2.

        The clamp comes last; since x lies in the box it can only move adv nearer to x.
        """
        return (x + self.shrink(adv - x, eps)).clamp(0.0, 1.0)

    def contains(self, x: Tensor, adv: Tensor, eps: Tensor) -> Tensor:
        """Return whether each adv lies in the ball of radius eps (B,) about x and in the box, (B,) bool; NaN does not.

        Rounding x + delta to float32 can lengthen a perturbation by one unit in the last place per pixel.
        """
        near = self.norm(adv - x) <= eps * (1 + 1e-5) + 1e-6
        return near & ((adv >= 0) & (adv <= 1)).flatten(1).all(1)


@dataclass(frozen=True)
class Linf(Geometry):
    """Largest change of any pixel value."""

    name: ClassVar[str] = "linf"

    def norm(self, delta: Tensor) -> Tensor:
        """Return max |delta| per image, (B,)."""
        return delta.abs().flatten(1).amax(1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """Return the l1 norm per image, (B,)."""
        return gradient.abs().flatten(1).sum(1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the sign of the gradient."""
        return gradient.sign()

    def noise(self, x: Tensor, source: torch.Generator | Tensor) -> Tensor:
        """Draw U[-1, 1) per pixel value."""
        return 2.0 * _uniform(x, source) - 1.0

    def shrink(self, delta: Tensor, eps: Amount) -> Tensor:
        """Clip each pixel's change to [-eps, eps]."""
        if isinstance(eps, Tensor):
            bound = per_image(eps, delta)
            return torch.minimum(torch.maximum(delta, -bound), bound)
        return delta.clamp(-eps, eps)


@dataclass(frozen=True)
class L2(Geometry):
    """Euclidean length of the change, over all pixel values of an image."""

    name: ClassVar[str] = "l2"

    def norm(self, delta: Tensor) -> Tensor:
        """Return ||delta||_2 per image, (B,)."""
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """Return ||gradient||_2 per image, (B,): l2 is its own dual."""
        return self.norm(gradient)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return gradient / (||gradient|| + 1e-10)."""
        return gradient / per_image(self.norm(gradient) + 1e-10, gradient)

    def noise(self, x: Tensor, source: torch.Generator | Tensor) -> Tensor:
        """Draw a uniform direction times a radius U[0, 1)."""
        radius = _radius(x, source)
        return self.direction(_normal(x, source)) * radius

    def shrink(self, delta: Tensor, eps: Amount) -> Tensor:
        """Scale down the perturbations that are longer than eps."""
        scale: Tensor = (eps / self.norm(delta).clamp_min(1e-12)).clamp_max(1.0)
        return delta * per_image(scale, delta)


GEOMETRIES: dict[str, Geometry] = {"linf": Linf(), "l2": L2()}


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Shape one value per image (B,) so that it broadcasts over images (B, ...)."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


def _spread(value: Amount, images: Tensor) -> Amount:
    return per_image(value, images) if isinstance(value, Tensor) else value


def _uniform(x: Tensor, source: torch.Generator | Tensor) -> Tensor:
    if isinstance(source, Tensor):
        return seeding.uniform(source, tuple(x.shape[1:])).to(x.dtype)
    return torch.rand(x.shape, generator=source, device=source.device, dtype=x.dtype).to(x.device)


def _normal(x: Tensor, source: torch.Generator | Tensor) -> Tensor:
    if isinstance(source, Tensor):
        return seeding.normal(source, tuple(x.shape[1:])).to(x.dtype)
    return torch.randn(x.shape, generator=source, device=source.device, dtype=x.dtype).to(x.device)


def _radius(x: Tensor, source: torch.Generator | Tensor) -> Tensor:
    """Draw U[0, 1), one per image, independent of the direction drawn from the same source."""
    one = x.new_empty((len(x), *[1] * (x.ndim - 1)))
    return _uniform(one, seeding.example_keys(source, 0, "radius") if isinstance(source, Tensor) else source)
