"""What a loss may look at beside the images that it is evaluated at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Model = Callable[..., Tensor]  # model(x, head="class"): (B, C, H, W) in [0, 1] -> (B, outputs)


@dataclass(frozen=True)
class Batch:
    """One step's clean images x (B, C, H, W) in [0, 1], labels y (B,), and everything that was drawn for the step.

    smoothing: share of the labels' weight that is spread over all classes; 0 for attacks and validation.
    """

    x: Tensor
    y: Tensor
    views: Mapping[str, Tensor] = field(default_factory=dict)  # loss name -> parameters
    starts: Mapping[str, Tensor] = field(default_factory=dict)  # perturbation -> images (B, C, H, W) it starts from
    smoothing: float = 0.0
