"""What a config says is what people read in it, or an error says what YAML makes of it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_study, parse_study, restore_nulls
from ssrob.config.yaml_text import YamlError, read_texts, read_yaml
from ssrob.external.images import find_data
from tests.config.test_config import tiny_config

READ = [  # what is written -> where it is, and what it means
    ("finetune.lr=1e-3", ("finetune", "lr"), 0.001),
    ("finetune.lr=.5", ("finetune", "lr"), 0.5),
    ("finetune.lr=5.", ("finetune", "lr"), 5.0),
    ("finetune.batch_size=1e2", ("finetune", "batch_size"), 100),
    ("finetune.batch_size=1.2e+2", ("finetune", "batch_size"), 120),
    ("finetune.batch_size=1_000", ("finetune", "batch_size"), 1000),
    ("finetune.batch_size=08", ("finetune", "batch_size"), 8),
    ("finetune.momentum=9/10", ("finetune", "momentum"), 0.9),
    ("finetune.ema=99e-2", ("finetune", "ema"), 0.99),
    ("findings.alpha=1/20", ("findings", "alpha"), 0.05),
    ("seeds=[4611686018427387905, -07]", ("seeds",), [4611686018427387905, -7]),
    ("study=1e5", ("study",), "1e5"),
    ("probe=off", ("probe",), None),
    ("data.path=~", ("data", "path"), Path.home()),
    ("threat.linf.eps=8/255", ("threat", "linf", "eps"), 8 / 255),
    ("variants={mine: {train: {clean: {xent: 1e-3}}}}", ("variants", "mine", "train"), {"clean": {"xent": 0.001}}),
    ("variants={mine: {train: {clean: {xent: 1/2}}}}", ("variants", "mine", "train"), {"clean": {"xent": 0.5}}),
]


def written(folder: Path) -> Path:
    path = folder / "study.yaml"
    config = tiny_config(folder, arms=[{"variant": ["at", "at_ssl_joint"]}], data={"name": "c", "source": "cifar10"})
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(("override", "place", "meant"), READ, ids=[row[0] for row in READ])
def test_values_are_what_people_read(override: str, place: tuple[str, ...], meant: Any, tmp_path: Path) -> None:
    found: Any = load_study(written(tmp_path), [override])
    for part in place:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == meant
    assert type(found) is type(meant) or isinstance(found, Path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch_size: 0100", "0100 is 64 to YAML (base 8)"),
        ("batch_size: -0100", "-0100 is -64 to YAML (base 8)"),
        ("epochs: 1:30", "1:30 is 90 to YAML (base 60)"),
        ("epochs: 1:30.5", "1:30.5 is 90.5 to YAML (base 60)"),
        ("milestones: [0.5, 10:20]", "10:20 is 620 to YAML (base 60)"),
        ("seeds: [1,000]", "000 is 0 to YAML (base 8)"),
        ("007: x", "007 is 7 to YAML (base 8)"),
        ("results: ~", "results: ~ is nothing (null) to YAML; write '~' in quotes or $HOME"),
        ("data: {name: x, path: ~}", "path: ~ is nothing (null) to YAML"),
    ],
)
def test_what_yaml_makes_another_number_of_is_refused_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"# a comment\nstudy: a\n{text}\n")
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}:3: {re.escape(words)}"):
        load_study(path)
    with pytest.raises(ConfigError, match=rf"^--set a={re.escape('{' + text + '}')}: {re.escape(words)}"):
        load_study(written(tmp_path), [f"a={{{text}}}"])


@pytest.mark.parametrize("text", ["'0100'", '"1:30"', "0", "00", "100", "1.05", "12:xy", "2024-01-01T10:20:30", "0x10"])
def test_text_and_usual_numbers_are_left_alone(text: str) -> None:
    assert read_yaml(f"a: {text}") == yaml.safe_load(f"a: {text}")


WORDS = [
    ({"study": False}, "study", "found false, as YAML reads no and off; write text in quotes"),
    ({"study": yaml.safe_load("2024-01-01")}, "study", "found the date 2024-01-01; write text in quotes"),
    ({"study": 123}, "study", "found 123; write text in quotes"),
    ({"title": None}, "title", "found null, as YAML reads ~ and a value that is left out"),
    ({"results": 2024}, "results", "found 2024; write text in quotes"),
    ({"device": False}, "device", "found false, as YAML reads no and off"),
    ({"seeds": [True]}, "seeds.0", "expected a whole number, found true (as YAML reads yes and on, too)"),
    ({"finetune": {"momentum": False}}, "finetune.momentum", "expected a number, found false"),
    ({"finetune": {"batch_size": True}}, "finetune.batch_size", "expected a whole number, found true"),
    ({"finetune": {"batch_size": "1e-1"}}, "finetune.batch_size", "found '1e-1'"),
    ({"finetune": {"batch_size": "0o100"}}, "finetune.batch_size", "found '0o100'"),
    ({"corrupt": {"severities": [True]}}, "corrupt.severities.0", "expected a whole number, found true"),
    ({"evaluate": {"audit_images": False}}, "evaluate.audit_images", "expected a whole number, found false"),
    ({"jobs_per_gpu": True}, "jobs_per_gpu", "expected a whole number, found true"),
    ({"variants": {False: {"train": {"clean": {"xent": 1}}}}}, "variants", "found false, as YAML reads no and off"),
]


@pytest.mark.parametrize(("changes", "place", "words"), WORDS, ids=[f"{row[1]}-{i}" for i, row in enumerate(WORDS)])
def test_a_word_is_no_number_and_a_number_no_text(changes: Any, place: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(tiny_config(tmp_path, **changes))
    assert str(caught.value).startswith(f"config: {place}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_data_are_read_in_the_same_way(tmp_path: Path) -> None:
    assert find_data("{source: digits, test_images: 1e2}").test_images == 100
    with pytest.raises(ValueError, match=r"^--data: 0100 is 64 to YAML"):
        find_data("{source: digits, test_images: 0100}")


def test_names_are_text_whatever_they_look_like() -> None:
    assert read_texts("[no, 007, 1:30, 2024-01-01, ~, 1e3]") == ["no", "007", "1:30", "2024-01-01", "~", "1e3"]
    assert read_texts('{"0": ["n01440764", "tench"], "yes": 1}') == {"0": ["n01440764", "tench"], "yes": "1"}
    with pytest.raises(YamlError, match="the key 'cat' is given twice"):
        read_texts("{cat: 1, cat: 2}")


def test_null_and_off_of_a_workflow_s_command_line() -> None:
    config: dict[str, Any] = {"data": {"path": "null", "name": "null"}, "tracking_uri": "null", "title": "null"}
    restore_nulls(config, {"data": {"path": "null"}, "tracking_uri": "null"})
    assert config == {"data": {"path": None, "name": "null"}, "tracking_uri": None, "title": "null"}


def test_off_as_snakemake_reads_it(tmp_path: Path) -> None:
    study = parse_study(tiny_config(tmp_path, probe="off", diagnose="no"))
    assert (study.probe, study.diagnose) == (None, None)
