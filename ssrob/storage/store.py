"""The results folder: where stages put things, and what makes one finished.

    results/stages/<kind>/<key>/   outputs, spec and log of a stage; its manifest is written last and means "done"
    results/work/<kind>/<key>/     what an unfinished stage needs to go on: checkpoint, records
    results/studies/<study>/<digest>/   tables, figures and report of a study

Imports no torch.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.storage.files import replacing, sync

TOKEN = "stage.json"  # the manifest under the name that the workflow declares, and deletes before it starts a job
MANIFEST = "manifest.json"  # the same, which stays: what is finished is not run again
LISTED = 10  # stages, in a message
FORMAT = 1  # of the manifest; raised when an older version could not read it


class StoreError(RuntimeError):
    """A results folder that cannot be trusted or used; the message says which file and what to do."""


class Store:
    """The stages below one results folder. A stage is named by its path, ``kind/key``."""

    def __init__(self, root: Path):
        self.root = Path(root)

    def folder(self, path: str) -> Path:
        """Return where a stage's outputs are or will be."""
        return self.root / "stages" / path

    def work(self, path: str) -> Path:
        """Return where a stage keeps what it needs to go on after a kill. No workflow rule declares it."""
        return self.root / "work" / path

    def paths(self, area: str = "stages") -> Iterator[str]:
        """List what lies below ``stages/`` or ``work/``, finished or not; what others read comes first."""
        for kind in STAGES:
            for folder in sorted((self.root / area / kind).glob("*")):
                if folder.is_dir():
                    yield f"{kind}/{folder.name}"

    def done(self, path: str) -> bool:
        """Return whether a stage is finished."""
        return (self.folder(path) / TOKEN).is_file() or (self.folder(path) / MANIFEST).is_file()

    def manifest(self, path: str) -> dict[str, Any]:
        """Read a finished stage's manifest: kind, key, spec, parents, settings and outputs with their checksums."""
        file = self.folder(path) / MANIFEST
        if not file.is_file():
            file = file.with_name(TOKEN)
        manifest = _read_json(file, f"stage {path} is not finished; run the workflow first")
        advice = f"remove the folder {file.parent} and run again"
        if manifest.get("format", 1) > FORMAT:
            raise StoreError(f"{file}: written by a newer version of ssrob; use that one, or {advice}")
        if missing := {"kind", "key", "outputs"} - set(manifest):
            raise StoreError(f"{file}: has no {sorted(missing)[0]!r}, as of an earlier version of ssrob; {advice}")
        if f"{manifest['kind']}/{manifest['key']}" != path:
            raise StoreError(f"{file}: belongs to {manifest['kind']}/{manifest['key']}, not to {path}; {advice}")
        return manifest

    def provenance(self, path: str, *needed: str) -> dict[str, Any]:
        """Read what a finished stage ran on: commit, versions, device, start, seconds, memory."""
        file = self.folder(path) / "provenance.json"
        facts = _read_json(file, "missing; remove its folder and run again")
        if missing := set(needed) - set(facts):
            problem = f"has no {sorted(missing)[0]!r}, as of an earlier version of ssrob"
            raise StoreError(f"{file}: {problem}; remove the folder {file.parent} and run again")
        return facts

    def output(self, path: str, name: str) -> Path:
        """Return the path of an output after checking that it is what the stage wrote."""
        row = self.manifest(path)["outputs"].get(name)
        file = self.folder(path) / name
        if row is None:
            raise StoreError(f"stage {path} has no output {name!r}")
        if not file.is_file() or file.stat().st_size != row["bytes"] or sha256(file) != row["sha256"]:
            raise StoreError(f"{file}: missing, truncated or altered; remove the folder {file.parent} and run again")
        return file

    def publish(self, stage: Stage, produced: Path, provenance: dict[str, Any]) -> None:
        """Move a stage's outputs from `produced` into its folder and declare it finished.

        Everything is on the disk before the manifest is, and the manifest before the work folder goes.
        """
        folder = self.folder(stage.path)
        folder.mkdir(parents=True, exist_ok=True)
        outputs = {}
        for file in sorted(produced.iterdir()):
            outputs[file.name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
            moved = Path(shutil.move(file, folder / file.name))
            sync(moved)
        write_json(folder / "spec.json", stage.spec)
        write_json(folder / "provenance.json", provenance)
        for place in (folder.parent, folder.parent.parent, self.root):
            sync(place)
        made_from = {path: self._weights(path) for path in stage.parents.values() if self.done(path)}
        manifest = asdict(stage) | {"format": FORMAT, "outputs": outputs, "made_from": made_from}
        write_json(folder / MANIFEST, manifest)
        self.renew(stage.path)

    def check_parents(self, path: str) -> None:
        """Raise a StoreError if a finished stage was made from weights that its parent has no more.

        That happens when a training is run again and another version or device gives it other bits.
        """
        for parent, weights in self.manifest(path).get("made_from", {}).items():
            if self.done(parent) and self._weights(parent) != weights:
                problem = f"made from other weights of {parent} than there are now"
                raise StoreError(f"stage {path}: {problem}; remove the folder {self.folder(path)} and run again")

    def _weights(self, path: str) -> dict[str, str]:
        outputs = self.manifest(path)["outputs"]
        return {name: row["sha256"] for name, row in outputs.items() if name.endswith(".safetensors")}

    def renew(self, path: str) -> None:
        """Give a finished stage its workflow token again if that was deleted, and let go of its work folder."""
        token = self.folder(path) / TOKEN
        if not token.is_file():
            write_json(token, self.manifest(path))
        shutil.rmtree(self.work(path), ignore_errors=True)

    def remove(self, path: str) -> None:
        """Delete a stage; a kill in between leaves an unfinished stage, never half of a finished one."""
        for name in (TOKEN, MANIFEST):
            (self.folder(path) / name).unlink(missing_ok=True)
        for folder in (self.folder(path), self.work(path)):
            if folder.is_dir():
                shutil.rmtree(folder)


def find_path(text: str, paths: Collection[str], what: str = "stage") -> str:
    """Return the one path ``kind/key`` that is meant by it, its key, its digest, or any part that no other path has.

    What is equal comes before what begins so, that before a digest that does, and that before what contains it.
    """
    for means in (_equals, _begins, _has_digest, str.__contains__):
        matches = [path for path in paths if means(path, text)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            break
    if not paths:
        raise StoreError(f"{text!r}: no {what} is there yet")
    shown = "\n  ".join([*(matches or paths)][:LISTED])
    raise StoreError(f"{text!r} means {len(matches) or 'no'} {what}{'s' * bool(matches)}; there are\n  {shown}")


def _equals(path: str, text: str) -> bool:
    return text in (path, path.partition("/")[2])


def _begins(path: str, text: str) -> bool:
    return path.startswith(text) or path.partition("/")[2].startswith(text)


def _has_digest(path: str, text: str) -> bool:
    return path.rpartition("-")[2].startswith(text)


def prepared_facts(store: Store, path: str) -> dict[str, Any]:
    """Read what a finished data stage says of its images: name, classes, shape (C, H, W), counts, fingerprint."""
    return _read_json(store.output(path, "data.json"), "missing")


def _read_json(file: Path, missing: str) -> dict[str, Any]:
    advice = f"remove the folder {file.parent} and run again"
    try:
        loaded = json.loads(file.read_text())
    except FileNotFoundError:
        raise StoreError(f"{file}: {missing}") from None
    except ValueError as error:
        raise StoreError(f"{file}: damaged ({error}); {advice}") from None
    if not isinstance(loaded, dict):
        raise StoreError(f"{file}: damaged (expected a JSON object, found {type(loaded).__name__}); {advice}")
    return loaded


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON for people, atomically: a reader sees the old file or the new one."""
    with replacing(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")
