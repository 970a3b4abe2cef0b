"""A study of 10,000 stages: how long the plan, a dry run and the commands that look at it take, and how much memory.

python benchmarks/scale.py                  plan, dry run and status of a study that has not begun
python benchmarks/scale.py --finished 1     the same of one that is done, with collect, findings and track
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.storage.store import Store, write_json
from ssrob.storage.tables import CHECKED, CORRUPTED, DIAGNOSED, EXAMPLES, PROBED, RECORDS, write_table

ROOT = Path(__file__).parents[1]
TESTED = 100  # images per test, and lines in the records of a training


def config(results: Path, seeds: int) -> dict[str, Any]:
    """Return a study of many models a seed; all share the data."""
    return {
        "study": "scale",
        "results": str(results),
        "seeds": list(range(seeds)),
        "data": {"name": "digits", "source": "digits"},
        "model": {"name": "resnet", "depth": 8, "width": 8},
        "threat": {"linf": {"eps": 0.15}, "l2": {"eps": 0.5}},
        "arms": [
            {"variant": "standard"},
            {"variant": "at", "eps_scale": [0.5, 1, 1.5]},
            {"variant": ["at_ssl_clean", "at_ssl_adv", "at_ssl_joint"]},
            {"variant": ["at", "at_ssl_joint"], "init": "ssl", "norm": "linf"},
            {"variant": "trades", "norm": "linf"},
        ],
    }


def finish(plan: Plan, store: Store) -> None:
    """Publish every stage as if it had run, with tables of the right shape."""
    for stage in plan.stages.values():
        out = store.work(stage.path) / "out"
        out.mkdir(parents=True)
        fabricate(stage, out)
        facts = {"seconds": 1.0, "started": "2026-01-01T00:00:00+00:00", "device": "none", "peak_memory_mb": 1.0}
        store.publish(stage, out, facts | {"commit": "", "versions": {}, "best_epoch": 1.0})


def fabricate(stage: Stage, out: Path) -> None:
    """Write the outputs of a stage, made up from its key."""
    draw = np.random.default_rng(int(stage.key[-8:], 16))
    if stage.kind == "data":
        counts = {"train": 1212, "validation": 135, "test": 450}
        write_json(out / "data.json", {"fingerprint": "f" * 32, "counts": counts, "shape": [1, 8, 8]})
    elif stage.kind in ("pretrain", "finetune"):
        rows = [(i, i / 10, "loss/total", float(draw.random())) for i in range(TESTED)]
        write_table(pd.DataFrame(rows, columns=list(RECORDS)), RECORDS, out / "training.parquet")
    elif stage.kind == "evaluate":
        parts = [examples(norm, grid, draw) for norm, grid in stage.spec["eps"].items()]
        write_table(pd.concat(parts), EXAMPLES, out / "robustness.parquet")
        write_table(pd.DataFrame(columns=list(CHECKED)), CHECKED, out / "checks.parquet")
        (out / "samples.npz").write_bytes(b"")
    elif stage.kind == "probe":
        write_table(pd.DataFrame(columns=list(PROBED)), PROBED, out / "probes.parquet")
    elif stage.kind == "diagnose":
        write_table(pd.DataFrame(columns=list(DIAGNOSED)), DIAGNOSED, out / "diagnosis.parquet")
    elif stage.kind == "corrupt":
        bits = np.packbits(draw.random(TESTED) < 0.5).tobytes()
        rows = [(name, level, TESTED, bits) for name in stage.spec["names"] for level in stage.spec["severities"]]
        write_table(pd.DataFrame(rows, columns=list(CORRUPTED)), CORRUPTED, out / "corruptions.parquet")


def examples(norm: str, grid: list[float], draw: np.random.Generator) -> pd.DataFrame:
    """Return the rows of one sweep."""
    failed = draw.choice([*grid, np.inf], TESTED)
    columns = {"eval_norm": norm, "example": np.arange(TESTED), "label": 0, "clean_correct": failed > 0}
    return pd.DataFrame(columns | {"distance": failed, "first_failed": failed, "attack": "none"})


def measure(name: str, *command: object) -> None:
    """Run a command and print its wall time, its processor time (children included) and its peak memory."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    assert process.stdout
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall, processor = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    failed = "" if status == 0 else f"  FAILED: {said[-300:]}"
    print(f"{name:10} {wall:7.1f} s  {processor:7.1f} s CPU  {usage.ru_maxrss / 1024:7.0f} MB{failed}", flush=True)


def main() -> None:
    """Print a line per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=10_000)
    parser.add_argument("--finished", type=int, default=0, choices=(0, 1))
    parser.add_argument("--commands", nargs="+", default=["plan", "dry-run", "status", "ls", "collect", "track"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = make_plan(parse_study(config(Path(folder) / "results", 1)))
        seeds = -(-asked.stages // (len(one.stages) - 1))
        study = config(Path(folder) / "results", seeds)
        file = Path(folder) / "scale.yaml"
        file.write_text(yaml.safe_dump(study))
        plan = make_plan(parse_study(study))
        print(f"{len(plan.stages)} stages, {len(plan.arms)} models, {'all' if asked.finished else 'none'} finished")
        if asked.finished:
            finish(plan, Store(plan.study.results))
        for name in asked.commands:
            if name == "dry-run":
                snakefile = ["--snakefile", ROOT / "Snakefile", "--directory", folder]
                measure(name, "-m", "snakemake", "-n", *snakefile, "--configfile", file)
            elif asked.finished or name not in ("collect", "track"):
                measure(name, "-m", "ssrob", name, file)


if __name__ == "__main__":
    main()
