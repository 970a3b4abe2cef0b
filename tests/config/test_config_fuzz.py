"""Shipped configs, changed at random: each ends in a clear error or in a plan that can run, never in a traceback."""

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ssrob.cli.plan_view import plan_text
from ssrob.config.loader import load_config
from ssrob.planning.plan import Plan
from ssrob.planning.specs import CorruptSpec, DiagnoseSpec, EvaluateSpec, ProbeSpec, TrainSpec
from ssrob.planning.stage import Stage
from ssrob.scheduling.preflight import open_study
from ssrob.storage.store import Store
from tests.conftest import ROOT

CONFIGS = ("quickstart", "cifar10-mini", "cifar10")
MUTATED = 170  # of each config
CUT = 60  # of each config's text
SPECS = {
    "pretrain": TrainSpec,
    "probe": ProbeSpec,
    "finetune": TrainSpec,
    "diagnose": DiagnoseSpec,
    "evaluate": EvaluateSpec,
    "corrupt": CorruptSpec,
}
HOSTILE: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 5, 0.5, -0.5, 1e-300, 1e308, float("inf"), float("-inf"), float("nan")),
    *(10**30, -(10**30), 10**400, [], [[]], [None], [0, 0], [1, "a"], {}, {"a": 1}, {"": {}}, {1: 2}, {None: None}),
    *("", " ", "a", "a b", "it's", 'a"b', "$(touch hacked)", "`touch hacked`", "; touch hacked", "../up", "/", "~"),
    *("{key}", "{", "a\nb", "\x00", "é" * 50, "x" * 5000, "8/255", "8/0", "1/2/3", "w", "2*w", "-w", "w/0", "0*w"),
    *(".inf", "nan", "null", "linf", "l2", "at", "ssl", "random", "rotation", "last", "autoattack", "adv", "clean"),
]
NEW_KEYS = ("a", "../b", "eps", "seeds", "train", "perturb", "init", "norm")
Where = tuple[Any, Any]  # a mapping or list, and a key or number in it


def places(value: Any) -> Iterator[Where]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from places(inner)


def mutate(config: dict[str, Any], draws: random.Random) -> dict[str, Any]:
    """Change one to three places: another value, another's value, none, a misspelt key, an entry twice, a new key."""
    changed = copy.deepcopy(config)
    for _ in range(draws.randint(1, 3)):
        inside, key = draws.choice(list(places(changed)) or [(changed, "study")])
        change = draws.randrange(6)
        if change <= 1:
            inside[key] = copy.deepcopy(draws.choice(HOSTILE))
        elif change == 2:
            other, name = draws.choice(list(places(config)))
            inside[key] = copy.deepcopy(other[name])
        elif change == 3:
            del inside[key]
        elif isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        elif change == 4:
            inside[f"{key}{draws.choice(['', 's', '_', ' ', '/', '$'])}x"] = inside.pop(key)
        else:
            inside[draws.choice(["a", "../b", "eps", "seeds", "train", "perturb"])] = copy.deepcopy(
                draws.choice(HOSTILE)
            )
    return changed


def outcome(config: Any) -> Plan | str:
    """Do with a config what happens before a job starts; return the plan or the error in words."""
    try:
        plan = open_study(config)
    except ValueError as error:
        return str(error)
    plan_text(plan, Store(plan.study.results), {})
    return plan


def check_plan(plan: Plan) -> None:
    assert plan.stages
    for stage in plan.stages.values():
        assert Stage.from_json(stage.to_json()) == stage
        assert len(stage.key) <= 255, "file systems allow no longer names"
        assert all(parent in plan.stages for parent in stage.parents.values())
        assert plan.study.results in Store(plan.study.results).folder(stage.path).parents
        if stage.kind in SPECS:
            SPECS[stage.kind].model_validate(stage.spec)


def check_message(message: str) -> None:
    assert message.strip()
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 60
    shown = re.sub(r"\S+/(?=study\.yaml)", "", message)  # how deep the test's folder lies is not the message's fault
    assert max(map(len, shown.splitlines())) <= 400, message


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mutated_config_ends_in_a_clear_error_or_a_plan(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())
    draws, plans = random.Random(name), 0
    for number in range(MUTATED):
        changed = mutate(config, draws)
        try:
            found = outcome(changed)
            if isinstance(found, Plan):
                plans += 1
                check_plan(found)
            else:
                check_message(found)
        except Exception as error:
            raise AssertionError(f"mutation {number} of {name}: {yaml.safe_dump(changed)[:3000]}") from error
    assert MUTATED / 20 < plans < MUTATED / 2, "both ends are reached"
    assert not list(tmp_path.iterdir()), "a config alone makes no files"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_damaged_file_ends_in_a_clear_error_or_a_plan(name: str, tmp_path: Path) -> None:
    text = (ROOT / "config" / f"{name}.yaml").read_bytes()
    draws, path = random.Random(name), tmp_path / "study.yaml"
    for number in range(CUT):
        start, length = draws.randrange(len(text)), draws.choice([1, 3, 40])
        junk = bytes(draws.choice(b"\x00\xff:{[-'\"\t &*!%\n8a") for _ in range(draws.choice([0, 1, 3])))
        path.write_bytes(text[:start] + junk + text[start + length :])
        try:
            found = outcome(load_config(path))
        except ValueError as error:
            found = str(error)
        except Exception as error:
            raise AssertionError(f"damage {number} of {name} at byte {start}") from error
        if isinstance(found, str):
            check_message(found)
        else:
            check_plan(found)
