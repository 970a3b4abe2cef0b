"""Arithmetic that a processor emulates: measured, said in one line wherever it is asked for, and shipped nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ssrob.cli.plan_view import emulation, plan_text
from ssrob.config.loader import load_study, parse_study
from ssrob.external.run import evaluate
from ssrob.hardware import emulation as measured
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime import runner
from ssrob.storage.store import Store
from tests.conftest import ROOT, tiny_config
from tests.external.test_external import ask

CPU = torch.device("cpu")
LINE = "bfloat16 is emulated on this CPU ({}) and takes 5 x as long as float32; set "


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> str:
    """A processor on which bfloat16 takes five times as long; returns how the line begins there."""
    monkeypatch.setattr(measured, "bfloat16_time", lambda: 5.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return LINE.format(torch.backends.cpu.get_cpu_capability())


def in_bfloat16(folder: Path) -> Plan:
    config = tiny_config(folder / "results", arms=[{"variant": "standard"}, {"variant": "standard", "init": "ssl"}])
    config["finetune"] = config["finetune"] | {"precision": "bfloat16"}
    config["evaluate"] = config["evaluate"] | {"gradients_in": "bfloat16"}
    return make_plan(parse_study(config))


def test_the_line_says_what_to_set(emulated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured.emulation_warning(["a", "b"], CPU) == emulated + "a: float32, b: float32"
    assert measured.emulation_warning([], CPU) == ""
    assert measured.emulation_warning(["a"], torch.device("cuda")) == ""
    monkeypatch.setattr(measured, "bfloat16_time", lambda: 0.7)
    assert measured.emulation_warning(["a"], CPU) == ""


def test_a_plan_says_it_of_what_is_still_to_do(emulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = in_bfloat16(tmp_path), Store(tmp_path / "results")
    assert f"\nSlow: {emulated}finetune.precision: float32, evaluate.gradients_in: float32.\n" in plan_text(
        plan, store, {}
    )
    monkeypatch.setattr(Store, "done", lambda self, path: not path.startswith("evaluate"))
    assert emulation(plan, store) == f"{emulated}evaluate.gradients_in: float32"
    monkeypatch.setattr(Store, "done", lambda *_: True)
    assert emulation(plan, store) == ""


@pytest.mark.parametrize(("settings", "imported"), [([], "False"), (["--set", "finetune.precision=bfloat16"], "True")])
def test_a_plan_imports_torch_only_where_bfloat16_is_asked_for(
    settings: list[str], imported: str, tmp_path: Path
) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); from ssrob.cli import main; main()"
    )
    where = ["--set", f"results={tmp_path}"]
    command = [sys.executable, "-c", code, "plan", ROOT / "config" / "quickstart.yaml", *where, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"NO_COLOR": "1"})
    assert done.stdout.endswith(f"\n{imported}\n")


def test_a_stage_says_it_in_its_log(emulated: str, tmp_path: Path) -> None:
    plan = in_bfloat16(tmp_path)
    store = Store(plan.study.results)
    for kind in ("data", "pretrain", "finetune"):
        for stage in plan.of_kind(kind).values():
            runner.run(stage, store, device="cpu")
            said = (
                f" WARNING {emulated}finetune.precision: float32\n"
                in (store.folder(stage.path) / "log.txt").read_text()
            )
            assert said == (kind == "finetune")


def test_an_evaluation_of_a_model_says_it(emulated: str, tmp_path: Path) -> None:
    lines: list[str] = []
    evaluate(ask(gradients_in="bfloat16"), tmp_path, say=lines.append)
    assert lines[0] == f"warning: {emulated}gradients_in: float32"


def measure(**environment: str) -> float:
    code = "from ssrob.hardware.emulation import bfloat16_time; print(bfloat16_time())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, check=True)
    return float(done.stdout)


def test_instructions_that_are_held_down_are_noticed() -> None:
    """On any processor: without its bfloat16 instructions it needs more time than float32 does."""
    assert measure(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2") > 2


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 instructions here")
def test_native_instructions_are_not_slower() -> None:
    native = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    assert not native or "ONEDNN_MAX_CPU_ISA" in os.environ or measure() < measured.SLOWER


@pytest.mark.parametrize("config", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_study_for_a_cpu_asks_for_no_bfloat16(config: Path) -> None:
    """Precision is part of a result's identity, so a study cannot choose it by the machine: float32 is fast on all."""
    asked = {name for stage in make_plan(load_study(config)).stages.values() for name in stage.in_bfloat16}
    assert bool(asked) == (config.stem in ("cifar10", "imagenet", "imagenet100"))  # those for a GPU
