"""One evaluation of somebody else's model: sweep, checks, corruptions; tables, JSON and what was assumed."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from ssrob.attacks.input_checks import check_eps
from ssrob.attacks.sweep import SweepResult
from ssrob.corruptions import BENCHMARK, NAMES, SEVERITIES
from ssrob.external.assumptions import WARNING
from ssrob.external.entry import summary
from ssrob.external.leftovers import BlockFolder, remove_outputs
from ssrob.external.ready import Ready, make_ready
from ssrob.external.request import Request, parse_request
from ssrob.hardware.device import device_of, exact_float32
from ssrob.hardware.emulation import emulation_warning
from ssrob.planning.specs import EvaluateSpec
from ssrob.reporting.figures.summary import wilson
from ssrob.runtime.runner import provenance
from ssrob.runtime.sweep_cache import BlockStore
from ssrob.stages.corrupt import Corrupted, run_tests
from ssrob.stages.evaluate import TestImages, check_rows, example_rows, run_sweep
from ssrob.storage.store import write_json
from ssrob.storage.tables import CHECKED, CORRUPTED, EXAMPLES, shares, write_table

__all__ = ["Evaluation", "Request", "curve", "evaluate", "parse_request"]


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
    ready = make_ready(request, out, device)
    for line in [*ready.assumed, *(WARNING + text for text in ready.warnings)]:
        say(line)
    source = _corrupted(ready, request)
    remove_outputs(out)
    model, test, facts = ready.model, ready.test, ready.facts
    with BlockFolder(out, ready.raw, ready.logits) as blocks:
        result = _sweep(model, test, request, blocks)
        checks = check_rows(model, test, result, preset=request.preset, seed=request.seed, **_audit())
        facts |= {"gradients": result.gradients, "attacks": list(result.attacks)} | provenance(device)
        corruptions = None
        if source is not None:
            corruptions, facts["corruptions"] = _corruptions(model, source, test.y.numpy(), out), source.provenance
        write_table(example_rows(result, request.norm, test), EXAMPLES, out / "robustness.parquet")
        write_table(checks, CHECKED, out / "checks.parquet")
        found = Evaluation(request, facts, ready.assumed, ready.warnings, curve(result), checks, corruptions)
        about = {"assumed": ready.assumed, "warnings": ready.warnings, "facts": facts}
        write_json(out / "evaluation.json", summary(found) | about)
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


def _corrupted(ready: Ready, request: Request) -> Corrupted | None:
    """Return where corrupted images come from, after a check of published files; None if not asked for."""
    if not request.corruptions:
        return None
    source = Corrupted(ready.pixels, ready.test.rows.numpy(), request.seed, request.frost, request.official)
    source.check(ready.test.y.numpy())
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
