"""What of a study with planned looks is to be run now: later seeds wait for the look before them. No torch.

`ssrob look` records at every look which arms the claims need that are still open (`analysis.looks`). The seeds up to
the next look are due for these alone; the others stop. The record follows from finished tables alone, so that a study
that is planned anew, here or on another machine, goes on in the same way.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ssrob.planning.names import SHARED
from ssrob.planning.plan import Arm, Plan, make_plan
from ssrob.storage.store import write_json

Identity = tuple[object, ...]


def due_part(plan: Plan) -> Plan:
    """Return the part of a study that is due: all of it if it has no looks."""
    looks = plan.study.findings.looks
    if not looks:
        return plan
    needed = {look: set(map(tuple, rows)) for look, rows in _read(record(plan)).items()}
    place = {seed: i for i, seed in enumerate(sorted({arm.seed for arm in plan.arms}))}

    def due(arm: Arm) -> bool:
        before = [look for look in looks if look <= place[arm.seed]]
        return not before or identity(arm) in needed.get(before[-1], ())

    arms = [arm for arm in plan.arms if due(arm)]
    wanted = chain.from_iterable(_own_stages(plan, arm) for arm in arms)
    paths = set(chain.from_iterable(plan.with_ancestors(path) for path in wanted if path in plan.stages))
    return replace(plan, arms=arms, stages={path: stage for path, stage in plan.stages.items() if path in paths})


def identity(arm: object) -> Identity:
    """Return what an arm, or a cell of the analysis, is without its seed."""
    values = (getattr(arm, name) for name in SHARED)
    return tuple(round(value, 6) if isinstance(value, float) else value for value in values)


def write_record(plan: Plan, needed: Mapping[int, Iterable[Identity]]) -> None:
    """Record which arms are needed after each look that is reached."""
    rows = {str(look): sorted((list(each) for each in arms), key=str) for look, arms in needed.items()}
    path = record(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)


def record(plan: Plan) -> Path:
    """Return the file of the record, which belongs to the whole study."""
    return make_plan(plan.study).folder / "looks.json"


def _read(path: Path) -> dict[int, list[list[object]]]:
    if not path.is_file():
        return {}
    return {int(look): rows for look, rows in json.loads(path.read_text(encoding="utf-8")).items()}


def _own_stages(plan: Plan, arm: Arm) -> list[str]:
    """Return the trainings of an arm, its probe, and all that looks at its model."""
    looking = [path for path, stage in plan.stages.items() if stage.parents.get("model") == arm.finetune]
    return [path for path in (arm.finetune, arm.pretrain, arm.probe, *looking) if path is not None]
