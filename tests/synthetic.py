"""Studies that never ran: tables with the package's schemas and plausible shapes, made from a config in no time."""

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
from ssrob.config.loader import parse_study
from ssrob.config.study import Study
from ssrob.planning.names import arm_label
from ssrob.planning.plan import Arm, Plan, make_plan
from ssrob.registry.corruptions import BENCHMARK, families
from ssrob.storage.tables import ARMS, COLLECTED, Columns

Tables = dict[str, pd.DataFrame]
BASE: dict[str, Any] = {
    "study": "synthetic",
    "title": "Rotation and adversarial training, synthetic",
    "seeds": [0, 1, 2],
    "data": {"name": "digits", "source": "digits"},
    "model": {"name": "resnet", "depth": 8, "width": 8},
    "threat": {"linf": {"eps": "8/255"}, "l2": {"eps": 0.5}},
    "arms": [{"variant": ["standard", "at", "at_ssl_joint"]}],
}
GAINS = {  # robust accuracy (points) that each way adds below and above eps_train; made up
    "at": (0.0, 0.0),
    "trades": (-1.0, 2.5),
    "at_ssl_clean": (1.5, -0.8),
    "at_ssl_adv": (2.4, -1.6),
    "at_ssl_attack_only": (0.8, -0.2),
    "at_ssl_joint_clean": (2.0, -1.0),
    "at_ssl_joint": (3.4, -1.2),
    "at_ssl_separate": (2.2, -2.4),
    "at_ssl_ensemble": (2.8, -0.4),
    "at_two": (0.6, 0.3),
}


def study(**changes: Any) -> Study:
    """Return the base study with some of its settings replaced."""
    return parse_study({**BASE, **changes})


def large_study() -> Study:
    """Return a study with every way, several inits, weights and norms, and the frontier."""
    ways = ["at_ssl_clean", "at_ssl_adv", "at_ssl_joint", "at_ssl_separate", "at_ssl_ensemble"]
    return study(
        ssl={"task": "rotation", "weights": [0.5]},
        arms=[
            {"variant": ["standard", "at", "trades", "at_ssl_attack_only", "at_ssl_joint_clean", "at_two", *ways]},
            {"variant": ["at"], "eps_scale": [0.5, 0.75, 1.25]},
            {"variant": ["at"], "equal_passes": "at_ssl_joint"},
            {"variant": ["at", "at_ssl_joint"], "init": ["ssl", "adversarial_ssl"]},
            {"variant": ["at_ssl_joint"], "weight": [0.1, 2]},
        ],
    )


def tables(config: Study, *, n: int = 1000, seed: int = 0) -> Tables:
    """Return every table of a study as if it had been run on `n` test images."""
    plan, draw = make_plan(config), np.random.default_rng(seed)
    rows = {
        "arms": [_arm_row(arm) | _training_cost(arm) for arm in plan.arms],
        "training": [row for arm in plan.arms for row in _training_rows(arm, draw)],
        "robustness": [row for arm in plan.arms for row in _sweep_rows(arm, config, n, draw)],
        "corruptions": [row for arm in plan.arms for row in _corrupt_rows(arm, config, n, draw)],
        "detection": [row for arm in plan.arms for row in _detection_rows(arm, draw)],
        "calibration": [row for arm in plan.arms for row in _calibration_rows(arm, draw)],
        "checks": [row for arm in plan.arms for row in _check_rows(arm, config)],
        "findings": _finding_rows(config, n),
        "examples": [row for arm in plan.arms for row in _example_rows(arm, config, draw)],
        "probes": _probe_rows(plan),
        "diagnostics": [row for arm in plan.arms for row in _diagnosis_rows(arm, config)],
        "stages": _stage_rows(plan),
    }
    return {name: _frame(each, COLLECTED[name]) for name, each in rows.items()}


