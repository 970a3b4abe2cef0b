"""Training: paired by construction, resumable to the bit, selected on validation, loud when it diverges."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ssrob.config.training import Training
from ssrob.planning.stage import Stage
from ssrob.runtime import checkpoint, runner
from ssrob.storage.store import Store, sha256
from ssrob.storage.tables import read_table
from ssrob.training.lr_schedule import learning_rate
from ssrob.training.validate import score
from tests.conftest import tiny_config
from tests.trainings import plan_of, run_training, run_until


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Stage], Store]:
    """Plain AT, the variants at weight zero, and one with weight."""
    names = ["at_ssl_clean", "at_ssl_adv", "at_ssl_joint", "at_ssl_separate"]
    arms = [{"variant": "at", "norm": "linf"}, {"variant": names, "norm": "linf", "weight": 0}]
    plan, store = plan_of(tmp_path_factory.mktemp("family"), arms=arms)
    return run_training(plan, store), store


def test_weight_zero_is_plain_adversarial_training_to_the_bit(family: tuple[dict[str, Stage], Store]) -> None:
    trained, store = family
    hashes = {name: sha256(store.output(stage.path, "last.safetensors")) for name, stage in trained.items()}
    assert len(hashes) == 5
    assert len(set(hashes.values())) == 1, hashes


def test_the_records_tell_losses_rates_passes_and_accuracies(family: tuple[dict[str, Stage], Store]) -> None:
    trained, store = family
    table = read_table(store.output(trained["at"].path, "training.parquet"))
    given = set(table["metric"])
    assert {"loss/total", "loss/adv/xent", "lr", "passes", "accuracy/adv"} <= given
    assert {"validation/clean_accuracy", "validation/robust_accuracy"} <= given
    assert table["step"].max() == 3  # 360 images in batches of 100
    assert table[table["metric"] == "passes"]["value"].item() == pytest.approx(3 + 2 + 2)  # 2 steps, 1 epoch
    assert table["value"].between(0, 1).loc[table["metric"].str.contains("accuracy")].all()


def test_a_backbone_starts_from_the_user_s_own_weights(tmp_path: Path) -> None:
    first, store = plan_of(tmp_path / "a", arms=[{"variant": "standard"}])
    source = store.output(run_training(first, store)["standard"].path, "last.safetensors")
    mine = {"mine": {"weights": str(source)}}
    plan, store = plan_of(tmp_path / "b", arms=[{"variant": "standard", "init": "mine"}], pretraining=mine)
    trained = run_training(plan, store)["standard"]
    assert "init: backbone taken from" in (store.folder(trained.path) / "log.txt").read_text()
    losses = read_table(store.output(trained.path, "training.parquet"))
    fresh = read_table(source.with_name("training.parquet"))
    firsts = [table[table["metric"] == "loss/clean/xent"]["value"].iloc[0] for table in (losses, fresh)]
    assert firsts[0] < firsts[1], "it starts from where the other ended"


def test_pretraining_on_unlabelled_data_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(120):
        Image.fromarray(draws.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    own = {"name": "noise", "source": "folder", "path": str(folder), "label_column": None}
    arms = [{"variant": "at", "norm": "linf", "init": "ssl"}]
    plan, store = plan_of(tmp_path / "results", pretrain_data=own, arms=arms)
    assert [stage.spec["name"] for stage in plan.of_kind("data").values()] == ["digits", "noise"]
    run_training(plan, store)
    pretrain = next(iter(plan.of_kind("pretrain").values()))
    assert "noise" in pretrain.key
    assert read_table(store.output(pretrain.path, "training.parquet"))["metric"].eq("loss/clean/rotation").any()


@pytest.mark.parametrize("options", [{}, {"augment": ["crop", "flip"], "ema": 0.9}])
def test_a_training_that_stops_and_goes_on_ends_with_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    training = tiny_config(tmp_path)["finetune"] | {"epochs": 3} | options
    arms = [{"variant": "at_ssl_joint", "norm": "linf"}]
    through, store_through = plan_of(tmp_path / "a", finetune=training, arms=arms)
    stopped, store_stopped = plan_of(tmp_path / "b", finetune=training, arms=arms)
    whole = run_training(through, store_through)["at_ssl_joint"]
    runner.run(next(iter(stopped.of_kind("data").values())), store_stopped, device="cpu")
    for steps in (1, 3, 0):
        run_until(whole, store_stopped, steps)
        assert not store_stopped.done(whole.path)
    runner.run(whole, store_stopped, device="cpu")
    for name in ("last.safetensors", "best.safetensors", "training.parquet"):
        assert sha256(store_stopped.output(whole.path, name)) == sha256(store_through.output(whole.path, name)), name


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_bits(how: signal.Signals, tmp_path: Path) -> None:
    """The real thing: a process of its own, killed in the middle; SIGTERM leaves a checkpoint, SIGKILL need not."""
    training = tiny_config(tmp_path)["finetune"] | {"epochs": 8, "validation_steps": 1}
    arms = [{"variant": "at_ssl_joint", "norm": "linf"}]
    plan, store = plan_of(tmp_path / "a", finetune=training, arms=arms)
    killed_plan, killed = plan_of(tmp_path / "b", finetune=training, arms=arms)
    whole = run_training(plan, store)["at_ssl_joint"]
    runner.run(next(iter(killed_plan.of_kind("data").values())), killed, device="cpu")
    command = [sys.executable, "-m", "ssrob", "run", "--results", str(killed.root), "--stage", whole.to_json()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    records = killed.work(whole.path) / "records.jsonl"
    until = time.monotonic() + 60
    while not records.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(0.1)
    process.send_signal(how)
    code = process.wait()
    assert code == (143 if how == signal.SIGTERM else -9), "it was still at work"
    assert not killed.done(whole.path)
    assert (killed.work(whole.path) / "checkpoint.pt").exists() == (how == signal.SIGTERM)
    runner.run(whole, killed, device="cpu")
    assert sha256(killed.output(whole.path, "last.safetensors")) == sha256(store.output(whole.path, "last.safetensors"))
    assert sha256(killed.output(whole.path, "training.parquet")) == sha256(store.output(whole.path, "training.parquet"))


def test_a_damaged_checkpoint_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"step": 3, "tensor": torch.arange(5)}, path)
    assert checkpoint.load(path)["step"] == 3
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], b"", content[:100] + b"x" + content[101:]):
        path.write_bytes(damaged)
        with pytest.raises(checkpoint.DamagedCheckpoint, match="truncated or altered"):
            checkpoint.load(path)


def test_a_stage_with_a_damaged_checkpoint_starts_again_and_says_so(tmp_path: Path) -> None:
    plan, store = plan_of(tmp_path, arms=[{"variant": "standard"}])
    stage = next(iter(plan.of_kind("finetune").values()))
    runner.run(next(iter(plan.of_kind("data").values())), store, device="cpu")
    store.work(stage.path).mkdir(parents=True)
    (store.work(stage.path) / "checkpoint.pt").write_bytes(b"nonsense")
    runner.run(stage, store, device="cpu")
    assert "starting from the beginning" in (store.folder(stage.path) / "log.txt").read_text()


def test_divergence_is_named_with_its_step_and_leaves_no_finished_stage(tmp_path: Path) -> None:
    training = tiny_config(tmp_path)["finetune"] | {"lr": 1e20, "epochs": 4, "warmup": 0}
    plan, store = plan_of(tmp_path, finetune=training, arms=[{"variant": "standard"}])
    with pytest.raises(ArithmeticError, match=r"at step \d+: training diverged"):
        run_training(plan, store)
    stage = next(iter(plan.of_kind("finetune").values()))
    assert not store.done(stage.path)


def test_the_best_checkpoint_is_chosen_on_robust_validation_accuracy() -> None:
    assert score({"validation/clean_accuracy": 0.9, "validation/robust_accuracy": 0.3}) == 0.3
    assert score({"validation/clean_accuracy": 0.9}) == 0.9
    ssl = {"validation/clean_rotation_accuracy": 0.8, "validation/robust_rotation_accuracy": 0.4}
    assert score(ssl) == 0.4
    assert score(ssl | {"validation/clean_accuracy": 0.7}) == 0.4


def test_the_onecycle_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    training = Training(lr=0.2, warmup=0.25)
    rates = [learning_rate(step, 100, training) for step in range(100)]
    assert max(rates) == pytest.approx(0.2)
    assert rates.index(max(rates)) == 24
    assert rates[:25] == sorted(rates[:25])
    assert rates[24:] == sorted(rates[24:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert learning_rate(0, 10, Training(lr=0.2, warmup=0)) <= 0.2


def test_the_piecewise_rate_falls_tenfold_at_its_milestones() -> None:
    training = Training(lr=0.1, schedule="piecewise", milestones=[0.5, 0.75])
    rates = [learning_rate(step, 100, training) for step in (0, 49, 50, 74, 75, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_provenance_is_apart_from_results(family: tuple[dict[str, Stage], Store]) -> None:
    trained, store = family
    folder = store.folder(trained["at"].path)
    facts = json.loads((folder / "provenance.json").read_text())
    assert {"commit", "versions", "device", "started", "seconds", "peak_memory_mb", "best_epoch"} <= set(facts)
    manifest = store.manifest(trained["at"].path)
    assert "provenance.json" not in manifest["outputs"]
    assert dataclasses.asdict(trained["at"]) == {key: manifest[key] for key in dataclasses.asdict(trained["at"])}


def test_the_commit_is_that_of_a_tracked_package_and_says_if_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, other = tmp_path / "package", tmp_path / "site-packages"
    for folder in (package, other):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "package"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    asked = runner.commit.__wrapped__
    assert re.fullmatch(r"[0-9a-f]{40}", found := asked(package))
    (tmp_path / "notes").write_text("not of the package")
    assert asked(package) == found
    assert asked(other) == "", "installed below a checkout of something else"
    (package / "new.py").write_text("")
    assert asked(package) == f"{found}-dirty"
    monkeypatch.setenv("PATH", "")
    assert asked(package) == "", "a machine without git"
