"""Attack sweeps over any PyTorch model: `attack_sweep`."""

from ssrob.attacks.sweep import SweepResult, attack_sweep

__all__ = ["SweepResult", "attack_sweep"]
