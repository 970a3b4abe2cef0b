"""Configs: what is read, and what is refused with which words. Bad input stops before any job starts."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_config, load_study, parse_study
from tests.conftest import ROOT, tiny_config

# What is changed, and words that the message must hold: the field, what was found, what is allowed.
BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"findings": {"primary": {"below": [0.25, 1]}}}, ["findings.primary", "below", "high < 1", "[0.25, 1.0]"]),
    ({"findings": {"primary": {"below": [0.7, 0.3]}}}, ["findings.primary", "below", "low <= high", "[0.7, 0.3]"]),
    ({"findings": {"primary": {"above": [0.9, 2]}}}, ["findings.primary", "above", "1 <= low", "[0.9, 2.0]"]),
    ({"findings": {"primary": {"above": [1, 1]}}}, ["findings.primary", "above", "high > 1", "[1.0, 1.0]"]),
    ({"findings": {"primary": {"below": [0.6, 0.9]}}}, ["findings.primary.below", "evaluate.eps", "found [0.6, 0.9]"]),
    ({"findings": {"primary": {"above": [1, 1.5]}}}, ["findings.primary.above", "evaluate.eps", "found [1.0, 1.5]"]),
    ({"findings": {"primary": {"checkpoint": "last"}}}, ["findings.primary.checkpoint", "has best, found 'last'"]),
    ({"findings": {"primary": {"weight": 3}}}, ["findings.primary.weight", "has 0.5, found 3"]),
    ({"findings": {"primary": {"task": "jigsaw"}}}, ["findings.primary.task", "has rotation, found 'jigsaw'"]),
    ({"findings": {"primary": {"pretrained": "mine"}}}, ["findings.primary.pretrained", "ssl", "found 'mine'"]),
    (
        {"findings": {"primary": {"norm": "linf"}}, "arms": [{"variant": "at", "norm": "l2"}, {"variant": "standard"}]},
        ["findings.primary.norm: the study has l2, found 'linf'"],
    ),
    ({"modell": {}}, ["unknown key 'modell'", "did you mean 'model'"]),
    ({"model": {"name": "resnett"}}, ["model.name", "'resnett'", "preactresnet18, resnet, timm, torchvision"]),
    ({"model": {"name": "resnet", "depth": 9}}, ["model", "6 n + 2", "found 9"]),
    ({"model": {"name": "resnet", "layers": 8}}, ["model", "'layers'", "depth, stem_stride, width"]),
    ({"model": {"name": "resnet", "width": "wide"}}, ["width", "whole number", "'wide'"]),
    ({"threat": {"linf": {"eps": 0}}}, ["threat.linf.eps", "greater than 0", "found 0"]),
    ({"threat": {"linf": {"eps": -0.1}}}, ["threat.linf.eps", "greater than 0", "-0.1"]),
    ({"threat": {"linf": {"eps": "8/0"}}}, ["threat.linf.eps", "divide by zero"]),
    ({"threat": {"linf": {"eps": "8/255px"}}}, ["threat.linf.eps", "such as 0.03 or 8/255, found '8/255px'"]),
    ({"threat": {"linf": {"eps": "1/2/3"}}}, ["threat.linf.eps", "such as 0.03 or 8/255, found '1/2/3'"]),
    ({"device": "foo"}, ["device", "'auto', 'cpu' or 'cuda'", "'foo'"]),
    ({"threat": {"linf": {"eps": "abc"}}}, ["threat.linf.eps", "valid number", "'abc'"]),
    ({"threat": {"linf": {"eps": ".inf"}}}, ["threat.linf.eps", "'.inf'"]),
    ({"threat": {"l1": {"eps": 1}}}, ["threat", "l1", "'linf' or 'l2'"]),
    ({"threat": {}}, ["threat", "at least 1"]),
    ({"seeds": []}, ["seeds", "at least one"]),
    ({"seeds": [0, 0]}, ["seeds", "every entry once", "[0, 0]"]),
    ({"seeds": 3}, ["seeds: expected a list such as [0, 1, 2] (one alone: [3]), found 3"]),
    ({"arms": [{"variant": "at", "seeds": 0}]}, ["arms.0.seeds", "(one alone: [0])"]),
    ({"seeds": ["a"]}, ["seeds.0", "valid integer", "'a'"]),
    ({"finetune": {"epochs": "many"}}, ["finetune.epochs", "'many'"]),
    ({"finetune": {"epochs": True}}, ["finetune.epochs", "expected a number", "true"]),
    ({"finetune": {"schedule": "cosine"}}, ["finetune.schedule", "known: onecycle, piecewise", "'cosine'"]),
    ({"finetune": {"augment": ["rotate"]}}, ["finetune.augment.0", "'crop', 'flip' or 'resized_crop'", "'rotate'"]),
    ({"finetune": {"precision": "fp16"}}, ["finetune.precision", "'float32' or 'bfloat16'", "'fp16'"]),
    ({"ssl": {"task": "jigsaww"}}, ["ssl.task", "unknown SSL task 'jigsaww'", "rotation"]),
    ({"ssl": {"weights": [-1]}}, ["ssl.weights.0", "greater than or equal to 0", "-1"]),
    ({"arms": []}, ["arms", "at least 1"]),
    ({"arms": [{"variant": "att"}]}, ["arms.0.variant", "'att'", "did you mean 'at'"]),
    ({"arms": [{"variant": "at", "init": "ssll"}]}, ["arms.0.init", "'ssll'", "did you mean 'ssl'"]),
    ({"arms": [{"variant": "at", "norm": "linf", "equal_passes": "no"}]}, ["arms.0.equal_passes", "'no'"]),
    (
        {"arms": [{"variant": ["at", "standard"], "weight": 2}]},
        ["arms.0.weight: no weight of at, standard depends on w"],
    ),
    ({"arms": [{"variant": "at", "task": "jigsaw"}]}, ["arms.0.task: at has no SSL task"]),
    (
        {"arms": [{"variant": "at", "init": "ssl", "task": "jigsaw", "weight": 1}]},
        ["arms.0.weight: no weight of at depends on w"],
    ),
    ({"evaluate": {"eps": [1, 0.5]}}, ["evaluate", "ascending", "[1.0, 0.5]"]),
    ({"evaluate": {"eps": []}}, ["evaluate.eps", "at least one"]),
    ({"evaluate": {"eps": ["2/255", "8/255"]}}, ["evaluate: eps", "multiples of the reference eps", "0.0313"]),
    ({"evaluate": {"eps": [0.5, 1]}}, ["evaluate: eps", "with 0 (clean accuracy) and 1", "[0.5, 1.0]"]),
    ({"evaluate": {"eps": [0, 2]}}, ["evaluate: eps", "with 0 (clean accuracy) and 1", "[0.0, 2.0]"]),
    ({"threat": {"linf": {"eps": 8}}}, ["threat.linf.eps", "[0, 1] pixel units (8 grey levels are 8/255)", "found 8"]),
    (
        {"arms": [{"variant": "at", "eps_scale": [1, 12]}]},
        ["arms.0.eps_scale", "[0, 1] pixel units", "12 times the reference 0.1"],
    ),
    ({"evaluate": {"eps": [0, 1, 11]}}, ["evaluate.eps", "[0, 1] pixel units", "11 times the reference 0.1"]),
    ({"evaluate": {"restarts": 2}}, ["evaluate", "restarts was removed", "preset", "found 2"]),
    ({"evaluate": {"preset": "weak"}}, ["evaluate.preset", "'weak'", "fast"]),
    ({"corrupt": {"names": ["fogg"]}}, ["corrupt.names.0", "'fogg'", "did you mean 'fog'"]),
    ({"corrupt": {"severities": [6]}}, ["corrupt.severities.0", "less than or equal to 5", "6"]),
    ({"study": "a b; rm -rf $(x)"}, ["study", "letters, digits, '_', '.' and '-'", "64 at most", "rm -rf"]),
    ({"data": {"name": "../up", "source": "digits"}}, ["data.name", "beginning with a letter or digit", "../up"]),
    ({"data": {"name": "x", "source": "imagenet"}}, ["data.source", "digits", "'imagenet'"]),
    ({"data": {"name": "x", "source": "parquet"}}, ["data", "parquet", "needs a path"]),
    ({"variants": {"x": {"train": {}}}}, ["variants.x.train", "at least 1"]),
    ({"variants": {"x": {"train": {"adv": {"xent": 1}}}}}, ["variants.x", "train.adv", "no such perturbation"]),
    (
        {"variants": {"x": {"perturb": {"adv": {"rotaton": 1}}, "train": {"adv": {"xent": 1}}}}},
        ["variants.x.perturb.adv", "'rotaton'", "did you mean 'rotation'"],
    ),
    (
        {"variants": {"x": {"perturb": {"adv": {"xent": 1}}, "train": {"clean": {"xent": 1}}}}},
        ["variants.x", "perturb.adv", "no term of train uses it"],
    ),
    (
        {"variants": {"x": {"perturb": {"clean": {"xent": 1}}, "train": {"clean": {"xent": 1}}}}},
        ["variants.x", "perturb.clean", "choose another name"],
    ),
    ({"variants": {"x": {"train": {"clean": {"xent": "2*v"}}}}}, ["variants.x.train.clean.xent", "'2*v'", "'w/2'"]),
    ({"variants": {"x": {"train": {"clean": {"xent": "w/0"}}}}}, ["variants.x.train.clean.xent", "zero", "'w/0'"]),
    ({"seeds": [10**30]}, ["seeds.0", "less than 9223372036854775808"]),
    ({"variants": {"x": {"train": {"clean": {"xent": -1}}}}}, ["variants.x.train.clean.xent", ">= 0", "-1"]),
    ({"pretraining": {"mine": {"weights": "a.pt", "train": {"clean": {"ssl": 1}}}}}, ["pretraining.mine", "either"]),
    ({"pretraining": {"mine": {}}}, ["pretraining.mine", "either an objective"]),
    ({"plugins": ["no_such_module_here"]}, ["plugins", "no_such_module_here"]),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(row[0])[:60] for row in BAD])
def test_bad_config_is_refused_in_clear_words(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(tiny_config(tmp_path, **changes), "study.yaml")
    message = str(caught.value)
    assert message.startswith("study.yaml: ")
    for word in words:
        assert word in message, message
    assert "\n" not in message, "one mistake, one line"


def test_three_mistakes_are_three_lines(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, seeds=[], ssl={"task": "x"}, evaluate={"preset": "y"})
    with pytest.raises(ConfigError) as caught:
        parse_study(config)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "a: !!python/object/apply:os.system ['touch hacked']", "just words"]
)
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        load_config(path)
    assert not Path("hacked").exists()


@pytest.mark.parametrize("text", ["", "\n", "# only words\n"])
def test_an_empty_file_is_called_empty(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"study\.yaml: the file is empty$"):
        load_config(tmp_path / "study.yaml")


def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("study: a\nseeds: [0]\ndata: {name: x}\nseeds: [1]\n")
    with pytest.raises(ConfigError, match=r"study\.yaml: .*line 4: the key 'seeds' is given twice$"):
        load_config(path)
    path.write_text("arms:\n  - {variant: at, norm: l2, variant: trades}\n")
    with pytest.raises(ConfigError, match=r"line 2: the key 'variant' is given twice$"):
        load_config(path)
    path.write_text("a: &base {lr: 1, epochs: 2}\nb: {<<: *base, lr: 3}\nc: {<<: *base}\n")
    assert load_config(path)["b"] == {"lr": 3, "epochs": 2}
    assert load_config(path)["c"] == {"lr": 1, "epochs": 2}


@pytest.mark.parametrize("override", ["data=[", "data={a: 1, a: 2}", "data"])
def test_an_override_that_cannot_be_read_is_named(override: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("study: a")
    with pytest.raises(ConfigError, match=f"^--set {re.escape(override)}: "):
        load_config(tmp_path / "study.yaml", [override])


@pytest.mark.parametrize("override", ["finetune.lr=much", "finetune={lr: much}", "finetune.rate=1", "nothing=1"])
def test_a_mistake_in_an_override_is_not_blamed_on_the_file(override: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path) | {"title": [1]}))
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}:\d+: title: "):
        load_study(path, ["finetune.epochs=1"])
    with pytest.raises(ConfigError, match=rf"(?m)^--set {re.escape(override)}: "):
        load_study(path, ["finetune.epochs=1", override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_config(tmp_path / "nowhere.yaml")


def test_fractions_and_decimals_are_the_same_number(tmp_path: Path) -> None:
    for text in ("8/255", " 8 / 255", 8 / 255, str(8 / 255)):
        study = parse_study(tiny_config(tmp_path, threat={"linf": {"eps": text}}, arms=[{"variant": "at"}]))
        assert study.threat["linf"].eps == 8 / 255


def test_overrides_merge_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path)))
    study = load_study(path, ["data={train_images: 200}", "finetune.lr=0.3"])
    assert (study.data.name, study.data.train_images, study.finetune.lr) == ("digits", 200, 0.3)
    assert study.finetune.batch_size == 100


def test_an_override_leaves_a_section_alone_that_shares_its_values(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("pretrain: &training {lr: 0.1}\nfinetune: *training\n")
    config = load_config(tmp_path / "study.yaml", ["finetune.lr=0.3"])
    assert config == {"pretrain": {"lr": 0.1}, "finetune": {"lr": 0.3}}


def test_what_an_arm_is_compared_with_may_use_its_weight_and_task(tmp_path: Path) -> None:
    arms = [
        {"variant": "at", "task": "jigsaw", "weight": 2, "equal_passes": "at_ssl_joint"},
        {"variant": "at", "task": "jigsaw", "equal_passes": {"variant": "at", "init": "ssl"}},
        {"variant": "at", "task": "jigsaw", "init": "ssl"},
        {"variant": ["at", "at_ssl_joint"], "task": "jigsaw", "weight": 2},
    ]
    assert len(parse_study(tiny_config(tmp_path, arms=arms)).arms) == 4


def test_the_primary_cell_is_of_what_the_study_trains_and_tests(tmp_path: Path) -> None:
    ways = {"variant": ["at", "at_ssl_adv"], "norm": "l2", "task": "jigsaw", "weight": [2, 0.1]}
    changes: dict[str, Any] = {"arms": [{"variant": "standard"}, ways], "evaluate": {"checkpoints": "last"}}
    primary = parse_study(tiny_config(tmp_path, **changes)).findings.primary
    assert (primary.norm, primary.task, primary.weight, primary.checkpoint) == ("l2", "jigsaw", 2, "last")
    usual = parse_study(tiny_config(tmp_path, evaluate={"checkpoints": ["last", "best"]})).findings.primary
    assert (usual.norm, usual.task, usual.weight, usual.checkpoint) == ("linf", "rotation", 0.5, "best")
    named = {"norm": "l2", "task": "jigsaw", "weight": 0.1, "checkpoint": "last", "below": (0, 0.25), "above": (2, 2)}
    given = parse_study(tiny_config(tmp_path, **changes, findings={"primary": named})).findings.primary
    assert given.model_dump(include=set(named)) == named


def test_every_l2_budget_is_allowed(tmp_path: Path) -> None:
    threat = {"l2": {"eps": 3}}
    assert parse_study(tiny_config(tmp_path, threat=threat, arms=[{"variant": "at"}])).threat["l2"].eps == 3


@pytest.mark.parametrize("name", ["quickstart", "digits", "cifar10-mini", "cifar10-small", "cifar10"])
def test_the_configs_of_the_repository_are_valid(name: str) -> None:
    assert load_study(ROOT / "config" / f"{name}.yaml").study == name


def test_the_schema_file_is_up_to_date() -> None:
    import json

    from ssrob.config.study import Study

    assert json.loads((ROOT / "config" / "schema.json").read_text()) == Study.model_json_schema()


def test_a_config_is_checked_without_torch() -> None:
    code = "import sys, ssrob.scheduling.preflight, ssrob.scheduling.workload; "
    code += "print('torch' in sys.modules, 'mlflow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == ["False", "False"]


def test_a_mistake_on_the_command_line_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_config(tmp_path, seeds=[])))
    out = subprocess.run(
        [sys.executable, "-m", "ssrob", "plan", str(path)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 2
    assert out.stderr.startswith("ssrob: ")
    assert "seeds" in out.stderr
    assert "Traceback" not in out.stderr
