"""Attack sweeps over any PyTorch model: `attack_sweep`."""

from ssrob.attacks.result import SweepResult
from ssrob.attacks.sweep import attack_sweep

__all__ = ["SweepResult", "attack_sweep"]
