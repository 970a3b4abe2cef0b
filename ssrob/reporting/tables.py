"""Tables of a report: the comparisons behind the verdicts, costs, checks, and what was run on what."""

import json

import numpy as np
import pandas as pd

from ssrob.config.study import Study
from ssrob.formatting import NORMS, duration, interval, number, signed
from ssrob.planning.plan import make_plan
from ssrob.registry.attacks import CHECKS
from ssrob.registry.stages import kinds_of
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import names_in
from ssrob.reporting.layout import Cell, Table, plain_table
from ssrob.reporting.verdicts import compared


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
    trained_on = rows["norm"].fillna(data.norm)
    rows = rows[(rows["eval_norm"] == trained_on) & np.isclose(rows["eps_multiple"].astype(float), 1.0)]
    means = 100 * rows.pivot_table(index="name", columns="checkpoint", values="accuracy")
    return plain_table(means.reindex(names_in(rows, data.arms)).reset_index().rename(columns={"name": "arm"}))


def costs(data: ReportData) -> Table | None:
    """Return per arm its training cost, mean over seeds: passes (with pre-training, and without), seconds, device."""
    columns = {
        "passes per image": ("passes", "mean"),
        "of these fine-tuning": ("passes_finetune", "mean"),
        "time": ("seconds", "mean"),
        "best epoch": ("best_epoch", "mean"),
        "device": ("device", _distinct),
    }
    frame = data.arms.groupby("name", sort=False).agg(**columns).rename_axis("arm").reset_index()
    whole = dict.fromkeys(("passes per image", "of these fine-tuning"), lambda value: number(value, 0))
    return plain_table(frame, whole | {"time": duration})


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
    memory = "largest memory (MB)"
    columns = {"count": ("key", "count"), "seconds": ("seconds", "sum"), memory: ("peak_memory_mb", "max")}
    frame = data.stages.groupby("kind", sort=False).agg(**columns).rename_axis("stage").reset_index()
    whole = dict.fromkeys(("count", memory), lambda value: number(value, 0))
    return plain_table(frame, whole | {"seconds": duration})


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
