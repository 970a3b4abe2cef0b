"""From finished stages to a study's tables: every row carries the columns of the arm that it belongs to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from ssrob.analysis import findings
from ssrob.config.fields import Norm
from ssrob.planning.cost import training_passes
from ssrob.planning.names import arm_label
from ssrob.planning.plan import Arm, Plan
from ssrob.planning.specs import DiagnoseSpec, EvaluateSpec, TrainSpec
from ssrob.planning.stage import data_stage
from ssrob.registry.corruptions import families
from ssrob.scheduling.priority import missing
from ssrob.storage import tables
from ssrob.storage.store import Store, StoreError, prepared_facts, write_json


def collect(plan: Plan, store: Store) -> dict[str, pd.DataFrame]:
    """Gather a study's finished stages into the tables of `tables.py`, write them and return them by name."""
    collected: dict[str, pd.DataFrame] = {}
    for name, (columns, rows) in _TABLES.items():
        parts = rows(plan, store)
        collected[name] = (
            pd.concat(parts, ignore_index=True)[list(columns)] if parts else pd.DataFrame(columns=list(columns))
        )
    collected["findings"] = findings(
        collected["robustness"],
        collected["examples"],
        collected["arms"],
        plan.study.findings,
        plan.study.variants,
        scores=collected["ood_scores"],
    )
    folder = plan.folder / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in collected.items():
        columns = _TABLES[name][0] if name in _TABLES else tables.FINDINGS
        tables.write_table(table, columns, folder / f"{name}.parquet")
    write_json(plan.folder / "collected.json", {name: len(table) for name, table in collected.items()})
    return collected


def read_tables(plan: Plan) -> dict[str, pd.DataFrame]:
    """Read a study's collected tables by name; a ValueError says if there are none, or those of another version."""
    if not (plan.folder / "tables").is_dir():
        raise StoreError(
            f"{plan.folder / 'tables'}: nothing is collected yet; run the workflow, or ssrob collect CONFIG"
        )
    read = {}
    for name, columns in {**{name: row[0] for name, row in _TABLES.items()}, "findings": tables.FINDINGS}.items():
        file = plan.folder / "tables" / f"{name}.parquet"
        if not file.is_file():
            raise ValueError(f"{file}: missing, as of another version; run `ssrob collect` for it again")
        read[name] = tables.read_table(file)
        if changed := set(columns).symmetric_difference(read[name].columns):
            raise ValueError(f"{file}: column {min(changed)!r} tells another version; run `ssrob collect` for it again")
    return read


def arm_columns(arm: Arm) -> dict[str, Any]:
    """Return the columns that say which arm a row belongs to."""
    return {"arm": arm.finetune} | {name: getattr(arm, name) for name in tables.ARM if name != "arm"}


def labels(plan: Plan) -> dict[str, str]:
    """Name every arm of the whole study in figures and tables, without its seed, by the key of its trained model.

    The task of a pre-training is named where the study has pre-trainings of several, and then of all.
    """
    arms = (plan.whole or plan).arms
    several = len({arm.init_task for arm in arms if arm.init_task}) > 1
    return {arm.finetune: arm_label(arm, plan.study, init_task=arm.init_task if several else None) for arm in arms}


def _arms(plan: Plan, store: Store) -> list[pd.DataFrame]:
    names, rows = labels(plan), []
    for arm in plan.arms:
        trained = [path for path in (arm.pretrain, arm.finetune) if path]
        facts = [store.provenance(path, "seconds", "device", "best_epoch") for path in trained]
        passes = [_passes(plan, path, fact) for path, fact in zip(trained, facts, strict=True)]
        records = tables.read_table(store.output(arm.finetune, "training.parquet"))
        values = {
            "label": names[arm.finetune],
            "passes": float("nan") if arm.pretrain and plan.study.pretrain_data else sum(passes),
            "passes_finetune": passes[-1],
            "seconds": sum(fact["seconds"] for fact in facts),
            "device": facts[-1]["device"],
            "best_epoch": facts[-1]["best_epoch"],
            "overfitting": overfitting(records, facts[-1]["best_epoch"]),
        }
        rows.append(arm_columns(arm) | values)
    return [pd.DataFrame(rows)]


