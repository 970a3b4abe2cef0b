"""Classes of a subset, images without an answer, and odd models, from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ssrob import cli
from ssrob.external.class_names import outputs_of
from ssrob.external.run import Request, evaluate
from tests.external.test_external import ask
from tests.image_files import encoded
from torch import Tensor, nn
from typer.testing import CliRunner

NAMES = ["zero", "great_white", "two", "n03 robin", "four", "five"]  # of the outputs
SUBSET = {"robin": 3, "Great White": 1, "five": 5}  # folder -> output
LEVELS = {"robin": 3, "Great White": 1, "five": 0}  # what the images look like: those of "five" like output 0


class Levels(nn.Module):
    """Six classes by the brightness of images: output k where it is near (k + 0.5) / 6."""

    def __init__(self, nan_above: float = 2.0) -> None:
        super().__init__()
        self.slope, self.nan_above = nn.Parameter(torch.tensor(60.0)), nan_above
        self.class_names = ["zero", "great white", "two", "robin", "four", "five"]

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3))[:, None]
        logits = -self.slope * (level - (torch.arange(6) + 0.5) / 6).abs()
        return torch.where(level > self.nan_above, torch.nan, logits)


@pytest.fixture
def request_of(tmp_path: Path) -> Any:
    """Ask for an evaluation of six images of each class of the subset."""
    for name, output in LEVELS.items():
        (tmp_path / "photos/test" / name).mkdir(parents=True)
        for i in range(6):
            level = int(255 * (output + 0.5) / 6) + i
            image = np.full((8, 8, 3), level, np.uint8)
            (tmp_path / f"photos/test/{name}/{i}.png").write_bytes(encoded(image))
    found = {"model": f"{__name__}:Levels", "data": str(tmp_path / "photos"), "preprocess": "none", "images": None}
    return lambda **changes: ask(**found | {"eps": (0.01,)} | changes)


def run(request: Request, out: Path) -> tuple[float, str]:
    said: list[str] = []
    found = evaluate(request, out, said.append)
    return float(found.curve["accuracy"][0]), "\n".join(said)


FORMS = {
    "list": lambda _: "zero, Great White, two, robin, four, five",
    "brackets": lambda _: json.dumps(["zero", "Great White", "two", "robin", "four", "five"]),
    "mapping": lambda _: json.dumps(SUBSET),
    "model": lambda _: "model",
    "text": lambda path: _file(path / "names.txt", "\n".join(["zero", "Great-White", "two", "robin", "four", "five"])),
    "table": lambda path: _file(path / "names.csv", "robin,3\nGreat White,1\nfive,5\n"),
    "json": lambda path: _file(path / "index.json", json.dumps({str(i): [f"n{i}", n] for i, n in enumerate(NAMES)})),
}


def _file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("form", ["list", "brackets", "mapping", "model", "text", "table"])
def test_accuracy_over_the_allowed_outputs_and_over_all(request_of: Any, tmp_path: Path, form: str) -> None:
    """Images of "five" look like output 0, and of the allowed outputs like 1: wrong either way; others are right."""
    classes = FORMS[form](tmp_path)
    accuracy, said = run(request_of(classes=classes), tmp_path / "allowed")
    assert accuracy == 2 / 3
    assert "accuracy is over the 3 outputs of the data's classes, of 6" in said
    accuracy, said = run(request_of(classes=classes, over="all"), tmp_path / "all")
    assert accuracy == 2 / 3
    assert "accuracy is over all 6 outputs" in said


def test_the_allowed_outputs_can_only_help(request_of: Any, tmp_path: Path) -> None:
    """Images that look like output 0 count as right where output 0 is not allowed and 1 is theirs."""
    classes = json.dumps({"robin": 3, "Great White": 5, "five": 1})
    assert run(request_of(classes=classes), tmp_path / "allowed")[0] == 2 / 3
    assert run(request_of(classes=classes, over="all"), tmp_path / "all")[0] == 1 / 3


BAD = [
    ("numbers", "expected classes that are called by numbers, found 'Great White'"),
    ("a,b", r"3 of 3 classes are not among its names, such as 'Great White'; it has 2, such as 'a', 'b'"),
    ('{"robin": 3, "Great White": 1, "five": 6}', r"outputs must be 0..5 \(the model's\), found 6"),
    ('{"robin": 3, "Great White": 3, "five": 5}', "output 3 stands for 'Great White' and 'robin'"),
    ('["robin", "robin", "Great White", "five"]', r"'robin' names several outputs, \[0, 1\]"),
    ("[robin", "cannot be read as JSON or YAML"),
    ("nowhere.txt", "expected model, numbers, a file or names separated by commas, found 'nowhere.txt'"),
    ('{"robin": "x"}', "expected the number of an output for 'robin', found 'x'"),
]


@pytest.mark.parametrize(("classes", "message"), BAD)
def test_names_that_leave_a_class_open_are_refused(request_of: Any, tmp_path: Path, classes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        run(request_of(classes=classes), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_files_of_several_names_an_output(tmp_path: Path) -> None:
    path = _file(tmp_path / "index.json", json.dumps({"0": ["n0", "ant"], "1": ["n1", "bee"], "2": ["n2", "bee"]}))
    assert outputs_of(path, ["n2", "ant"], nn.Identity(), 3) == (2, 0)
    with pytest.raises(ValueError, match=r"'bee' names several outputs, \[1, 2\]"):
        outputs_of(path, ["bee"], nn.Identity(), 3)
    synsets = _file(tmp_path / "synsets.txt", "n0 ant, emmet\nn1 bee\n")
    assert outputs_of(synsets, ["n1", "n0"], nn.Identity(), 2) == (1, 0)
    assert outputs_of("numbers", ["10", "2"], nn.Identity(), 11) == (10, 2)


def test_images_without_an_answer_are_counted_and_left_out_if_asked(request_of: Any, tmp_path: Path) -> None:
    request = request_of(classes=json.dumps(SUBSET), arguments={"nan_above": 0.585})
    with pytest.raises(ValueError, match=r"returns NaN for 4 of 18 images \(rows 14, 15, 16, 17\); --skip-nan"):
        run(request, tmp_path / "out")
    skipping = Request(**{**vars(request), "skip_nan": True, "eps": (0.0005, 0.1)})
    found = evaluate(skipping, tmp_path / "out", lambda _: None)
    assert found.facts["n"] == 14
    assert found.curve["accuracy"][0] == pytest.approx(8 / 14)
    assert found.curve["accuracy"].tolist()[1:] == pytest.approx([8 / 14, 6 / 14])  # two become NaN: wrong
    assert any("left out: the model returns NaN for 4 of 18 images (rows 14, 15, 16, 17)" in w for w in found.warnings)


class Quantised(nn.Module):
    """A model without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = Levels()

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"logits": self.levels(x).detach()}


def test_the_command_line_says_what_it_skips(request_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    arguments = ["evaluate", "--model", f"{__name__}:Quantised", "--data", "$HERE/photos", "--eps", "0.01,0.1"]
    arguments += ["--classes", json.dumps(SUBSET), "--preset", "fast", "--out", "$HERE/out", "--images", "6"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert "warning: no gradient reaches the images" in done.output
    assert "the model returns a dict" in done.output
    about = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert about["facts"]["attacks"] == ["square1000-margin"]
    assert about["facts"]["gradients"] == 0
    assert "zero_gradient" in about["failed_checks"]
