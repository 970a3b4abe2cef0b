"""Everything before the attacks of an evaluation: the model behind its contract, images, and what had to be assumed."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssrob.attacks.model_contract import LOOK, NO_GRADIENT, Adapted, adapt
from ssrob.data.for_testing import prepare_for_testing
from ssrob.data.prepared import Prepared
from ssrob.external.assumptions import WARNING, assumptions, crop_text, suspicions
from ssrob.external.class_names import outputs_of
from ssrob.external.identity import identity
from ssrob.external.images import find_data
from ssrob.external.model import load_model, preprocessed
from ssrob.external.request import Request
from ssrob.external.zoos import Asked
from ssrob.registry.preprocessing import PREPROCESSING
from ssrob.stages.corrupt import BATCH
from ssrob.stages.evaluate import TestImages, load_test

AHEAD = 0.05  # points of accuracy, as a share, by which another preprocessing must be better to be mentioned


@dataclass(frozen=True)
class EvaluationInputs:
    """What is attacked. logits (N, K): of the clean images; facts and notes are for the record.

    classes, labels (N,): of the data itself, which may be other outputs of the model.
    """

    request: Request
    raw: nn.Module
    model: Adapted
    test: TestImages
    pixels: np.ndarray  # (N, H, W, C) uint8, of `test`
    classes: tuple[str, ...]
    labels: np.ndarray
    logits: Tensor
    facts: dict[str, Any]
    assumed: list[str]
    warnings: list[str]


def prepare_inputs(request: Request, out: Path, device: torch.device) -> EvaluationInputs:
    """Load the model and the images, and look at both; raises ValueError where they do not fit."""
    data = find_data(request.data)
    asked = Asked(request.norm, data)
    raw, matched = load_model(
        request.model, request.weights, request.arguments, prefix=request.weights_prefix, asked=asked
    )
    images = prepare_for_testing(data, out / "data", request.images)
    about, test = Prepared(images.folder), load_test(images.folder, None)
    model, test, over = _fitted(raw, test, about, request, device)
    logits = clean_logits(model, test.x, device)
    kept, left_out = _without_nan(logits, test, request)
    test, logits = TestImages(*(part[kept] for part in test)), logits[kept]
    if request.skip_nan:
        model = Adapted(model.plain, replace(model.interface, no_answer=True), model.notes).eval()
    clean = _accuracy(logits, test)
    noted = [*images.notes, *left_out, *matched]
    assumed = [note for note in noted if not note.startswith(WARNING)]
    assumed += assumptions(about, request.preprocess, crop=crop_text(data), weights=request.weights)
    assumed += [f"assumed: {note}" for note in (*model.notes, over) if note and note != NO_GRADIENT]
    warned = [note.removeprefix(WARNING) for note in noted if note.startswith(WARNING)]
    if not model.interface.gradient:
        warned.append(
            f"{NO_GRADIENT}: attacks that need one are skipped, black-box attacks run; robustness is overstated"
        )
    warned += suspicions(clean, len(test.x), about, logits.shape[1] if request.classes is None else len(about.classes))
    warned += _better(raw, clean, test, request, device)
    facts = {"dataset": about.name, "classes": len(about.classes), "shape": about.shape, "n": len(test.x)}
    facts |= {"architecture": type(raw).__name__, "fingerprint": about.source_fingerprint, "crop": crop_text(data)}
    facts |= {"accuracy_over": over or f"all {logits.shape[1]} outputs", "left_out": left_out}
    pixels = np.asarray(np.load(images.folder / "test_images.npy", mmap_mode="r"))[kept.numpy()]
    facts |= {"model": identity(raw, request), "images_sha256": hashlib.sha256(pixels).hexdigest()}
    labels = np.load(images.folder / "test_labels.npy")[kept.numpy()]
    return EvaluationInputs(request, raw, model, test, pixels, about.classes, labels, logits, facts, assumed, warned)


def clean_logits(model: nn.Module, x: Tensor, device: torch.device) -> Tensor:
    """Return the logits (N, K) of images x (N, C, H, W) in [0, 1], on the CPU."""
    with torch.no_grad():
        parts = torch.split(x, max(1, BATCH * 32 * 32 // x[0, 0].numel()))
        return torch.cat([model(part.to(device)).float().cpu() for part in parts])


def _fitted(
    raw: nn.Module, test: TestImages, about: Prepared, request: Request, device: torch.device
) -> tuple[Adapted, TestImages, str]:
    """Put the model behind its contract, and match labels with outputs; says over which outputs."""
    plain = preprocessed(raw, request.preprocess, about.shape[0]).to(device)
    try:
        model = adapt(plain, test.x[:LOOK].to(device))
    except ValueError as error:
        raise ValueError(f"--model {request.model}: {error}") from None
    count = clean_logits(model, test.x[:1], device).shape[1]
    if request.classes is None:
        if count < len(about.classes):
            remedy = "say which class is which output by --classes"
            raise ValueError(f"--model: has {count} outputs, {about.name} has {len(about.classes)} classes; {remedy}")
        return model, test, ""
    outputs = outputs_of(request.classes, about.classes, raw, count)
    if request.over == "all":
        return model, test._replace(y=torch.tensor(outputs)[test.y]), f"accuracy is over all {count} outputs"
    over = f"accuracy is over the {len(outputs)} outputs of the data's classes, of {count}"
    return Adapted(model.plain, replace(model.interface, outputs=outputs), model.notes).eval(), test, over


def _without_nan(logits: Tensor, test: TestImages, request: Request) -> tuple[Tensor, list[str]]:
    """Return the places of the images whose logits are numbers; refuse others unless they are to be left out."""
    bad = logits.isnan().any(dim=1)
    kept = (~bad).nonzero().squeeze(1)
    if not bool(bad.any()):
        return kept, []
    rows = test.rows[bad].tolist()
    shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    found = f"NaN for {len(rows)} of {len(logits)} images (rows {shown})"
    if not request.skip_nan or not len(kept):
        raise ValueError(f"--model {request.model}: returns {found}; --skip-nan evaluates the others")
    return kept, [f"{WARNING}left out: the model returns {found}; NaN under attack counts as misclassified"]


def _accuracy(logits: Tensor, test: TestImages) -> float:
    return float((logits.argmax(dim=1) == test.y).double().mean())


def _better(raw: nn.Module, clean: float, test: TestImages, request: Request, device: torch.device) -> list[str]:
    """Try the usual preprocessings that were not asked for: a wrong one is the field's most common mistake."""
    channels, best, most = test.x.shape[1], None, clean + AHEAD
    for other in _alternatives(request.preprocess, channels) if request.classes is None else ():
        model = adapt(preprocessed(raw, other, channels).to(device), test.x[:LOOK].to(device))
        accuracy = _accuracy(clean_logits(model, test.x, device), test)
        if accuracy > most:
            best, most = other, accuracy
    return [] if best is None else [f"clean accuracy is {clean:.1%}, but {most:.1%} with --preprocess {best}"]


def _alternatives(preprocess: str, channels: int) -> list[str]:
    """Return the names of other preprocessings for so many channels."""
    rows = {name: row for name, row in PREPROCESSING.items() if name != preprocess}
    return [name for name, row in rows.items() if row is None or len(row.mean) in (1, channels)]
