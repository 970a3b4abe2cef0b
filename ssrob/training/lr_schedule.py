"""Learning rates as functions of the step; their rows are in registry/schedules.py."""

import math

from ssrob.config.training import Training
from ssrob.registry.lookup import load
from ssrob.registry.schedules import SCHEDULES


def learning_rate(step: int, steps: int, training: Training) -> float:
    """Return the learning rate of optimiser step `step` (0-based) out of `steps`."""
    return training.lr * float(load(SCHEDULES[training.schedule])((step + 1) / steps, training))


def onecycle(progress: float, training: Training) -> float:
    """Linear to the peak, then half a cosine to zero (after Smith and Topin 2018)."""
    if progress <= training.warmup:
        return progress / training.warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - training.warmup) / (1 - training.warmup)))


def piecewise(progress: float, training: Training) -> float:
    """Divide by ten at each milestone."""
    return float(0.1 ** sum(progress > milestone for milestone in training.milestones))
