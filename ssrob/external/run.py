"""One evaluation of somebody else's model: sweep, checks, corruptions; tables, JSON and what was assumed."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from ssrob.attacks.input_checks import check_eps
from ssrob.attacks.sweep import SweepResult
from ssrob.config.study import Norm, Precision, parse_number
from ssrob.corruptions import BENCHMARK, NAMES, SEVERITIES
from ssrob.data.for_testing import prepare_for_testing
from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.external.assumptions import WARNING, assumptions, crop_text, suspicions
from ssrob.external.entry import summary
from ssrob.external.images import find_data
from ssrob.external.leftovers import BlockFolder, remove_outputs
from ssrob.external.model import load_model, preprocessed
from ssrob.hardware.device import device_of, exact_float32
from ssrob.hardware.emulation import emulation_warning
from ssrob.planning.specs import EvaluateSpec
from ssrob.registry.attacks import GRADIENT_DTYPES, NORMS
from ssrob.registry.lookup import check_choice
from ssrob.registry.presets import PRESETS
from ssrob.reporting.figures.summary import wilson
from ssrob.runtime.runner import provenance
from ssrob.runtime.sweep_cache import BlockStore
from ssrob.stages.corrupt import Corrupted, predict, run_tests
from ssrob.stages.evaluate import TestImages, check_rows, example_rows, load_test, run_sweep
from ssrob.storage.store import write_json
from ssrob.storage.tables import CHECKED, CORRUPTED, EXAMPLES, shares, write_table

AHEAD = 0.05  # points of accuracy, as a share, by which another preprocessing must be better to be told


@dataclass(frozen=True)
class Request:
    """What is asked for: a model by its factory, images, budgets ([0, 1] pixel units, ascending) and a preset."""

    model: str
    data: str
    eps: tuple[float, ...]
    norm: Norm = "linf"
    preset: str = "standard"
    weights: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    preprocess: str = "none"
    images: int | None = None
    corruptions: bool = False
    official: Path | None = None  # folder of the published corruption files
    frost: Path | None = None  # folder of photographs
    seed: int = 0
    gradients_in: Precision = "float32"
    device: str = "auto"
    batch_size: int = 256


@dataclass(frozen=True)
class Evaluation:
    """What was found. Accuracies are shares 0..1."""

    request: Request
    facts: dict[str, Any]  # data, model, device, versions
    assumed: list[str]
    warnings: list[str]
    curve: pd.DataFrame  # eps, accuracy, low, high (95 % interval), from eps = 0 on
    checks: pd.DataFrame  # `tables.CHECKED`
    corruptions: pd.DataFrame | None  # corruption, one column per severity

    @property
    def failed(self) -> pd.DataFrame:
        """The checks that did not pass."""
        return self.checks[~self.checks["passed"].astype(bool)]


def parse_request(*, eps: str, norm: str, preset: str, arguments: str, **told: Any) -> Request:
    """Read a request as it comes from a command line: eps as ``2/255,8/255``, the factory's arguments as JSON."""
    try:
        budgets = tuple(float(str(parse_number(part))) for part in eps.split(","))
    except ValueError:
        raise ValueError(f"--eps: expected numbers such as 2/255,4/255,8/255, found {eps!r}") from None
    try:
        parsed = json.loads(arguments)
    except ValueError as error:
        raise ValueError(f"--model-args: not JSON ({error}), found {arguments!r}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f'--model-args: expected an object such as {{"num_classes": 10}}, found {arguments!r}')
    check_choice("preset", preset, PRESETS)
    check_choice("gradients_in", told.get("gradients_in", "float32"), GRADIENT_DTYPES)
    if told.get("official") and told.get("frost"):
        raise ValueError("--official, --frost: give one, the published files hold frost already")
    told["corruptions"] = bool(told.get("corruptions") or told.get("official") or told.get("frost"))
    return Request(
        eps=budgets, norm=cast(Norm, check_choice("norm", norm, NORMS)), preset=preset, arguments=parsed, **told
    )


def evaluate(request: Request, out: Path, say: Callable[[str], None] = print) -> Evaluation:
    """Evaluate a model and write robustness.parquet, checks.parquet, corruptions.parquet and evaluation.json to `out`.

    Says what was assumed before the attacks start. A call that was killed goes on with the images that were left.
    """
    check_eps(request.eps, request.norm)
    device = device_of(request.device)
    asked = ["gradients_in"] if request.gradients_in == "bfloat16" else []
    if warning := emulation_warning(asked, device):
        say(warning)
    with exact_float32(device):
        return _evaluate(request, out, device, say)


def _evaluate(request: Request, out: Path, device: torch.device, say: Callable[[str], None]) -> Evaluation:
    data = find_data(request.data)
    raw = load_model(request.model, request.weights, request.arguments)
    images = prepare_for_testing(data, out / "data", request.images)
    folder = images.folder
    about, test = Prepared(folder), load_test(folder, None)
    model = preprocessed(raw, request.preprocess, about.shape[0]).to(device)
    clean = _clean_accuracy(model, folder, request, device)
    outputs = _outputs(model, test, device)
    if outputs < len(about.classes):
        raise ValueError(f"--model: has {outputs} outputs, {about.name} has {len(about.classes)} classes")
    notes = [note for note in images.notes if not note.startswith(WARNING)]
    assumed = [*notes, *assumptions(about, request.preprocess, crop=crop_text(data), weights=request.weights)]
    warned = [note.removeprefix(WARNING) for note in images.notes if note.startswith(WARNING)]
    warned += suspicions(clean, len(test.x), about, outputs) + _better(raw, clean, folder, request)
    for line in [*assumed, *(WARNING + text for text in warned)]:
        say(line)
    source = _corrupted(folder, request)
    remove_outputs(out)
    with BlockFolder(out, model, test, device) as blocks:
        result = _sweep(model, test, request, blocks)
        checks = check_rows(model, test, result, preset=request.preset, seed=request.seed, **_audit())
        facts = {"dataset": about.name, "classes": len(about.classes), "shape": about.shape, "n": len(test.x)}
        facts |= {"architecture": type(raw).__name__, "gradients": result.gradients, "attacks": list(result.attacks)}
        facts |= {"fingerprint": about.source_fingerprint, "crop": crop_text(data)} | provenance(device)
        corruptions = None
        if source is not None:
            corruptions, facts["corruptions"] = _corruptions(model, source, test.y.numpy(), out), source.provenance
        write_table(example_rows(result, request.norm, test), EXAMPLES, out / "robustness.parquet")
        write_table(checks, CHECKED, out / "checks.parquet")
        found = Evaluation(request, facts, assumed, warned, curve(result), checks, corruptions)
        write_json(out / "evaluation.json", summary(found) | {"assumed": assumed, "warnings": warned, "facts": facts})
    return found


def curve(result: SweepResult) -> pd.DataFrame:
    """Return accuracy over eps with its 95 % binomial interval; the clean accuracy stands at eps = 0."""
    points = {0.0: float(result.clean_correct.double().mean())}
    points |= dict(zip(result.eps.tolist(), result.accuracy.tolist(), strict=True))
    frame = pd.DataFrame(points.items(), columns=["eps", "accuracy"])
    low, high = wilson(frame["accuracy"], pd.Series(len(result.distance), index=frame.index))
    return frame.assign(low=low.clip(lower=0), high=high.clip(upper=1))


def _audit() -> dict[str, int]:
    """Return the size of the audit that a study has by default."""
    fields = EvaluateSpec.model_fields
    return {"images": fields["audit_images"].default, "queries": fields["audit_queries"].default}


def _outputs(model: nn.Module, test: TestImages, device: torch.device) -> int:
    with torch.no_grad():
        return int(model(test.x[:1].to(device)).shape[-1])


def _clean_accuracy(model: nn.Module, folder: Path, request: Request, device: torch.device) -> float:
    pixels, labels, _ = open_test(folder)
    try:
        return float((predict(model, pixels, device) == labels).mean())
    except (RuntimeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"--model {request.model}: cannot classify images of {pixels.shape[1:]} (H, W, C) on {device}: {reason}"
        ) from None


def _better(raw: nn.Module, clean: float, folder: Path, request: Request) -> list[str]:
    """Try the common preprocessings that were not asked for: the field's commonest trap is a wrong one."""
    channels = Prepared(folder).shape[0]
    device, found = next(raw.parameters(), torch.empty(0)).device, []
    for other in {"none", "imagenet"} - {request.preprocess} if channels == 3 else ():
        accuracy = _clean_accuracy(preprocessed(raw, other, channels).to(device), folder, request, device)
        if accuracy > clean + AHEAD:
            found.append(f"clean accuracy is {clean:.1%}, but {accuracy:.1%} with --preprocess {other}")
    return found


def _sweep(model: nn.Module, test: TestImages, request: Request, blocks: BlockStore) -> SweepResult:
    with tqdm(total=len(test.x), unit="image", desc=request.preset, disable=None, leave=False) as bar:
        return run_sweep(
            model,
            test,
            norm=request.norm,
            eps=request.eps,
            preset=request.preset,
            seed=request.seed,
            gradients_in=request.gradients_in,
            batch_size=request.batch_size,
            block=2 * request.batch_size,  # what a kill costs at most; more would keep batches a little fuller
            store=blocks,
            progress=lambda done, _: bar.update(done - bar.n),
        )


def _corrupted(folder: Path, request: Request) -> Corrupted | None:
    """Return where corrupted images come from, after a check of published files; None if not asked for."""
    if not request.corruptions:
        return None
    pixels, labels, index = open_test(folder)
    source = Corrupted(pixels, index, request.seed, request.frost, request.official)
    source.check(labels)
    return source


def _corruptions(model: nn.Module, source: Corrupted, labels: np.ndarray, out: Path) -> pd.DataFrame:
    """Test all corruptions; returns a row for each, the benchmark's 15 first, and a column per severity."""
    names = [*BENCHMARK, *(name for name in NAMES if name not in BENCHMARK)]
    tests = list(itertools.product(names, SEVERITIES))
    with tqdm(total=len(tests), unit="test", desc="corruptions", disable=None, leave=False) as bar:
        table = run_tests(model, source, labels, tests, bar.update)
    write_table(table, CORRUPTED, out / "corruptions.parquet")
    wide = table.assign(accuracy=shares(table)).pivot_table(index="corruption", columns="severity", values="accuracy")
    return wide.loc[names].reset_index()