def overfitting(records: pd.DataFrame, best_epoch: float) -> float:
    """Return the robust-overfitting gap of a training: robust validation accuracy of its best epoch less the last's.

    records: as `tables.RECORDS`; NaN for a training that was never attacked. Rice, Wong, Kolter 2020.
    """
    robust = records[records["metric"] == "validation/robust_accuracy"].sort_values("epoch")
    best = robust[np.isclose(robust["epoch"], best_epoch)]
    return float("nan") if best.empty else float(best["value"].iloc[0] - robust["value"].iloc[-1])


def _training(plan: Plan, store: Store) -> list[pd.DataFrame]:
    parts = []
    for arm in plan.arms:
        for stage, path in (("pretrain", arm.pretrain), ("finetune", arm.finetune)):
            if path:
                table = tables.read_table(store.output(path, "training.parquet"))
                parts.append(table.assign(**arm_columns(arm), stage=stage))
    return parts


def _robustness(plan: Plan, store: Store) -> list[pd.DataFrame]:
    parts = []
    for arm in plan.arms:
        for checkpoint, path in arm.evaluate.items():
            examples = tables.read_table(store.output(path, "robustness.parquet"))
            spec = EvaluateSpec.model_validate(plan.stages[path].spec)
            rows = [
                _accuracy(examples, norm, eps, spec.reference[norm]) | {"checkpoint": checkpoint}
                for norm, grid in spec.eps.items()
                for eps in grid
            ]
            parts.append(pd.DataFrame(rows).assign(**arm_columns(arm)))
    return parts


def _accuracy(examples: pd.DataFrame, norm: Norm, eps: float, reference: float) -> dict[str, Any]:
    chosen = examples[examples["eval_norm"] == norm]
    robust, n = int((chosen["first_failed"] > eps).sum()), len(chosen)
    low, high = proportion_confint(robust, n, method="wilson")
    where = {"eval_norm": norm, "eps": eps, "eps_multiple": round(eps / reference, 6)}
    return where | {"accuracy": robust / n, "n": n, "low": low, "high": high}


def _examples(plan: Plan, store: Store) -> list[pd.DataFrame]:
    return _of_checkpoints(plan, "evaluate", lambda path: tables.read_table(store.output(path, "robustness.parquet")))


def _checks(plan: Plan, store: Store) -> list[pd.DataFrame]:
    return _of_checkpoints(plan, "evaluate", lambda path: tables.read_table(store.output(path, "checks.parquet")))


def _of_checkpoints(plan: Plan, kind: str, read: Callable[[str], pd.DataFrame]) -> list[pd.DataFrame]:
    return [
        read(path).assign(**arm_columns(arm), checkpoint=checkpoint)
        for arm in plan.arms
        for checkpoint, path in getattr(arm, kind).items()
    ]


def _probes(plan: Plan, store: Store) -> list[pd.DataFrame]:
    parts = []
    for path, arm in {arm.probe: arm for arm in plan.arms if arm.probe in plan.stages}.items():
        assert path is not None
        assert arm.pretrain is not None
        spec = TrainSpec.model_validate(plan.stages[arm.pretrain].spec)
        values: dict[str, Any] = {"pretrain": arm.pretrain, "init": arm.init, "init_task": arm.init_task}
        values |= {"norm": spec.norm, "eps_train": spec.eps_train, "seed": spec.seed}
        table = tables.read_table(store.output(path, "probes.parquet"))
        parts.append(table.assign(**values, accuracy=tables.shares(table)))
    return parts


def _diagnostics(plan: Plan, store: Store) -> list[pd.DataFrame]:
    parts = []
    for arm in plan.arms:
        for task, path in arm.diagnose.items():
            if path not in plan.stages:  # of the finished part of a study
                continue
            spec = DiagnoseSpec.model_validate(plan.stages[path].spec)
            values: dict[str, Any] = {
                "checkpoint": spec.checkpoint,
                "ssl_task": task,
                "eval_norm": spec.norm,
                "eps": spec.eps,
            }
            rows = diagnosis(tables.read_table(store.output(path, "diagnosis.parquet")))
            parts.append(rows.assign(**arm_columns(arm), **values))
    return parts


