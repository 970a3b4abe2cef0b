"""Finished results are found again: the studies in `frozen/` have the stage keys that they had when they were shipped.

`frozen/` holds shipped configs as they were on 28 November 2026, whatever became of them since; `frozen/keys.txt` holds
the digest of each study and of each of its stages. Write it anew only when results truly change:
``python -m tests.planning.test_shipped_keys``.
"""

from pathlib import Path

import pytest
from ssrob.config.loader import load_study
from ssrob.planning.plan import make_plan

FROZEN = Path(__file__).parent / "frozen"
CONFIGS = sorted(FROZEN.glob("*.yaml"))


def keys_of(config: Path) -> list[str]:
    plan = make_plan(load_study(config))
    return [f"{config.stem} study {plan.digest}", *(f"{config.stem} {path}" for path in sorted(plan.stages))]


def digests_of(config: Path) -> list[str]:
    """Without the readable part of the keys, which no result hangs on."""
    return [f"{line.rpartition('/')[0]}/{line.rpartition('-')[2]}" if "/" in line else line for line in keys_of(config)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_study_keeps_its_keys(config: Path) -> None:
    kept = [line for line in (FROZEN / "keys.txt").read_text().splitlines() if line.startswith(f"{config.stem} ")]
    assert sorted(digests_of(config)) == kept
    assert len(kept) > 7


def test_names_are_readable() -> None:
    assert any("finetune/digits-at-linf" in line for line in keys_of(FROZEN / "quickstart.yaml"))


if __name__ == "__main__":
    (FROZEN / "keys.txt").write_text("\n".join(sorted(line for path in CONFIGS for line in digests_of(path))) + "\n")
