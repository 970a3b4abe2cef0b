"""An evaluation for a terminal: the answer, the curve, the checks, and what was assumed."""

import shutil
import sys
import textwrap
from collections.abc import Iterator

from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.evaluation import Evaluation, corruption_means, eps_label
from ssrob.external.identity import SHORT
from ssrob.formatting import interval, percent

NAMED_VERSIONS = ("ssrob", "torch", "torchvision", "numpy", "python")


def as_text(found: Evaluation) -> str:
    """Write the answer first, then the checks, then what the numbers depend on; wrapped if it goes to a terminal."""
    parts = [[found.headline], _curve(found), _checks(found), _identity(found), found.assumed]
    text = "\n\n".join("\n".join(part) for part in parts)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return text if not width else "\n".join(_wrapped(line, width) for line in text.splitlines())


def _curve(found: Evaluation) -> Iterator[str]:
    yield f"{'eps':>8}  {'accuracy':>8}  95 % interval"
    for row in found.curve.to_dict("records"):
        ends = interval(100 * row["low"], 100 * row["high"])
        yield f"{eps_label(row['eps']):>8}  {percent(row['accuracy']):>8}  {ends} %"
    if found.corruptions is not None:
        benchmark, every = map(percent, corruption_means(found.corruptions))
        counts = f"over {len(BENCHMARK)}, {every} over all {len(found.corruptions)}"
        yield f"corruptions: {benchmark} {counts}, at {len(SEVERITIES)} severities"


def _checks(found: Evaluation) -> Iterator[str]:
    yield found.verdict_on_checks
    yield from (f"check failed: {row['check']}: {row['detail']}" for row in found.failed.to_dict("records"))
    yield from (f"warning: {warning}" for warning in found.warnings)


def _identity(found: Evaluation) -> Iterator[str]:
    model, facts = found.facts["model"], found.facts
    yield f"model: {model['class']} of {model['factory']}, {model['parameters']:,} parameters"
    yield f"weights: sha256 {model['weights_sha256']}"
    if model["file"]:
        yield f"file: {model['file']}, sha256 {model['file_sha256']}"
    yield f"images: {facts['n']:,} of {facts['dataset']}, sha256 {facts['images_sha256'][:SHORT]}"
    yield f"attacks: {', '.join(facts['attacks'])}; preset {found.request.preset}, seed {found.request.seed}"
    versions = ", ".join(f"{name} {version}" for name in NAMED_VERSIONS if (version := facts["versions"].get(name)))
    yield f"with: {versions}, on {facts['device']}"


def _wrapped(line: str, width: int) -> str:
    """Break a line between words; what follows is indented. Columns of numbers are shorter than any terminal."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
