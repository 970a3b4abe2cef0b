"""The example notebook runs, from its first cell to its last, and shows what is stored in it."""

import importlib.util
from types import ModuleType
from typing import Any

import nbformat
import pytest
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    found = importlib.util.spec_from_file_location("make_examples", ROOT / "examples/make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_shows_what_is_stored_in_it(make: ModuleType, path: Any) -> None:
    stored = nbformat.read(path, as_version=4)
    assert make.shown(make.executed(path)) == make.shown(stored)
    assert nbformat.validate(stored) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_shows_a_curve_corrupted_images_and_a_table(path: Any) -> None:
    """What a reader sees of it without running it; and nothing of the machine that ran it."""
    outputs = [each for cell in nbformat.read(path, as_version=4).cells for each in cell.get("outputs", [])]
    kinds = {kind for each in outputs for kind in each.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert not any(each.get("name") == "stderr" or each.output_type == "error" for each in outputs)
    text = path.read_text()
    assert all(mark not in text for mark in ("/home/", "/root/", "/tmp/", "site-packages", "Warning"))


def test_other_code_is_noticed(make: ModuleType) -> None:
    """Numbers may differ by a processor's last bits, words may not."""

    def notebook(text: str) -> Any:
        cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=text)])
        return nbformat.v4.new_notebook(cells=[cell])

    assert make.shown(notebook("accuracy 67.0 %")) == make.shown(notebook("accuracy  66.3 %"))
    assert make.shown(notebook("accuracy 67.0 %")) != make.shown(notebook("robust accuracy 67.0 %"))
