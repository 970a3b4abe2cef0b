"""From finished stages to a study's tables: every row carries the columns of the arm that it belongs to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssrob.analysis import findings
from ssrob.planning.cost import training_passes
from ssrob.planning.names import arm_label
from ssrob.planning.plan import Arm, Plan
from ssrob.planning.specs import DiagnoseSpec, EvaluateSpec, TrainSpec
from ssrob.planning.stage import Stage, data_stage
from ssrob.registry.corruptions import families
from ssrob.scheduling.priority import missing
from ssrob.storage import tables
from ssrob.storage.store import Store, StoreError, prepared_facts, write_json

Rows = Callable[[Plan, Store], list[pd.DataFrame]]


def collect(plan: Plan, store: Store) -> dict[str, pd.DataFrame]:
    """Gather a study's finished stages into the tables of `tables.COLLECTED`, write them and return them by name."""
    collected = {}
    for name, rows in _ROWS.items():
        parts, columns = rows(plan, store), list(tables.COLLECTED[name])
        collected[name] = pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
    robustness, examples, arms, scores = (collected[name] for name in ("robustness", "examples", "arms", "ood_scores"))
    study = plan.study
    collected["findings"] = findings(robustness, examples, arms, study.findings, study.variants, scores=scores)
    (plan.folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in collected.items():
        tables.write_table(table, tables.COLLECTED[name], plan.folder / "tables" / f"{name}.parquet")
    write_json(plan.folder / "collected.json", {name: len(table) for name, table in collected.items()})
    return collected


def read_tables(plan: Plan) -> dict[str, pd.DataFrame]:
    """Read a study's collected tables by name; a ValueError says if there are none, or those of another version."""
    folder, read = plan.folder / "tables", {}
    if not folder.is_dir():
        raise StoreError(f"{folder}: nothing is collected yet; run the workflow, or ssrob collect CONFIG")
    for name, columns in tables.COLLECTED.items():
        file = folder / f"{name}.parquet"
        if not file.is_file():
            raise ValueError(f"{file}: missing, as of another version; run `ssrob collect` for it again")
        read[name] = tables.read_table(file)
        if changed := set(columns).symmetric_difference(read[name].columns):
            raise ValueError(f"{file}: column {min(changed)!r} is of another version; run `ssrob collect` for it again")
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
        specs = [TrainSpec.model_validate(plan.stages[path].spec) for path in trained]
        passes = [training_passes(spec, fact.get("stopped_epoch")) for spec, fact in zip(specs, facts, strict=True)]
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


def _of_tests(
    kind: str, name: str, rows_of: Callable[[pd.DataFrame, Stage], pd.DataFrame] = lambda table, _: table
) -> Rows:
    """Return what reads a table of every test of a kind: by arm, with the columns of the arm and the checkpoint."""

    def read(plan: Plan, store: Store) -> list[pd.DataFrame]:
        by_model: dict[str, list[Stage]] = {}
        for stage in plan.of_kind(kind).values():
            by_model.setdefault(stage.parents["model"], []).append(stage)
        return [
            rows_of(tables.read_table(store.output(stage.path, f"{name}.parquet")), stage).assign(
                **arm_columns(arm), checkpoint=stage.spec.get("checkpoint", "best")
            )
            for arm in plan.arms
            for stage in by_model.get(arm.finetune, [])
        ]

    return read


def _accuracies(examples: pd.DataFrame, test: Stage) -> pd.DataFrame:
    """Count the images that are robust at each eps of each norm."""
    spec = EvaluateSpec.model_validate(test.spec)
    parts = []
    for norm, eps in spec.eps.items():
        failed = examples.loc[examples["eval_norm"] == norm, "first_failed"].to_numpy()
        accuracy = tables.accuracy_table(np.array(eps), failed > np.array(eps)[:, None])
        multiples = (accuracy["eps"] / spec.reference[norm]).round(6)
        parts.append(accuracy.assign(eval_norm=norm, eps_multiple=multiples, n=len(failed)))
    return pd.concat(parts)


def _corruption_accuracies(tested: pd.DataFrame, _: Stage) -> pd.DataFrame:
    family = {name: each for each, names in families().items() for name in names}
    return tested.assign(accuracy=tables.shares(tested), family=tested["corruption"].map(family))


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


def _diagnostics(rows: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    spec = DiagnoseSpec.model_validate(stage.spec)
    return diagnosis(rows).assign(ssl_task=spec.task, eval_norm=spec.norm, eps=spec.eps)


def diagnosis(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise a diagnosis (rows as `tables.DIAGNOSED`) over its images, per head and image set."""
    ratio = rows["ssl_gradient"] / rows["supervised_gradient"].where(rows["supervised_gradient"] > 0)
    right = rows[["class_correct", "ssl_correct"]].astype(float)
    by_set = rows.assign(ratio=ratio, **right).groupby(["head", "images"], sort=False)
    means = by_set.agg(
        n=("example", "count"),
        cosine=("cosine", "mean"),
        gradient_ratio=("ratio", "median"),
        class_accuracy=("class_correct", "mean"),
        ssl_accuracy=("ssl_correct", "mean"),
        supervised_loss=("supervised_loss", "mean"),
        ssl_loss=("ssl_loss", "mean"),
    )
    quantiles = {f"cosine_q{q:02d}": by_set["cosine"].quantile(q / 100) for q in (5, 25, 50, 75, 95)}
    return means.assign(**quantiles).reset_index()


def _stages(plan: Plan, store: Store) -> list[pd.DataFrame]:
    names = [name for name in tables.STAGES if name not in ("kind", "key")]
    rows = [
        store.provenance(stage.path, *names) | {"kind": stage.kind, "key": stage.key} for stage in plan.stages.values()
    ]
    return [pd.DataFrame(rows).assign(versions=lambda stages: stages["versions"].map(json.dumps))]


def _not_run(plan: Plan, store: Store) -> list[pd.DataFrame]:
    names = labels(plan)
    rows = [
        arm_columns(arm) | {"label": names[path], "part": plan.parts[path], "finished": done, "stages": stages}
        for arm, done, stages in missing(plan, store)
        for path in [arm.finetune]
    ]
    return [pd.DataFrame(rows)] if rows else []


_ROWS: dict[str, Rows] = {
    "arms": _arms,
    "training": _training,
    "robustness": _of_tests("evaluate", "robustness", _accuracies),
    "examples": _of_tests("evaluate", "robustness"),
    "checks": _of_tests("evaluate", "checks"),
    "corruptions": _of_tests("corrupt", "corruptions", _corruption_accuracies),
    "detection": _of_tests("ood", "detection"),
    "ood_scores": _of_tests("ood", "ood_scores"),
    "calibration": _of_tests("calibrate", "calibration"),
    "probes": _probes,
    "diagnostics": _of_tests("diagnose", "diagnosis", _diagnostics),
    "stages": _stages,
    "not_run": _not_run,
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
