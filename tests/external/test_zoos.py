"""Models by name: torchvision's, timm's, and RobustBench's by a package of the same interface."""

import json
import sys
import types
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from ssrob import cli
from ssrob.config.data import Data
from ssrob.external.model import load_model
from ssrob.external.zoos import Asked
from torch import Tensor, nn
from typer.testing import CliRunner

VIT = '{"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 1, "num_heads": 2}'
LINES = {"timm:vit_tiny_patch16_224": VIT, "torchvision:shufflenet_v2_x0_5": '{"num_classes": 10}'}


class Dataset(Enum):
    cifar_10 = "cifar10"
    imagenet = "imagenet"


class Threat(Enum):
    Linf = "Linf"
    L2 = "L2"


class Colours(nn.Module):
    """Tells images by their reddest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.cat([x.mean(dim=(2, 3)), x.new_full((len(x), 7), -1.0)], dim=1)


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A package with the interface of robustbench 1.1.1; returns what its `load_model` is called with."""
    calls: list[dict[str, Any]] = []

    def load(
        model_name: str, model_dir: str = "./models", dataset: str = "cifar10", threat_model: str = "Linf"
    ) -> nn.Module:
        calls.append({"name": model_name, "dir": model_dir, "dataset": dataset, "threat": threat_model})
        if model_name == "Gone2020":
            raise RuntimeError("Cannot retrieve the public link\nof the file.")
        return Colours()

    models = {"Carmon2019Unlabeled": {}, "Gone2020": {}}
    dicts = {Dataset.cifar_10: {Threat.Linf: models, Threat.L2: {"Rice2020Overfitting": {}}}}
    dicts |= {Dataset.imagenet: {Threat.Linf: {"Salman2020Do_R18": {}}}}
    package, zoo, functions = (types.ModuleType(f"robustbench{end}") for end in ("", ".model_zoo", ".utils"))
    package.load_model = functions.load_model = load
    zoo.model_dicts = dicts
    for module in (package, zoo, functions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """A folder called cifar10 with two classes of small images, red and green."""
    for label, colour in enumerate(("airplane", "automobile")):
        (tmp_path / "cifar10" / colour).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8, 8, 3), 60 + number, dtype=np.uint8)
            pixels[..., label] = 200
            Image.fromarray(pixels).save(tmp_path / "cifar10" / colour / f"{number}.png")
    return tmp_path / "cifar10"


def run(model: str, *options: str) -> Any:
    command = ["evaluate", "--model", model, "--preset", "fast", "--eps", "1/255", *options]
    return CliRunner().invoke(cli.app, command)


@pytest.mark.parametrize("model", LINES)
def test_a_model_by_its_name_is_evaluated_in_one_line(model: str, tmp_path: Path) -> None:
    data = "digits" if model.startswith("timm") else f"{{source: folder, path: {photos(tmp_path)}}}"
    found = run(model, "--model-args", LINES[model], "--data", data, "--images", "10", "--out", str(tmp_path / "out"))
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["name"] == model


def photos(folder: Path) -> Path:
    """Twenty coloured squares of two classes."""
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    return folder / "photos"


def test_weights_from_a_file_for_a_model_by_its_name(tmp_path: Path) -> None:
    arguments = {"num_classes": 3, "stem_width": 8}
    trained = timm.create_model("resnet10t", **arguments)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "trained.pt")
    model, notes = load_model("timm:resnet10t", tmp_path / "trained.pt", arguments)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), trained.eval()(x))
    assert notes
    with pytest.raises(ValueError, match=r"trained\.pt: does not fit the model: fc\.bias: expected shape \(5,"):
        load_model("timm:resnet10t", tmp_path / "trained.pt", arguments | {"num_classes": 5})


def test_a_model_of_robustbench_is_evaluated_in_one_line(
    robustbench: list[dict[str, Any]], cifar10: Path, tmp_path: Path
) -> None:
    found = run("robustbench:Carmon2019Unlabeled", "--data", str(cifar10), "--out", str(tmp_path / "out"))
    assert found.exit_code == 0, found.output
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["curve"][-1]["accuracy"] == 1
    assert robustbench == [{"name": "Carmon2019Unlabeled", "dir": "models", "dataset": "cifar10", "threat": "Linf"}]


def test_norm_data_and_arguments_say_which_model_of_robustbench(robustbench: list[dict[str, Any]]) -> None:
    named = Data(name="cifar10", source="cifar10")
    other = Data.model_validate({"name": "photos", "source": "folder", "path": "photos"})
    load_model("robustbench:Rice2020Overfitting", None, {"model_dir": "zoo"}, asked=Asked("l2", named))
    assert robustbench[-1] == {"name": "Rice2020Overfitting", "dir": "zoo", "dataset": "cifar10", "threat": "L2"}
    load_model("robustbench:Salman2020Do_R18", None, {"dataset": "imagenet"}, asked=Asked("linf", other))
    assert robustbench[-1]["dataset"] == "imagenet"
    with pytest.raises(ValueError, match=r"needs to know which of cifar10, imagenet the images are of, as by --mo"):
        load_model("robustbench:Salman2020Do_R18", asked=Asked("linf", other))


MISTAKES = [
    ("robustbench:Carmon2019", r"unknown model of RobustBench for cifar10 and Linf .*did you mean 'Carmon2019Unlab"),
    ("robustbench:Gone2020", r"cannot load Gone2020 \(Cannot retrieve .*\); its weights belong in .*/Gone2020\.pt"),
    ("timm:resnt18", r"--model timm:resnt18: unknown arch 'resnt18' \(did you mean"),
    ("torchvision:resnet19", r"unknown arch 'resnet19' \(did you mean 'resnet1"),
    ("timm:create_modell", r"unknown arch 'create_modell'"),
]


@pytest.mark.parametrize(("model", "message"), MISTAKES)
def test_a_name_that_is_not_there_is_one_clear_line(
    model: str, message: str, robustbench: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(model, asked=Asked("linf", Data(name="cifar10", source="cifar10")))


def test_a_package_that_is_missing_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"--model timm:resnet18: cannot import 'timm'.*: pip install 'ssrob\[timm\]'"):
        load_model("timm:resnet18")
    with pytest.raises(ValueError, match=r"--model robustbench:Standard: cannot import 'robustbench'.*pip install r"):
        load_model("robustbench:Standard")
