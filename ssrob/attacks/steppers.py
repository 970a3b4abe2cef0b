"""From the row of a plan to the attack it names."""

from ssrob.attacks.geometry import Geometry
from ssrob.attacks.pgd import PGD
from ssrob.attacks.presets import AttackConfig
from ssrob.attacks.stepper import Stepper

STEP_RATIO = 2.5  # PGD can cross the ball and come back, whatever its number of steps


def build(config: AttackConfig, geometry: Geometry) -> Stepper:
    """Return the attack of a plan's row, in one geometry."""
    return PGD(geometry, config.steps, step_ratio=config.step_ratio or STEP_RATIO)
