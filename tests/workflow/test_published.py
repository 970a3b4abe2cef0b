"""Published methods: each config's training step against the paper's formula, written again with plain torch."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ssrob.config.loader import load_study
from ssrob.data.views import view
from ssrob.losses import jigsaw as puzzle
from ssrob.losses.batch import Batch
from ssrob.models.network import Architecture, Network, build
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.seeding import generator
from ssrob.training.train_step import GRADIENT, compute_gradients, sample_batch
from tests.conftest import ROOT
from torch import Tensor

CONFIGS = sorted((ROOT / "config/published").glob("*.yaml"))
EPS, STEPS, SIZE = 0.15, 5, 2.5 * 0.15 / 5  # of every config
Loss = Callable[[Tensor], Tensor]


def spec_of(path: Path) -> TrainSpec:
    """The spec of the stage that the config is about: its pre-training, or its one variant that is not a baseline."""
    plan = make_plan(load_study(path))
    found = [*plan.of_kind("pretrain").values()]
    variants = {"trades": "trades_published", "ss_ood": "ss_ood", "multi_task": "at_ssl_single"}
    found = found or [s for s in plan.of_kind("finetune").values() if s.spec["variant"] == variants[path.stem]]
    (stage,) = found
    return TrainSpec.model_validate(stage.spec)


def prepared(spec: TrainSpec) -> tuple[Network, Batch]:
    """A network that has seen some images, so that its statistics are not the initial ones, and a drawn batch."""
    objective = spec.objective
    heads = {"class": 10} | objective.heads
    architecture = Architecture(
        "resnet", {"depth": 8, "width": 4}, (1, 8, 8), [0.5], [0.25], heads, branches=objective.branches
    )
    network, draws = build(architecture, seed=0), generator(0, "data")
    x, y = torch.rand(12, 1, 8, 8, generator=draws), torch.randint(10, (12,), generator=draws)
    network.train()
    for branch in ("main", *objective.branches):
        with torch.no_grad(), network.in_branch(branch):
            for head in heads:
                network(torch.rand(30, 1, 8, 8, generator=draws), head=head)
    return network, sample_batch(spec, x, y, step=3)


def pgd(network: Network, loss: Loss, base: Tensor, start: Tensor) -> Tensor:
    """Madry et al. 2018: sign steps within the l-inf ball and the box, with BatchNorm's running statistics."""
    network.eval()
    adv = start.clone()
    for _ in range(STEPS):
        adv = adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(adv), adv)
        adv = (adv + SIZE * gradient.sign()).detach()
        adv = torch.maximum(torch.minimum(adv, base + EPS), base - EPS).clamp(0, 1)
    network.train()
    return adv.detach()


def xent(network: Network, x: Tensor, y: Tensor, head: str = "class") -> Tensor:
    logits = network(x, head=head)
    return -(logits[torch.arange(len(x)), y] - logits.logsumexp(dim=1)).mean()


def pairs(outputs: list[Tensor], temperature: float = 0.5) -> Tensor:
    """Sum over the positives of an anchor of -log(exp(s+) / sum of exp(s) over all others); the mean over anchors."""
    z = torch.cat(outputs)
    z = z / z.norm(dim=1, keepdim=True)
    similar, n, total = z @ z.T / temperature, len(outputs[0]), torch.tensor(0.0)
    for i in range(len(z)):
        others = torch.cat([similar[i, :i], similar[i, i + 1 :]]).logsumexp(dim=0)
        total = total + sum((others - similar[i, j] for j in range(i % n, len(z), n) if j != i), torch.tensor(0.0))
    return total / len(z)


def trades(network: Network, batch: Batch) -> Tensor:
    def kl(x: Tensor) -> Tensor:
        p, q = network(batch.x).softmax(dim=1), network(x).softmax(dim=1)
        return (p * (p / q).log()).sum(dim=1).mean()

    network.eval()
    adv = pgd(network, kl, batch.x, batch.starts["adv"])
    return xent(network, batch.x, batch.y) + 6 * kl(adv)


def ss_ood(network: Network, batch: Batch) -> Tensor:
    x, starts = batch.x, [batch.starts["adv"], *batch.starts["adv:rotation_all"].chunk(4)]
    seen = [x, *(torch.rot90(x, k, dims=(2, 3)) for k in range(4))]
    labels = [batch.y, *(torch.full_like(batch.y, k) for k in range(4))]
    heads = ["class"] + 4 * ["rotation"]
    five = list(zip(seen, starts, labels, heads, strict=True))
    advs = [
        pgd(network, lambda moved, y=label, h=head: xent(network, moved, y, h), base, start)  # type: ignore[misc]
        for base, start, label, head in five
    ]
    losses = [xent(network, adv, label, head) for adv, (_, _, label, head) in zip(advs, five, strict=True)]
    return losses[0] + 0.5 * sum(losses[1:], torch.tensor(0.0)) / 4


