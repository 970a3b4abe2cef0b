"""One evaluation of somebody else's model: sweep, checks, corruptions; tables, JSON and what was assumed."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ssrob.attacks.input_checks import check_eps
from ssrob.attacks.result import SweepResult
from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.assumptions import WARNING
from ssrob.external.earlier_outputs import blocks_of, remove_outputs
from ssrob.external.entry import DOCUMENT, write_document
from ssrob.external.evaluation import Evaluation, curve
from ssrob.external.preparation import EvaluationInputs, prepare_inputs
from ssrob.external.request import Request, parse_request
from ssrob.hardware.device import device_of, exact_float32
from ssrob.hardware.emulation import emulation_warning
from ssrob.planning.specs import EvaluateSpec
from ssrob.progress import shown
from ssrob.registry.attacks import REFERENCE
from ssrob.registry.optional import missing
from ssrob.runtime.runner import provenance
from ssrob.runtime.sweep_cache import BlockStore
from ssrob.stages.corrupt import Corrupted, run_tests
from ssrob.stages.evaluate import check_rows, example_rows, run_sweep
from ssrob.storage.files import check_writable
from ssrob.storage.tables import CHECKED, CORRUPTED, EXAMPLES, shares, write_table

__all__ = ["Evaluation", "Request", "curve", "evaluate", "parse_request"]


def evaluate(
    request: Request, out: Path, say: Callable[[str], None] = print, *, progress: bool | None = None
) -> Evaluation:
    """Evaluate a model and write robustness.parquet, checks.parquet, corruptions.parquet and evaluation.json to `out`.

    Says what was assumed before the attacks start. A call that was killed goes on with the images that were left.
    progress: None shows bars on a terminal and in a notebook, True always, False never.
    """
    _check(request, out)
    device = device_of(request.device)
    asked = ["gradients_in"] if request.gradients_in == "bfloat16" else []
    if warning := emulation_warning(asked, device):
        say(WARNING + warning)
    with exact_float32(device):
        inputs = prepare_inputs(request, out, device)
        for line in [*inputs.assumed, *(WARNING + text for text in inputs.warnings)]:
            say(line)
        return _evaluate(inputs, out, device, progress)


def _check(request: Request, out: Path) -> None:
    """Refuse at once what would fail after the images have been read."""
    check_eps(request.eps, request.norm)
    if request.preset == REFERENCE and (line := missing("pyautoattack")):
        raise ValueError(f"--preset: {REFERENCE!r} needs AutoAttack's code: {line}")
    check_writable(out, "out", "name another folder")


def _evaluate(inputs: EvaluationInputs, out: Path, device: torch.device, progress: bool | None) -> Evaluation:
    request = inputs.request
    source = _corrupted(inputs)
    remove_outputs(out)
    model, test, facts = inputs.model, inputs.test, inputs.facts
    with blocks_of(out, inputs.raw, inputs.logits) as blocks:
        result = _sweep(inputs, blocks, progress)
        checks = check_rows(model, test, result, preset=request.preset, seed=request.seed, **_audit())
        facts |= {"gradients": result.gradients, "attacks": list(result.attacks)} | provenance(device)
        corruptions = None
        if source is not None:
            corruptions, facts["corruptions"] = _corruptions(inputs, source, out, progress), source.provenance
        write_table(example_rows(result, request.norm, test), EXAMPLES, out / "robustness.parquet")
        write_table(checks, CHECKED, out / "checks.parquet")
        evaluation = Evaluation(request, facts, inputs.assumed, inputs.warnings, curve(result), checks, corruptions)
        write_document(evaluation, out / DOCUMENT)
    return evaluation


def _audit() -> dict[str, int]:
    """Return the size of the audit that a study has by default."""
    fields = EvaluateSpec.model_fields
    return {"images": fields["audit_images"].default, "queries": fields["audit_queries"].default}


def _sweep(inputs: EvaluationInputs, blocks: BlockStore, progress: bool | None) -> SweepResult:
    request, test = inputs.request, inputs.test
    with shown(progress, len(test.x), "image", request.preset) as report:
        return run_sweep(
            inputs.model,
            test,
            norm=request.norm,
            eps=request.eps,
            preset=request.preset,
            seed=request.seed,
            gradients_in=request.gradients_in,
            batch_size=request.batch_size,
            block=2 * request.batch_size,  # what a kill costs at most; more would keep batches a little fuller
            store=blocks,
            progress=report,
        )


def _corrupted(inputs: EvaluationInputs) -> Corrupted | None:
    """Return where corrupted images come from, after a check of published files; None if not asked for."""
    request = inputs.request
    if not request.corruptions:
        return None
    made: dict[str, Any] = {"frost": request.frost, "official": request.official, "classes": inputs.classes}
    source = Corrupted(inputs.pixels, inputs.test.rows.numpy(), request.seed, **made)
    source.check(inputs.labels)
    if missing := [name for name in BENCHMARK if name not in source.names]:
        raise ValueError(f"--official {request.official}: holds no {', '.join(missing)}")
    return source


def _corruptions(inputs: EvaluationInputs, source: Corrupted, out: Path, progress: bool | None) -> pd.DataFrame:
    """Test all corruptions; returns a row for each, the benchmark's 15 first, and a column per severity."""
    names = [*BENCHMARK, *(name for name in source.names if name not in BENCHMARK)]
    tests = list(itertools.product(names, SEVERITIES))
    with shown(progress, len(tests), "test", "corruptions") as report:
        done = itertools.count(1)
        table = run_tests(inputs.model, source, inputs.test.y.numpy(), tests, lambda: report(next(done), len(tests)))
    write_table(table, CORRUPTED, out / "corruptions.parquet")
    wide = table.assign(accuracy=shares(table)).pivot_table(index="corruption", columns="severity", values="accuracy")
    return wide.loc[names].reset_index()
