"""Why a stage is run again, or is not: what its key is made of, and the nearest other stage. Imports no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssrob.config.plugins import plugin_sources
from ssrob.planning.plan import Plan
from ssrob.planning.stage import Stage, digest
from ssrob.registry.stages import STAGES
from ssrob.scheduling.staleness import outdated
from ssrob.storage.store import Store, StoreError, find_path

Identity = Mapping[str, str]  # what decides a result: setting, of the stage or of one that it is made from -> value
NOT_SET = "not set"  # not there at all, or left at its default, which is no part of a key
FIELDS = ("kind", "key", "spec", "parents", "settings")  # of a stage, in its manifest


@dataclass(frozen=True)
class Neighbour:
    """Another stage of the same kind. differences: setting -> its value here and there, or that it is not set."""

    path: str
    done: bool
    differences: dict[str, tuple[str, str]]


def known_stages(plan: Plan | None, store: Store) -> dict[str, Stage]:
    """Return by path the stages of a study and the finished ones of a results folder."""
    stages = dict(plan.stages) if plan else {}
    for path in store.paths():
        if path not in stages and store.done(path):
            manifest = store.manifest(path)
            stages[path] = Stage(**{name: manifest[name] for name in FIELDS if name in manifest})
    return stages


def find_stage(text: str, stages: Mapping[str, Stage]) -> Stage:
    """Return the stage that a path, a key, or a part of one means; else a StoreError."""
    return stages[find_path(text, stages)]


def identity(stage: Stage, stages: Mapping[str, Stage]) -> dict[str, str]:
    """Return all that decides a stage's result, with that of the stages that it is made from, below their role."""
    values = dict(_flat(stage.spec))
    for role, path in stage.parents.items():
        above = identity(stages[path], stages) if path in stages else {"": path}
        values |= {f"{role}: {name}".rstrip(": "): value for name, value in above.items()}
    return values


def nearest(stage: Stage, stages: Mapping[str, Stage], store: Store) -> Neighbour | None:
    """Return the other stage of the same kind that differs in least, a finished one if there are several."""
    here = identity(stage, stages)
    candidates = [
        Neighbour(path, store.done(path), _differences(here, identity(other, stages)))
        for path, other in stages.items()
        if other.kind == stage.kind and path != stage.path
    ]
    return min(candidates, key=lambda each: (len(each.differences), not each.done), default=None)


def reasons_to_run(stage: Stage, plan: Plan | None, store: Store) -> list[str]:
    """Say why the workflow runs a stage, or will not take it as it is; nothing for one that is finished and sound."""
    reasons = []
    if plan and stage.path not in plan.stages:
        reasons.append("the study does not ask for it: another key has its place")
    if stage.key != f"{stage.name}-{digest(stage.kind, stage.spec, stage.parents)}":
        now = STAGES[stage.kind].revision
        reasons.append(f"its key is that of another revision of the code; it has revision {now} of {stage.kind} now")
    reasons += [f"{path} is not finished" for path in stage.parents.values() if not store.done(path)]
    if not store.done(stage.path):
        begun = " (it was begun)" if store.work(stage.path).is_dir() else ""
        return [*reasons, f"it is not finished: there is no manifest in {store.folder(stage.path)}{begun}"]
    plugins = plugin_sources(plan.study.plugins) if plan else {}
    reasons += [f"the plugin {module} has changed since it was made" for module in outdated(store, stage.path, plugins)]
    return reasons + list(_damage(stage, store))


def _damage(stage: Stage, store: Store) -> Iterator[str]:
    for name in store.manifest(stage.path)["outputs"]:
        try:
            store.output(stage.path, name)
        except StoreError as error:
            yield str(error)
    try:
        store.check_parents(stage.path)
    except StoreError as error:
        yield str(error)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner if isinstance(inner, str) else json.dumps(inner)


def _differences(here: Identity, there: Identity) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys([*here, *there])
    return {
        name: (here.get(name, NOT_SET), there.get(name, NOT_SET)) for name in names if here.get(name) != there.get(name)
    }
