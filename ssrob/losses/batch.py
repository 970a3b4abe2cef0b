"""What a loss may look at beside the images that it is evaluated at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ssrob.registry.lookup import load
from ssrob.registry.losses import Arguments, loss_row

Model = Callable[..., Tensor]  # model(x, head="class"): (B, C, H, W) in [0, 1] -> (B, outputs)


@dataclass(frozen=True)
class Batch:
    """One step's clean images x (B, C, H, W) in [0, 1], labels y (B,), and everything that was drawn for the step.

    smoothing: share of the labels' weight that is spread over all classes; 0 for attacks and validation.
    made: views that exist already, because a perturbation lives on them or because several losses look at them.
    """

    x: Tensor
    y: Tensor
    views: Mapping[str, Tensor] = field(default_factory=dict)  # loss name -> parameters
    starts: Mapping[str, Tensor] = field(default_factory=dict)  # what moves -> images (B, C, H, W) it starts from
    resampled: Mapping[str, Tensor] = field(default_factory=dict)  # "perturbation:loss" -> (steps, *parameters)
    factors: Mapping[str, Tensor] = field(default_factory=dict)  # loss -> what its weights are multiplied by, a scalar
    smoothing: float = 0.0
    made: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)  # loss name -> views
    arguments: Mapping[str, Arguments] = field(default_factory=dict)  # loss name -> those that differ from the default

    def told(self, name: str) -> Arguments:
        """Return a loss's arguments."""
        return loss_row(name, self.arguments).arguments

    def seen(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        """Return the views that a loss looks at when it is evaluated at x (B, C, H, W), in the order of their names."""
        if name in self.made:
            return self.made[name]
        row = loss_row(name, self.arguments)
        assert row.views is not None
        views: tuple[Tensor, ...] = load(row.views)(x, self.views.get(name), **row.arguments)
        return views
