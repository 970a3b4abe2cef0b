"""What `ssrob plan`, `ls` and `status` say, as JSON for other programs. Imports no torch."""

import json
import time
from collections.abc import Mapping
from typing import Any

from ssrob.cli.plan_view import speeds
from ssrob.planning.plan import Plan
from ssrob.scheduling.status import STATES, expected, stage_statuses, work_of
from ssrob.storage.store import Store


def plan_json(plan: Plan, store: Store, given: Mapping[str, float], refusal: str | None) -> str:
    """Return a study's stages by kind with work (passes) and time (seconds; null: not known), and if it can start.

    given: passes per second by group of kinds, as `plan_view.parse_speeds` returns them.
    """
    work = work_of(plan, store)
    speed = speeds(plan, store, work, given)
    kinds: dict[str, dict[str, Any]] = {}
    for path, stage in plan.stages.items():
        row = kinds.setdefault(stage.kind, {"stages": 0, "done": 0, "passes_to_do": 0.0, "seconds_to_do": 0.0})
        row["stages"] += 1
        if store.done(path):
            row["done"] += 1
            continue
        for name, value in (("passes_to_do", work[path]), ("seconds_to_do", speed.seconds(stage.kind, work[path]))):
            row[name] = None if value is None or row[name] is None else row[name] + value
    return _write(
        _head(plan) | {"models": len(plan.arms), "kinds": kinds, "can_start": not refusal, "refusal": refusal}
    )


def stages_json(plan: Plan, store: Store) -> str:
    """Return every stage with its state, the size of its outputs in bytes and the seconds that it took."""
    rows = []
    for path, each in stage_statuses(plan, store, dict.fromkeys(plan.stages), time.time()).items():
        outputs = store.manifest(path)["outputs"].values() if each.state == "done" else ()
        size = sum(row["bytes"] for row in outputs)
        rows.append({"stage": path, "state": each.state, "bytes": size, "seconds": each.seconds})
    return _write(_head(plan) | {"stages": rows})


def status_json(plan: Plan, store: Store) -> str:
    """Return counts by state, every stage that is not done, and the seconds that the rest may take."""
    stages = stage_statuses(plan, store, work_of(plan, store), time.time())
    left = expected(stages)
    unfinished = [
        {
            "stage": path,
            "state": each.state,
            "fraction": each.fraction,
            "seconds_left": each.left,
            "message": each.message,
        }
        for path, each in stages.items()
        if each.state != "done"
    ]
    states = {state: sum(each.state == state for each in stages.values()) for state in STATES}
    return _write(_head(plan) | {"states": states, "seconds_left": left and left.wall, "unfinished": unfinished})


def _head(plan: Plan) -> dict[str, Any]:
    return {"study": plan.study.study, "folder": str(plan.folder)}


def _write(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2)
