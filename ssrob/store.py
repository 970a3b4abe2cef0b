"""The results folder: where stages put things, and what makes one finished.

    results/stages/<kind>/<key>/   outputs, spec and log of a stage; `stage.json` is written last and means "done"
    results/work/<kind>/<key>/     what an unfinished stage needs to go on: checkpoint, records
    results/studies/<study>/<digest>/   tables, figures and report of a study

Imports no torch.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssrob.plan import Stage


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

    def done(self, path: str) -> bool:
        """Return whether a stage is finished."""
        return (self.folder(path) / "stage.json").is_file()

    def manifest(self, path: str) -> dict[str, Any]:
        """Read a finished stage's manifest: kind, key, spec, parents, settings and outputs with their checksums."""
        file = self.folder(path) / "stage.json"
        try:
            manifest: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            raise StoreError(f"{file}: stage {path} is not finished; run the workflow first") from None
        except ValueError as error:
            raise StoreError(f"{file}: damaged ({error}); remove the folder {file.parent} and run again") from None
        return manifest

    def provenance(self, path: str) -> dict[str, Any]:
        """Read what a finished stage ran on: commit, versions, device, start, seconds, memory."""
        loaded: dict[str, Any] = json.loads((self.folder(path) / "provenance.json").read_text())
        return loaded

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
        """Move a stage's outputs from `produced` into its folder and declare it finished."""
        folder = self.folder(stage.path)
        folder.mkdir(parents=True, exist_ok=True)
        outputs = {}
        for file in sorted(produced.iterdir()):
            outputs[file.name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
            shutil.move(file, folder / file.name)
        write_json(folder / "spec.json", stage.spec)
        write_json(folder / "provenance.json", provenance)
        write_json(folder / "stage.json", asdict(stage) | {"outputs": outputs})
        shutil.rmtree(self.work(stage.path), ignore_errors=True)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON for people, atomically: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
