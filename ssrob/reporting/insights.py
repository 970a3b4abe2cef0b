"""Tables of a report beyond the main numbers: pre-training, corruptions, diagnoses, and what they say in words."""

from typing import Any

import numpy as np
import pandas as pd

from ssrob.corruptions.relative_error import mce
from ssrob.formatting import NORMS
from ssrob.registry.corruptions import BENCHMARK, CORRUPTIONS, families
from ssrob.reporting.figures.arms import is_plain_at, names_in
from ssrob.reporting.figures.diagnosis import over_models
from ssrob.reporting.figures.inputs import Inputs
from ssrob.reporting.figures.probes import probe_rows
from ssrob.reporting.figures.training import chance, pretraining_rows

FOUND = 0.05  # of an image's other view among many; a task without a chance level that does worse was not learnt
ATTACKED = {"clean": "clean", "noise": "noise", "ssl": "SSL attack", "supervised": "class attack"}
PROBES = {"knn": "kNN", "linear": "linear"}


def pretraining_numbers(inputs: Inputs) -> pd.DataFrame:
    """Return per pre-training, and for the same network untrained, the probes' accuracies in per cent.

    Columns: pre-training, features, the SSL tasks' own validation accuracies at the end (per cent; of the trained
    one), then a column for each probe, clean and under each norm's attack. Means over seeds.
    """
    if inputs.probes.empty:
        return pd.DataFrame()
    rows = probe_rows(inputs.probes)
    norms = [norm for norm in ("", *NORMS) if norm in set(rows["eval_norm"])]
    told = [f"{told}{', ' + NORMS[norm] if norm else ''}" for told in PROBES.values() for norm in norms]
    attacked = rows["eval_norm"].map(lambda norm: f", {NORMS[norm]}" if norm else "")
    wide = rows.assign(column=rows["probe"].map(PROBES) + attacked)
    wide = wide.pivot_table(index=["pretraining", "features"], columns="column", values="accuracy")
    wide = (100 * wide).reindex(columns=told).sort_index(kind="stable").reset_index()
    trained = wide["features"] == "pretrained"
    own = wide["pretraining"].map(_task_accuracies(inputs)).where(trained, "")
    wide.insert(2, "own task", own)
    return wide.rename(columns={"pretraining": "pre-training"})


def pretraining_warnings(inputs: Inputs) -> list[str]:
    """Name the pre-trainings that learnt little: by their own task, and by a linear probe no better than untrained.

    A task with K answers should get half-way from chance to 1, one that finds an image's other view 5 %, and a loss
    without an accuracy should fall.
    """
    ends = "it learnt little, and what is concluded from it says nothing about self-supervision."
    return [f"Pre-training {name!r} {why}: {ends}" for name, why in [*_unlearnt(inputs), *_useless(inputs)]]


def _unlearnt(inputs: Inputs) -> list[tuple[str, str]]:
    found = []
    for (name, metric), (first, last) in _ends(inputs).items():
        task, _, kind = metric.rpartition("_")
        level = chance(task, inputs.study.losses)
        if kind == "loss" and last >= first:
            found.append((name, f"did not lower its {task} loss on validation images ({first:.3g} to {last:.3g})"))
        elif kind == "accuracy" and level is not None and last < (1 + level) / 2:
            found.append((name, f"ends at {last:.0%} {task} accuracy (chance {level:.0%})"))
        elif kind == "accuracy" and level is None and last < FOUND:
            found.append((name, f"ends at {last:.1%} {task} accuracy"))
    return found


def _useless(inputs: Inputs) -> list[tuple[str, str]]:
    if inputs.probes.empty:
        return []
    rows = probe_rows(inputs.probes)
    rows = rows[(rows["probe"] == "linear") & (rows["eval_norm"] == "")]
    wide = rows.pivot_table(index="pretraining", columns="features", values="accuracy", sort=False)
    return [
        (str(name), f"has a linear probe of {row['pretrained']:.1%}, the same network untrained {row['untrained']:.1%}")
        for name, row in wide.iterrows()
        if row["pretrained"] <= row["untrained"]
    ]


