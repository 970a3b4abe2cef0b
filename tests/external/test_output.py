"""What an evaluation says and saves: the answer first, who the model is, numbers as numbers."""

import hashlib
import io
import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ssrob import cli
from ssrob.external import run, screen
from ssrob.external.entry import as_json, document
from ssrob.external.evaluation import Evaluation
from ssrob.external.identity import weights_sha256
from ssrob.external.model import preprocessed
from ssrob.external.page import write_page
from ssrob.external.run import evaluate
from ssrob.registry.preprocessing import PREPROCESSING
from ssrob.storage.tables import read_table
from ssrob.tracking.client import TrackingError
from ssrob.tracking.evaluation import EXPERIMENT, track_evaluation
from tests.conftest import ROOT
from tests.external.test_external import MEAN, STD, ask
from torch import nn
from torchvision.transforms import Normalize
from typer.testing import CliRunner

MODEL = "tests.external.test_external:Digits"
EPS = (2 / 255, 8 / 255, 0.05, 0.1)  # as texts they would sort as 0.05, 0.1, 2/255, 8/255
COMMAND = ["evaluate", "--model", MODEL, "--data", "digits", "--images", "20", "--preset", "fast"]
COMMAND += ["--preprocess", f"{MEAN};{STD}", "--eps", "2/255,8/255,0.05,0.1"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("evaluation")
    return evaluate(ask(model=MODEL, eps=EPS, name="logistic regression"), out, lambda _: None), out


def test_the_answer_comes_first_then_checks_then_what_was_assumed(found: tuple[Evaluation, Path]) -> None:
    result, out = found
    text = screen.as_text(result)
    last = result.curve.iloc[-1]
    assert text.splitlines()[0] == (
        f"logistic regression: {100 * last.accuracy:.1f} % robust ({100 * last.low:.1f} to {100 * last.high:.1f}) "
        f"at l-inf eps 0.1, {100 * result.curve.accuracy[0]:.1f} % clean"
    )
    marks = [
        "eps  accuracy",
        "2/255",
        "8/255",
        "0.05",
        "16 of 16 checks passed",
        "weights: sha256",
        "torch ",
        "assumed:",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    page = write_page(result, out).read_text()
    places = [page.index(f'<section id="{name}">') for name in ("robust", "checks", "assumed", "run")]
    assert page.index(f'<p class="answer">{result.answer}') < places[0]
    assert places == sorted(places)


def test_a_failed_check_stands_before_what_was_assumed(found: tuple[Evaluation, Path]) -> None:
    result = found[0]
    checks = result.checks.assign(passed=[False] + [True] * 15, detail=["module 'bn'"] + [""] * 15)
    text = screen.as_text(Evaluation(**{**vars(result), "checks": checks, "warnings": ["near chance"]}))
    assert "15 of 16 checks passed; find out why before you quote these numbers\n" in text
    assert "check failed: train_mode: module 'bn'\nwarning: near chance\n" in text


def test_a_terminal_gets_lines_that_fit(found: tuple[Evaluation, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, screen.as_text(found[0]).splitlines())) > 80  # a pipe gets whole lines
    monkeypatch.setattr(screen.sys.stdout, "isatty", lambda: True)
    assert max(map(len, screen.as_text(found[0]).splitlines())) <= 80


def test_numbers_are_numbers_in_order(found: tuple[Evaluation, Path]) -> None:
    result, out = found
    saved = json.loads((out / "evaluation.json").read_text())
    assert saved == json.loads(as_json(result))
    assert [row["eps"] for row in saved["curve"]] == [0, *EPS]
    assert saved["eps"] == 0.1
    assert all(isinstance(saved[name], float) for name in ("clean_acc", "reported", "eps"))
    assert pd.DataFrame(saved["curve"]).equals(result.curve)
    table = read_table(out / "robustness.parquet")
    assert [str(table[name].dtype) for name in ("example", "label", "distance", "first_failed")] == [
        *("int64", "int64", "float64", "float64")
    ]


def test_the_model_is_identified(found: tuple[Evaluation, Path]) -> None:
    model, facts = document(found[0])["facts"]["model"], found[0].facts
    assert (model["name"], model["factory"], model["class"]) == ("logistic regression", MODEL, "Digits")
    assert (model["parameters"], model["file"], model["file_sha256"]) == (650, None, None)
    assert facts["versions"]["torch"] == version("torch")
    pixels = np.load(next(found[1].glob("data/*/test_images.npy")))
    assert facts["images_sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_the_hash_is_of_names_types_shapes_and_values() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        model.bias.zero_()
    known = b"bias\ntorch.float32 (1,)\n" + bytes(4) + b"weight\ntorch.float32 (1, 2)\n"
    known += np.array([1, 2], dtype="<f4").tobytes()
    before = weights_sha256(model)
    assert before == hashlib.sha256(known).hexdigest()
    model.weight.data[0, 0] = torch.nextafter(model.weight.data[0, 0], torch.tensor(2.0))
    assert weights_sha256(model) != before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_weights_have_a_hash() -> None:
    def quantised(first: float) -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 1))
        nn.init.constant_(model[0].weight, first)
        nn.init.zeros_(model[0].bias)
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})

    assert weights_sha256(quantised(0.5)) == weights_sha256(quantised(0.5))
    assert weights_sha256(quantised(0.5)) != weights_sha256(quantised(0.25))


