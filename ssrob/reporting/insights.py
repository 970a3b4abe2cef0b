"""Tables of a report beyond the main numbers: pre-training, corruptions, diagnoses, and what they say in words."""

from typing import Any

import numpy as np
import pandas as pd

from ssrob.corruptions.relative_error import mce
from ssrob.formatting import NORMS, number, percent, signed
from ssrob.registry.corruptions import BENCHMARK, families
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import is_plain_at, names_in
from ssrob.reporting.figures.diagnosis import over_models
from ssrob.reporting.figures.probes import probe_rows
from ssrob.reporting.figures.training import chance, pretraining_rows
from ssrob.reporting.layout import Table, plain_table

LEAST_RETRIEVAL = 0.05  # accuracy of finding an image's other view among many; with less the task was not learnt
ATTACKED = {"clean": "clean", "noise": "noise", "ssl": "SSL attack", "supervised": "class attack"}
PROBES = {"knn": "kNN", "linear": "linear"}


def pretraining(data: ReportData) -> Table | None:
    """Return per pre-training, and for the same network untrained, the probes' accuracies in per cent.

    Columns: pre-training, features, the SSL tasks' own validation accuracies at the end (per cent; of the trained
    one), then a column for each probe, clean and under each norm's attack. Means over seeds.
    """
    if data.probes.empty:
        return None
    rows = probe_rows(data.probes)
    norms = {"": "", **{norm: f", {name}" for norm, name in NORMS.items()}}
    headings = [probe + norms[norm] for probe in PROBES.values() for norm in norms if norm in set(rows["eval_norm"])]
    rows["column"] = rows["probe"].map(PROBES) + rows["eval_norm"].map(norms)
    wide = rows.pivot_table(index=["pretraining", "features"], columns="column", values="accuracy")
    wide = (100 * wide).reindex(columns=headings).sort_index(kind="stable").reset_index()
    trained = wide["features"] == "pretrained"
    wide.insert(2, "own task", wide["pretraining"].map(_task_accuracies(data)).where(trained, ""))
    return plain_table(wide.rename(columns={"pretraining": "pre-training"}))


def pretraining_warnings(data: ReportData) -> list[str]:
    """Name the pre-trainings that learnt little: by their own task, and by a linear probe no better than untrained.

    A task with K answers should get half-way from chance to 1, one that finds an image's other view 5 %, and a loss
    without an accuracy should fall.
    """
    ends = "it learnt little, and what is concluded from it says nothing about self-supervision."
    return [f"Pre-training {name!r} {why}: {ends}" for name, why in [*_unlearnt(data), *_useless(data)]]


def _unlearnt(data: ReportData) -> list[tuple[str, str]]:
    reasons = []
    for (name, metric), (first, last) in _ends(data).items():
        task, _, kind = metric.rpartition("_")
        level = chance(task, data.study.losses)
        if kind == "loss" and last >= first:
            reasons.append((name, f"did not lower its {task} loss on validation images ({first:.3g} to {last:.3g})"))
        elif kind == "accuracy" and level is not None and last < (1 + level) / 2:
            reasons.append((name, f"ends at {percent(last, 0)} {task} accuracy (chance {percent(level, 0)})"))
        elif kind == "accuracy" and level is None and last < LEAST_RETRIEVAL:
            reasons.append((name, f"ends at {percent(last)} {task} accuracy"))
    return reasons


def _useless(data: ReportData) -> list[tuple[str, str]]:
    if data.probes.empty:
        return []
    rows = probe_rows(data.probes)
    rows = rows[(rows["probe"] == "linear") & (rows["eval_norm"] == "")]
    wide = rows.pivot_table(index="pretraining", columns="features", values="accuracy", sort=False)
    return [
        (str(name), f"has a linear probe of {percent(row['pretrained'])}, untrained {percent(row['untrained'])}")
        for name, row in wide.iterrows()
        if row["pretrained"] <= row["untrained"]
    ]


