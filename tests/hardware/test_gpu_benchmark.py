"""The benchmark of training steps: it runs on a CPU, and what it prints follows from what it measured."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import gpu
from ssrob.config.training import Model

CPU = torch.device("cpu")


def test_it_runs_on_a_cpu_and_its_numbers_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = gpu.main(["--small", "--device", "cpu", "--json", str(tmp_path / "results.json")])
    assert json.loads((tmp_path / "results.json").read_text()) == results
    printed = capsys.readouterr().out
    assert results["copy_bytes"] > 0
    assert results["bf16_flops"] > 0
    for case in results["cases"]:
        assert case["name"] in printed
        assert set(case["rows"]) == {"ours", "plain loop"}
        for row in case["rows"].values():
            assert row["images_per_second"] == pytest.approx(case["batch"] / row["seconds"])
            assert row["of_bf16"] == pytest.approx(case["flops"] / row["seconds"] / results["bf16_flops"])
            assert row["over_floor"] == pytest.approx(row["seconds"] / case["floor_seconds"])
            assert row["idle"] is None
        assert case["rows"]["plain loop"]["of_plain"] == 1


def test_the_flops_of_a_network_are_those_of_its_products() -> None:
    """WRN-10-1 on 8 x 8 pixels by hand: a product of an n x n image counts 2 n n inputs outputs kernel."""
    case = gpu.Case("", Model(name="wideresnet", depth=10, width=1), batch=1, size=8)
    macs = 64 * 9 * (3 * 16 + 16 * 16 + 16 * 16)  # stem and first block
    macs += 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32)  # the shortcut has a 1 x 1 kernel
    macs += 4 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    macs += 64 * 10
    assert gpu.forward_flops(case) == 2 * macs


def test_our_step_trains_the_network_it_times() -> None:
    case = gpu.Case("", Model(name="resnet", depth=8, width=4), batch=8, size=8, steps=1, images=16)
    step = gpu.ours(case, CPU)
    step()
    assert step.__closure__ is not None
    held = {type(cell.cell_contents).__name__: cell.cell_contents for cell in step.__closure__}
    fresh = gpu.network_of(case).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in held["Network"].state_dict().items())
