"""Learning rates as functions of the step."""

import math

from ssrob.config.study import Training


def learning_rate(step: int, steps: int, training: Training) -> float:
    """Return the learning rate of optimiser step `step` (0-based) out of `steps`."""
    return training.lr * _SCHEDULES[training.schedule]((step + 1) / steps, training)


def _onecycle(progress: float, training: Training) -> float:
    """Linear to the peak, then half a cosine to zero (after Smith and Topin 2018)."""
    if progress <= training.warmup:
        return progress / training.warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - training.warmup) / (1 - training.warmup)))


def _piecewise(progress: float, training: Training) -> float:
    """Divide by ten at each milestone."""
    return float(0.1 ** sum(progress > milestone for milestone in training.milestones))


_SCHEDULES = {"onecycle": _onecycle, "piecewise": _piecewise}
