"""What finished stages were made from, compared with what is there now: code of plugins, files of data sources.

Neither is part of a stage's key, so a change of one would go unnoticed. Imports no torch.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.config.plugins import Source, differs, plugin_sources
from ssrob.data.content import source_fingerprint
from ssrob.data.source_files import source_files
from ssrob.data.sources import open_source
from ssrob.data.types import DataError, refusal
from ssrob.planning.plan import Plan
from ssrob.planning.stage import data_stage
from ssrob.storage.store import Store, prepared_facts, write_json

RECORD = "plugins"  # in a stage's provenance
FILES = "source_files"


def check_plugins(plan: Plan, store: Store) -> None:
    """Refuse to go on with other code of a plugin than finished stages were made with, unless the config allows it."""
    if plan.study.changed_plugins == "use":
        return
    for module, stages in changed_plugins(plan, store, plugin_sources(plan.study.plugins)).items():
        more = f" (and {len(stages) - 1} more stages)" if len(stages) > 1 else ""
        raise ConfigError(
            f"plugins: {module} has changed since {stages[0]} was made{more}. Put it back; or give what "
            f"computes something else a module and a name of its own; or remove {store.folder(stages[0])}"
            f"{' and the others' if len(stages) > 1 else ''} to have them made anew; or write `changed_plugins: use` "
            "into the config if the change cannot matter"
        )


def check_alike(plan: Plan, store: Store) -> None:
    """Refuse tables of stages that were made with several versions of a plugin, unless the config allows it."""
    first: dict[str, Source] = {}
    for path in plan.stages if plan.study.changed_plugins == "refuse" and plan.study.plugins else ():
        for module, source in recorded_sources(store, path).items():
            if differs(first.setdefault(module, source), source):
                raise ConfigError(
                    f"plugins: {module} was another one when {path} was made than for stages before it; remove "
                    f"{store.folder(path)} or those, or write `changed_plugins: use` if the change cannot matter"
                )


def changed_plugins(plan: Plan, store: Store, now: Mapping[str, Source]) -> dict[str, list[str]]:
    """Return the modules that were others when finished stages were made, with these stages."""
    changed: dict[str, list[str]] = {}
    for path in plan.stages if now else ():
        for module in outdated(store, path, now):
            changed.setdefault(module, []).append(path)
    return changed


def outdated(store: Store, path: str, now: Mapping[str, Source]) -> list[str]:
    """Return the modules that were others when a stage was made; those that it has no record of count as the same."""
    then = recorded_sources(store, path)
    return [module for module, source in now.items() if module in then and differs(source, then[module])]


def recorded_sources(store: Store, path: str) -> Mapping[str, Source]:
    """Return the sources of the plugins that a finished stage was made with; empty where none are recorded."""
    record: Mapping[str, Source] = store.provenance(path).get(RECORD, {}) if store.done(path) else {}
    return record


def check_sources(plan: Plan, store: Store) -> None:
    """Refuse data that was prepared from other images than its source has now.

    A source that is gone is not asked, unless there are stages to run that decode its training images. Names, sizes and
    times of the files are compared first, and their content only where these differ.
    """
    for data in filter(None, (plan.study.data, plan.study.pretrain_data)):
        path = data_stage(data).path
        if data.path is not None and not data.path.exists() and (first := _needed_by(plan, store, path)):
            kept = f"training images of {path} stay in their files, and {first} needs them"
            raise refusal(data, "path", f"{kept}; found nothing at {data.path}")
        recorded = store.provenance(path).get(FILES) if store.done(path) else None
        now = source_files(data) if recorded else None
        if now is None or now == recorded:
            continue
        if _content(data) != prepared_facts(store, path)["source_fingerprint"]:
            remedy = f"give the changed data a name of its own, or remove {store.folder(path)} and all made from it"
            raise refusal(data, "path", f"{data.path} has other images than when {path} was made; {remedy}")
        _record(store, path, now)


def _needed_by(plan: Plan, store: Store, path: str) -> str | None:
    """Return a stage to run that decodes the training images of finished data, as they stay in their files."""
    if not store.done(path) or prepared_facts(store, path).get("storage") != "files":
        return None
    readers = (s for s in plan.stages.values() if s.parents.get("data") == path and "data_path" in s.settings)
    return next((stage.path for stage in readers if not store.done(stage.path)), None)


def _content(data: Data) -> str:
    try:
        return source_fingerprint(open_source(data))
    except DataError as error:
        return str(error)  # not what it was, whatever it is


def _record(store: Store, path: str, now: Any) -> None:
    """Note the files as they are now, so that their content is not read again next time."""
    with contextlib.suppress(OSError):  # of a folder that is read-only, it is
        write_json(store.folder(path) / "provenance.json", store.provenance(path) | {FILES: now})
