"""Evaluation of a trained model: accuracy over eps for both norms, as one row per test image."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ssrob.attacks.autoattack import autoattack_sweep
from ssrob.attacks.model_contract import Adapted
from ssrob.attacks.result import SweepResult
from ssrob.attacks.sanity_checks import check
from ssrob.attacks.sweep import attack_sweep
from ssrob.config.fields import Norm
from ssrob.data.loader import labelled
from ssrob.data.test_split import open_test
from ssrob.hardware.device import memory_format
from ssrob.models.serialization import load_network
from ssrob.planning.specs import EvaluateSpec
from ssrob.registry.attacks import CHECKS, OF_GRADIENTS, REFERENCE
from ssrob.registry.presets import AttackPlan
from ssrob.runtime.runner import Context
from ssrob.runtime.sweep_cache import BlockStore
from ssrob.storage.tables import CHECKED, EXAMPLES, write_table

GOES_ON = "finished blocks of images are kept, run it again to go on"
SAMPLES = 8  # images kept for people to look at
# Images that are lost to a kill at most: a few batches, so that these stay full.
BLOCK, GPU_BLOCK = 1024, 8192


class TestImages(NamedTuple):
    """Images (N, C, H, W) float in [0, 1], labels (N,), and their rows in the test split (N,)."""

    x: Tensor
    y: Tensor
    rows: Tensor

    def first(self, count: int) -> "TestImages":
        """Return the first images alone."""
        return TestImages(*(tensor[:count] for tensor in self))


def stage(context: Context) -> None:
    """Run an evaluate stage: the sweeps of one checkpoint over all norms."""
    spec = EvaluateSpec.model_validate(context.stage.spec)
    model = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors")
    model.to(device=context.device, memory_format=memory_format(context.device))  # type: ignore[call-overload]
    tests = {norm: load_test(context.parent("data"), spec.images_of(norm)) for norm in spec.eps}
    shown = next(iter(tests.values())).first(SAMPLES)
    samples: dict[str, Any] = {"clean": shown.x.numpy(), "label": shown.y.numpy()}
    blocks = BlockStore(context.work / "blocks", then=partial(context.stop_if_asked, GOES_ON))
    tables, checks, summaries = [], [], []
    for norm, eps in spec.eps.items():
        test = tests[norm]
        with context.progress(total=len(test.x), unit="image") as bar:
            result = run_sweep(
                model,
                test,
                norm=norm,
                eps=eps,
                preset=spec.preset,
                seed=spec.seed,
                device=context.device,
                gradients_in=spec.gradients_in,
                search=spec.search,
                layout="model",  # another order of summation would give finished studies other last bits
                progress=partial(_show, context, bar),
                store=blocks,
                block=GPU_BLOCK if context.device.type == "cuda" else BLOCK,
            )
        tables.append(example_rows(result, norm, test))
        audit = {"images": spec.audit_images, "queries": spec.audit_queries}
        checks.append(check_rows(model, test, result, preset=spec.preset, seed=spec.seed, **audit))
        samples |= _samples(model, shown, spec, norm)
        context.provenance[f"gradients_{norm}"] = result.gradients
        near = min(range(len(eps)), key=lambda i: abs(eps[i] - spec.reference[norm]))
        clean = 100 * result.clean_correct.double().mean().item()
        robust = 100 * result.accuracy[near].item()
        summaries.append(f"{norm}: {clean:.1f} % clean, {robust:.1f} % at {eps[near]:.4g} of {len(test.x):,} images")
    write_table(pd.concat(tables, ignore_index=True), EXAMPLES, context.out / "robustness.parquet")
    write_table(pd.concat(checks, ignore_index=True), CHECKED, context.out / "checks.parquet")
    np.savez(context.out / "samples.npz", **samples)
    context.summary = ", ".join(summaries)


def load_test(folder: Path, images: int | None) -> TestImages:
    """Open the test split of a data stage, or a class-balanced part of it."""
    pixels, labels, index = open_test(folder, images)
    return TestImages(*labelled(pixels, labels), torch.from_numpy(np.array(index)))


def run_sweep(
    model: nn.Module, test: TestImages, *, preset: str | AttackPlan, layout: str = "channels_last", **settings: Any
) -> SweepResult:
    """Attack test images with a preset, AutoAttack's own code included; `settings` as of `attack_sweep`."""
    if preset == REFERENCE:  # in the model's own layout
        return autoattack_sweep(model, test.x, test.y, **settings)
    return attack_sweep(model, test.x, test.y, preset=preset, index=test.rows, layout=layout, **settings)


def example_rows(result: SweepResult, norm: Norm, test: TestImages) -> pd.DataFrame:
    """Return a sweep as rows of `tables.EXAMPLES`, one per image."""
    eps = np.append(result.eps.numpy(), np.inf)
    first_failed = result.robust.sum(dim=0).numpy()  # robust (E, N) falls along eps
    columns = {
        "eval_norm": norm,
        "example": test.rows.numpy(),
        "label": test.y.numpy(),
        "clean_correct": result.clean_correct.numpy(),
        "distance": result.distance.numpy().astype(np.float64),
        "first_failed": eps[first_failed],
        "attack": list(result.attack),
    }
    return pd.DataFrame(columns)


def check_rows(
    model: nn.Module,
    test: TestImages,
    result: SweepResult,
    *,
    preset: str | AttackPlan,
    seed: int,
    images: int,
    queries: int,
) -> pd.DataFrame:
    """Check a sweep against the signs of a weak attack; one row of `tables.CHECKED` per check.

    Attacks `images` of them again (0: no checks), the reference's sweeps with our own preset "standard".
    """
    flags: dict[str, str] = {}
    if images:
        plan = "standard" if preset == REFERENCE else preset
        found = check(model, test.x, test.y, result, preset=plan, seed=seed, audit=images, queries=queries)
        flags = {flag.name: flag.message for flag in found}
    gradient = not isinstance(model, Adapted) or model.interface.gradient
    names = [name for name in CHECKS if gradient or name not in OF_GRADIENTS] if images else []
    rows = [(result.norm, name, name not in flags, flags.get(name, "")) for name in names]
    return pd.DataFrame(rows, columns=list(CHECKED))


def _samples(model: nn.Module, shown: TestImages, spec: EvaluateSpec, norm: Norm) -> dict[str, Any]:
    """Attack a few images at the reference eps, for the report's picture."""
    eps = spec.reference[norm]
    found = attack_sweep(
        model,
        shown.x,
        shown.y,
        norm=norm,
        eps=[eps],
        preset="fast",
        seed=spec.seed,
        index=shown.rows,
        search=spec.search,
        layout="model",
        keep_adversarial=True,
        progress=False,
    )
    assert found.adversarial is not None
    device = next(model.parameters()).device
    with torch.no_grad():
        clean, adversarial = (model(x.to(device)).argmax(dim=1).cpu() for x in (shown.x, found.adversarial))
    return {
        "predicted_clean": clean.numpy(),
        f"adversarial_{norm}": found.adversarial.cpu().numpy(),
        f"predicted_adversarial_{norm}": adversarial.numpy(),
        f"eps_{norm}": np.asarray(eps),
    }


def _show(context: Context, bar: Any, done: int, total: int) -> None:
    bar.update(done - bar.n)
    if done % BLOCK and done < total:  # at the end of a block it must be stored first
        context.stop_if_asked(GOES_ON)
