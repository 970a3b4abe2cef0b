"""A model's scores of images, clean and attacked, and how well they separate its own images from others."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.frozen import lent, memory_format
from ssrob.data.types import Pixels
from ssrob.losses.rotation import all_views
from ssrob.ood.attack import attack_score
from ssrob.ood.metrics import detection
from ssrob.registry.lookup import load
from ssrob.registry.ood import SCORES

RESAMPLES = 200  # of the bootstrap: with 1,000 it takes longer than the scores of small images
NEIGHBOURS = 50  # Sun et al. (2022), on CIFAR


class Detector:
    """A model with the scores that it has: those of its logits, and of a `Network` also of its features and heads.

    training (N, H, W, C) uint8: training images whose features are the bank of the nearest-neighbour score; that score
    is left out without them. k: which neighbour, at most N. The model comes back in the mode it was in.
    """

    def __init__(self, model: nn.Module, *, training: Pixels | None = None, k: int = NEIGHBOURS):
        self.model, self.k, self.bank = model, k, torch.empty(0)
        if training is not None and hasattr(model, "features"):
            if not 1 <= k <= len(training):
                raise ValueError(f"k must be 1..{len(training)} (the training images given), found {k}")
            with lent(model, training) as batches, torch.no_grad():
                self.bank = torch.cat([Outputs(self, x).features for x, _ in batches])
        heads = {"", *getattr(model, "heads", {})}
        self.names = [
            name for name, row in SCORES.items() if row.head in heads and ("bank" not in row.takes or len(self.bank))
        ]

    def scores(
        self,
        images: Pixels,
        names: Collection[str] | None = None,
        *,
        inside: bool = True,
        eps: float = 0.0,
        steps: int = 20,
    ) -> pd.DataFrame:
        """Score images (N, H, W, C) uint8, a row each, a column per score.

        eps > 0: each score after an l-inf attack on it alone, which lowers the scores of images `inside` the training
        distribution and raises those of others; eps in [0, 1] pixel units.
        """
        wanted = list(self.names if names is None else names)
        if missing := [name for name in wanted if name not in self.names]:
            raise ValueError(f"unknown score {missing[0]!r} (this model has: {', '.join(self.names)})")
        rows = []
        with lent(self.model, images) as batches:
            for x, part in batches:
                if eps > 0:
                    attack = partial(attack_score, x=x, inside=inside, eps=eps, steps=steps)
                    columns = [attack(self._score_of(name), keys=_keys(name, part, x.device))[1] for name in wanted]
                else:
                    with torch.no_grad():
                        outputs = Outputs(self, x)
                        columns = [_score(name, outputs) for name in wanted]
                rows.append(torch.stack(columns, dim=1).double().cpu().numpy())
        return pd.DataFrame(np.concatenate(rows), columns=wanted)

    def _score_of(self, name: str) -> Callable[[Tensor], Tensor]:
        return lambda x: _score(name, Outputs(self, x))


@dataclass(frozen=True)
class Outputs:
    """What a model makes of images x (B, C, H, W) in [0, 1]; each output is computed once, when a score asks for it."""

    detector: Detector
    x: Tensor

    @property
    def bank(self) -> Tensor:
        """Features of training images, (N, D)."""
        return self.detector.bank

    @property
    def k(self) -> int:
        """Which neighbour the nearest-neighbour score takes."""
        return self.detector.k

    @cached_property
    def features(self) -> Tensor:
        """(B, D)."""
        features: Tensor = self.detector.model.features(self.x)  # type: ignore[operator]
        return features

    @cached_property
    def logits(self) -> Tensor:
        """(B, K)."""
        if not hasattr(self.detector.model, "features"):
            return torch.as_tensor(self.detector.model(self.x)).float()
        return self._head("class", self.features)

    @cached_property
    def turned(self) -> Tensor:
        """The rotation head's outputs at all four quarter turns, (4, B, 4)."""
        _, *others = all_views(self.x)
        backbone = self.detector.model.features
        layout = memory_format(self.detector.model)
        turns = [self.features, *(backbone(view.contiguous(memory_format=layout)) for view in others)]  # type: ignore[operator]
        return torch.stack([self._head("rotation", features) for features in turns])

    def _head(self, name: str, features: Tensor) -> Tensor:
        outputs: Tensor = self.detector.model.heads[name](features).float()  # type: ignore[index, operator]
        return outputs


def _keys(name: str, part: slice, device: torch.device) -> Tensor:
    """Draw the random starts of the attack on a score: one key per image, whatever the batch."""
    return seeding.example_keys(torch.arange(part.start, part.stop), 0, "ood attack", name).to(device)


def _score(name: str, outputs: Outputs) -> Tensor:
    """Compute a score of `SCORES`, (B,)."""
    row = SCORES[name]
    score: Tensor = load(row.function)(*(getattr(outputs, each) for each in row.takes))
    return score


def detection_table(inside: pd.DataFrame, outside: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """Compare `Detector.scores` of a model's own test images with those of other sets, by name.

    A row per set and score: auroc, aupr and fpr (at 95 % TPR), 0..1, each with `_low` and `_high` of a 95 % bootstrap
    interval, and the numbers of images.
    """
    rows = []
    for image_set, table in outside.items():
        for name in inside.columns:
            found = detection(inside[name], table[name], seed=seed, resamples=RESAMPLES)
            row = {"image_set": image_set, "score": name, "inside": len(inside), "outside": len(table)}
            for metric in ("auroc", "aupr", "fpr"):
                interval = getattr(found, metric)
                row |= {metric: interval.value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)
