"""The attacks one by one: a model, images and labels in, adversarial images out.

All of them leave the model as it was, draw nothing from global generators (`seed` and an image's place in the call
decide its draws), and return images in [0, 1] inside their ball. Images that an attack could not break are returned at
the point that came nearest to it (`fmn`: as they were). For a whole curve over eps, `attack_sweep` shares the work.
"""

import torch
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.base import State, Stepper, build, select, take
from ssrob.attacks.input_checks import as_tensor, check_data, check_eps, check_logits, parse_eps
from ssrob.attacks.logit_losses import UNTARGETED, margin
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.model_calls import ModelCalls
from ssrob.attacks.model_contract import LOOK, NO_GRADIENT, borrowed, device_of_model
from ssrob.attacks.sweep import Eps
from ssrob.hardware.device import exact_float32
from ssrob.registry.presets import AttackConfig

BATCH = 256


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: Eps,
    steps: int = 40,
    loss: str = "cross_entropy",
    targets: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Projected gradient ascent from a random start, step 2.5 eps / steps. Madry et al. 2018.

    model: images (B, C, H, W) float in [0, 1] -> logits (B, K). images (N, C, H, W) float32 in [0, 1], labels (N,)
    int64; arrays are taken as well. norm: "linf" or "l2". eps: in [0, 1] pixel units, a number or "8/255", or one per
    image (N,). loss: "cross_entropy", "margin" or "dlr" (K >= 3). targets (N,) int64: classes to reach, instead of any
    but the label. Returns (N, C, H, W) in [0, 1], on the images' device. ValueError for what is none of these.
    """
    return _attack(
        AttackConfig("pgd", loss, steps), model, images, labels, norm=norm, eps=eps, targets=targets, seed=seed
    )


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: Eps,
    steps: int = 100,
    loss: str = "cross_entropy",
    targets: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Auto-PGD from a random start: the step halves itself. Croce & Hein 2020, alg. 1. Arguments as of `pgd`."""
    return _attack(
        AttackConfig("apgd", loss, steps), model, images, labels, norm=norm, eps=eps, targets=targets, seed=seed
    )


def fmn(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    steps: int = 100,
    targets: Tensor | None = None,
) -> Tensor:
    """Fast minimum-norm attack: the nearest misclassified point. Pintor et al. 2021, alg. 1. Arguments as of `pgd`."""
    config = AttackConfig("fmn", "margin", steps, start="clean")
    return _attack(config, model, images, labels, norm=norm, eps=torch.inf, targets=targets)


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: Eps,
    queries: int = 5000,
    targets: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Random search over squares, without gradients. Andriushchenko et al. 2020. Arguments as of `pgd`.

    queries: forward passes per image. The model needs no gradient.
    """
    config = AttackConfig("square", "margin", queries)
    return _attack(config, model, images, labels, norm=norm, eps=eps, targets=targets, seed=seed)


def _attack(
    config: AttackConfig,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str,
    eps: Eps,
    targets: Tensor | None,
    seed: int = 0,
) -> Tensor:
    images, labels = as_tensor("images", images), as_tensor("labels", labels)
    index = check_data(images, labels, None, BATCH, BATCH)
    targets = labels if targets is None else as_tensor("targets", targets)
    check_data(images, targets, None, BATCH, BATCH)
    sign = 1.0 if targets is labels else -1.0  # the target's loss falls
    budgets = _per_image(eps, norm, len(images))
    device = device_of_model(model, images)
    stepper = build(config, GEOMETRIES[norm])
    data = {"x": images, "towards": targets, "eps": budgets, "keys": seeding.example_keys(index, seed, config.name)}
    adversarial = []
    with exact_float32(device), borrowed(model, images[:LOOK].to(device)) as lent:
        if config.row.uses_gradient and not lent.interface.gradient:
            raise ValueError(f"{NO_GRADIENT}: {config.kind} needs one; square does not")
        for first in range(0, len(images), BATCH):
            part = {name: value.to(device) for name, value in take(data, slice(first, first + BATCH)).items()}
            state = stepper.begin(part["x"], part["eps"], part["keys"], part["x"] if config.start == "clean" else None)
            reached = _best(ModelCalls(lent, BATCH), config, stepper, state, (part["towards"], sign))
            adversarial.append(reached.to(images.device))
    return torch.cat(adversarial)


def _best(model: ModelCalls, config: AttackConfig, stepper: Stepper, state: State, aim: tuple[Tensor, float]) -> Tensor:
    """Return of each image the point nearest to success of all that the attack asked for; of "fmn" its nearest."""
    towards, sign = aim
    best, best_margin = state["x"], torch.full_like(state["eps"], -torch.inf)

    def loss_of(logits: Tensor, rows: slice) -> Tensor:
        check_logits(logits, towards[rows])
        return sign * UNTARGETED[config.loss](logits, towards[rows])

    for _ in range(config.steps):
        adv, with_gradient = state["adv"], config.row.uses_gradient
        logits, loss, gradient = model.loss_and_gradient(adv, loss_of, torch.float32, with_gradient=with_gradient)
        away = sign * margin(logits, towards)
        best, best_margin = select(away > best_margin, adv, best), torch.maximum(away, best_margin)
        state = stepper.tell(state, loss, gradient)
    if config.row.minimises_norm:
        return state["adv"].detach()
    away = sign * margin(model.logits(state["adv"]), towards)
    return select(away > best_margin, state["adv"], best).detach()


def _per_image(eps: Eps, norm: str, count: int) -> Tensor:
    """Return eps as one value per image, (N,)."""
    if isinstance(eps, float) and eps == torch.inf:
        check_eps([0.0], norm)
        return torch.full((count,), torch.inf)
    values = parse_eps(eps)
    for value in values:
        check_eps([value], norm)
    if len(values) not in (1, count):
        raise ValueError(f"eps must be one number or one per image ({count}), found {len(values)}")
    return torch.tensor(values, dtype=torch.float32).expand(count).clone()
