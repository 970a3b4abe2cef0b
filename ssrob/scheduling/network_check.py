"""Networks of libraries and plugins, and the user's weights, tried before a study starts. Imports no torch itself."""

from pathlib import Path

from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.planning.plan import Plan
from ssrob.planning.stage import canonical, data_stage
from ssrob.registry.architectures import check_installed
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.lookup import load
from ssrob.scheduling.images import shape_of
from ssrob.storage.store import Store


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
    unknown = library or not BACKBONES[model.name].function.startswith("ssrob.")
    if not (starts and todo and (unknown or weights)):
        return
    shape, pretrained = (_shape(each, store) for each in (plan.study.data, plan.study.pretrain_data))
    branches = {branch for stage in todo for branch in stage.spec["objective"].get("batchnorm", {}).values()}
    load("ssrob.models.dry_run:look")(
        model.name,
        canonical(model.arguments),
        shape,
        branches=tuple(sorted(branches)),
        weights=tuple(map(Path, weights)),
        pretrained=pretrained,
    )


def _shape(data: Data | None, store: Store) -> tuple[int, int, int] | None:
    """Return (C, H, W) of a data set's images; None where it is not known yet."""
    shape = shape_of(data_stage(data), store) if data else None
    return shape and (shape[2], shape[0], shape[1])
