"""What a pre-trained backbone has learnt: a kNN and a linear probe of its frozen features, clean and under attack."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.attacks.frozen import frozen
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.steppers.pgd import pgd
from ssrob.config.fields import Norm
from ssrob.data.loader import labelled
from ssrob.data.prepared import Prepared
from ssrob.models.network import Network, build
from ssrob.models.serialization import load_network
from ssrob.planning.specs import ProbeSpec
from ssrob.registry.attacks import STEP_RATIO
from ssrob.runtime.runner import Context
from ssrob.seeding import generator
from ssrob.storage.tables import PROBED, shares, write_table

BATCH = 500
ABSENT = -1e4  # logit of a class without training images: never chosen, its loss finite
Images = tuple[Tensor, Tensor]  # (N, C, H, W) in [0, 1], labels (N,)
Logits = Callable[[Tensor], Tensor]  # features (B, D) -> (B, K)


@dataclass(frozen=True)
class KNN:
    """Weighted vote of the nearest neighbours by cosine (Wu et al. 2018): a vote weighs exp(cosine / temperature)."""

    features: Tensor  # (N, D), of length 1
    labels: Tensor  # (N,)
    classes: int
    neighbours: int
    temperature: float

    def votes(self, features: Tensor) -> Tensor:
        """Return the logarithm of the classes' votes of the nearest neighbours, (B, D) -> (B, K)."""
        cosine, nearest = self._cosines(features).topk(min(self.neighbours, len(self.labels)), dim=1)
        return self._log_votes(cosine, self.labels[nearest])

    def soft_votes(self, features: Tensor) -> Tensor:
        """Return the same with a vote of every image: differentiable everywhere, which is what the attack needs."""
        return self._log_votes(self._cosines(features), self.labels.expand(len(features), -1))

    def _cosines(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) @ self.features.T

    def _log_votes(self, cosine: Tensor, labels: Tensor) -> Tensor:
        # Relative to the largest possible vote, so that no exponential overflows.
        weights = ((cosine - 1) / self.temperature).exp()
        votes = cosine.new_zeros(len(cosine), self.classes).scatter_add(1, labels, weights)
        return votes.clamp_min(torch.finfo(votes.dtype).tiny).log()


@dataclass(frozen=True)
class Probes:
    """Both probes of one backbone; frozen, in eval mode."""

    network: Network
    knn: KNN
    linear: Logits

    def predict(self, x: Tensor) -> dict[str, Tensor]:
        """Classify images x (B, C, H, W) in [0, 1]; classes (B,) by probe."""
        features = self.network.features(x)
        return {"knn": self.knn.votes(features).argmax(dim=1), "linear": self.linear(features).argmax(dim=1)}

    def attacked(self) -> dict[str, Logits]:
        """Return by probe the logits whose cross-entropy an attack maximises."""
        return {"knn": self.knn.soft_votes, "linear": self.linear}


def stage(context: Context) -> None:
    """Run a probe stage: fit on training images, measure on validation images, before and after pre-training."""
    spec = ProbeSpec.model_validate(context.stage.spec)
    data = Prepared(context.parent("data"), context.data_source)
    network = load_network(context.parent("model") / "last.safetensors").to(context.device)
    train, held_out = _images(data, spec, context.device)
    networks = {"pretrained": network, "untrained": untrained(network, spec.init_seed, train[0])}
    tables = []
    with context.progress(total=len(networks) * (1 + len(spec.reference)) * len(held_out[0]), unit="image") as bar:

        def report(images: int) -> None:
            bar.update(images)
            context.stop_if_asked()

        for name, each in networks.items():
            with frozen(each):
                probes = fit(each, train, len(data.classes), spec)
                tables.append(measure(probes, held_out, spec, report).assign(features=name))
    table = pd.concat(tables, ignore_index=True)[list(PROBED)]
    write_table(table, PROBED, context.out / "probes.parquet")
    context.summary = _summary(table)


def untrained(network: Network, seed: int, images: Tensor) -> Network:
    """Return the same network at its random start, with BatchNorm statistics of the images (N, C, H, W) in [0, 1]."""
    fresh = build(network.architecture, seed).to(images.device).train()
    for module in fresh.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over batches
    with torch.no_grad():
        for x in torch.split(images, BATCH):
            fresh.features(x)
    return fresh.eval()


