"""The numbers of a report as tables: per arm, per claim, per stage."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssrob.config.study import Study
from ssrob.formatting import NORMS, duration, eps_text, interval, number, signed
from ssrob.planning.plan import make_plan
from ssrob.registry.attacks import CHECKS
from ssrob.registry.stages import kinds_of
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import is_plain_at, names_in, questions
from ssrob.reporting.figures.corruption import corruption_means
from ssrob.reporting.figures.summary import over_seeds
from ssrob.reporting.layout import Cell, Table, plain_table
from ssrob.reporting.verdicts import compared

SHOWN = (0.5, 1.0, 2.0)  # multiples of the reference eps in the main table


@dataclass(frozen=True)
class Column:
    """A column of accuracies in the main table: its name in files and its heading."""

    key: str
    heading: str


def main_columns(data: ReportData) -> list[Column]:
    """Return the columns of the main table that the study has numbers for."""
    found = [Column("clean", "clean")] if len(data.robustness) else []
    for norm, name in NORMS.items():
        rows = data.robustness[data.robustness["eval_norm"] == norm]
        grid = sorted(set(rows["eps_multiple"]))
        shown = [multiple for multiple in SHOWN if multiple in grid] or [multiple for multiple in grid if multiple][:3]
        for multiple in shown:
            eps = rows.loc[np.isclose(rows["eps_multiple"], multiple), "eps"].iloc[0]
            found.append(Column(f"{norm}_{multiple:g}", f"{name} {eps_text(eps)}"))
    if len(data.corruptions):
        kinds = corruption_means(data.corruptions)["kinds"].max()
        found.append(Column("corruptions", f"{kinds} corruptions"))
    return found


def main_numbers(data: ReportData) -> pd.DataFrame:
    """Return the main table: per arm its seeds, and per column mean, low and high in per cent, difference in points.

    Columns: name, seeds, n, then `KEY`, `KEY_low`, `KEY_high`, `KEY_to_at` by key of `main_columns`, and `passes`.
    low and high are the interval that figures show: over seeds, or binomial for a single seed. `to_at`: to plain AT
    from random weights with the same training norm (of arms without one: the primary), mean over shared seeds.
    """
    frame = pd.DataFrame({"name": names_in(data.arms, data.arms)})
    frame["seeds"] = frame["name"].map(data.arms.groupby("name")["seed"].nunique())
    frame["n"] = frame["name"].map(data.robustness.groupby("name")["n"].max()) if len(data.robustness) else np.nan
    for column in main_columns(data):
        rows = _rows_of(data, column)
        means = over_seeds(rows, ["name"]).set_index("name")
        for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            frame[column.key + suffix] = 100 * frame["name"].map(means[end])
        frame[f"{column.key}_to_at"] = 100 * frame["name"].map(_to_at(rows, data))
    frame["passes"] = frame["name"].map(data.arms.groupby("name")["passes"].mean())
    return frame


def _to_at(rows: pd.DataFrame, data: ReportData) -> dict[str, float]:
    """Return by name the mean difference to plain AT over shared seeds, 0..1; nothing for plain AT itself."""
    values = rows.pivot_table(index="seed", columns="name", values="accuracy")
    arms = data.arms.drop_duplicates("name").set_index("name")
    plain = arms[is_plain_at(arms) & (arms["init"] == "random")]
    references = {row["norm"]: name for name, row in plain.iterrows() if name in values}
    norms = arms["norm"].fillna(data.norm)
    found = {}
    for name in values.columns:
        reference = references.get(norms[name])
        if reference is not None and reference != name:
            found[str(name)] = float((values[name] - values[reference]).mean())
    return found


def _rows_of(data: ReportData, column: Column) -> pd.DataFrame:
    if column.key == "corruptions":
        means = corruption_means(data.corruptions)
        return means[means["group"] == "all"]
    rows = data.robustness
    if column.key == "clean":
        norm, multiple = str(rows["eval_norm"].iloc[0]), 0.0
    else:
        norm, multiple = column.key.split("_")[0], float(column.key.split("_")[1])
    chosen: pd.DataFrame = rows[(rows["eval_norm"] == norm) & np.isclose(rows["eps_multiple"], multiple)]
    return chosen


def main(data: ReportData) -> Table | None:
    """Lay out the main table: grouped by question, the difference to plain AT beside the value, the best in bold."""
    columns, numbers = main_columns(data), main_numbers(data)
    if not columns:
        return None
    best = {column.key: numbers[column.key].max() for column in columns}
    twins, by_name = same_models(data), numbers.set_index("name", drop=False).to_dict("index")

    def cell(row: dict[Any, Any], key: str) -> Cell:
        aside = "" if pd.isna(row[f"{key}_to_at"]) else signed(row[f"{key}_to_at"])
        kind = "best" if row[key] == best[key] else ""
        return Cell(number(row[key]), aside, interval(row[f"{key}_low"], row[f"{key}_high"]), kind)

    def line(row: dict[Any, Any]) -> list[Cell]:
        note = f"the same model as “{twins[row['name']]}”" if row["name"] in twins else ""
        return [Cell(row["name"], below=note), Cell(str(row["seeds"])), *(cell(row, each.key) for each in columns)]

    groups = [(title, [line(by_name[name]) for name in names]) for title, names in questions(data.arms)]
    headings = ["arm", "seeds", *(column.heading for column in columns)]
    return Table(headings, groups, [False, *[True] * (1 + len(columns))], numbers)


def same_models(data: ReportData) -> dict[str, str]:
    """Find arms that have every accuracy of every seed in common: by name, the first of the same numbers."""
    first: dict[tuple[Any, ...], str] = {}
    found = {}
    for name, rows in data.robustness.groupby("name", sort=False):
        ordered = rows.sort_values(["seed", "eval_norm", "eps"])
        key = tuple(ordered[["seed", "eval_norm", "eps", "accuracy"]].itertuples(index=False, name=None))
        if len(set(ordered["accuracy"])) > 2 and first.setdefault(key, str(name)) != name:
            found[str(name)] = first[key]
    return found


def verdicts(data: ReportData) -> Table | None:
    """Lay out the primary comparisons that have a result: claim, effect, sizes, verdict and why."""
    rows = data.primary[data.primary["effect"].notna()]
    return _findings(rows, ["claim", "compared", "effect (points)", "seeds × images", "detectable", "verdict", "why"])


def exploratory(data: ReportData) -> Table | None:
    """Lay out the comparisons without a verdict."""
    rows = data.findings[~data.findings["primary"].astype(bool)]
    return _findings(rows, ["claim", "compared", "effect (points)", "seeds × images", "detectable", "note"])


def _findings(rows: pd.DataFrame, headings: list[str]) -> Table | None:
    if rows.empty:
        return None
    lines = []
    for row in rows.to_dict("records"):
        arms, where = compared(str(row["cell"]))
        p = "" if pd.isna(row["p"]) else f"p for the claim = {row['p']:.3g}"
        test = " · ".join(filter(None, [where, row["test"], p]))
        cells = [Cell(row["claim"]), Cell(arms, below=test)]
        cells += [Cell(signed(row["effect"]), below=interval(row["low"], row["high"], sign=True))]
        cells += [Cell(f"{row['seeds']} × {row['n']}"), Cell(number(row["detectable"]))]
        cells += [Cell(row["verdict"], kind=row["verdict"])] if "verdict" in headings else []
        lines.append([*cells, Cell(row["note"])])
    numeric = ["effect (points)", "seeds × images", "detectable"]
    return Table(headings, [("", lines)], [heading in numeric for heading in headings], rows)


def not_run(missing: pd.DataFrame) -> pd.DataFrame:
    """List what an unfinished study has not run: part, label, seeds in words and stages finished of all; by label."""
    if missing.empty:
        return missing
    grouped = missing.groupby(["part", "label"], sort=False)
    seeds = grouped["seed"].agg(lambda each: ", ".join(map(str, sorted(each))))
    return pd.concat([seeds, grouped[["finished", "stages"]].sum()], axis=1).reset_index()


def unexplained(study: Study, stages: pd.DataFrame) -> tuple[int, int]:
    """Count the probes and diagnoses of a study that are not run, and all; (0, 0) without a record of stages."""
    if stages.empty:
        return 0, 0
    kinds = kinds_of("explanation")
    wanted = [(stage.kind, stage.key) for stage in make_plan(study).stages.values() if stage.kind in kinds]
    done = set(zip(stages["kind"], stages["key"], strict=True))
    return len([each for each in wanted if each not in done]), len(wanted)


def checkpoints(data: ReportData) -> Table | None:
    """Compare checkpoints at the reference eps of the training norm, in per cent; None unless there are several."""
    rows = data.all_robustness
    if rows["checkpoint"].nunique() < 2:
        return None
    own = rows["norm"].fillna(data.norm) == rows["eval_norm"]
    rows = rows[own & np.isclose(rows["eps_multiple"].astype(float), 1.0)]
    means = 100 * rows.pivot_table(index="name", columns="checkpoint", values="accuracy")
    return plain_table(means.reindex(names_in(rows, data.arms)).reset_index().rename(columns={"name": "arm"}))


def costs(data: ReportData) -> Table | None:
    """Return per arm its training cost, mean over seeds: passes (with pre-training, and without), seconds, device."""
    grouped = data.arms.groupby("name", sort=False)
    frame = grouped.agg(
        passes=("passes", "mean"),
        fine=("passes_finetune", "mean"),
        time=("seconds", "mean"),
        best=("best_epoch", "mean"),
        device=("device", _distinct),
    ).reset_index()
    names = {"name": "arm", "passes": "passes per image", "fine": "of these fine-tuning", "best": "best epoch"}
    whole = dict.fromkeys(("passes per image", "of these fine-tuning"), lambda value: number(value, 0))
    return plain_table(frame.rename(columns=names), whole | {"time": duration})


def failed_checks(data: ReportData) -> Table | None:
    """List the checks of evaluations that did not pass, by arm."""
    failed = data.checks[~data.checks["passed"].astype(bool)] if len(data.checks) else data.checks
    seeds = failed.merge(data.arms[["arm", "seed"]], on="arm", how="left")
    seeds["norm"] = seeds["eval_norm"].map(NORMS)
    frame = seeds[["name", "seed", "checkpoint", "norm", "check", "detail"]]
    return plain_table(frame.rename(columns={"name": "arm", "detail": "what was measured"}), {"seed": str})


def checked_for(data: ReportData) -> Table | None:
    """Say of each check what it would find."""
    names = list(dict.fromkeys(data.checks["check"]))
    return plain_table(pd.DataFrame({"check": names, "what it would find": [CHECKS.get(name, "") for name in names]}))


def stages(data: ReportData) -> Table | None:
    """Return per kind of stage how many there are, their time and their largest memory."""
    if data.stages.empty:
        return None
    frame = stage_totals(data.stages).rename(
        columns={"kind": "stage", "stages": "count", "memory": "largest memory (MB)"}
    )
    whole = dict.fromkeys(("count", "largest memory (MB)"), lambda value: number(value, 0))
    return plain_table(frame, whole | {"seconds": duration})


def stage_totals(stages: pd.DataFrame) -> pd.DataFrame:
    """Return per kind of stage how many there are, their seconds and their largest memory."""
    grouped = stages.groupby("kind", sort=False)
    found = grouped.agg(stages=("key", "count"), seconds=("seconds", "sum"), memory=("peak_memory_mb", "max"))
    return found.reset_index()


def check_notes(data: ReportData) -> list[str]:
    """Say how many checks of the evaluations passed."""
    passed = int(data.checks["passed"].astype(bool).sum())
    looked = "Every evaluation looks for signs that its numbers are too high"
    return [f"{looked}: {passed} of {len(data.checks)} checks passed."] if len(data.checks) else []


def provenance_notes(data: ReportData) -> list[str]:
    """Say when and with what the study ran."""
    facts = provenance(data.stages) if len(data.stages) else {}
    return [f"{name.capitalize()}: {text}." for name, text in facts.items()]


def provenance(stages: pd.DataFrame) -> dict[str, str]:
    """Return when and with what a study ran: dates, total seconds, devices, commits and versions of packages."""
    versions: dict[str, set[str]] = {}
    for text in set(stages["versions"]):
        for package, version in json.loads(text).items():
            versions.setdefault(package, set()).add(str(version))
    days = sorted({str(started)[:10] for started in stages["started"]})
    commits = [commit[:12] + commit[40:] for commit in stages["commit"] if commit]  # 40 digits, perhaps -dirty
    return {
        "dates": days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        "computing time": duration(float(stages["seconds"].sum())),
        "devices": _distinct(stages["device"]),
        "commits": _distinct(pd.Series(commits)) or "not in a git checkout",
        "versions": ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in sorted(versions.items())),
    }


def _distinct(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