def samples(labels: list[str], images: int = 6, size: int = 16, channels: int = 3) -> dict[str, dict[str, Any]]:
    """Return clean and perturbed pictures, as evaluation stages keep a few of them."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    phases = draw.uniform(0, 3, (images, channels, 1, 1))
    clean = 0.5 + 0.4 * np.sin(4 * x + 3 * y * phases + 2 * phases)
    values = np.arange(images)
    arrays = {}
    for i, label in enumerate(labels):
        noise = np.sign(draw.normal(size=clean.shape) + np.sin(9 * x * (i + 1))) * 8 / 255
        arrays[label] = {
            "clean": clean.astype("float32"),
            "adversarial": np.clip(clean + noise, 0, 1).astype("float32"),
            "label": values,
            "predicted_clean": values,
            "predicted_adversarial": (values + (values % (i + 2) == 0)) % 10,
            "eps": 8 / 255,
            "norm": "linf",
        }
    return arrays


def _arm_row(arm: Arm) -> dict[str, Any]:
    row = {name: getattr(arm, name) for name in ARMS if hasattr(arm, name)}
    return row | {"arm": arm.finetune.removeprefix("finetune/"), "label": arm_label(arm)}


def _training_cost(arm: Arm) -> dict[str, Any]:
    finetune = 20.0 * {"standard": 3, "at": 23, "at_ssl_joint": 46, "at_ssl_separate": 45}.get(arm.variant, 30)
    finetune = finetune * 2 if arm.budget else finetune
    passes = finetune + (460 if arm.init == "adversarial_ssl" else 60 if arm.init == "ssl" else 0)
    seconds = {"seconds": passes / 3 + arm.seed, "device": "cpu", "best_epoch": 17.0}
    seconds |= {"overfitting": np.nan if arm.norm is None else 0.012 + 0.001 * arm.seed}
    return {"passes": passes, "passes_finetune": finetune} | seconds


def _accuracy(arm: Arm, norm: str, multiple: float, noise: float) -> float:
    """Return a plausible robust accuracy, 0..1: a falling curve, moved by the way of training."""
    below, above = GAINS.get(arm.variant, (0.0, 0.0))
    if arm.norm is None:
        return float(np.clip(0.95 * np.exp(-((multiple / 0.22) ** 1.5)) + noise, 0, 1))
    w = 0.5 if arm.weight is None else arm.weight
    side = np.tanh(3 * (1 - multiple))
    gain = (below if side > 0 else -above) * side * (0.4 + 1.2 * w) + (1.5 if arm.init != "random" else 0)
    strength = (1.0 if norm == arm.norm else 0.72) * arm.eps_scale**0.5
    top = 0.86 - 0.10 * arm.eps_scale
    curve = top / (1 + (multiple / (1.12 * strength)) ** 2.1)
    return float(np.clip(curve + gain / 100 + 0.01 * bool(arm.budget) + noise, 0, 1))


def _sweep_rows(arm: Arm, config: Study, n: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for checkpoint in config.evaluate.checkpoints:
        loss = 0.02 if checkpoint == "last" else 0.0
        noise = draw.normal(scale=0.006)
        for norm, threat in config.threat.items():
            least = 1.0
            for multiple in config.evaluate.eps:
                least = min(least, _accuracy(arm, norm, multiple, noise) - loss * (multiple > 0))
                accuracy = max(0.0, round(least * n) / n)
                half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / n)
                values = {"checkpoint": checkpoint, "eval_norm": norm, "eps": multiple * threat.eps, "n": n}
                values |= {"eps_multiple": multiple, "accuracy": accuracy}
                rows.append(_arm_row(arm) | values | {"low": max(0, accuracy - half), "high": min(1, accuracy + half)})
    return rows


def _corrupt_rows(arm: Arm, config: Study, n: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    family = {name: kind for kind, names in families().items() for name in names}
    harm = dict(zip(BENCHMARK, np.linspace(0.03, 0.11, len(BENCHMARK)), strict=True))
    top = _accuracy(arm, "linf", 0.0, draw.normal(scale=0.004))
    rows = []
    for checkpoint in config.evaluate.checkpoints:
        for name in config.corrupt.names:
            slope = harm.get(name, 0.05) * (1.6 if arm.norm is None and family[name] == "noise" else 0.8)
            for severity in config.corrupt.severities:
                values = {"checkpoint": checkpoint, "corruption": name, "family": family[name], "severity": severity}
                rows.append(_arm_row(arm) | values | {"accuracy": top - slope * severity, "n": n})
    return rows


def _detection_rows(arm: Arm, draw: np.random.Generator) -> list[dict[str, Any]]:
    rows, best = [], 0.9 if arm.task else 0.8
    scores = ["max_softmax", "energy", "rotation"] if arm.task else ["max_softmax", "energy"]
    for score, (image_set, harder), eps in itertools.product(
        scores, {"held_out": 0.2, "gaussian": 0.0, "blobs": 0.05}.items(), (0.0, 8 / 255)
    ):
        value = best - harder - 0.3 * (eps > 0) + draw.normal(scale=0.02)
        row = {"checkpoint": "best", "image_set": image_set, "score": score, "eps": eps, "inside": 500, "outside": 400}
        for name, centre in (("auroc", value), ("aupr", value), ("fpr", 1 - value)):
            row |= {name: centre, f"{name}_low": centre - 0.03, f"{name}_high": centre + 0.03}
        rows.append(_arm_row(arm) | row)
    return rows


def _calibration_rows(arm: Arm, draw: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    errors = {"clean": 0.04, "fog": 0.1, "gaussian_noise": 0.14, "linf": 0.3, "l2": 0.25}
    for (images, error), scaled in itertools.product(errors.items(), (False, True)):
        ece = error * (0.6 if scaled else 1) + 0.01 * draw.random()
        row = {"checkpoint": "best", "images": images, "scaled": scaled, "temperature": 1.4 if scaled else 1.0}
        row |= {"ece": ece, "nll": 5 * ece, "brier": 2 * ece, "bins": 15, "accuracy": 0.9 - error, "n": 500}
        rows.append(_arm_row(arm) | row)
    return rows


def _training_rows(arm: Arm, draw: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, 21):
        shape, noise = 1 - np.exp(-epoch / 6), draw.normal(scale=0.01)
        metrics = {
            "validation/clean_accuracy": 0.8 * shape + noise,
            "validation/robust_accuracy": 0.45 * shape - 0.004 * max(0, epoch - 15) + noise,
            "loss/adv/xent": 2.3 * np.exp(-epoch / 12) + noise,
            "lr": 0.2 * (1 - epoch / 20),
        }
        if arm.task:
            metrics["loss/adv/rotation"] = 1.4 * np.exp(-epoch / 15) + noise
        rows += [("finetune", epoch, metric, value) for metric, value in metrics.items()]
        if arm.pretrain:
            quality = 0.5 if arm.init == "adversarial_ssl" else 0.85
            right = 0.25 + (quality + 0.01 * arm.seed - 0.25) * shape
            values = {"validation/clean_rotation_accuracy": right, "loss/clean/rotation": 1.4 - shape}
            if arm.init != "ssl":
                values["validation/robust_rotation_accuracy"] = 0.8 * right
            rows += [("pretrain", epoch, metric, value) for metric, value in values.items()]
    columns = ("stage", "epoch", "metric", "value")
    return [_arm_row(arm) | dict(zip(columns, row, strict=True)) | {"step": row[1] * 10} for row in rows]


def _check_rows(arm: Arm, config: Study) -> list[dict[str, Any]]:
    rows = []
    for norm in config.threat:
        row = {"arm": _arm_row(arm)["arm"], "checkpoint": config.evaluate.checkpoints[0], "eval_norm": norm}
        rows.append(row | {"check": "within_budget", "passed": True, "detail": "largest 1.0000 eps"})
        broken = arm.variant == "standard" and norm == "linf" and arm.seed == 0
        detail = f"{'4.1 % still' if broken else '0.0 %'} right at eps = 1"
        rows.append(row | {"check": "falls_to_zero", "passed": not broken, "detail": detail})
    return rows


def _example_rows(arm: Arm, config: Study, draw: np.random.Generator, n: int = 40) -> list[dict[str, Any]]:
    rows = []
    for norm, threat in config.threat.items():
        failed = draw.choice([0.0, *(multiple * threat.eps for multiple in config.evaluate.eps[1:]), np.inf], n)
        for i, first in enumerate(failed):
            values = {"arm": _arm_row(arm)["arm"], "checkpoint": config.evaluate.checkpoints[0], "eval_norm": norm}
            values |= {"example": i, "label": i % 10, "clean_correct": first > 0, "distance": first}
            rows.append(values | {"first_failed": first, "attack": "pgd"})
    return rows


def _probe_rows(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for arm in {arm.pretrain: arm for arm in plan.arms if arm.pretrain}.values():
        spec = plan.stages[str(arm.pretrain)].spec
        values = {"pretrain": arm.pretrain, "init": arm.init, "init_task": arm.init_task, "seed": arm.seed, "n": 500}
        values |= {"norm": spec.get("norm"), "eps_train": spec.get("eps_train")}
        for features, share in (("pretrained", 0.55), ("untrained", 0.32)):
            for probe, more in (("knn", 0.0), ("linear", 0.06)):
                for norm in (None, *plan.study.threat):
                    accuracy = (share + more) * (0.2 if norm else 1.0)
                    eps = plan.study.threat[norm].eps if norm else 0.0
                    attack = {"eval_norm": norm, "eps": eps, "accuracy": accuracy}
                    rows.append(values | {"features": features, "probe": probe} | attack)
    return rows


def _diagnosis_rows(arm: Arm, config: Study) -> list[dict[str, Any]]:
    rows = []
    norm = arm.norm or "linf"
    for task in arm.diagnose:
        for head in ("own", "fitted") if arm.task else ("fitted",):
            for images, lost in (("clean", 0.0), ("noise", 0.02), ("supervised", 0.4), ("ssl", 0.1)):
                cosine = 0.05 + (0.2 if head == "own" else 0.0) - 0.05 * (images == "supervised")
                values = {"checkpoint": "best", "ssl_task": task, "head": head, "images": images, "n": 256}
                values |= {f"cosine_q{q:02d}": cosine + (q - 50) / 200 for q in (5, 25, 50, 75, 95)}
                values |= {"eval_norm": norm, "eps": config.threat[norm].eps, "cosine": cosine, "gradient_ratio": 0.4}
                values |= {"class_accuracy": 0.8 - lost, "ssl_accuracy": 0.7 - lost, "supervised_loss": 0.6 + lost}
                rows.append(_arm_row(arm) | values | {"ssl_loss": 0.8 + lost})
    return rows


def _finding_rows(config: Study, n: int) -> list[dict[str, Any]]:
    primary = [
        ("C2", "AT with rotation on adversarial images against AT, below eps_train", 2.1, 1.2, 3.0, "supported"),
        ("C3", "the same from eps_train on", -1.6, -2.9, -0.3, "supported"),
        ("C4", "joint against every other way", -0.4, -1.9, 1.1, "inconclusive"),
        ("C5a", "rotation pre-training against random initialisation", -1.8, -2.6, -0.9, "contradicted"),
        ("C5b", "AT with rotation against AT, both pre-trained", 0.2, -0.7, 1.0, "supported"),
    ]
    arms = "at_ssl_joint (rotation, w {}) - at"
    shared = {"seeds": len(config.seeds), "n": n, "test": "paired t over seeds", "note": "Within the frontier of AT."}
    shared |= {"p": 0.012, "detectable": 1.4, "primary": True}
    shared["cell"] = f"{arms.format(0.5)} | linf, best checkpoint | mean at 0.25, 0.5 × eps"
    names = ("claim", "question", "effect", "low", "high", "verdict")
    rows = [shared | dict(zip(names, values, strict=True)) for values in primary]
    for weight in (0.1, 1, 2):
        exploratory = {"primary": False, "verdict": "", "cell": f"{arms.format(weight)} | l2, best checkpoint"}
        effect = {"effect": weight, "low": weight - 1.1, "high": weight + 1.1}
        rows.append(rows[0] | exploratory | effect)
    return rows


def _stage_rows(plan: Plan) -> list[dict[str, Any]]:
    versions = json.dumps({"python": "3.11.9", "torch": "2.11.0", "ssrob": "0.1.0", "numpy": "2.1.0"})
    seconds = {"data": 2.0, "pretrain": 90.0, "probe": 4.0, "diagnose": 5.0, "finetune": 130.0, "evaluate": 40.0}
    seconds |= {"corrupt": 12.0, "ood": 9.0, "calibrate": 3.0}
    shared = {"device": "cpu", "peak_memory_mb": 812.0, "versions": versions, "commit": "0123456789abcdef0123"}
    rows = []
    for i, stage in enumerate(plan.stages.values()):
        started = f"2026-01-0{i % 3 + 1}T10:00:00Z"
        rows.append(shared | {"kind": stage.kind, "key": stage.key, "seconds": seconds[stage.kind], "started": started})
    return rows


def _frame(rows: list[dict[str, Any]], columns: Columns) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({name: "float64" for name, (kind, _) in columns.items() if str(kind) == "double"})
