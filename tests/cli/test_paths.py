"""Home folders, variables and folders that cannot be written to, wherever a path is given."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from ssrob import cli
from ssrob.config.data import Data
from ssrob.config.fields import expand_uri
from ssrob.config.loader import load_study
from ssrob.config.study import Study
from ssrob.data.sources import open_source
from ssrob.data.types import DataError
from ssrob.storage.files import check_writable, user_cache
from tests.config.test_config import tiny_config
from typer.testing import CliRunner

FULL = "/proc/none"  # nobody can make a folder there, whoever runs the tests


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a space and an accent in its name, and an empty folder to work in."""
    (tmp_path / "Zoë M").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "Zoë M"))
    monkeypatch.setenv("LAB", str(tmp_path / "Zoë M"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "Zoë M"


@pytest.mark.parametrize("start", ["~", "$HOME", "${LAB}"])
def test_every_path_of_a_config_may_begin_at_home(home: Path, start: str) -> None:
    changes: dict[str, Any] = {
        "results": f"{start}/r",
        "tracking_uri": f"sqlite:///{start}/m.db",
        "data": {"name": "c", "source": "cifar10", "path": f"{start}/d"},
        "pretrain_data": {"name": "p", "source": "folder", "path": f"{start}/p", "label_column": None},
        "corrupt": {"frost": f"{start}/f", "table": "cifar"},
        "pretraining": {"mine": {"weights": f"{start}/w.pt"}},
    }
    Path("study.yaml").write_text(yaml.safe_dump(tiny_config(home, **changes)))
    study = load_study(Path("study.yaml"), [f"pretrain_data.path={start}/q"])
    assert study.data.path == home / "d"
    assert study.pretrain_data is not None
    assert study.pretrain_data.path == home / "q"
    assert (study.results, study.corrupt.frost) == (home / "r", home / "f")
    assert study.pretraining["mine"].weights == home / "w.pt"
    assert study.tracking_uri == f"sqlite:///{home}/m.db"


def test_no_path_of_a_config_or_command_is_left_out() -> None:
    schema = Study.model_json_schema()
    fields = {
        f"{name}.{field}"
        for name, model in ({"Study": schema} | schema["$defs"]).items()
        for field, row in model.get("properties", {}).items()
        if any(each.get("format") == "path" for each in (row, *row.get("anyOf", [])))
    }
    tried = {"Study.results", "Data.path", "CorruptionTest.frost", "CorruptionTest.official", "Pretraining.weights"}
    assert fields == tried
    callbacks = [
        command.callback for group in cli.app.registered_groups for command in group.typer_instance.registered_commands
    ]
    hints = {
        (each.__name__, name): hint
        for each in callbacks
        for name, hint in get_type_hints(each, None, None, True).items()
    }
    assert len(hints) > 50
    assert [
        place
        for place, hint in hints.items()
        if "Path" in str(hint) and "any_path" not in str(hint.__metadata__[0].parser)
    ] == []


@pytest.mark.parametrize("uri", ["http://u:p$w@host/~x", "postgresql://h/$db", "databricks", "databricks://~a"])
def test_addresses_that_are_no_files_stay(uri: str) -> None:
    assert expand_uri(uri) == uri


@pytest.mark.parametrize("uri", ["~/runs", "file:~/runs", "file://~/runs", "sqlite:///~/runs"])
def test_addresses_of_files_begin_at_home(uri: str, home: Path) -> None:
    assert expand_uri(uri) == uri.replace("~", str(home))


COMMANDS = [
    ("init {}/s.yaml", "s.yaml"),
    ("plan {}/study.yaml", None),
    ("study {}/study.yaml --set results=[]", None),
    ("explain data {}/study.yaml", None),
    ("explain data --results {}/r", None),
    ("export key --results {}/r", None),
    ("import {}/r --results {}/r2", None),
    ("publish {}/study.yaml --to {}/page", None),
    ("compare {}/a {}/b", None),
]


@pytest.mark.parametrize(("command", "made"), COMMANDS)
def test_every_path_of_the_command_line_may_begin_at_home(command: str, made: str | None, home: Path) -> None:
    (home / "study.yaml").write_text(yaml.safe_dump(tiny_config(home, results="~/r")))
    arguments = command.replace("{}", "~").split(" ")
    found = CliRunner().invoke(cli.app, arguments)
    assert not Path("~").exists()
    assert list(Path.cwd().iterdir()) == []
    if made:
        assert found.exit_code == 0, found.output
        assert (home / made).is_file()
    else:
        assert "~" not in f"{found.output} {found.exception}", found.output


@pytest.mark.parametrize(
    "command",
    [
        "init FULL/s.yaml",
        "evaluate --model x:y --data digits --eps 1/255 --out FULL/out",
        "evaluate --model x:y --data digits --eps 1/255 --json FULL/found.json",
        "import . --results FULL/r",
    ],
)
def test_where_nothing_can_be_written_is_said_before_work_starts(command: str, tmp_path: Path) -> None:
    arguments = [part.replace("FULL", str(readonly(tmp_path))) for part in command.split(" ")]
    found = subprocess.run(
        [sys.executable, "-m", "ssrob", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1, found.stderr
    assert "cannot be written to; name" in found.stderr or "expected a folder, found the file" in found.stderr


def readonly(folder: Path) -> Path:
    """Return a place where no folder can be made, for root either: a file."""
    (folder / "full").touch()
    return folder / "full"


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda where, _: Path(where) != tmp_path)
    with pytest.raises(ValueError, match=rf"^--out: {tmp_path} cannot be written to; name another$"):
        check_writable(tmp_path / "a" / "b", "--out", "name another")
    (tmp_path / "a").mkdir()
    check_writable(tmp_path / "a" / "b", "--out", "name another")


def test_downloads_go_to_a_folder_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache("x") == tmp_path / "cache" / "x"
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    instead = tmp_path / f"ssrob-cache-{os.getuid()}" / "x"
    for where in (FULL, str(readonly(tmp_path))):
        monkeypatch.setenv("XDG_CACHE_HOME", where)
        assert user_cache("x") == instead
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", FULL)
    assert user_cache("x") == instead
    assert instead.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_in_a_cache_that_is_read_only_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "ssrob").mkdir()
    (tmp_path / "ssrob" / "cifar").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert user_cache("ssrob", filled=True) == tmp_path / "ssrob"
    assert user_cache("ssrob") != tmp_path / "ssrob"


def test_without_a_home_and_a_network_the_message_says_where_to_put_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", FULL)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=f"CIFAR10 is not in {tmp_path}.* cannot be downloaded .* set path to a folder"):
        open_source(Data(name="c", source="cifar10"))
