"""From the row of a plan to the attack it names."""

from collections.abc import Callable

from ssrob.attacks.apgd import APGD
from ssrob.attacks.fmn import FMN
from ssrob.attacks.geometry import Geometry
from ssrob.attacks.names import ADDED_ATTACKS
from ssrob.attacks.pgd import PGD
from ssrob.attacks.presets import AttackConfig
from ssrob.attacks.square import L2Square, LinfSquare
from ssrob.attacks.stepper import Stepper
from ssrob.catalog import load

STEP_RATIO = 2.5  # PGD can cross the ball and come back, whatever its number of steps


def _pgd(geometry: Geometry, config: AttackConfig) -> Stepper:
    return PGD(geometry, config.steps, step_ratio=config.step_ratio or STEP_RATIO)


def _square(geometry: Geometry, config: AttackConfig) -> Stepper:
    squares = {"linf": LinfSquare, "l2": L2Square}
    return squares[geometry.name](geometry, config.steps)


STEPPERS: dict[str, Callable[[Geometry, AttackConfig], Stepper]] = {
    "pgd": _pgd,
    "apgd": lambda geometry, config: APGD(geometry, config.steps),
    "fmn": lambda geometry, config: FMN(geometry, config.steps),
    "square": _square,
}


def build(config: AttackConfig, geometry: Geometry) -> Stepper:
    """Return the attack of a plan's row, in one geometry."""
    made: Stepper = (STEPPERS.get(config.kind) or load(ADDED_ATTACKS[config.kind]))(geometry, config)
    return made
