"""The ``ssrob`` command: its help, its version, and mistakes that end before any work."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ssrob import __version__, cli
from tests.conftest import ROOT, tiny_config
from typer.main import get_command
from typer.testing import CliRunner


def test_the_help_lists_every_command_uncut() -> None:
    output = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "80"}).output
    assert "How does visual self-supervision" in output
    listed = [line.split()[0] for line in output.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert listed[:3] == ["init", "study", "plan"]
    assert {"plan", "portion", "evaluate", "run"} < set(listed)
    assert "..." not in output.partition("Commands:")[2]


def test_version() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"ssrob {__version__}\n"


@pytest.mark.parametrize("command", ["portion", "run", "evaluate"])
def test_a_device_that_is_none_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tiny_config(tmp_path / "results")))
    arguments = {
        "portion": [str(tmp_path / "study.yaml"), "--budget", "1s"],
        "run": ["--stage", "{}", "--results", str(tmp_path / "results")],
        "evaluate": ["--model", "a:b", "--data", "digits", "--eps", "0.1"],
    }[command]
    found = CliRunner().invoke(cli.app, [command, *arguments, "--device", "foo"])
    assert str(found.exception) == "device: expected auto, cpu, cuda or cuda:N, found 'foo'"
    assert not (tmp_path / "results").exists()


def test_portions_name_the_file_in_their_messages(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path, arms=[{"variant": "att"}])))
    found = [
        str(CliRunner().invoke(cli.app, [command, str(path), *more]).exception)
        for command, more in (("portion", ["--budget", "1s"]), ("ls", []))
    ]
    assert found[0] == found[1]
    assert found[0].startswith(f"{path}: ")


def test_reading_a_command_line_loads_no_torch() -> None:
    code = "import sys, ssrob.cli; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == ["False", "False"]
