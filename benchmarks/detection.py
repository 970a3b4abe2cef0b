"""CPU time of detection and calibration of a model against its corruption test, in rounds within one process.

python benchmarks/detection.py [CONFIG [KEY=VALUE ...]] [--rounds N]

CONFIG: a study with sections `ood` and `calibrate`; default: digits as in config/quickstart.yaml with classes 8 and 9
held out, all sections at their defaults. A model with a rotation head, whose tests take most, is trained for an
epoch first. The first round warms up and is not counted.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ssrob.config.loader import load_config, parse_study
from ssrob.planning.plan import make_plan
from ssrob.runtime import runner
from ssrob.storage.store import Store

KINDS = ("corrupt", "ood", "calibrate")
TRAINING = {"epochs": 1, "batch_size": 100, "lr": 0.2, "validation_steps": 1}
DIGITS: dict[str, Any] = {
    "study": "detection",
    "data": {"name": "digits", "source": "digits", "hold_out": ["8", "9"]},
    "model": {"name": "resnet", "depth": 8, "width": 8},
    "threat": {"linf": {"eps": 0.15, "steps": 5}, "l2": {"eps": 0.5, "steps": 5}},
    "ood": {"sets": ["held_out", "gaussian", "blobs"]},
    "calibrate": {},
}


def main() -> None:
    """Run one model's tests in rounds, and print the CPU seconds of each kind and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides) if arguments.config else DIGITS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rounds = [dict(each) for each in tested(config, Path(folder), 1 + arguments.rounds)][1:]
    for kind in KINDS:
        print(f"{kind:10} {median(each[kind] for each in rounds):6.2f} s")
    ratios = sorted((each["ood"] + each["calibrate"]) / each["corrupt"] for each in rounds)
    found = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, n = {len(ratios)})"
    print(f"ood and calibrate together: {found} times the corruption test")


def tested(config: dict[str, Any], folder: Path, rounds: int) -> list[dict[str, float]]:
    """Return the CPU seconds of each kind of test of one model, by round."""
    arms = [{"variant": "ssl_standard"}]  # the fastest to train that has a rotation head
    changes = {"results": str(folder), "arms": arms, "seeds": [0], "findings": {}, "finetune": TRAINING}
    plan = make_plan(parse_study({**config, **changes}))
    store, model = Store(plan.study.results), plan.arms[0].finetune
    for stage in plan.stages.values():
        if stage.kind == "data" or stage.path == model:
            runner.run(stage, store, device="cpu")
    tests = [stage for kind in KINDS for stage in plan.of_kind(kind).values()]
    seconds = []
    for _ in range(rounds):
        seconds.append(dict.fromkeys(KINDS, 0.0))
        for stage in tests:
            began = time.process_time()
            runner.run(stage, store, device="cpu")
            seconds[-1][stage.kind] += time.process_time() - began
            shutil.rmtree(store.folder(stage.path))
    return seconds


if __name__ == "__main__":
    main()
