"""An evaluation as JSON: a RobustBench-style entry, with the curve, the checks, the model and what was assumed."""

import json
from pathlib import Path
from typing import Any

from ssrob.attacks.autoattack import ATTACKS
from ssrob.external.evaluation import Evaluation, corruption_means
from ssrob.registry.attacks import AUTOATTACK_NORMS
from ssrob.storage.files import replacing

DOCUMENT = "evaluation.json"


def summary(result: Evaluation) -> dict[str, Any]:
    """Return the result in the form of RobustBench's model entries, accuracies in per cent, with more beside it.

    `eps` is the largest of the request, in [0, 1] pixel units; `autoattack_acc` is there only if AutoAttack itself was
    run. `curve` has a row per eps, ascending, as the tables have it: shares 0..1.
    """
    request, last = result.request, result.curve.iloc[-1]
    robust = _percent(last["accuracy"])
    entry: dict[str, Any] = {
        "link": None,
        "name": request.title,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": result.facts["dataset"],
        "venue": None,
        "architecture": result.facts["architecture"],
        "norm": AUTOATTACK_NORMS[request.norm],
        "eps": float(last["eps"]),
        "clean_acc": _percent(result.curve["accuracy"].iloc[0]),
        "reported": robust,
    }
    if result.facts["attacks"] == list(ATTACKS):  # not where a model without a gradient has left one of them
        entry["autoattack_acc"] = robust
    if result.corruptions is not None:
        entry["corruptions_acc"], entry["corruptions_acc_all"] = map(_percent, corruption_means(result.corruptions))
    entry["curve"] = result.curve.to_dict("records")
    entry |= {"attack": request.preset, "gradients_in": request.gradients_in}
    entry |= {"n": result.facts["n"], "seed": request.seed}
    return entry | {"failed_checks": list(result.failed["check"]), "unreliable": bool(len(result.failed))}


def document(result: Evaluation) -> dict[str, Any]:
    """Return all that is known of an evaluation but its tables."""
    about = {"checks": result.checks[["check", "passed", "detail"]].to_dict("records"), "facts": result.facts}
    return summary(result) | about | {"assumed": result.assumed, "warnings": result.warnings}


def as_json(result: Evaluation) -> str:
    """Return it as JSON."""
    return json.dumps(document(result), indent=2)


def write_document(result: Evaluation, file: Path) -> None:
    """Write it as JSON, the numbers before what they depend on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, "w") as opened:
        opened.write(as_json(result) + "\n")


def _percent(share: float) -> float:
    return round(100 * float(share), 2)
