"""Taking over finished stages from another results folder. Nothing is believed: keys and checksums are verified."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssrob.config.fields import ConfigError
from ssrob.planning.stage import Stage
from ssrob.storage import bundle
from ssrob.storage.bundle import UNPACKED
from ssrob.storage.export import ABOUT, IMAGES, WEIGHTS, kept
from ssrob.storage.files import check_writable
from ssrob.storage.lock import claimed, only_process
from ssrob.storage.store import MANIFEST, Store, StoreError, prepared_facts, sha256, write_json

WAITING = ".import-"  # beginning of the folder in which stages wait until they are verified
BESIDE = ("provenance.json", "log.txt")  # of a stage, without a checksum: no result is read from them


class Refused(ValueError):
    """One stage cannot be taken over; the others still can."""


@dataclass
class Outcome:
    """What became of each stage, by path."""

    taken: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    work: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # path -> why
    bare: list[str] = field(default_factory=list)  # taken without their weights

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} stages taken over, {len(self.there)} were here already"]
        lines += [f"{len(self.work)} unfinished stages can go on here"] if self.work else []
        lines += [f"{len(self.bare)} of them came without weights: no new test of these models"] if self.bare else []
        lines += [f"NOT taken over: {path}: {why}" for path, why in self.refused.items()]
        return "\n".join(lines)


def import_stages(source: Path, store: Store, *, work: bool = False) -> Outcome:
    """Copy the finished stages of a results folder, or of an exported study, that are not here; stages here stay.

    A stage is refused, by name, if a file in it does not have its checksum, if its key does not belong to its spec, if
    a stage of that key here has other content, or if one that it reads was refused.
    work: take over what unfinished stages need to go on, too, where it is newer than what is here.
    """
    check_writable(store.root, "--results", "name another results folder")
    store.root.mkdir(parents=True, exist_ok=True)
    with only_process(store.root, _busy):
        for left in (*store.root.glob(f"{UNPACKED}*"), *store.root.glob(f"{WAITING}*")):  # of an import that was killed
            shutil.rmtree(left, ignore_errors=True)
        with (
            bundle.opened(source, store.root) as folder,
            tempfile.TemporaryDirectory(prefix=WAITING, dir=store.root) as waiting,
        ):
            root = _root(folder, source)
            return _Import(Store(root), store, _about(root, source), Path(waiting)).run(work=work)


class _Import:
    """One pass over another results folder. Kept together because every step reads the same two stores."""

    def __init__(self, other: Store, here: Store, about: dict[str, Any], waiting: Path):
        self.other, self.here, self.about, self.waiting = other, here, about, waiting
        self.outcome = Outcome()

    def run(self, *, work: bool) -> Outcome:
        for path in self.other.paths("stages"):
            if self.other.done(path):
                self._each(path, self._stage)
        if work:
            for path in self.other.paths("work"):
                if not (self.here.done(path) or self.other.done(path)):
                    self._each(path, self._work)
        for path in self.about.get("stages", []):
            if not self.other.done(path):
                self.outcome.refused[path] = "it was exported, and is not there: was the archive cut short?"
        return self.outcome

    def _each(self, path: str, take: Callable[[str], None]) -> None:
        try:
            if self.other.done(path) and self.here.done(path):
                take(path)
                return
            with claimed(self.here.work(path), _refuse):
                try:
                    take(path)
                finally:
                    if not kept(self.here.work(path)):
                        shutil.rmtree(self.here.work(path), ignore_errors=True)
        except (ValueError, StoreError) as error:
            self.outcome.refused[path] = str(error)

    def _stage(self, path: str) -> None:
        manifest = self.other.manifest(path)
        stage = _checked(path, manifest)
        self._check_parents(stage)
        if self.here.done(path):
            self._compare(path, manifest["outputs"])
            self.outcome.there.append(path)
            return
        left_out = self._verified_copy(path, manifest["outputs"])
        ready, folder = self.waiting / path, self.here.folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(ready / "spec.json", stage.spec)
        write_json(ready / MANIFEST, manifest)
        for file in sorted(ready.iterdir(), key=lambda file: file.name == MANIFEST):  # that one means "done"
            os.replace(file, folder / file.name)
        self.here.renew(path)
        self.outcome.taken.append(path)
        self.outcome.bare += [path] if any(name.endswith(WEIGHTS) for name in left_out) else []

    def _check_parents(self, stage: Stage) -> None:
        for parent in stage.parents.values():
            if parent in self.outcome.refused:
                raise Refused(f"it reads {parent}, which was not taken over")
            known = self.about.get("fingerprints", {}).get(parent)
            if known and self.here.done(parent) and prepared_facts(self.here, parent)["fingerprint"] != known:
                raise Refused(f"it was made from other data than {parent} here")

    def _compare(self, path: str, theirs: dict[str, Any]) -> None:
        """Refuse other content under the same key. The sample images are a zip, which has the time in it."""
        ours = self.here.manifest(path)["outputs"]
        names = sorted(name for name in ours.keys() | theirs.keys() if not name.endswith(".npz"))
        if other := [name for name in names if ours.get(name, {}).get("sha256") != theirs.get(name, {}).get("sha256")]:
            raise Refused(f"a stage of this key is here with other content ({', '.join(other)}); it stays")

    def _verified_copy(self, path: str, outputs: dict[str, Any]) -> list[str]:
        """Copy a stage's files to the waiting place, checking the copies; return what had been left out on purpose."""
        ready, theirs = self.waiting / path, self.other.folder(path)
        ready.mkdir(parents=True)
        left_out = []
        for name, row in outputs.items():
            if f"{path}/{name}" in self.about.get("left_out", []) and name.endswith((WEIGHTS, IMAGES)):
                left_out.append(name)
            else:
                _copy(theirs / name, ready / name, row["sha256"])
        for name in BESIDE:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(theirs / name, ready / name)
        try:
            facts = json.loads((ready / "provenance.json").read_text())
        except (OSError, ValueError) as error:
            raise Refused(f"provenance.json cannot be read ({error})") from None
        if not isinstance(facts, dict):
            raise Refused(f"provenance.json: expected an object, found {type(facts).__name__}")
        return left_out

    def _work(self, path: str) -> None:
        """Take over a work folder whose last file is newer; checkpoints have checksums of their own as well."""
        theirs, ours = self.other.work(path), self.here.work(path)
        entry = self.about.get("work", {}).get(path, {})
        sums: dict[str, str] = entry.get("files", {})
        names = sums or dict.fromkeys(kept(theirs))
        if not names or (ours.is_dir() and _newest(ours) >= entry.get("newest", _newest(theirs))):
            return
        ready = self.waiting / "work" / path
        for name, checksum in names.items():
            if not (ready / name).resolve().is_relative_to(ready.resolve()):
                raise Refused(f"{name!r} lies outside its folder")
            (ready / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(theirs / name, ready / name, checksum)
        for file in kept(ours).values():
            file.unlink()
        for name in names:
            (ours / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(ready / name, ours / name)
        self.outcome.work.append(path)


def _refuse(message: str) -> None:
    raise Refused(f"it {message.partition(',')[0].partition(';')[0]}")


def _busy() -> None:
    print("another import into this results folder is going on; waiting until it is done", file=sys.stderr)


def _about(root: Path, source: Path) -> dict[str, Any]:
    """Read what an exported study says of itself; empty for a results folder."""
    if not (root / ABOUT).is_file():
        return {}
    try:
        about = json.loads((root / ABOUT).read_text())
        shapes = {"stages": list, "left_out": list, "fingerprints": dict, "work": dict}
        if all(isinstance(about.get(name, shape()), shape) for name, shape in shapes.items()):
            return dict(about)
    except (ValueError, AttributeError):
        pass
    raise StoreError(f"{source}: its {ABOUT} is damaged; export the study again")


def _root(folder: Path, source: Path) -> Path:
    """Find the results folder in a bundle: the folder itself, or the only one in it."""
    for root in (folder, *sorted(each for each in folder.iterdir() if each.is_dir())):
        if (root / "stages").is_dir() or (root / ABOUT).is_file():
            return root
    raise StoreError(f"{source}: no results folder and no exported study (it has no stages/); `ssrob export` makes one")


def _checked(path: str, manifest: dict[str, Any]) -> Stage:
    """Return the stage of a manifest whose names, key and spec belong together."""
    try:
        stored = {name: manifest[name] for name in ("kind", "key", "spec", "parents", "settings")}
        stage = Stage.from_json(json.dumps(stored))
        named = [name not in ("", ".", "..") and Path(name).name == name for name in manifest["outputs"]]
        sums = [len(row["sha256"]) == 64 and row["bytes"] >= 0 for row in manifest["outputs"].values()]
        sums += [isinstance(row, dict) for row in manifest.get("made_from", {}).values()]
    except ConfigError:
        raise Refused("its key does not belong to its spec: edited, or of another version of ssrob") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"its manifest is not one of a stage ({error!r})") from None
    if stage.path != path or not all([*named, *sums]):
        raise Refused("its manifest is not that of this folder")
    return stage


def _copy(file: Path, to: Path, checksum: str | None) -> None:
    if not file.exists():
        raise Refused(f"{file.name} is missing")
    if not file.is_file() or not os.access(file, os.R_OK):
        raise Refused(f"{file.name} is no file that can be read")
    shutil.copy2(file, to)
    if checksum is not None and sha256(to) != checksum:
        raise Refused(f"{file.name} does not have its checksum: truncated or altered")


def _newest(work: Path) -> float:
    return max((file.stat().st_mtime for file in kept(work).values()), default=0.0)