def multi_task(network: Network, batch: Batch) -> Tensor:
    k = batch.drawn["rotation"]
    turned = torch.stack([torch.rot90(image, int(each), dims=(1, 2)) for image, each in zip(batch.x, k, strict=True)])

    def both(moved: Tensor) -> Tensor:
        return xent(network, moved, batch.y) + 0.5 * xent(network, moved, k, head="rotation")

    return both(pgd(network, both, turned, batch.starts["adv"]))


def several_tasks(network: Network, batch: Batch) -> Tensor:
    k, number = batch.drawn["rotation"], batch.drawn["jigsaw"]

    def both(x: Tensor) -> Tensor:
        turned = torch.stack([torch.rot90(image, int(each), dims=(1, 2)) for image, each in zip(x, k, strict=True)])
        shuffled = puzzle.shuffle(x, number, 2, 12)  # itself tested against slices
        return xent(network, turned, k, head="rotation") + 0.5 * xent(network, shuffled, number, head="jigsaw")

    start, eps = batch.starts["adv"], EPS * 0.333
    network.eval()
    adv = start.clone()
    for _ in range(STEPS):
        adv = adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(both(adv), adv)
        adv = (adv + SIZE * 0.333 * gradient.sign()).detach()
        adv = torch.maximum(torch.minimum(adv, batch.x + eps), batch.x - eps).clamp(0, 1)
    network.train()
    return both(adv)


def rocl(network: Network, batch: Batch) -> Tensor:
    first, second = (view(batch.x, each) for each in batch.drawn["rocl"].unbind(1))

    def against_second(moved: Tensor) -> Tensor:
        return pairs([network(moved, head="rocl"), network(second, head="rocl")])

    adv = pgd(network, against_second, first, batch.starts["adv:rocl"])
    three = [network(each, head="rocl") for each in (first, second, adv)]
    return pairs(three) + pairs(three[1:]) / 256


def acl(network: Network, batch: Batch) -> Tensor:
    clean = torch.cat([view(batch.x, each) for each in batch.drawn["contrastive"].unbind(1)])

    def contrast(views: Tensor) -> Tensor:
        return pairs([network(each, head="contrastive") for each in views.chunk(2)])

    adv = pgd(network, contrast, clean, batch.starts["adv:contrastive"])
    loss = 0.5 * contrast(adv)
    with network.in_branch("clean"):
        return loss + 0.5 * contrast(clean)


ORACLES = {each.__name__: each for each in (trades, ss_ood, multi_task, several_tasks, rocl, acl)}


def test_every_published_config_is_tested() -> None:
    assert {path.stem for path in CONFIGS} == set(ORACLES)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_training_step_is_the_paper_s_formula(path: Path) -> None:
    spec = spec_of(path)
    network, batch = prepared(spec)
    other = copy.deepcopy(network).train()
    found = compute_gradients(network, spec, batch)
    loss = ORACLES[path.stem](other, batch)
    assert found["loss/total"].item() == pytest.approx(loss.item(), rel=1e-4)  # float32, sums in another order
    loss.backward()
    trained = {name: parameter.grad for name, parameter in other.named_parameters() if parameter.grad is not None}
    assert {name.removeprefix(GRADIENT) for name in found if name.startswith(GRADIENT)} == set(trained)
    scale = max(gradient.abs().max().item() for gradient in trained.values())
    for name, gradient in trained.items():
        assert torch.allclose(found[GRADIENT + name], gradient, rtol=1e-3, atol=1e-4 * scale), name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_header_names_the_paper_and_what_differs(path: Path) -> None:
    header = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert "What differs" in header
    assert any(f"et al. {year}" in header or f" {year}," in header for year in (2019, 2020))


def test_each_branch_s_statistics_are_those_of_its_own_images() -> None:
    """The first BatchNorm sees the stem's outputs: two updates per step, one for each view."""
    spec = spec_of(ROOT / "config/published/acl.yaml")
    network, batch = prepared(spec)
    norm = network.backbone.blocks[0].norm1
    before = {"main": norm.running_mean.clone(), "clean": norm.branches["clean"].running_mean.clone()}
    other = copy.deepcopy(network)
    compute_gradients(network, spec, batch)
    clean = [view(batch.x, each) for each in batch.drawn["contrastive"].unbind(1)]

    def contrast(views: Tensor) -> Tensor:
        return pairs([other(each, head="contrastive") for each in views.chunk(2)])

    adv = pgd(other, contrast, torch.cat(clean), batch.starts["adv:contrastive"]).chunk(2)
    for name, images, layer in (("main", adv, norm), ("clean", clean, norm.branches["clean"])):
        expected = before[name]
        for each in images:
            outputs = F.conv2d((each - 0.5) / 0.25, network.backbone.stem.weight, padding=1)
            expected = 0.9 * expected + 0.1 * outputs.mean(dim=(0, 2, 3))
        assert torch.allclose(layer.running_mean, expected, atol=1e-5)  # float32
        assert not torch.allclose(before[name], expected, atol=1e-3)