def diagnosis(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise a diagnosis (rows as `tables.DIAGNOSED`) over its images, per head and image set."""
    values = rows.assign(
        ratio=rows["ssl_gradient"] / rows["supervised_gradient"].where(rows["supervised_gradient"] > 0)
    )
    values[["class_correct", "ssl_correct"]] = values[["class_correct", "ssl_correct"]].astype(float)
    rows = (
        values.groupby(["head", "images"], sort=False)
        .agg(
            n=("example", "count"),
            cosine=("cosine", "mean"),
            gradient_ratio=("ratio", "median"),
            class_accuracy=("class_correct", "mean"),
            ssl_accuracy=("ssl_correct", "mean"),
            supervised_loss=("supervised_loss", "mean"),
            ssl_loss=("ssl_loss", "mean"),
        )
        .reset_index()
    )
    cosines = values.groupby(["head", "images"], sort=False)["cosine"]
    return rows.assign(**{f"cosine_q{q:02d}": cosines.quantile(q / 100).to_numpy() for q in (5, 25, 50, 75, 95)})


def _tested(plan: Plan, store: Store, kind: str, name: str) -> list[pd.DataFrame]:
    """Return a table of every test of a kind that its row in the registry plans."""
    arms = {arm.finetune: arm for arm in plan.arms}
    stages = [stage for stage in plan.of_kind(kind).values() if stage.parents["model"] in arms]
    return [
        tables.read_table(store.output(stage.path, f"{name}.parquet")).assign(
            **arm_columns(arms[stage.parents["model"]]), checkpoint=stage.spec["checkpoint"]
        )
        for stage in stages
    ]


def _corruptions(plan: Plan, store: Store) -> list[pd.DataFrame]:
    family = {name: each for each, names in families().items() for name in names}

    def read(path: str) -> pd.DataFrame:
        table = tables.read_table(store.output(path, "corruptions.parquet"))
        return table.assign(accuracy=tables.shares(table), family=table["corruption"].map(family))

    return _of_checkpoints(plan, "corrupt", read)


def _stages(plan: Plan, store: Store) -> list[pd.DataFrame]:
    rows = []
    for stage in plan.stages.values():
        names = ("seconds", "started", "device", "peak_memory_mb", "commit")
        facts = store.provenance(stage.path, *names, "versions")
        row = {name: facts[name] for name in names}
        rows.append({"kind": stage.kind, "key": stage.key, "versions": json.dumps(facts["versions"])} | row)
    return [pd.DataFrame(rows)]


def _not_run(plan: Plan, store: Store) -> list[pd.DataFrame]:
    names = labels(plan)
    rows = [
        arm_columns(arm) | {"label": names[path], "part": plan.parts[path], "finished": done, "stages": stages}
        for arm, done, stages in missing(plan, store)
        for path in [arm.finetune]
    ]
    return [pd.DataFrame(rows)] if rows else []


def _passes(plan: Plan, path: str, facts: dict[str, Any]) -> float:
    spec = TrainSpec.model_validate(plan.stages[path].spec)
    return training_passes(spec, facts.get("stopped_epoch"))


_TABLES: dict[str, tuple[tables.Columns, Callable[[Plan, Store], list[pd.DataFrame]]]] = {
    "arms": (tables.ARMS, _arms),
    "training": (tables.TRAINING, _training),
    "robustness": (tables.ROBUSTNESS, _robustness),
    "examples": (tables.ALL_EXAMPLES, _examples),
    "checks": (tables.ALL_CHECKS, _checks),
    "corruptions": (tables.CORRUPTIONS, _corruptions),
    "detection": (tables.DETECTION, lambda plan, store: _tested(plan, store, "ood", "detection")),
    "ood_scores": (tables.OOD_SCORES, lambda plan, store: _tested(plan, store, "ood", "ood_scores")),
    "calibration": (tables.CALIBRATION, lambda plan, store: _tested(plan, store, "calibrate", "calibration")),
    "probes": (tables.PROBES, _probes),
    "diagnostics": (tables.DIAGNOSTICS, _diagnostics),
    "stages": (tables.STAGES, _stages),
    "not_run": (tables.NOT_RUN, _not_run),
}


def samples(plan: Plan, store: Store) -> dict[str, Path]:
    """Return, per arm label, the file of example images of its first seed and checkpoint; not of imports without it."""
    names, samples = labels(plan), dict[str, Path]()
    for arm in plan.arms:
        path = next(iter(arm.evaluate.values()))
        if names[arm.finetune] not in samples and (store.folder(path) / "samples.npz").exists():
            samples[names[arm.finetune]] = store.output(path, "samples.npz")
    return samples


def class_names(plan: Plan, store: Store) -> list[str]:
    """Return the names of the study's classes in the order of their labels."""
    about = prepared_facts(store, data_stage(plan.study.data).path)
    return list(about["classes"])
