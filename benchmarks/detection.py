"""CPU time of detection and calibration of a model against its corruption test, one after the other in one process.

python benchmarks/detection.py [CONFIG]

CONFIG: a study with sections `ood` and `calibrate`; default: digits as in config/quickstart.yaml with classes 8 and 9
held out, all sections at their defaults. One model is trained for an epoch first.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ssrob.config.loader import load_config, parse_study
from ssrob.planning.plan import make_plan
from ssrob.runtime import runner
from ssrob.storage.store import Store

KINDS = ("corrupt", "ood", "calibrate")
TRAINING = {"epochs": 1, "batch_size": 100, "lr": 0.2, "validation_steps": 5}
DIGITS: dict[str, Any] = {
    "study": "detection",
    "data": {"name": "digits", "source": "digits", "hold_out": ["8", "9"]},
    "model": {"name": "resnet", "depth": 8, "width": 8},
    "threat": {"linf": {"eps": 0.15, "steps": 5}, "l2": {"eps": 0.5, "steps": 5}},
    "arms": [{"variant": "at_ssl_clean", "norm": "linf"}],
    "ood": {"sets": ["held_out", "gaussian", "blobs"]},
    "calibrate": {},
}


def main() -> None:
    """Run one model's tests twice, the first time to warm up, and print their CPU seconds."""
    config = load_config(Path(sys.argv[1])) if len(sys.argv) > 1 else DIGITS
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for run in ("warm", "timed"):
            study = parse_study(dict(config) | {"results": f"{folder}/{run}", "finetune": TRAINING, "seeds": [0]})
            plan = make_plan(study.model_copy(update={"arms": study.arms[:1]}))
            model = plan.arms[0].finetune
            store, seconds = Store(study.results), dict.fromkeys(KINDS, 0.0)
            for stage in plan.stages.values():
                if stage.kind == "data" or stage.path == model:
                    runner.run(stage, store, device="cpu")
            for stage in plan.stages.values():
                if stage.kind in KINDS and stage.parents["model"] == model:
                    began = time.process_time()
                    runner.run(stage, store, device="cpu")
                    seconds[stage.kind] += time.process_time() - began
    both = seconds["ood"] + seconds["calibrate"]
    print(", ".join(f"{kind} {spent:.2f} s" for kind, spent in seconds.items()))
    print(f"ood and calibrate together: {both / seconds['corrupt']:.2f} times the corruption test")


if __name__ == "__main__":
    main()
