"""Evaluating somebody else's model: the command of the guide, its warnings, and what is refused."""

import json
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from ssrob import cli
from ssrob.corruptions import BENCHMARK, NAMES
from ssrob.external import run
from ssrob.external.assumptions import near_chance
from ssrob.external.entry import summary
from ssrob.external.model import Normalised, load_model, preprocessed
from ssrob.external.page import write_page
from ssrob.external.run import Request, evaluate, parse_request
from ssrob.external.screen import as_text
from ssrob.runtime import checkpoint
from ssrob.stages.corrupt import Corrupted
from ssrob.storage.tables import CHECKED, EXAMPLES, read_table
from tests.conftest import ROOT
from tests.image_files import encoded, folder_data, pixels
from tests.workflow.test_docs import examples
from torch import Tensor, nn
from typer.testing import CliRunner

GUIDE = examples("docs/evaluate.md")
MEAN, STD = 0.3, 0.4


class Digits(nn.Module):
    """A linear classifier of digits that expects normalised images, as most published models do."""

    def __init__(self, trained: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        if trained:
            data = load_digits()
            fitted = LogisticRegression(C=0.01, max_iter=200).fit((data.data / 16 - MEAN) / STD, data.target)
            with torch.no_grad():
                self.linear.weight.copy_(torch.from_numpy(fitted.coef_))
                self.linear.bias.copy_(torch.from_numpy(fitted.intercept_))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the guide's module; the working folder is where the command looks for it."""
    (tmp_path / "small_models.py").write_text(GUIDE["file small_models.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "small_models", raising=False)
    return tmp_path


def ask(**changes: Any) -> Request:
    """Ask for a quick evaluation of the model above."""
    settings: dict[str, Any] = {"data": "digits", "eps": (0.02, 0.1), "preset": "fast", "images": 40}
    return Request(**{"model": f"{__name__}:Digits", "preprocess": f"{MEAN};{STD}", **settings, **changes})


def test_the_command_of_the_guide(modules: Path) -> None:
    arguments = shlex.split(GUIDE["command"].replace("\\\n", " "))
    assert arguments.pop(0) == "ssrob"
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert "normalised by mean;std 0.3;0.4 before the model" in done.output
    assert "digits has no test split" in done.output
    assert "warning: clean accuracy is" in done.output  # random weights
    out = modules / "digits"
    table = read_table(out / "robustness.parquet")
    assert list(table) == list(EXAMPLES)
    assert len(table) == 20
    assert list(read_table(out / "checks.parquet")) == list(CHECKED)
    entry = json.loads((out / "entry.json").read_text())
    assert (entry["eps"], entry["dataset"], entry["norm"]) == (8 / 255, "digits", "Linf")
    assert entry["clean_acc"] == 100 * table["clean_correct"].mean()
    assert entry["reported"] == pytest.approx(100 * (table["distance"] > 8 / 255).mean())
    assert "autoattack_acc" not in entry
    page = (out / "report.html").read_text()
    assert "near the 10.0% of guessing" in page
    assert 'src="data:image/svg+xml' in page
    assert not (out / "blocks").exists()


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: pip install timm")
def test_the_timm_model_of_the_guide(modules: Path) -> None:
    arguments = shlex.split(GUIDE["timm"].replace("\\\n", " "))[1:]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert len(read_table(modules / "digits-vit/robustness.parquet")) == 20
    assert json.loads((modules / "digits-vit/evaluation.json").read_text())["architecture"] == "VisionTransformer"


def test_the_guide_from_python(modules: Path) -> None:
    names: dict[str, Any] = {}
    exec(GUIDE["python"], names)
    assert names["found"].curve["eps"].tolist() == [0, 2 / 255, 8 / 255]
    assert names["page"].is_file()


def test_a_trained_model_is_measured_and_a_wrong_preprocessing_is_noticed(tmp_path: Path) -> None:
    said: list[str] = []
    found = evaluate(ask(corruptions=True), tmp_path, said.append)
    clean, *robust = found.curve["accuracy"]
    assert clean > 0.9
    assert sorted(robust, reverse=True) == robust
    assert (found.curve["low"] <= found.curve["accuracy"]).all()
    assert not found.warnings
    assert not any(line.startswith("warning") for line in said)
    assert found.corruptions is not None
    assert set(found.corruptions["corruption"]) == set(NAMES)
    assert tuple(found.corruptions["corruption"][:15]) == tuple(BENCHMARK)
    assert found.facts["corruptions"] == {"images": "made here", "severities": "cifar", "frost": "procedural texture"}
    accuracies = found.corruptions[[1, 2, 3, 4, 5]].to_numpy()
    assert summary(found)["corruptions_acc"] == pytest.approx(100 * accuracies[:15].mean(), abs=0.01)
    assert summary(found)["corruptions_acc_all"] == pytest.approx(100 * accuracies.mean(), abs=0.01)
    assert " over 15, " in as_text(found)
    assert " over all 19, " in as_text(found)
    assert "severity table:" in write_page(found, tmp_path).read_text()


def test_an_evaluation_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the sweep, the first thing that can be seen from outside; the second call attacks nothing again."""
    request, saved, save = ask(batch_size=8), [], checkpoint.save
    whole = evaluate(request, tmp_path / "whole", lambda _: None)
    monkeypatch.setattr(checkpoint, "save", lambda state, file: (saved.append(file), save(state, file)))
    with monkeypatch.context() as killed:
        killed.setattr(run, "check_rows", lambda *_, **__: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            evaluate(request, tmp_path / "killed", lambda _: None)
    assert len(saved) == 3  # blocks of two batches: 40 images
    again = evaluate(request, tmp_path / "killed", lambda _: None)
    assert len(saved) == 3
    assert again.curve.equals(whole.curve)
    names = ("robustness.parquet", "checks.parquet")
    assert all((tmp_path / "killed" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_a_model_that_gets_images_of_another_kind_is_noticed(tmp_path: Path) -> None:
    found = evaluate(ask(preprocess="-20;0.4", images=200), tmp_path, lambda _: None)  # like images in 0..255 and more
    assert any("near the 10.0% of guessing" in text for text in found.warnings)


def test_imagenets_normalisation_is_tried_when_it_was_not_asked_for(tmp_path: Path) -> None:
    """A model of colour images whose classes are dark and light, distinguishable only after normalisation."""
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i, image in enumerate(pixels(20, label)):
                (folder / f"{i}.png").write_bytes(encoded(image // 2 + np.uint8(127 * label)))
    request = ask(model=f"{__name__}:Light", data=str(tmp_path / "photos"), preprocess="none", images=None)
    found = evaluate(request, tmp_path / "none", lambda _: None)
    assert "clean accuracy is 50.0%, but 100.0% with --preprocess imagenet" in found.warnings
    found = evaluate(ask(**vars(request) | {"preprocess": "imagenet"}), tmp_path / "imagenet", lambda _: None)
    assert found.warnings == ["the model has 3 outputs, the data 2 classes"]
    with pytest.raises(ValueError, match=r"--model: has 3 outputs, digits has 10 classes"):
        evaluate(ask(**vars(request) | {"data": "digits"}), tmp_path / "few", lambda _: None)


class Light(nn.Module):
    """Class 1 where the normalised image is above 0 on average."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.slope, self.outputs = nn.Parameter(torch.tensor(5.0)), outputs

    def forward(self, x: Tensor) -> Tensor:
        level = self.slope * x.mean((1, 2, 3))
        return torch.stack([-level, level, torch.full_like(level, -1e3)], 1)[:, : self.outputs]


def test_weights_are_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    state, file = Digits().state_dict(), tmp_path / "weights.safetensors"
    save_file({f"module.{name}": value for name, value in state.items()}, file)
    where = f"{__name__}:Digits"
    model, notes = load_model(where, file, {"trained": False})
    assert notes == ["weights: 2 tensors of the file are the model's"]
    assert not model.training
    assert torch.equal(model.state_dict()["linear.weight"], state["linear.weight"])
    save_file({"linear.weight": state["linear.weight"], "head.bias": state["linear.bias"]}, file)
    with pytest.raises(ValueError, match=r"1 missing \(such as 'linear.bias'\) and 1 not in the model"):
        load_model(where, file, {"trained": False})
    save_file({"linear.weight": torch.zeros(3, 64), "linear.bias": state["linear.bias"]}, file)
    with pytest.raises(ValueError, match=r"linear.weight: expected shape \(10, 64\), found \(3, 64\)"):
        load_model(where, file, {"trained": False})


def test_preprocessing_comes_before_the_model() -> None:
    model = preprocessed(nn.Identity(), "0.5,0.25,0;0.5,0.25,1", 3)
    assert isinstance(model, Normalised)
    assert model(torch.ones(2, 3, 4, 4))[0, :, 0, 0].tolist() == [1, 3, 1]
    assert preprocessed(model, "none", 3) is model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "json:dumps", "arguments": {"obj": 1}}, "expected a torch.nn.Module, found str"),
        ({"preprocess": "0.5"}, "unknown --preprocess '0.5'; known: MEAN;STD, cifar10, cifar100, clip, half, imagenet"),
        ({"preprocess": "0.5;0"}, "smallest std 0"),
        ({"data": "{source: folder}"}, "'folder' needs a path"),
        (
            {"model": "torchvision.models:squeezenet1_1"},
            r"cannot classify images of shape \(1, 8, 8\) \(C, H, W\) on cpu.*it takes 3 x 224 x 224",
        ),
        ({"eps": ()}, "eps must be one or more finite numbers"),
        ({"device": "foo", "data": "digitz"}, "device: expected auto, cpu, cuda or cuda:N, found 'foo'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """As from Python; tests/cli/test_mistakes.py has the command's."""
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(ask(**changes), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": "[1]"}, "--model-args: expected an object"),
        ({"gradients_in": "float16"}, "unknown gradients_in 'float16'"),
        ({"official": Path("a"), "frost": Path("b")}, "--official, --frost: give one"),
    ],
)
def test_a_wrong_command_line_is_refused(changes: dict[str, str], message: str) -> None:
    settings = {"eps": "2/255", "norm": "linf", "preset": "fast", "arguments": "{}"}
    with pytest.raises(ValueError, match=message):
        parse_request(**{**settings, **changes}, model="a:b", data="digits")  # type: ignore[arg-type]


def test_fractions_become_budgets() -> None:
    settings = {"norm": "l2", "preset": "strong", "arguments": '{"depth": 3}'}
    request = parse_request(eps="0, 2/255,0.5", model="a:b", data="digits", **settings)  # type: ignore[arg-type]
    assert request.eps == (0, 2 / 255, 0.5)
    assert request.arguments == {"depth": 3}


def test_published_files_photographs_seed_and_precision_reach_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Corrupted] = []

    def note(_: object, source: Corrupted, *__: object) -> Any:
        seen.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_tests", note)
    settings = {"norm": "linf", "preset": "fast", "arguments": "{}"}
    options = {"eps": "0.05", "images": 10, "preprocess": f"{MEAN};{STD}", "frost": tmp_path, "seed": 5}
    request = parse_request(model=f"{__name__}:Digits", data="digits", gradients_in="bfloat16", **settings, **options)
    assert request.corruptions
    swept: dict[str, Any] = {}
    sweep = run.run_sweep
    monkeypatch.setattr(run, "run_sweep", lambda *data, **how: (swept.update(how), sweep(*data, **how))[1])
    with pytest.raises(KeyboardInterrupt):
        evaluate(request, tmp_path / "out", lambda _: None)
    assert (swept["seed"], swept["gradients_in"]) == (5, "bfloat16")
    assert (seen[0].seed, seen[0].frost) == (5, tmp_path)
    wrong = parse_request(
        **{**settings, **options, "frost": None}, model=request.model, data="digits", official=tmp_path
    )
    with pytest.raises(ValueError, match="is of 32x32 colour images"):
        evaluate(wrong, tmp_path / "wrong", lambda _: None)


