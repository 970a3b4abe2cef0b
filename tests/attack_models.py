"""Models with known or quickly trained robustness, and an attack by itself, for the tests of attacks and sweep."""

import functools

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from ssrob.attacks.base import LossAt, build, loss_and_gradient, select
from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES, Geometry
from ssrob.attacks.steppers.pgd import pgd
from ssrob.registry.presets import AttackConfig
from ssrob.seeding import generator
from torch import Tensor, nn


class Linear(nn.Module):
    """A linear classifier in double precision, so that results do not depend on how a batch is rounded."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.double()), nn.Parameter(bias.double())

    def forward(self, x: Tensor) -> Tensor:
        return x.double().flatten(1) @ self.weight.T + self.bias


def linear_problem(classes: int, count: int = 64, side: int = 6) -> tuple[Linear, Tensor, Tensor]:
    """Images in [0.4, 0.6], all classified as labelled, some 0.01 to 0.1 (l-inf) from the boundary."""
    draws = generator(0, "linear", classes)
    x = 0.4 + 0.2 * torch.rand(count, 1, side, side, generator=draws)
    weight = torch.randn(classes, side * side, generator=draws)
    model = Linear(weight, -weight @ torch.full((side * side,), 0.5)).eval()
    return model, x, model(x).argmax(1)


def linear_distance(model: Linear, x: Tensor, labels: Tensor, geometry: Geometry) -> Tensor:
    """Distance to the nearest pairwise boundary, min_j (f_y - f_j) / ||w_y - w_j||_dual, (N,)."""
    logits = model(x).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    normals = model.weight.detach()[labels][:, None] - model.weight.detach()[None]  # (N, K, D)
    lengths = torch.stack([geometry.dual_norm(row) for row in normals])
    return (gaps / lengths.clamp_min(1e-12)).scatter(1, labels[:, None], torch.inf).amin(1)


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 8x8 digits in a fixed random order, (1797, 1, 8, 8) in [0, 1], and their labels."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=generator(0, "digits"))
    return torch.tensor(bunch.images, dtype=torch.float32)[order, None] / 16, torch.tensor(bunch.target)[order]


@functools.cache
def robust_cnn() -> nn.Module:
    """A small CNN, adversarially trained for about two seconds: robust enough that attacks have to work."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 16, 10)),
        )
    x, labels = (part[:1200] for part in digits())
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(6):
        for rows in torch.randperm(len(x), generator=generator(0, "order", epoch)).split(64):
            clean, y = x[rows], labels[rows]
            with frozen(model):
                adv = pgd(
                    lambda z, y=y: F.cross_entropy(model(z), y, reduction="none"),
                    clean,
                    geometry=GEOMETRIES["linf"],
                    eps=0.2,
                    steps=4,
                    step_size=0.1,
                )
            optimizer.zero_grad()
            F.cross_entropy(model(adv), y).backward()
            optimizer.step()
    return model.eval()


def digits_test(count: int) -> tuple[Tensor, Tensor]:
    """Digits that `robust_cnn` has not seen."""
    x, labels = digits()
    return x[1200 : 1200 + count], labels[1200 : 1200 + count]


def climb(config: AttackConfig, geometry: Geometry, loss_at: LossAt, *, x: Tensor, eps: Tensor, keys: Tensor) -> Tensor:
    """Run one attack by itself on x (B, C, H, W) in [0, 1]; return its point of highest loss, same shape.

    eps (B,) and keys (B,) int64 are the budgets and the source of all draws. Of an attack that minimises the
    norm, returns the nearest point whose loss was positive, or x if there is none.
    """
    stepper = build(config, geometry)
    state = stepper.begin(x.detach(), eps, keys)
    best, best_loss = state["adv"], torch.full_like(eps, -torch.inf)
    for _ in range(stepper.steps):
        loss, gradient = loss_and_gradient(loss_at, state["adv"], config.row.uses_gradient)
        best, best_loss = select(loss > best_loss, state["adv"], best), torch.maximum(loss, best_loss)
        state = stepper.tell(state, loss, gradient)
    if config.row.minimises_norm:
        return state["adv"]
    with torch.no_grad():
        return select(loss_at(state["adv"]) > best_loss, state["adv"], best)