def _ends(data: ReportData) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the first and the last value of each SSL task on clean validation images, mean over seeds.

    Keys: pre-training and metric, e.g. ``rotation_accuracy``.
    """
    rows = pretraining_rows(data.training)
    rows = rows[rows["metric"].str.startswith("validation/clean_")].sort_values("step")
    rows["metric"] = rows["metric"].str.removeprefix("validation/clean_")
    by_seed = rows.groupby(["pretraining", "metric", "seed"])["value"].agg(["first", "last"])
    means = by_seed.groupby(level=["pretraining", "metric"]).mean()
    return dict(zip(means.index, means.itertuples(index=False, name=None), strict=True))


def _task_accuracies(data: ReportData) -> dict[str, str]:
    """Say what each pre-training reached on its own tasks, e.g. ``rotation 87.4 % (chance 25 %)``."""
    words: dict[str, list[str]] = {}
    for (name, metric), (_, last) in _ends(data).items():
        task, _, kind = metric.rpartition("_")
        level = chance(task, data.study.losses)
        text = f"{task} {percent(last)}" if kind == "accuracy" else f"{task} loss {last:.3g}"
        words.setdefault(name, []).append(text + (f" (chance {100 * level:.3g} %)" if level is not None else ""))
    return {name: ", ".join(each) for name, each in words.items()}


def corruptions_by_family(data: ReportData) -> Table | None:
    """Return per arm the accuracy in per cent on the benchmark, on all tested, per family, and mCE where it exists.

    Means over corruptions, severities and seeds. mCE (per cent) is relative to the models of the variant
    `corrupt.baseline` with the same seed: 100 is as good as it, less is better.
    """
    rows = data.corruptions
    if rows.empty:
        return None
    kinds = set(rows["corruption"])
    columns = {f"mean of {len(kinds & set(BENCHMARK))}": kinds & set(BENCHMARK)}
    if kinds - set(BENCHMARK):
        columns[f"mean of {len(kinds)}"] = kinds
    columns |= {family: kinds & set(members) for family, members in families().items()}
    table = pd.DataFrame({"arm": names_in(rows, data.arms)})
    for heading, members in columns.items():
        if members:
            means = rows[rows["corruption"].isin(members)].groupby("name")["accuracy"].mean()
            table[heading] = 100 * table["arm"].map(means)
    if relative := relative_errors(data):
        table[f"mCE to {data.study.corrupt.baseline}"] = table["arm"].map(relative)
    return plain_table(table)


def corruption_notes(data: ReportData) -> list[str]:
    """Say what the corrupted images are, and what mCE is relative to."""
    if data.corruptions.empty:
        return []
    corrupt, notes = data.study.corrupt, []
    if corrupt.official:
        notes.append("The corrupted images are the published files.")
    elif "frost" in corrupt.names and not corrupt.frost:
        notes.append("Frost is made with a procedural ice texture; the published benchmark uses photographs.")
    if relative_errors(data):
        notes.append(
            f"mCE: mean error relative to “{corrupt.baseline}” of the same seed; 100 is as good, less is better."
        )
    return notes


def relative_errors(data: ReportData) -> dict[str, float]:
    """Return mean corruption errors (per cent) by arm, mean over the seeds that the baseline has, too."""
    rows = data.corruptions
    benchmark = [name for name in BENCHMARK if name in set(rows["corruption"])]
    plain = rows["budget"].isna() & (rows["init"] == "random") & (rows["eps_scale"] == 1)
    baseline = rows[plain & (rows["variant"] == data.study.corrupt.baseline)]
    baseline = baseline[baseline["norm"].isna() | (baseline["norm"] == data.norm)]
    by_name: dict[str, list[float]] = {}
    for (name, seed, _), part in rows.groupby(["name", "seed", "arm"], sort=False):
        errors = _relative(part, baseline[baseline["seed"] == seed], benchmark)
        by_name.setdefault(str(name), []).extend(errors)
    return {name: float(np.mean(values)) for name, values in by_name.items() if values}


def _relative(model: pd.DataFrame, baseline: pd.DataFrame, names: list[str]) -> list[float]:
    """Return a model's mCE, or nothing where the baseline is missing or without an error on some corruption."""
    if baseline.empty or len(set(baseline["arm"])) > 1 or not names:
        return []
    faultless = baseline.groupby("corruption")["accuracy"].min().reindex(names) >= 1
    return [] if faultless.any() else [mce(model, baseline, names)]


def diagnosis(data: ReportData) -> Table | None:
    """Return per arm, task and head: cosines, norm ratio, accuracies (per cent) on the image sets, overfitting gap."""
    rows = data.diagnostics
    if rows.empty:
        return None
    means = over_models(rows, ["cosine", "gradient_ratio", "class_accuracy", "ssl_accuracy"])
    wide = means.pivot_table(index=["name", "ssl_task", "head"], columns="images", sort=False, dropna=False)
    wide = wide.dropna(how="all")
    table = wide.index.to_frame(index=False).rename(columns={"name": "arm", "ssl_task": "task"})
    columns = {f"cosine, {attack}": ("cosine", name, 1.0) for name, attack in ATTACKED.items() if name != "noise"}
    columns |= {"SSL / class gradient": ("gradient_ratio", "clean", 1.0)}
    columns |= {f"class, {attack} (%)": ("class_accuracy", name, 100.0) for name, attack in ATTACKED.items()}
    columns |= {f"task, {attack} (%)": ("ssl_accuracy", name, 100.0) for name, attack in ATTACKED.items()}
    for heading, (what, where, scale) in columns.items():
        if (what, where) in wide.columns:
            table[heading] = scale * wide[what, where].to_numpy()
    table["robust overfitting (points)"] = 100 * table["arm"].map(data.arms.groupby("name")["overfitting"].mean())
    order = {name: place for place, name in enumerate(names_in(data.arms, data.arms))}
    table = table.sort_values(["task", "arm"], key=lambda c: c.map(order) if c.name == "arm" else c, kind="stable")
    ratios = [name for name in columns if name.startswith(("cosine", "SSL /"))]
    return plain_table(table, dict.fromkeys(ratios, lambda value: number(value, 2)))


def diagnosis_words(data: ReportData) -> list[str]:
    """Say per SSL task what plain AT's gradients and perturbations have to do with each other."""
    rows = data.diagnostics[is_plain_at(data.diagnostics) & (data.diagnostics["init"] == "random")]
    rows = rows[(rows["norm"] == data.norm) & (rows["head"] == "fitted")]
    return [_words(task, part) for task, part in rows.groupby("ssl_task", sort=True)]


def _words(task: Any, part: pd.DataFrame) -> str:
    cosine = float(part.loc[part["images"] == "clean", "cosine"].mean())
    share = {name: 100 * float(part.loc[part["images"] == name, "class_accuracy"].mean()) for name in ATTACKED}
    lost = {name: share["clean"] - share[name] for name in ("noise", "ssl", "supervised")}
    text = f"Plain AT and {task}: mean cosine of the gradients {signed(cosine, 2)} on clean images. Class accuracy "
    text += f"{number(share['clean'])} %; noise takes {number(lost['noise'])} points, a perturbation that maximises the"
    return f"{text} {task} loss {number(lost['ssl'])}, one that maximises cross-entropy {number(lost['supervised'])}."
