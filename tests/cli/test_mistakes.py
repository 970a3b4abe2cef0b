"""What a new user gets wrong is answered in one line that says where, what was found and what helps; nothing starts."""

import sys
from pathlib import Path

import pytest
from ssrob import cli
from ssrob.cli import workflow
from ssrob.registry import optional
from tests.conftest import ROOT

MODELS = """
from torch import nn

def linear(scale=1):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())

def fails():
    return {}["weights"]
"""
GOOD = ["evaluate", "--model", "my_models:linear", "--data", "digits", "--eps", "8/255", "--preset", "fast"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folder: a config, a module of models, a text, an empty folder."""
    config = (ROOT / "config/quickstart.yaml").read_text()
    for name, text in {
        "study.yaml": config,
        "eight.yaml": config.replace("finetune: {<<: *training}", "finetune: {<<: *training, epochs: eight}"),
        "bracket.yaml": "study: mine\nseeds: [0, 1\ndata: digits\n",
        "my_models.py": MODELS,
        "broken_models.py": "def linear(:\n",
        "needy_models.py": "import a_package_that_is_not_there\n",
        "notes.txt": "",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return tmp_path


def answer(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Call the command as a shell does; return the one line that it says, after the usage if it shows that."""
    monkeypatch.setattr(sys, "argv", ["ssrob", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    lines = said.err.strip().splitlines()
    if lines[0].startswith("Usage: "):
        return lines[-1]
    (line,) = lines
    return line


def model(name: str, *more: str) -> list[str]:
    return [*GOOD[:2], name, *GOOD[3:], *more]


MISTAKES: list[tuple[list[str], str]] = [
    (["evalute"], "No such command 'evalute'. Did you mean 'evaluate'?"),
    (["evaluate"], "Missing option '--model'."),
    ([*GOOD, "my_models:linear"], "expected options alone, found 'my_models:linear'; a model goes after --model"),
    (model("my_models"), "--model: expected package.module:factory, found 'my_models'"),
    (model("my_models.py:linear"), "expected a module's name, without .py and with . for /, found 'my_models.py'"),
    (model("my_model:linear"), "cannot import 'my_model': No module named 'my_model' (did you mean 'my_models'?)"),
    (model("my_models:liner"), "'my_models' has no 'liner' (did you mean 'linear'?)"),
    (model("my_models:fails"), "--model my_models:fails: KeyError: 'weights' (my_models.py, line 11)"),
    (model("broken_models:linear"), "cannot import 'broken_models': SyntaxError: invalid syntax (broken_models.py, li"),
    (model("needy_models:linear"), "; if that is a package to install: pip install a_package_that_is_not_there"),
    (model("my_models:linear", "--model-args", '{"scal": 2}'), "'scal'; arguments go into --model-args, as JSON"),
    (model("my_models:linear", "--model-args", "{scale: 2}"), "--model-args: not JSON"),
    (model("my_models:colour"), "the model cannot classify images of shape (1, 8, 8) (C, H, W)"),
    ([*GOOD, "--data", "digts"], "a folder or settings in braces, found 'digts' (did you mean 'digits'?)"),
    ([*GOOD, "--data", "phots"], "found 'phots' (did you mean 'photos'?)"),
    ([*GOOD, "--data", "photos"], "expected a folder of images per class in photos, found no folder"),
    ([*GOOD, "--eps", "8"], "linf eps is in [0, 1] pixel units, found 8.0 (8 grey levels are 8/255)"),
    ([*GOOD, "--eps", "8/255,4/255"], "eps must be strictly ascending"),
    ([*GOOD, "--eps", "eight"], "--eps: expected numbers such as 2/255,4/255,8/255, found 'eight'"),
    ([*GOOD, "--norm", "Linf"], "unknown norm 'Linf' (did you mean 'linf'?); known: l2, linf"),
    ([*GOOD, "--preset", "fst"], "unknown preset 'fst' (did you mean 'fast'?)"),
    ([*GOOD, "--preprocess", "imagnet"], "unknown --preprocess 'imagnet' (did you mean 'imagenet'?)"),
    ([*GOOD, "--preprocess", "cifar10"], "--preprocess: expected 1 means and stds > 0 (channels of the data), found 3"),
    ([*GOOD, "--images", "ten"], "Invalid value for '--images'"),
    ([*GOOD, "--images", "100000"], "test images: must be 1..449 (those of 'digits'), found 100000"),
    ([*GOOD, "--batch-size", "0"], "Invalid value for '--batch-size'"),
    ([*GOOD, "--device", "gpu"], "device: expected auto, cpu, cuda or cuda:N, found 'gpu'"),
    ([*GOOD, "--weights", "nope.safetensors"], "nope.safetensors: no such file"),
    ([*GOOD, "--weights", "photos"], "photos: expected a file of weights, found a folder"),
    ([*GOOD, "--out", "notes.txt"], "out: expected a folder, found the file "),
    ([*GOOD, "--json", "photos"], "--json: expected a file, found the folder photos"),
    ([*GOOD, "--tracking-uri", "foo"], "expected sqlite:///FILE.db or an http(s) address, found 'foo'"),
    ([*GOOD, "--watch"], "No such option: --watch"),
    (["compare", "photos", "phots"], "photos: expected a folder that `ssrob evaluate` wrote, with evaluation.json"),
    (["compare", "study.yaml", "at"], "two arms of a study are compared with --study CONFIG"),
    (["plan", "study.yml"], "study.yml: no such config file (did you mean study.yaml?)"),
    (["plan", "nowhere.yaml"], "nowhere.yaml: no such config file"),
    (
        ["plan", "bracket.yaml"],
        "bracket.yaml:3: cannot be read as YAML: while parsing a flow sequence: expected ',' or",
    ),
    (["plan", "photos"], "photos: expected a YAML file, found a folder"),
    (
        ["plan", "eight.yaml"],
        "eight.yaml:16: finetune.epochs: expected a valid number such as 0.03 or 8/255, found 'ei",
    ),
    (["plan", "study.yaml", "--budget", "8m"], "No such option: --budget"),
    (["portion", "study.yaml", "--budget", "5"], "budget: a time needs its unit, such as 5m or 5s; found '5'"),
    (["status", "study.yaml", "--watch", "--json"], "status: --watch or --json, found both"),
    (["collect", "study.yaml"], "107 of 107 stages are not finished; `ssrob study study.yaml` finishes it"),
    (["explain", "study.yaml"], "explain: expected a stage, found the config study.yaml alone"),
    (["explain", "finetune/none"], "'finetune/none': no stage is there yet"),
    (["export", "study.yaml", "--to", "notes.txt/x"], "notes.txt/x: expected a folder, found the file "),
    (["study", "study.yaml", "--executor=nimbus"], "'nimbus' is not installed: pip install snakemake_executor_plugin_"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(arguments)[-40:] for arguments, _ in MISTAKES])
def test_one_line_says_what_is_wrong(
    folder: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in answer(arguments, monkeypatch, capsys)
    assert not (folder / "evaluation/robustness.parquet").exists()


def test_a_stage_and_its_config_may_be_given_in_either_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "finetune/digits-at-linf0.075"
    for command, code in (("run", 2), ("explain", 0)):
        for arguments in (["study.yaml", stage], [stage, "study.yaml"]):
            monkeypatch.setattr(sys, "argv", ["ssrob", command, *arguments])
            with pytest.raises(SystemExit) as left:
                cli.main()
            said = capsys.readouterr()
            assert left.value.code == code
            assert (said.out + said.err).removeprefix("ssrob: ").startswith(stage)


def test_a_package_that_is_missing_is_noticed_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text("executor: slurm\n")
    find = optional.find_spec
    hidden = {"pyautoattack", "snakemake_executor_plugin_slurm"}
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name in hidden else find(name))
    said = answer([*GOOD, "--preset", "autoattack"], monkeypatch, capsys)
    assert said == "ssrob: --preset: 'autoattack' needs AutoAttack's code: pip install 'ssrob[autoattack]'"
    assert not (folder / "evaluation/data").exists()
    for option in (["--executor", "slurm"], ["--workflow-profile", "profile"], ["--profile=profile"]):
        said = answer(["study", "study.yaml", *option], monkeypatch, capsys)
        assert said == "ssrob: study: Snakemake's executor 'slurm' is not installed: pip install 'ssrob[slurm]'"


@pytest.mark.parametrize("module", optional.EXTRAS)
def test_the_extras_are_those_of_the_package(module: str) -> None:
    extra = optional.EXTRAS[module]
    assert f'\n{extra} = ["{module.replace("_", "-")}>=' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "found"), [([], None), (["--cores", "2"], None), (["-e"], None), (["-e", "x"], "x")]
)
def test_an_executor_is_looked_for_among_any_arguments(arguments: list[str], found: str | None) -> None:
    assert workflow._value_of(arguments, "--executor", "-e") == found
