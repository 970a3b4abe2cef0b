"""The data stage of the workflow."""

import json

from ssrob.data.prepare import check_same_name, prepare
from ssrob.data.source_files import source_files
from ssrob.planning.stage import data_of
from ssrob.runtime.runner import Context


def stage(context: Context) -> None:
    """Prepare a data set; refuse a name that already means other data."""
    data = data_of(context.stage)
    if files := source_files(data):  # as they were before they were read
        context.provenance["source_files"] = files
    prepare(data, context.out)
    check_same_name(context.out, context.store.root / "stages" / "data")
    about = json.loads((context.out / "data.json").read_text())
    counts = ", ".join(f"{count} {split}" for split, count in about["counts"].items())
    context.summary = f"{counts}; fingerprint {about['fingerprint'][:12]}"
