"""An evaluation in a few lines: for a terminal, and as a RobustBench-style entry."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.formatting import eps_text

if TYPE_CHECKING:
    from ssrob.external.run import Evaluation


def summary(found: "Evaluation") -> dict[str, Any]:
    """Return the result in the form of RobustBench's model entries, accuracies in per cent, with more beside it.

    `eps` is the largest of the request; `autoattack_acc` is there only if AutoAttack itself was run.
    """
    request, last = found.request, found.curve.iloc[-1]
    robust = _percent(last["accuracy"])
    entry: dict[str, Any] = {
        "link": None,
        "name": request.model,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": found.facts["dataset"],
        "venue": None,
        "architecture": found.facts["architecture"],
        "norm": {"linf": "Linf", "l2": "L2"}[request.norm],
        "eps": eps_text(float(last["eps"])),
        "clean_acc": _percent(found.curve["accuracy"].iloc[0]),
        "reported": robust,
    }
    if request.preset == "autoattack":
        entry["autoattack_acc"] = robust
    if found.corruptions is not None:
        entry["corruptions_acc"], entry["corruptions_acc_all"] = map(_percent, corruption_means(found.corruptions))
    points = zip(found.curve["eps"], found.curve["accuracy"], strict=True)
    entry["curve"] = {_eps(eps): _percent(accuracy) for eps, accuracy in points}
    entry |= {"attack": request.preset, "gradients_in": request.gradients_in}
    entry |= {"n": found.facts["n"], "seed": request.seed}
    return entry | {"failed_checks": list(found.failed["check"]), "unreliable": bool(len(found.failed))}


def corruption_means(table: pd.DataFrame) -> tuple[float, float]:
    """Return the mean accuracy over the benchmark's 15 corruptions, and over all of the table."""
    means = table.set_index("corruption")[list(SEVERITIES)].mean(axis=1)
    return float(means.loc[list(BENCHMARK)].mean()), float(means.mean())


def as_text(found: "Evaluation") -> str:
    """Write accuracies and failed checks for a terminal."""
    rows = found.curve.to_dict("records")
    lines = [f"{'eps':>8}  accuracy  95 % interval"]
    lines += [f"{_eps(row['eps']):>8}  {row['accuracy']:8.1%}  {row['low']:.1%} to {row['high']:.1%}" for row in rows]
    if found.corruptions is not None:
        benchmark, every = corruption_means(found.corruptions)
        counts = f"over {len(BENCHMARK)}, {every:.1%} over all {len(found.corruptions)}"
        lines.append(f"corruptions: {benchmark:.1%} {counts}, at {len(SEVERITIES)} severities")
    failed = found.failed.to_dict("records")
    return "\n".join([*lines, *(f"check failed: {row['check']}: {row['detail']}" for row in failed)])


def write_summary(found: "Evaluation", file: Path) -> None:
    """Write the summary as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(summary(found), indent=2) + "\n")


def _eps(value: float) -> str:
    return eps_text(float(value)) if value else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
