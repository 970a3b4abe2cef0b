"""An evaluation for a terminal: the answer, the curve, the checks, and what was assumed."""

import shutil
import sys
import textwrap
from collections.abc import Iterator

from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.evaluation import Evaluation, corruption_means
from ssrob.external.identity import SHORT
from ssrob.formatting import eps_text, interval, percent

NAMED_VERSIONS = ("ssrob", "torch", "torchvision", "numpy", "python")


def as_text(result: Evaluation) -> str:
    """Write the answer first, then the checks, then what the numbers depend on; wrapped if it goes to a terminal."""
    parts = [[result.headline], _curve(result), _checks(result), _identity(result), result.assumed]
    text = "\n\n".join("\n".join(part) for part in parts)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return text if not width else "\n".join(_wrapped(line, width) for line in text.splitlines())


def _curve(result: Evaluation) -> Iterator[str]:
    yield f"{'eps':>8}  {'accuracy':>8}  95 % interval"
    for row in result.curve.to_dict("records"):
        ends = interval(100 * row["low"], 100 * row["high"])
        yield f"{eps_text(row['eps']):>8}  {percent(row['accuracy']):>8}  {ends} %"
    if result.corruptions is not None:
        benchmark, every = map(percent, corruption_means(result.corruptions))
        counts = f"over {len(BENCHMARK)}, {every} over all {len(result.corruptions)}"
        yield f"corruptions: {benchmark} {counts}, at {len(SEVERITIES)} severities"


def _checks(result: Evaluation) -> Iterator[str]:
    yield result.verdict_on_checks
    yield from (f"check failed: {row['check']}: {row['detail']}" for row in result.failed.to_dict("records"))
    yield from (f"warning: {warning}" for warning in result.warnings)


def _identity(result: Evaluation) -> Iterator[str]:
    model, facts = result.facts["model"], result.facts
    yield f"model: {model['class']} of {model['factory']}, {model['parameters']:,} parameters"
    yield f"weights: sha256 {model['weights_sha256']}"
    if model["file"]:
        yield f"file: {model['file']}, sha256 {model['file_sha256']}"
    yield f"images: {facts['n']:,} of {facts['dataset']}, sha256 {facts['images_sha256'][:SHORT]}"
    yield f"attacks: {', '.join(facts['attacks'])}; preset {result.request.preset}, seed {result.request.seed}"
    yield f"with: {versions_text(result)}, on {facts['device']}"


def versions_text(result: Evaluation) -> str:
    """Name the versions of the main packages."""
    versions = result.facts["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in NAMED_VERSIONS if versions.get(name))


def _wrapped(line: str, width: int) -> str:
    """Break a line between words; what follows is indented. Columns of numbers are shorter than any terminal."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