class Bright(nn.Module):
    """Tells dark images from bright ones."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3)) - 0.5
        return torch.stack([-level, level], 1)


def test_a_model_is_tested_on_published_folders_of_images(tmp_path: Path) -> None:
    folder_data(tmp_path / "photos", {"test/0": 3, "test/1": 3})
    for label in (0, 1):
        for i, image in enumerate(pixels(3, label)):
            (tmp_path / f"photos/test/{label}/{i:03}.png").write_bytes(encoded(image // 2 + np.uint8(127 * label)))
    for name in BENCHMARK[:-1]:
        for severity in range(1, 6):
            shutil.copytree(tmp_path / "photos/test", tmp_path / f"published/{name}/{severity}")
    asked = {"model": f"{__name__}:Bright", "data": str(tmp_path / "photos"), "preprocess": "none", "images": None}
    request = ask(**asked, eps=(0.05,), corruptions=True, official=tmp_path / "published")
    with pytest.raises(ValueError, match=r"--official \S*published: holds no jpeg_compression"):
        evaluate(request, tmp_path / "out", lambda _: None)
    shutil.copytree(tmp_path / "published/fog", tmp_path / "published" / BENCHMARK[-1])
    (tmp_path / "published/fog/5/1/000.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8)))
    found = evaluate(request, tmp_path / "out", lambda _: None)
    assert found.corruptions is not None
    assert tuple(found.corruptions["corruption"]) == BENCHMARK  # the four others are not there
    accuracies = found.corruptions.set_index("corruption")
    assert accuracies.loc["fog", 5] == 5 / 6
    assert accuracies.loc["fog", 4] == accuracies.loc["snow", 5] == 1


@pytest.mark.parametrize(
    ("accuracy", "n", "classes", "near"),
    [(0.1, 1000, 10, True), (0.14, 1000, 10, True), (0.2, 1000, 10, False), (0.5, 100, 2, True), (0.8, 100, 2, False)],
)
def test_near_chance(accuracy: float, n: int, classes: int, near: bool) -> None:
    assert near_chance(accuracy, n, classes) == near


def test_the_guide_names_every_option() -> None:
    options = [
        f"--{name}" for name in ("model", "model-args", "weights", "preprocess", "data", "norm", "eps", "preset")
    ]
    options += ["--images", "--corruptions", "--official", "--frost", "--seed", "--gradients-in"]
    options += ["--out", "--json", "--batch-size", "--device"]
    text = CliRunner().invoke(cli.app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    guide = (ROOT / "docs/evaluate.md").read_text()
    assert all(option in text for option in options)
    assert all(option in guide for option in options)
