"""Writing results for elsewhere: a trained model with its card, or the finished stages of a study."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ssrob.planning.plan import Plan
from ssrob.registry.stages import STAGES
from ssrob.storage import bundle, heartbeat
from ssrob.storage.lock import LOCK
from ssrob.storage.model_card import Tested, card
from ssrob.storage.store import MANIFEST, Store, find_path, prepared_facts, sha256

ABOUT = "export.json"  # what an exported study holds, and the checksums of its unfinished work
WEIGHTS, IMAGES = ".safetensors", "samples.npz"  # ends of the names of what may be left out
OF_A_RUN = {heartbeat.FILE, LOCK}


def export_model(key: str, store: Store, to: Path | None = None) -> Path:
    """Write a trained model: weights, card, spec, provenance and the tables of its tests. Returns where.

    key: of the stage that trained it, or any part of the key that no other has. Every file is verified.
    """
    models = [path for path in store.paths() if STAGES[path.partition("/")[0]].weights and store.done(path)]
    path = find_path(key, models[::-1], "finished model")  # fine-tuned ones first
    to = to or Path(path.partition("/")[2])
    bundle.check_place(to)  # before gigabytes are hashed
    files: dict[str, Path | str] = {name: store.output(path, name) for name in store.manifest(path)["outputs"]}
    files |= {name: store.folder(path) / name for name in ("spec.json", "provenance.json")}
    tested = list(tests_of(path, store))
    for test in tested:
        folder = f"{test.kind}-{test.checkpoint}"
        if any(place.startswith(f"{folder}/") for place in files):  # one of several
            folder += f"-{test.key.rpartition('-')[2]}"
        for name in store.manifest(test.path)["outputs"]:
            if name.endswith(".parquet"):
                files[f"{folder}/{name}"] = store.output(test.path, name)
    files["README.md"] = card(path, store, tested)
    bundle.write(files, to)
    return to


def tests_of(path: str, store: Store) -> Iterator[Tested]:
    """Find the finished stages that tested a model, of whatever kind."""
    for manifest in map(store.manifest, filter(store.done, store.paths())):
        if manifest.get("parents", {}).get("model") == path:
            yield Tested(manifest["kind"], manifest["key"], manifest["spec"])


def export_study(
    plan: Plan,
    store: Store,
    to: Path,
    *,
    weights: bool = True,
    data: bool = True,
    images: bool = True,
    work: bool = False,
) -> dict[str, Any]:
    """Write a study's finished stages, and on request what the unfinished ones need to go on. Every file is verified.

    Returns what was written, as `export.json` has it. Without `weights` or example `images` the stages keep their
    tables, and what an unfinished training starts from keeps its weights; without `data` the data stages are left out,
    and their fingerprints are kept to compare.
    """
    bundle.check_place(to)
    done = [path for path, stage in plan.stages.items() if store.done(path) and (data or stage.kind != "data")]
    files: dict[str, Path | str] = {}
    trained = {path for path, stage in plan.stages.items() if STAGES[stage.kind].weights}
    needed = {parent for path in trained if not store.done(path) for parent in plan.stages[path].parents.values()}
    left_out = []
    for path in done:
        endings: tuple[str, ...] = () if images else (IMAGES,)
        endings += (WEIGHTS,) if not weights and path not in needed else ()
        without = [name for name in store.manifest(path)["outputs"] if name.endswith(endings)]
        left_out += [f"{path}/{name}" for name in without]
        files |= {f"stages/{path}/{name}": content for name, content in _stage_files(path, store, without)}
    unfinished = [path for path in plan.stages if work and not store.done(path)]
    started = {path: begun for path in unfinished if (begun := kept(store.work(path)))}
    files |= {f"work/{path}/{name}": file for path, begun in started.items() for name, file in begun.items()}
    prepared = [f"data/{key}" for key in plan.of_kind("data")]
    about = {
        "study": plan.study.study,
        "stages": done,
        "left_out": left_out,
        "fingerprints": {path: prepared_facts(store, path)["fingerprint"] for path in prepared if store.done(path)},
        "work": {path: _about(files) for path, files in started.items()},
    }
    bundle.write({ABOUT: as_json(about)} | files, to)  # first, also if the rest is cut off
    return about


def _stage_files(path: str, store: Store, without: Collection[str]) -> Iterator[tuple[str, Path | str]]:
    """Yield name and content of a finished stage's files, its outputs verified, without some of these."""
    for name in store.manifest(path)["outputs"]:
        if name not in without:
            yield name, store.output(path, name)
    yield MANIFEST, as_json(store.manifest(path))
    beside = (store.folder(path) / name for name in ("spec.json", "provenance.json", "log.txt"))
    yield from ((file.name, file) for file in beside if file.is_file())


def kept(work: Path) -> dict[str, Path]:
    """Return the files of a work folder that are worth keeping: not the sign of life, nor what was being written."""
    files = [file for file in sorted(work.rglob("*")) if file.is_file() and file.suffix != ".partial"]
    named = {file.relative_to(work).as_posix(): file for file in files}
    return {name: file for name, file in named.items() if name not in OF_A_RUN and not name.startswith("out/")}


def as_json(value: object) -> str:
    """Write JSON for people."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _about(files: dict[str, Path]) -> dict[str, Any]:
    newest = max(file.stat().st_mtime for file in files.values())  # an archive may lose it
    return {"newest": newest, "files": {name: sha256(file) for name, file in files.items()}}
