"""Networks of libraries, and weights of the user's own, tried before a study starts. Imports no torch by itself."""

from pathlib import Path

from ssrob.config.study import ConfigError
from ssrob.data.sources import image_shape
from ssrob.planning.plan import Plan
from ssrob.planning.stage import Stage, canonical, data_stage
from ssrob.registry.architectures import check_installed
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.lookup import load
from ssrob.storage.store import Store, prepared_facts


def check_networks(plan: Plan, store: Store, *, starts: bool) -> None:
    """Refuse a library that is not installed and, if a study starts, a network or weights that do not fit."""
    model = plan.study.model
    library = BACKBONES[model.name].library
    if library and not all(store.done(path) for path in plan.stages):
        try:
            check_installed(library)
        except ValueError as error:
            raise ConfigError(f"model.name: {error}") from None
    training = [stage for kind in ("pretrain", "finetune") for stage in plan.of_kind(kind).values()]
    todo = [stage for stage in training if not store.done(stage.path)]
    weights = sorted({stage.settings["weights"] for stage in todo if "weights" in stage.settings})
    if not (starts and todo and (library or weights)):
        return
    load("ssrob.models.dry_run:look")(
        model.name,
        canonical(model.arguments),
        _shape(plan, store),
        branches=_branches(todo),
        weights=tuple(map(Path, weights)),
    )


def _branches(todo: list[Stage]) -> tuple[str, ...]:
    return tuple(sorted({branch for stage in todo for branch in stage.spec["objective"].get("batchnorm", {}).values()}))


def _shape(plan: Plan, store: Store) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the study's images, as they are prepared or as the source says; None where it does not."""
    prepared = data_stage(plan.study.data).path
    if store.done(prepared):
        channels, height, width = prepared_facts(store, prepared)["shape"]
        return channels, height, width
    found = image_shape(plan.study.data)
    return None if found is None else (found[2], found[0], found[1])
