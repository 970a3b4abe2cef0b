"""Progress is shown where somebody looks, and nowhere else."""

import sys
from types import SimpleNamespace

import pytest
import torch
from ssrob import attack_sweep
from ssrob.progress import in_notebook, shown
from torch import nn


def count(progress: object) -> None:
    with shown(progress, 10, "image", "attacks") as report:  # type: ignore[arg-type]
        for done in (4, 10):
            report(done, 10)


@pytest.mark.parametrize(("progress", "terminal", "seen"), [(None, True, True), (None, False, False)])
def test_by_default_a_terminal_decides(
    progress: object, terminal: bool, seen: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    count(progress)
    assert ("attacks" in capfd.readouterr().err) == seen


def test_it_is_turned_on_and_off(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    count(True)
    assert "attacks:" in capfd.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    count(False)
    assert capfd.readouterr().err == ""
    seen: list[tuple[int, int]] = []
    count(lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (10, 10)]


def test_a_cell_of_a_notebook_counts_as_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython in a terminal has no kernel; what Jupyter runs code in has one."""
    assert not in_notebook()
    for kernel, expected in ((None, False), (object(), True)):
        shell = SimpleNamespace(kernel=kernel)
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() == expected


def test_a_sweep_shows_it(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    data = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    attack_sweep(model, *data, eps="8/255", preset="fast")
    assert capfd.readouterr().err == ""
    attack_sweep(model, *data, eps="8/255", preset="fast", progress=True)
    assert "attacks:" in capfd.readouterr().err
