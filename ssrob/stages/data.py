"""The data stage of the workflow."""

import itertools
import json

from ssrob.config.data import Data
from ssrob.data.prepare import check_same_name, prepare
from ssrob.data.prepared import Prepared
from ssrob.data.source_files import source_files
from ssrob.ood.data_sets import check_no_overlap
from ssrob.planning.stage import data_of
from ssrob.runtime.runner import Context


def stage(context: Context) -> None:
    """Prepare a data set; refuse a name that already means other data."""
    data = data_of(context.stage)
    if files := source_files(data):  # as they were before they were read
        context.provenance["source_files"] = files
    prepare(data, context.out)
    check_same_name(context.out, context.store.root / "stages" / "data")
    _check_no_overlap(context, data)
    about = json.loads((context.out / "data.json").read_text())
    counts = ", ".join(f"{count} {split}" for split, count in about["counts"].items())
    context.summary = f"{counts}; fingerprint {about['fingerprint'][:12]}"


def _check_no_overlap(context: Context, data: Data) -> None:
    """Refuse image sets of the study that have training images; of two stages, the one that ends last compares."""
    settings, mine = context.stage.settings.get("apart"), context.stage.path
    if not settings:
        return
    paths = {*settings["image_sets"], *settings["trained"]}
    there = {path: context.store.folder(path) for path in paths if context.store.done(path)}
    prepared = {path: Prepared(folder, context.source_of(path)) for path, folder in there.items()}
    prepared[mine] = Prepared(context.out, data)
    for outside, trained in itertools.product(settings["image_sets"], settings["trained"]):
        if mine in (outside, trained) and {outside, trained} <= set(prepared):
            check_no_overlap(prepared[outside], prepared[trained], settings["images"])
