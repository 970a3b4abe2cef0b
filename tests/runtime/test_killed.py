"""Killed anywhere, started again: a stage ends with the bits of one that nothing happened to."""

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.storage.store import Store, sha256
from tests.conftest import ROOT, tiny_config
from tests.image_files import parquet_data

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("killed")]

STEP = "ssrob.training.fit:training_step"
RENAME = "ssrob.storage.files:os.replace"  # of a finished file, a checkpoint among them, to its name
SETTINGS = {
    "ssrob.runtime.checkpoint:SHORTEST": 0.0,  # seconds between checkpoints, and the share of time they take
    "ssrob.runtime.checkpoint:SHARE": 0.5,
    "ssrob.stages.evaluate:BLOCK": 10,  # images
}
TRAINING = {"batch_size": 30, "validation_steps": 1, "validation_images": 20, "lr": 0.05}


def digits(results: Path) -> dict[str, Any]:
    """Joint attack, crops and flips; nine steps an epoch."""
    data = {"name": "digits", "source": "digits", "train_images": 300, "test_images": 60}
    training = TRAINING | {"epochs": 8, "augment": ["crop", "flip"]}
    arms = [{"variant": "at_ssl_joint", "norm": "linf"}]
    return tiny_config(results, data=data, finetune=training, arms=arms)


def colours(results: Path, images: Path) -> dict[str, Any]:
    """CIFAR's shape: BatchNorm, momentum, weight averaging, contrastive views, attacked in l2."""
    data = parquet_data(images, train=170, test=40, pixel_size=32).model_dump(mode="json", exclude_defaults=True)
    training = TRAINING | {"epochs": 12, "momentum": 0.9, "ema": 0.9, "augment": ["crop", "flip"]}
    arms = [{"variant": "at_ssl_clean", "norm": "l2"}]
    ssl = {"task": "contrastive", "weights": [0.5]}
    return tiny_config(results, data=data, finetune=training, arms=arms, ssl=ssl, findings={"primary": {"norm": "l2"}})


def kill(at: str, call: int = 1, *, of: str = "", **options: Any) -> dict[str, Any]:
    """A kill after a call; see `tests/killer.py`."""
    return {"at": at, "call": call, "of": of, "when": "after", "signal": "SIGKILL", "torn": False} | options


def at_random(at: str, count: int, most: int, seed: int) -> Iterator[dict[str, Any]]:
    """Kills after 1 to `most` calls, every other one by SIGTERM."""
    draws = random.Random(seed)
    for _, how in zip(range(count), itertools.cycle(["SIGKILL", "SIGTERM"]), strict=False):
        yield kill(at, draws.randint(1, most), signal=how)


Ended = dict[str, list[int]]  # kind of stage -> how each of its processes ended


def run(requests: list[tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]]) -> list[Ended]:
    """Run the stages of several configs, each with kills."""
    payload = [
        {
            "results": config["results"],
            "stages": [stage.to_json() for stage in make_plan(parse_study(config)).stages.values()],
            "set": SETTINGS,
            "kills": kills,
        }
        for config, kills in requests
    ]
    command = [sys.executable, "-m", "tests.killer"]
    done = subprocess.run(command, input=json.dumps(payload), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    ended: dict[str, Ended] = {request["results"]: {} for request in payload}
    for results, kind, code in map(json.loads, done.stdout.splitlines()):
        ended[results].setdefault(kind, []).append(code)
    for kind, codes in (item for each in ended.values() for item in each.items()):
        assert codes[-1] == 0, (kind, codes, done.stderr)
        assert set(codes[:-1]) <= {-9, 143}, (kind, codes, "every kill came while the stage was at work")
    return list(ended.values())


def same_results(plan: Plan, one: Store, other: Store) -> int:
    """Compare every output of every stage; returns how many."""
    compared = 0
    for path in plan.stages:
        for name in one.manifest(path)["outputs"]:
            files = [store.output(path, name) for store in (one, other)]
            if name.endswith(".npz"):  # a zip, which stores the time
                left, right = (np.load(file) for file in files)
                assert left.files == right.files
                assert all(left[key].tobytes() == right[key].tobytes() for key in left.files), (path, name)
            else:
                assert sha256(files[0]) == sha256(files[1]), (path, name)
            compared += 1
    return compared


def while_written(name: str) -> list[dict[str, Any]]:
    """Kills when a file is complete but has no name yet, when it has just got it, and half of it under its name."""
    return [kill(RENAME, of=name, when="before"), kill(RENAME, of=name), kill(RENAME, of=name, torn=True)]


def all_kills(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Twenty random steps of the training, checkpoints as they are written, sweeps, and every stage's end."""
    publishing = [
        kill("ssrob.storage.store:shutil.move", when="before"),
        kill(RENAME, of="provenance.json"),
        kill(RENAME, of="manifest.json", when="before"),
    ]
    return {
        "data": [kill("numpy:save", 3), kill("ssrob.data.prepare:write_json", when="before"), *publishing],
        "finetune": [
            *at_random(STEP, 10, 5, seed),
            *while_written("checkpoint.pt"),
            *at_random(STEP, 10, 5, seed + 1),
            kill("ssrob.training.train:save_weights"),
            *publishing,
        ],
        "evaluate": [
            *at_random("ssrob.stages.evaluate:_show", 4, 6, seed),
            *while_written(".block"),
            kill("ssrob.stages.evaluate:write_table"),
            *publishing,
        ],
        "corrupt": [*at_random("ssrob.stages.corrupt:predict", 2, 3, seed), *publishing],
    }


def check(through: dict[str, Any], killed: dict[str, Any], seed: int) -> None:
    kills = all_kills(seed)
    _, ended = run([(through, {}), (killed, kills)])
    plan, undisturbed, store = make_plan(parse_study(killed)), Store(through["results"]), Store(killed["results"])
    assert {kind: len(ended[kind]) for kind in kills} == {kind: len(each) + 1 for kind, each in kills.items()}
    assert ended["finetune"].count(143) == 10
    assert same_results(plan, undisturbed, store) >= 15
    train = next(iter(plan.of_kind("finetune").values()))
    log = (store.folder(train.path) / "log.txt").read_text()
    assert "checkpoint.pt: truncated or altered: starting from the beginning" in log
    assert log.count("resumed at step") >= 15
    assert "exited without a message" in log
    assert not list(store.root.glob("work/*/*"))


def test_digits_come_out_the_same_whatever_is_killed_when(tmp_path: Path) -> None:
    check(digits(tmp_path / "through"), digits(tmp_path / "killed"), seed=1)


def test_a_training_on_colour_images_and_its_half_finished_sweep_come_out_the_same(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    check(colours(tmp_path / "through", images), colours(tmp_path / "killed", images), seed=2)
