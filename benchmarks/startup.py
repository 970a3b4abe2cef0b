"""What starting a stage costs in the workflow, with a fork server and without: python benchmarks/startup.py

Stages that are finished have nothing to compute: what they cost is starting. Times are of the clock and of all
processors together, on one core and on two; on a machine that does other things, compare the latter.

    --whole [CONFIG]      run a whole study, too (config/quickstart.yaml: minutes), both ways
    --against CHECKOUT    the other way is an older version of this repository, as it is in that folder
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ssrob.config.loader import load_config, parse_study
from ssrob.planning.plan import make_plan
from ssrob.runtime.fork_client import ADDRESS

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "config" / "quickstart.yaml"
WITHOUT = {ADDRESS: ""}  # an address that is set keeps the workflow from starting a server
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock, and of all processes on all cores."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, count: int) -> "Cost":
        return Cost(self.wall / count, self.cpu / count)

    def __str__(self) -> str:
        return f"{self.wall:7.2f} s, {self.cpu:7.2f} core-seconds"


def workflow(folder: Path, config: dict[str, Any], *arguments: str, checkout: Path = ROOT, **environment: str) -> Cost:
    """Run Snakemake and wait for all processes that it has started, the server among them."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", checkout / "Snakefile", "--configfile", path, *arguments]
    began, before = time.perf_counter(), os.times()
    settings = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu)


def finished_stages(folder: Path) -> None:
    """Run a small study, and then its stages again, which find that they are done."""
    config = load_config(QUICKSTART) | {"results": "results", "seeds": [0]}
    config["arms"] = [{"variant": ["standard", "at"], "norm": "linf"}, {"variant": "at", "norm": "linf", "init": "ssl"}]
    config["evaluate"] |= {"images": 20, "audit_images": 4, "audit_queries": 5}
    for section in ("pretrain", "finetune"):
        config[section] = config[section] | {"epochs": 1}
    stages = len(make_plan(parse_study(config)).stages)
    workflow(folder, config, "--omit-from", "collect")
    cores = sorted(os.sched_getaffinity(0))
    for count in (1, 2):
        os.sched_setaffinity(0, cores[:count])
        again = ("--forceall", "--omit-from", "collect", "--cores", str(count))
        base = workflow(folder, config, *again, "--dry-run")
        for name, environment in (("without a server", WITHOUT), ("with a server", {})):
            cost = (workflow(folder, config, *again, **environment) - base) / stages
            print(f"{count} core{'s' * (count > 1)}, {name:18} {cost} for each of {stages} finished stages", flush=True)
    os.sched_setaffinity(0, cores)


def whole(folder: Path, path: Path, against: Path | None) -> None:
    """Run a study from the beginning, both ways."""
    config = load_config(path)
    ways: dict[str, dict[str, Any]] = {"without a server": WITHOUT, "with a server": {}}
    if against:
        ways = {str(against): {"checkout": against.resolve()}, "here": {}}
    costs = {}
    for number, (name, options) in enumerate(ways.items()):
        costs[name] = workflow(folder, config | {"results": f"whole-{number}"}, "--cores", "all", **options)
        print(f"{path.name}, {name:18} {costs[name]}", flush=True)
    old, new = costs.values()
    print(f"ratio: {new.wall / old.wall:.2f} of the time, {new.cpu / old.cpu:.2f} of the computing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", nargs="?", type=Path, const=QUICKSTART)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # so that the server's times are counted
    with tempfile.TemporaryDirectory() as folder:
        if given.whole:
            whole(Path(folder), given.whole, given.against)
        else:
            finished_stages(Path(folder))


if __name__ == "__main__":
    main()