@torch.no_grad()
def fit(network: Network, train: Images, classes: int, spec: ProbeSpec) -> Probes:
    """Fit both probes on the features of clean training images, which are not augmented."""
    x, y = train
    features = torch.cat([network.features(part) for part in torch.split(x, BATCH)]).float()
    knn = KNN(F.normalize(features, dim=1), y, classes, spec.neighbours, spec.temperature)
    return Probes(network, knn, _linear(features, y, classes))


def measure(
    probes: Probes, images: Images, spec: ProbeSpec, report: Callable[[int], None] = lambda _: None
) -> pd.DataFrame:
    """Measure both probes on clean images and under PGD in each norm; rows as `tables.PROBED`, less `features`.

    Under attack an image counts as right if neither the attack on the kNN's votes nor that on the linear probe's
    cross-entropy misleads the probe, and it was right without one.
    """
    right = {norm: _right(probes, images, spec, norm, report) for norm in (None, *spec.reference)}
    rows = []
    for norm, found in right.items():
        for probe in found:
            hits = (found[probe] & right[None][probe]).cpu().numpy()
            eps = 0.0 if norm is None else spec.reference[norm]
            row = {"probe": probe, "eval_norm": norm, "eps": eps}
            rows.append(row | {"n": len(hits), "correct": np.packbits(hits).tobytes()})
    return pd.DataFrame(rows)


def _right(
    probes: Probes, images: Images, spec: ProbeSpec, norm: Norm | None, report: Callable[[int], None]
) -> dict[str, Tensor]:
    """Return by probe whether each image (N,) is classified right, in every version of it that an attack found."""
    found: dict[str, list[Tensor]] = {"knn": [], "linear": []}
    for number, (x, y) in enumerate(zip(*(torch.split(each, BATCH) for each in images), strict=True)):
        versions = [x] if norm is None else _attacked(probes, (x, y), spec, norm, number)
        with torch.no_grad():
            guesses = [probes.predict(version) for version in versions]
        for probe, parts in found.items():
            parts.append(torch.stack([guess[probe] == y for guess in guesses]).all(dim=0))
        report(len(x))
    return {probe: torch.cat(parts) for probe, parts in found.items()}


def _attacked(probes: Probes, images: Images, spec: ProbeSpec, norm: Norm, number: int) -> Iterator[Tensor]:
    """Yield the images as PGD on each probe's cross-entropy leaves them."""
    x, y = images
    eps = spec.reference[norm]
    for probe, logits in probes.attacked().items():

        def loss_at(point: Tensor, logits: Logits = logits) -> Tensor:
            return F.cross_entropy(logits(probes.network.features(point)), y, reduction="none")

        yield pgd(
            loss_at,
            x,
            geometry=GEOMETRIES[norm],
            eps=eps,
            steps=spec.steps,
            step_size=STEP_RATIO * eps / spec.steps,
            generator=generator(spec.seed, "probe", probe, norm, number, device=x.device),
        )


def _linear(features: Tensor, labels: Tensor, classes: int) -> Logits:
    """Fit multinomial logistic regression (L2 penalty, C = 1) on standardised features (N, D); returns its logits."""
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    fitted = LogisticRegression(max_iter=1000)
    fitted.fit(((features - mean) / std).double().cpu().numpy(), labels.cpu().numpy())
    coefficients, intercept = fitted.coef_, fitted.intercept_
    if len(coefficients) == 1:  # two classes share one row, whose sign tells them apart
        coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercept, intercept] / 2
    weight = features.new_zeros(classes, features.shape[1])
    bias = features.new_full((classes,), ABSENT)
    present = torch.as_tensor(fitted.classes_, device=features.device)
    weight[present] = torch.as_tensor(coefficients, dtype=features.dtype, device=features.device)
    bias[present] = torch.as_tensor(intercept, dtype=features.dtype, device=features.device)
    return lambda x: F.linear((x - mean) / std, weight, bias)


def _images(data: Prepared, spec: ProbeSpec, device: torch.device) -> tuple[Images, Images]:
    """Return training images, equally many per class, and validation images, in proportion."""
    train = data.train(data.train_subset(spec.train_images, spec.seed, "probe subset"))
    held_out, labels = data.validation()
    return labelled(*train, device), labelled(held_out[: spec.images], labels[: spec.images], device)


def _summary(table: pd.DataFrame) -> str:
    clean = table[table["eval_norm"].isna()]
    rows = zip(clean["features"], clean["probe"], shares(clean), strict=True)
    return ", ".join(f"{probe} {100 * share:.1f} % {features}" for features, probe, share in rows)
