"""The numbers of a report as tables: per arm, per claim, per stage; the same values go to HTML, CSV and LaTeX."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssrob.config.findings import Findings
from ssrob.config.study import Study
from ssrob.formatting import NORMS, duration
from ssrob.planning.plan import make_plan
from ssrob.registry.stages import kinds_of
from ssrob.reporting.figures.arms import names_in
from ssrob.reporting.figures.corruption import corruption_means
from ssrob.reporting.figures.inputs import Inputs
from ssrob.reporting.figures.summary import over_seeds

SHOWN = (0.5, 1.0, 2.0)  # multiples of the reference eps in the main table


@dataclass(frozen=True)
class Column:
    """A column of the main table: its name in files, its heading and the heading of its group."""

    key: str
    heading: str
    group: str


def main_columns(inputs: Inputs) -> list[Column]:
    """Return the columns of the main table that the study has numbers for."""
    found = [Column("clean", "clean", "")]
    for norm, name in NORMS.items():
        rows = inputs.robustness[inputs.robustness["eval_norm"] == norm] if len(inputs.robustness) else pd.DataFrame()
        grid = sorted(set(rows["eps_multiple"])) if len(rows) else []
        shown = [multiple for multiple in SHOWN if multiple in grid] or [multiple for multiple in grid if multiple][:3]
        found += [Column(f"{norm}_{m:g}", f"{m:g} × eps", f"robust, {name}") for m in shown]
    if len(inputs.corruptions):
        kinds = corruption_means(inputs.corruptions)["kinds"].max()
        found.append(Column("corruptions", f"mean of {kinds}", "corruptions"))
    return found if len(inputs.robustness) else found[1:]


def main_numbers(inputs: Inputs) -> pd.DataFrame:
    """Return the main table: per arm its seeds, and per column mean, low and high in per cent.

    Columns: name, seeds, n, then `KEY`, `KEY_low`, `KEY_high` for each key of `main_columns`, and `passes`.
    low and high are the interval that figures show: over seeds, or binomial for a single seed.
    """
    frame = pd.DataFrame({"name": names_in(inputs.arms, inputs.arms)})
    seeds = inputs.arms.groupby("name")["seed"].nunique()
    frame["seeds"] = frame["name"].map(seeds)
    frame["n"] = frame["name"].map(inputs.robustness.groupby("name")["n"].max()) if len(inputs.robustness) else np.nan
    for column in main_columns(inputs):
        means = over_seeds(_rows_of(inputs, column), ["name"]).set_index("name")
        for end, suffix in (("mean", ""), ("low", "_low"), ("high", "_high")):
            frame[column.key + suffix] = 100 * frame["name"].map(means[end])
    frame["passes"] = frame["name"].map(inputs.arms.groupby("name")["passes"].mean())
    return frame


def _rows_of(inputs: Inputs, column: Column) -> pd.DataFrame:
    if column.key == "corruptions":
        means = corruption_means(inputs.corruptions)
        return means[means["group"] == "all"]
    rows = inputs.robustness
    if column.key == "clean":
        norm, multiple = str(rows["eval_norm"].iloc[0]), 0.0
    else:
        norm, multiple = column.key.split("_")[0], float(column.key.split("_")[1])
    chosen: pd.DataFrame = rows[(rows["eval_norm"] == norm) & np.isclose(rows["eps_multiple"], multiple)]
    return chosen


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
    wanted = [
        (stage.kind, stage.key) for stage in make_plan(study).stages.values() if stage.kind in kinds_of("explanation")
    ]
    done = set(zip(stages["kind"], stages["key"], strict=True))
    return len([each for each in wanted if each not in done]), len(wanted)


def checkpoints(inputs: Inputs, robustness: pd.DataFrame) -> pd.DataFrame:
    """Compare checkpoints at the reference eps of the training norm: name, then mean accuracy (per cent) of each.

    robustness: the rows of all checkpoints, with names. Empty unless there are several.
    """
    if robustness.empty or robustness["checkpoint"].nunique() < 2:
        return pd.DataFrame()
    own = robustness["norm"].fillna(inputs.norm) == robustness["eval_norm"]
    rows = robustness[own & np.isclose(robustness["eps_multiple"], 1.0)]
    means = 100 * rows.pivot_table(index="name", columns="checkpoint", values="accuracy", aggfunc="mean")
    return means.reindex(names_in(rows, inputs.arms)).reset_index()


def costs(arms: pd.DataFrame) -> pd.DataFrame:
    """Return per arm its training cost, mean over seeds: passes (with pre-training, and without), seconds, device."""
    grouped = arms.groupby("name", sort=False)
    told = {
        "passes": ("passes", "mean"),
        "passes_finetune": ("passes_finetune", "mean"),
        "seconds": ("seconds", "mean"),
    }
    return grouped.agg(**told, best_epoch=("best_epoch", "mean"), device=("device", _distinct)).reset_index()


def stage_totals(stages: pd.DataFrame) -> pd.DataFrame:
    """Return per kind of stage how many there are, their seconds and their largest memory."""
    grouped = stages.groupby("kind", sort=False)
    found = grouped.agg(stages=("key", "count"), seconds=("seconds", "sum"), memory=("peak_memory_mb", "max"))
    return found.reset_index()


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
        "compute": duration(float(stages["seconds"].sum())),
        "devices": _distinct(stages["device"]),
        "commits": _distinct(pd.Series(commits)) or "not in a git checkout",
        "versions": ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in sorted(versions.items())),
    }


def demonstration(findings: pd.DataFrame, threshold: float) -> str:
    """Say why a study is a demonstration, empty if it is not: no primary cell is decided, or could have been."""
    primary = findings[findings["primary"].astype(bool)] if len(findings) else findings
    tested = primary[primary["effect"].notna()] if len(primary) else primary
    if tested.empty:
        return "it tests no claim"
    if (tested["verdict"] != "underpowered").any():
        return ""
    found = tested["detectable"].dropna()
    if found.empty:
        return "with its seeds no smallest detectable effect can be given"
    sizes = f"{found.min():.1f}" if len(found) == 1 else f"{found.min():.1f} to {found.max():.1f}"
    return f"no claim is decided, and it could only have found effects of {sizes} points (it asks for {threshold:g})"


def untested(findings: pd.DataFrame, settings: Findings) -> list[str]:
    """Name the claims that a study does not test."""
    tested = set(findings["claim"]) if len(findings) else set()
    return [claim for claim in settings.all_claims if claim not in tested]


def weak_cells(findings: pd.DataFrame) -> int:
    """Count the primary cells that the study is too small to decide."""
    return int((findings["primary"].astype(bool) & (findings["verdict"] == "underpowered")).sum())


def write_latex(headings: list[str], rows: list[list[str]], path: Path) -> None:
    """Write a LaTeX tabular (needs booktabs): first column to the left, the others to the right."""
    lines = [r"\begin{tabular}{l" + "r" * (len(headings) - 1) + "}", r"\toprule"]
    lines += [_latex_row(headings), r"\midrule", *map(_latex_row, rows), r"\bottomrule", r"\end{tabular}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def with_interval(row: Mapping[Any, Any], key: str) -> str:
    """Write a mean with its interval in plain text, e.g. ``47.3 [46.1, 48.5]``; empty where there is none."""
    if not np.isfinite(row[key]):
        return ""
    ends = (row.get(f"{key}_low", np.nan), row.get(f"{key}_high", np.nan))
    return f"{row[key]:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]" if np.isfinite(ends).all() else f"{row[key]:.1f}"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "−": "$-$",
    "·": r"$\cdot$",
    "[": "{[}",  # a bracket that starts a line would be read as an argument of the line before
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _latex_row(cells: list[str]) -> str:
    return " & ".join("".join(_LATEX.get(sign, sign) for sign in str(cell)) for cell in cells) + r" \\"


def _distinct(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
