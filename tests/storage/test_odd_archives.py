"""Archives that are cut short, damaged, hostile or of another kind: nothing half is taken over, and it is said why."""

import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime import runner
from ssrob.storage.bundle import ARCHIVES, write
from ssrob.storage.export import export_study
from ssrob.storage.importing import import_stages
from ssrob.storage.store import Store, StoreError
from tests.conftest import tiny_config

Finished = tuple[Plan, Store]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two finished data stages, made for real; no test writes into them."""
    folder = tmp_path_factory.mktemp("finished")
    more = {"name": "more", "source": "digits", "test_share": 0.5}
    arms = [{"variant": "at", "norm": "linf", "init": "ssl"}]
    plan = make_plan(parse_study(tiny_config(folder / "results", arms=arms, pretrain_data=more)))
    store = Store(plan.study.results)
    for stage in plan.of_kind("data").values():
        runner.run(stage, store, device="cpu")
    return plan, store


@pytest.fixture
def archive(finished: Finished, tmp_path: Path) -> Callable[[str], Path]:
    """Export the study under a name."""

    def export(name: str) -> Path:
        export_study(*finished, tmp_path / name)
        return tmp_path / name

    return export


def nothing_left(store: Store) -> bool:
    """Return whether a results folder has no finished stage, and nothing that was begun."""
    files = [file for file in store.root.rglob("*") if file.is_file()]
    return files == [] and not [*store.root.glob(".*")]


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tgz", "s.zip"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.95])
def test_an_archive_that_was_cut_short_is_refused(archive: Any, tmp_path: Path, name: str, share: float) -> None:
    file = archive(name)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    here = Store(tmp_path / "here")
    with pytest.raises(StoreError, match=f"{name}: not an archive that can be unpacked|no exported study"):
        import_stages(file, here)
    with pytest.raises(StoreError, match="no such folder or archive"):
        import_stages(tmp_path / "absent", here)
    assert nothing_left(here)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["s.tar.gz", "s.zip", "s.tar"])
def test_an_archive_with_other_bytes_in_the_middle_is_noticed(
    archive: Any, tmp_path: Path, name: str, seed: int
) -> None:
    file = archive(name)
    content, generator = bytearray(file.read_bytes()), random.Random(seed)
    for place in range(len(content) // 4, len(content), len(content) // 4):
        content[place : place + 64] = generator.randbytes(64)
    file.write_bytes(content)
    here = Store(tmp_path / "here")
    try:
        refused = import_stages(file, here).refused
    except StoreError:
        refused = {"all": ""}
    assert refused
    assert not [path for path in refused if here.done(path)]


def test_what_is_missing_of_a_tar_is_named(finished: Finished, archive: Any, tmp_path: Path) -> None:
    whole = archive("s.tar")
    with tarfile.open(whole) as opened:
        last = [member for member in opened.getmembers() if "/stages/data/" in member.name]
        second = next(member for member in last if last[0].name.rpartition("/")[0] not in member.name)
    whole.write_bytes(whole.read_bytes()[: second.offset])
    here = Store(tmp_path / "here")
    outcome = import_stages(whole, here)
    first, missing = finished[0].of_kind("data").values()
    assert (outcome.taken, list(outcome.refused)) == ([first.path], [missing.path])
    assert "cut short" in outcome.refused[missing.path]


def test_an_encrypted_zip_and_one_of_an_unknown_method_are_refused(archive: Any, tmp_path: Path) -> None:
    content = archive("s.zip").read_bytes()
    for offset, value in ((6, 1), (8, 99)):  # of a local header: flags, method
        changed = bytearray(content)
        for magic, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            place = changed.find(magic)
            while place >= 0:
                changed[place + shift + offset] = value
                place = changed.find(magic, place + 4)
        (tmp_path / "odd.zip").write_bytes(changed)
        with pytest.raises(StoreError, match=r"odd\.zip: not an archive that can be unpacked"):
            import_stages(tmp_path / "odd.zip", Store(tmp_path / "here"))
    assert nothing_left(Store(tmp_path / "here"))


@pytest.mark.parametrize("kind", ["link", "absolute link", "hard link", "device", "absolute", "up"])
def test_no_tar_writes_or_reads_outside(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    member = tarfile.TarInfo("s/stages/data/x/manifest.json")
    if "link" in kind:
        member.type = tarfile.LNKTYPE if kind == "hard link" else tarfile.SYMTYPE
        member.linkname = str(secret) if kind == "absolute link" else "../../../../../secret"
    elif kind == "device":
        member.type = tarfile.CHRTYPE
    else:
        member.name = str(tmp_path / "written") if kind == "absolute" else "../../../written"
    with tarfile.open(tmp_path / "odd.tar", "w") as opened:
        opened.addfile(tarfile.TarInfo("s/stages"), None)
        opened.addfile(member, io.BytesIO())
    with pytest.raises(StoreError):
        import_stages(tmp_path / "odd.tar", Store(tmp_path / "a" / "b" / "here"))
    assert secret.read_text() == "mine"
    assert not [*tmp_path.rglob("written")]


def test_no_zip_writes_or_reads_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as opened:
        opened.writestr("../../../written", "x")
        opened.writestr("/written", "x")
        link = zipfile.ZipInfo("s/stages/data/x/manifest.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, str(tmp_path / "secret"))
    outcome = import_stages(tmp_path / "odd.zip", Store(tmp_path / "a" / "b" / "here"))
    assert outcome.taken == []
    assert "damaged" in outcome.refused["data/x"]
    assert not [*tmp_path.rglob("written")]


def test_links_in_a_results_folder_are_followed(finished: Finished, tmp_path: Path) -> None:
    first, second = finished[0].of_kind("data").values()
    theirs = Store(tmp_path / "theirs")
    shutil.copytree(finished[1].root, theirs.root)
    shutil.move(theirs.folder(first.path), tmp_path / "other disk")
    theirs.folder(first.path).symlink_to(tmp_path / "other disk")
    (theirs.folder(second.path) / "data.json").unlink()
    os.mkfifo(theirs.folder(second.path) / "data.json")
    here = Store(tmp_path / "here")
    outcome = import_stages(theirs.root, here)
    assert outcome.taken == [first.path]
    assert outcome.refused == {second.path: "data.json is no file that can be read"}
    assert not here.folder(first.path).is_symlink()


def test_an_import_that_is_killed_leaves_nothing_half(finished: Finished, archive: Any, tmp_path: Path) -> None:
    file, here = archive("s.tar"), Store(tmp_path / "here")
    code = (
        "import os, signal, sys; from pathlib import Path; from ssrob.storage import importing; "
        "from ssrob.storage.store import Store; old = importing.os.replace; seen = []\n"
        "def replace(a, b):\n    seen.append(b)\n"
        "    len(seen) == 3 and os.kill(os.getpid(), signal.SIGKILL)\n    old(a, b)\n"
        "importing.os.replace = replace; importing.import_stages(Path(sys.argv[1]), Store(Path(sys.argv[2])))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file), str(here.root)], check=False)
    assert killed.returncode == -9
    assert [*here.root.glob(".import-*")], "it was in the middle of it"
    paths = [stage.path for stage in finished[0].of_kind("data").values()]
    assert not any(map(here.done, paths))
    assert import_stages(file, here).taken == paths
    assert [*here.root.glob(".*")] == []
    for path in paths:
        for name in here.manifest(path)["outputs"]:
            here.output(path, name)


@pytest.mark.parametrize("about", ["", "[]", "{", '{"stages": 3}', '{"work": []}', '"x"'])
def test_what_a_study_says_of_itself_may_be_damaged(finished: Finished, tmp_path: Path, about: str) -> None:
    shutil.copytree(finished[1].root, tmp_path / "theirs")
    (tmp_path / "theirs" / "export.json").write_text(about)
    with pytest.raises(StoreError, match=r"theirs: its export\.json is damaged; export the study again"):
        import_stages(tmp_path / "theirs", Store(tmp_path / "here"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 99}, "written by a newer version of ssrob"),
        ({"outputs": {"data.json": {"sha256": "0" * 64}}}, "not one of a stage"),
        ({"outputs": []}, "not one of a stage"),
        ({"made_from": {"data/x": 3}}, "not that of this folder"),
        ({"made_from": 3}, "not one of a stage"),
        ({"spec": None}, "its key does not belong to its spec"),
        ({"spec": {"name": "x"}}, "its key does not belong to its spec: edited, or of another version"),
    ],
)
def test_a_stage_of_another_version_is_refused_by_name(
    finished: Finished, tmp_path: Path, change: Any, why: str
) -> None:
    theirs = Store(tmp_path / "theirs")
    shutil.copytree(finished[1].root, theirs.root)
    first, second = (stage.path for stage in finished[0].of_kind("data").values())
    for name in ("manifest.json", "stage.json"):
        manifest = json.loads((theirs.folder(first) / name).read_text())
        (theirs.folder(first) / name).write_text(json.dumps(manifest | change))
    outcome = import_stages(theirs.root, Store(tmp_path / "here"))
    assert outcome.taken == [second]
    assert why in outcome.refused[first]


def test_provenance_that_is_none_is_refused(finished: Finished, tmp_path: Path) -> None:
    theirs, path = Store(tmp_path / "theirs"), next(iter(finished[0].of_kind("data").values())).path
    shutil.copytree(finished[1].root, theirs.root)
    (theirs.folder(path) / "provenance.json").write_text("[]")
    refused = import_stages(theirs.root, Store(tmp_path / "here")).refused
    assert refused[path] == "provenance.json: expected an object, found list"


@pytest.mark.parametrize("name", ["s.tar.xz", "s.gz", "s.7z", "s.tar.bz2"])
def test_no_folder_is_written_that_is_called_like_an_archive(finished: Finished, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=f"{name}: expected a folder or a name that ends in {', '.join(ARCHIVES)}"):
        export_study(*finished, tmp_path / name)
    with pytest.raises(StoreError, match="expected a folder or a name"):
        write({"a": "b"}, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_link_that_leads_nowhere_is_not_written_through(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "s.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="already exists"):
        export_study(*finished, tmp_path / "s.tar")
    assert not (tmp_path / "nowhere").exists()
