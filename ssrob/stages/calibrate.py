"""How far a trained model's class probabilities are what they say: clean, corrupted and attacked test images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.frozen import lent
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.steppers.pgd import pgd
from ssrob.calibration import calibration, fit_temperature
from ssrob.config.fields import Norm
from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.data.types import Pixels, Rows
from ssrob.models.serialization import load_network
from ssrob.planning.specs import CalibrateSpec
from ssrob.registry.attacks import STEP_RATIO
from ssrob.runtime.runner import Context
from ssrob.stages.corrupt import Corrupted
from ssrob.storage.tables import CALIBRATED, CONFIDENCES, write_table

CLEAN = "clean"


def stage(context: Context) -> None:
    """Run a calibrate stage of one checkpoint."""
    spec = CalibrateSpec.model_validate(context.stage.spec)
    data = Prepared(context.parent("data"))
    model = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors").to(context.device)
    images, labels, rows = open_test(data.folder, min(spec.images, data.counts["test"]))
    frost = Path(context.stage.settings["frost"]) if spec.frost_photographs else None
    source = Corrupted(images, rows, spec.seed, frost, table=spec.table)
    temperatures = [1.0]
    if spec.temperature:
        seen, known = data.validation()
        temperatures.append(fit_temperature(logits_of(model, seen), known))
    per_image, summary = [], []
    with context.progress(total=1 + len(spec.corruptions) + len(spec.reference), unit="test") as bar:
        for name, logits in _tests(model, spec, source, labels):
            for fitted, temperature in enumerate(temperatures):
                where: dict[str, Any] = {"images": name, "scaled": bool(fitted), "temperature": temperature}
                per_image.append(confidence_rows(logits, labels, rows, temperature).assign(**where))
                summary.append(where | summary_row(logits, labels, temperature, spec.bins))
            bar.update()
            context.stop_if_asked()
    write_table(pd.concat(per_image)[list(CONFIDENCES)], CONFIDENCES, context.out / "confidences.parquet")
    table = pd.DataFrame(summary)[list(CALIBRATED)]
    write_table(table, CALIBRATED, context.out / "calibration.parquet")
    context.summary = f"expected calibration error {100 * table['ece'].iloc[0]:.1f} % on clean images"


def _tests(model: nn.Module, spec: CalibrateSpec, source: Corrupted, labels: Rows) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the logits (N, K) of clean, corrupted and attacked images by name."""
    yield CLEAN, logits_of(model, source.images)
    for name in spec.corruptions:
        yield name, logits_of(model, source.at(name, spec.severity))
    for norm, eps in spec.reference.items():
        yield norm, attacked_logits(model, source.images, labels, source.index, norm=norm, eps=eps, spec=spec)


@torch.no_grad()
def logits_of(model: nn.Module, images: Pixels) -> np.ndarray:
    """Return logits (N, K) float64 of images (N, H, W, C) uint8."""
    with lent(model, images) as batches:
        return torch.cat([model(x).double().cpu() for x, _ in batches]).numpy()


def attacked_logits(
    model: nn.Module, images: Pixels, labels: Rows, numbers: Rows, *, norm: Norm, eps: float, spec: CalibrateSpec
) -> np.ndarray:
    """Return logits (N, K) of images after PGD on cross-entropy; eps in [0, 1] pixel units.

    It starts at a random point, drawn by each image's number.
    """
    geometry, found = GEOMETRIES[norm], []
    with lent(model, images) as batches:
        for x, part in batches:
            y = torch.from_numpy(labels[part]).to(x.device)
            keys = seeding.example_keys(torch.from_numpy(numbers[part]), spec.seed, "calibration attack", norm)

            def loss(at: Tensor, y: Tensor = y) -> Tensor:
                return F.cross_entropy(model(at), y, reduction="none")

            start = geometry.start(x, eps, keys.to(x.device))
            size = STEP_RATIO * eps / spec.steps
            adv = pgd(loss, x, geometry=geometry, eps=eps, steps=spec.steps, step_size=size, start=start)
            with torch.no_grad():
                found.append(model(adv).double().cpu())
    return torch.cat(found).numpy()


def confidence_rows(logits: np.ndarray, labels: Rows, rows: Rows, temperature: float) -> pd.DataFrame:
    """Return what an image adds to each measure, without `images`, `scaled` and `temperature` of `CONFIDENCES`."""
    log_probabilities = log_softmax(logits / temperature, axis=1)
    probabilities, label = np.exp(log_probabilities), (np.arange(len(labels)), labels)
    return pd.DataFrame(
        {
            "example": rows,
            "label": labels,
            "correct": probabilities.argmax(axis=1) == labels,
            "confidence": probabilities.max(axis=1),
            "nll": -log_probabilities[label],
            "brier": (probabilities**2).sum(axis=1) - 2 * probabilities[label] + 1,
        }
    )


def summary_row(logits: np.ndarray, labels: Rows, temperature: float, bins: int) -> dict[str, float]:
    """Return the measures over all images."""
    found = calibration(logits, labels, temperature=temperature, bins=bins)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    measures = {"ece": found.ece, "nll": found.nll, "brier": found.brier}
    return measures | {"bins": bins, "accuracy": accuracy, "n": len(labels)}