def test_it_prints_in_five_lines_draws_itself_and_is_a_table(found: tuple[Evaluation, Path]) -> None:
    result = found[0]
    lines = str(result).splitlines()
    assert len(lines) == 5
    assert lines[1].split() == ["eps", "0", "2/255", "8/255", "0.05", "0.1"]
    assert [float(share) for share in lines[2].split()[2:]] == [round(100 * a, 1) for a in result.curve.accuracy]
    assert result.to_frame().equals(result.curve)
    assert np.allclose(result.plot().lines[0].get_ydata(), 100 * result.curve.accuracy)
    notebook = result._repr_html_()
    assert f"<b>{result.headline}</b>" in notebook
    assert notebook.count("<tr") == 6


def test_json_goes_to_the_screen_or_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, [*COMMAND, "--json", "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["name"] == "mine"
    assert (tmp_path / "evaluation/report.html").is_file()
    subprocess.run(["git", "init", "-q"], check=True)
    listed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True)
    assert listed.stdout == b""
    done = CliRunner().invoke(cli.app, [*COMMAND, "--json", "entry.json"])
    assert done.stdout.startswith(f"{MODEL}: ")
    assert json.loads((tmp_path / "entry.json").read_text())["name"] == MODEL
    done = CliRunner().invoke(cli.app, [*COMMAND, "entry.json"])
    assert str(done.exception) == "evaluate: expected options alone, found 'entry.json'; a model goes after --model"


def test_a_stopped_evaluation_says_that_it_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_sweep", lambda *_, **__: exec("raise KeyboardInterrupt"))
    done = CliRunner().invoke(cli.app, [*COMMAND, "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert "stopped; finished blocks of images are kept, the same command goes on with the others" in done.output


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 101])
def test_a_name_is_one_short_line(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, [*COMMAND, "--name", name, "--out", str(tmp_path)])
    assert str(done.exception).startswith("--name: expected 1 to 100 letters in one line, found ")


def test_mlflow_says_which_model_it_was(found: tuple[Evaluation, Path], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (result, out), uri = found, f"sqlite:///{tmp_path / 'mlflow.db'}"
    write_page(result, out)
    first = track_evaluation(out, uri)
    assert track_evaluation(out, uri) == first
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "logistic regression"
    assert run.data.tags["weights_sha256"] == run.data.params["model.weights_sha256"]
    assert run.data.params["version.torch"] == version("torch")
    assert run.data.metrics["clean_accuracy"] == result.curve.accuracy[0]
    assert run.data.metrics["robust_accuracy/linf/eps 0.1"] == result.curve.accuracy.iloc[-1]
    curve = client.get_metric_history(first, "robust_accuracy_by_eps_in_thousandths/linf")
    assert {point.step: point.value for point in curve} == dict(
        zip([0, 8, 31, 50, 100], result.curve.accuracy, strict=True)
    )
    assert {file.path for file in client.list_artifacts(first)} >= {"report.html", "evaluation.json"}


def test_a_store_that_cannot_be_used_is_noticed_before_the_attacks(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, [*COMMAND, "--out", str(tmp_path), "--tracking-uri", "http://127.0.0.1:9"])
    assert isinstance(done.exception, TrackingError)
    assert not (tmp_path / "robustness.parquet").exists()


@pytest.mark.parametrize("name", [name for name, row in PREPROCESSING.items() if row is not None])
def test_a_named_preprocessing_is_torchvisions(name: str) -> None:
    row: Any = PREPROCESSING[name]
    channels = max(len(row.mean), 1 if name == "mnist" else 3)
    x = torch.rand(2, channels, 4, 4)
    expected = Normalize(row.mean * (channels // len(row.mean)), row.std * (channels // len(row.std)))(x)
    torch.testing.assert_close(preprocessed(nn.Identity(), name, channels)(x), expected)


def test_cifars_mean_and_deviation_are_those_of_its_pixels() -> None:
    file = ROOT.parent / "shared/data/cifar10-jpeg/test.parquet"
    if not file.is_file():
        pytest.skip("no CIFAR-10 in ../shared/data")
    images = pd.read_parquet(file).iloc[:1000]["image"]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in images]) / 255
    row: Any = PREPROCESSING["cifar10"]
    assert pixels.mean((0, 1, 2)) == pytest.approx(row.mean, abs=0.01)  # of other images: 0.25 / sqrt(1000) each
    assert pixels.std((0, 1, 2)) == pytest.approx(row.std, abs=0.01)
