"""Other libraries' PGD beside our presets: the benchmarks' adapters, on a network trained in seconds."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from ssrob.attacks.sweep import attack_sweep
from tests.attack_models import digits_test, robust_cnn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from peers import pgd_attacks

EPS = [0.1, 0.2, 0.3]


@pytest.mark.parametrize("library", ["foolbox", "torchattacks", "art"])
def test_standard_is_never_above_anothers_pgd(library: str):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: see benchmarks/peers.py")
    model, (x, y) = robust_cnn(), digits_test(100)
    run = pgd_attacks(20)[library]
    ours = attack_sweep(model, x, y, eps=EPS, preset="standard")
    for eps, accuracy in zip(EPS, ours.accuracy.tolist(), strict=True):
        adv = run(model, x, y, eps).detach()
        assert float((adv - x).abs().max()) <= eps + 1e-5
        with torch.no_grad():
            theirs = float((model(adv).argmax(1) == y).double().mean())
        assert accuracy <= theirs + 0.02  # two of a hundred images, about one standard error