def _ends(inputs: Inputs) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the first and the last value of each SSL task on clean validation images, mean over seeds.

    Keys: pre-training and metric, e.g. ``rotation_accuracy``.
    """
    rows = pretraining_rows(inputs.training)
    rows = rows[rows["metric"].str.startswith("validation/clean_")].sort_values("step")
    by_seed = rows.groupby(["pretraining", "metric", "seed"])["value"].agg(["first", "last"])
    means = by_seed.groupby(level=[0, 1]).mean()
    return {
        (str(row["pretraining"]), str(row["metric"]).removeprefix("validation/clean_")): (row["first"], row["last"])
        for row in means.reset_index().to_dict("records")
    }


def _task_accuracies(inputs: Inputs) -> dict[str, str]:
    """Say what each pre-training reached on its own tasks, e.g. ``rotation 87.4 % (chance 25 %)``."""
    told: dict[str, list[str]] = {}
    for (name, metric), (_, last) in _ends(inputs).items():
        task, _, kind = metric.rpartition("_")
        level = chance(task, inputs.study.losses)
        words = f"{task} {100 * last:.1f} %" if kind == "accuracy" else f"{task} loss {last:.3g}"
        told.setdefault(name, []).append(words + (f" (chance {100 * level:.3g} %)" if level is not None else ""))
    return {name: ", ".join(words) for name, words in told.items()}


def corruption_numbers(inputs: Inputs) -> pd.DataFrame:
    """Return per arm the accuracy in per cent on the benchmark, on all tested, per family, and mCE where it exists.

    Means over corruptions, severities and seeds. mCE (per cent) is relative to the models of the variant
    `corrupt.baseline` with the same seed: 100 is as good as it, less is better.
    """
    rows = inputs.corruptions
    if rows.empty:
        return pd.DataFrame()
    names = names_in(rows, inputs.arms)
    kinds = set(rows["corruption"])
    chosen = [(f"mean of {len(kinds & set(BENCHMARK))}", [name for name in BENCHMARK if name in kinds])]
    if kinds - set(BENCHMARK):
        chosen.append((f"mean of {len(kinds)}", [name for name in CORRUPTIONS if name in kinds]))
    chosen += [(family, [name for name in members if name in kinds]) for family, members in families().items()]
    table = pd.DataFrame({"arm": names})
    for heading, members in chosen:
        if members:
            means = rows[rows["corruption"].isin(members)].groupby("name")["accuracy"].mean()
            table[heading] = 100 * table["arm"].map(means)
    relative = relative_errors(inputs)
    if relative:
        table[f"mCE to {inputs.study.corrupt.baseline}"] = table["arm"].map(relative)
    return table


def relative_errors(inputs: Inputs) -> dict[str, float]:
    """Return mean corruption errors (per cent) by arm, mean over the seeds that the baseline has, too."""
    rows = inputs.corruptions
    benchmark = [name for name in BENCHMARK if name in set(rows["corruption"])]
    plain = rows["budget"].isna() & (rows["init"] == "random") & (rows["eps_scale"] == 1)
    baseline = rows[plain & (rows["variant"] == inputs.study.corrupt.baseline)]
    baseline = baseline[baseline["norm"].isna() | (baseline["norm"] == inputs.norm)]
    found: dict[str, list[float]] = {}
    for (name, seed, _), part in rows.groupby(["name", "seed", "arm"], sort=False):
        errors = _relative(part, baseline[baseline["seed"] == seed], benchmark)
        found.setdefault(str(name), []).extend(errors)
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _relative(model: pd.DataFrame, baseline: pd.DataFrame, names: list[str]) -> list[float]:
    """Return a model's mCE, or nothing where the baseline is missing or without an error on some corruption."""
    if baseline.empty or len(set(baseline["arm"])) > 1 or not names:
        return []
    faultless = baseline.groupby("corruption")["accuracy"].min().reindex(names) >= 1
    return [] if faultless.any() else [mce(model, baseline, names)]


def diagnosis_numbers(inputs: Inputs) -> pd.DataFrame:
    """Return per arm, task and head: cosines, norm ratio, accuracies (per cent) on the image sets, overfitting gap."""
    rows = inputs.diagnostics
    if rows.empty:
        return pd.DataFrame()
    means = over_models(rows, ["cosine", "gradient_ratio", "class_accuracy", "ssl_accuracy"])
    wide = means.pivot_table(index=["name", "ssl_task", "head"], columns="images", sort=False, dropna=False)
    wide = wide.dropna(how="all")
    table = wide.index.to_frame(index=False).rename(columns={"name": "arm", "ssl_task": "task"})
    columns = {f"cosine, {told}": ("cosine", name, 1.0) for name, told in ATTACKED.items() if name != "noise"}
    columns |= {"SSL / class gradient": ("gradient_ratio", "clean", 1.0)}
    columns |= {f"class, {told} (%)": ("class_accuracy", name, 100.0) for name, told in ATTACKED.items()}
    columns |= {f"task, {told} (%)": ("ssl_accuracy", name, 100.0) for name, told in ATTACKED.items()}
    for heading, (what, where, scale) in columns.items():
        if (what, where) in wide.columns:
            table[heading] = scale * wide[what, where].to_numpy()
    gaps = inputs.arms.groupby("name")["overfitting"].mean() if "overfitting" in inputs.arms else pd.Series(dtype=float)
    table["robust overfitting (points)"] = 100 * table["arm"].map(gaps)
    order = {name: place for place, name in enumerate(names_in(inputs.arms, inputs.arms))}
    return table.sort_values(["task", "arm"], key=lambda c: c.map(order) if c.name == "arm" else c, kind="stable")


def diagnosis_words(inputs: Inputs) -> list[str]:
    """Say per SSL task what plain AT's gradients and perturbations have to do with each other."""
    rows = inputs.diagnostics[is_plain_at(inputs.diagnostics) & (inputs.diagnostics["init"] == "random")]
    rows = rows[(rows["norm"] == inputs.norm) & (rows["head"] == "fitted")]
    return [_words(task, part) for task, part in rows.groupby("ssl_task", sort=True)]


def _words(task: Any, part: pd.DataFrame) -> str:
    cosine = float(part.loc[part["images"] == "clean", "cosine"].mean())
    share = {name: 100 * float(part.loc[part["images"] == name, "class_accuracy"].mean()) for name in ATTACKED}
    lost = {name: share["clean"] - share[name] for name in ("noise", "ssl", "supervised")}
    told = f"Plain AT and {task}: mean cosine of the gradients {cosine:+.2f} on clean images."
    told += (
        f" Class accuracy {share['clean']:.1f} %; noise takes {lost['noise']:.1f} points, a perturbation that climbs"
    )
    told += f" the {task} loss {lost['ssl']:.1f}, one that climbs cross-entropy {lost['supervised']:.1f}."
    return told


def as_table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return headings, which columns are numbers, and rows of text: floats with one decimal, cosines with two."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    rows = [[_cell(name, value) for name, value in row.items()] for row in frame.to_dict("records")]
    return {"headings": [str(name) for name in frame.columns], "numeric": numeric, "rows": rows}


def _cell(name: object, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if not np.isfinite(value):
        return "–"
    return f"{value:.2f}" if str(name).startswith(("cosine", "SSL /")) else f"{value:.1f}"
