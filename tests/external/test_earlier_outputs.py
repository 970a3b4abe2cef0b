"""A second call into the same folder says what is true of it now, whatever the first one left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from ssrob.external import run
from ssrob.external.page import write_page
from ssrob.external.run import Evaluation, Request, evaluate
from tests.external.test_external import ask
from tests.image_files import encoded, folder_data, pixels

CODE = """
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self, level=0.5):
        super().__init__()
        self.slope, self.level = nn.Parameter(torch.tensor(3.0)), level

    def forward(self, x):
        level = self.slope * (x.mean((1, 2, 3)) - self.level)
        return torch.stack([-level, level], 1)
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """An evaluation of dark and bright images by a model that can tell them apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bright_model.py").write_text(CODE)
    folder_data(tmp_path / "photos", {"test/0": 6, "test/1": 6})
    for label in (0, 1):
        for i, image in enumerate(pixels(6, label)):
            (tmp_path / f"photos/test/{label}/{i:03}.png").write_bytes(encoded(image // 2 + np.uint8(127 * label)))
    return ask(model="bright_model:Bright", data="photos", preprocess="none", images=None, eps=(0.05,))


def call(request: Request, out: Path, **changes: Any) -> Evaluation:
    return evaluate(Request(**{**vars(request), **changes}), out, lambda _: None)


def test_images_that_were_overwritten_are_tested_as_they_are(photos: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(photos, out).curve["accuracy"][0] == 1
    for i in range(3):
        (tmp_path / f"photos/test/0/{i:03}.png").write_bytes(encoded(np.full((8, 8, 3), 255, np.uint8)))
    for i in range(4):
        (tmp_path / f"photos/test/1/new{i}.png").write_bytes(encoded(np.full((8, 8, 3), 255, np.uint8)))
    again = call(photos, out)
    assert (again.curve["accuracy"][0], again.facts["n"]) == (13 / 16, 16)
    assert again.curve.equals(call(photos, tmp_path / "fresh").curve)


def test_outputs_of_an_earlier_call_do_not_stay_beside_the_new_ones(photos: Request, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_page(call(photos, out, corruptions=True), out)
    (out / "notes.txt").write_text("mine")
    (out / "blocks").mkdir()
    (out / "blocks/mine").write_text("mine")
    call(photos, out)
    left = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file() and "data/" not in str(file)}
    assert left == {"robustness.parquet", "checks.parquet", "evaluation.json", "notes.txt", "blocks/mine"}


CHANGES: dict[str, Any] = {
    "weights": lambda folder: {"weights": _weights(folder)},
    "code": lambda folder: _code(folder, CODE.replace("3, self.level)", "3, 0.1)").replace("1)\n", "1) * 0.5\n")),
    "arguments": lambda _: {"arguments": {"level": 0.4}},
    "eps": lambda _: {"eps": (0.1,)},
    "preset": lambda _: {"preset": "standard"},
    "seed": lambda _: {"seed": 1},
    "images": lambda _: {"images": 6},
    "preprocessing": lambda _: {"preprocess": "0.1,0.1,0.1;1,1,1"},
}


def _weights(folder: Path) -> Path:
    save_file({"slope": torch.tensor(2.0)}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _code(folder: Path, code: str) -> dict[str, Any]:
    (folder / "other_model.py").write_text(code)
    return {"model": "other_model:Bright"}


@pytest.mark.parametrize("name", CHANGES)
def test_blocks_of_a_killed_call_serve_the_same_model_and_settings_alone(
    name: str, photos: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as killed:
        killed.setattr(run, "check_rows", lambda *_, **__: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            call(photos, out)
    changes = CHANGES[name](tmp_path)
    expected, found = call(photos, tmp_path / "fresh", **changes), call(photos, out, **changes)
    assert found.curve.equals(expected.curve)
    names = ("robustness.parquet", "checks.parquet")
    assert all((out / n).read_bytes() == (tmp_path / "fresh" / n).read_bytes() for n in names)
