"""Other people's attacks behind one call: (model, images, labels, eps) -> images that may be misclassified.

foolbox, adversarial-robustness-toolbox (ART) and pyautoattack come with the extra `benchmarks`; torchattacks, which
pins a version of requests that others refuse, by `pip install --no-deps torchattacks`. What is not installed is left
out, and said.
"""

import importlib.util
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
STEP_RATIO = 2.5  # step = STEP_RATIO * eps / steps, as our PGD


def pgd_attacks(steps: int) -> dict[str, Attack]:
    """Return l-inf PGD on cross-entropy from one random start, of every library that is installed."""
    made = {"foolbox": _foolbox, "torchattacks": _torchattacks, "art": _art}
    found = {name: make(steps) for name, make in made.items() if importlib.util.find_spec(name)}
    for name in sorted(made.keys() - found.keys()):
        print(f"{name} is not installed: left out", file=sys.stderr)
    return found


def _foolbox(steps: int) -> Attack:
    import foolbox

    attack = foolbox.attacks.LinfPGD(steps=steps, rel_stepsize=STEP_RATIO / steps)

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        return attack(wrapped, x, y, epsilons=eps)[1]

    return run


def _torchattacks(steps: int) -> Attack:
    import torchattacks

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        return torchattacks.PGD(model, eps=eps, alpha=STEP_RATIO * eps / steps, steps=steps)(x, y)

    return run


def _art(steps: int) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1), device_type="cpu"
        )
        settings = {"eps": eps, "eps_step": STEP_RATIO * eps / steps, "max_iter": steps, "num_random_init": 1}
        attack = ProjectedGradientDescentPyTorch(classifier, batch_size=len(x), verbose=False, **settings)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run
