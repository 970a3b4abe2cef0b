"""One self-contained page on a study: what was run, what follows from it, and the figures and numbers behind it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from ssrob.config.study import Study
from ssrob.formatting import NORMS, duration, eps_text
from ssrob.registry.attacks import CHECKS
from ssrob.reporting import insights
from ssrob.reporting import tables as told
from ssrob.reporting.figures.arms import with_names
from ssrob.reporting.figures.inputs import Inputs, Samples, Tables, headline_checkpoint, inputs
from ssrob.reporting.figures.recipe import Recipe
from ssrob.reporting.figures.recipes import RECIPES
from ssrob.reporting.figures.style import save
from ssrob.reporting.names import PARTS, claims, ways

LARGEST_SVG = 400_000  # bytes; a larger one slows the page down and is shown as a bitmap
MORE = {  # tables beside the main one, by the name of their files
    "pretraining": insights.pretraining_numbers,
    "corruptions_by_family": insights.corruption_numbers,
    "diagnosis": insights.diagnosis_numbers,
}
SYMBOLS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "underpowered": "–"}


@dataclass(frozen=True)
class Shown:
    """A figure on the page: its picture as a data address, or no picture and what is missing."""

    name: str
    caption: str
    picture: str
    source: str
    norm: str = ""


def build_report(
    folder: Path,
    study: Study,
    tables: Tables,
    samples: Mapping[str, Path | Mapping[str, Any]],
    classes: Sequence[str] = (),
) -> Path:
    """Write figures, tables as CSV and LaTeX, and ``report.html`` below `folder`; returns the page's path.

    tables: by name as `collect` returns them (arms, training, robustness, corruptions, findings, stages, checks);
    all but `arms` may be missing. samples: arm label -> example images (`figures.pictures`), or their .npz file.
    classes: their names in order, if known.
    """
    given = inputs(study, {name: table for name, table in tables.items() if len(table)}, _opened(samples), classes)
    figures = {name: _draw(recipe, given, folder / "figures") for name, recipe in RECIPES.items()}
    numbers = told.main_numbers(given)
    _write_tables(folder / "tables", given, numbers)
    page = folder / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_template().render(_context(given, tables, numbers), figures=figures), encoding="utf-8")
    return page


def _opened(samples: Mapping[str, Path | Mapping[str, Any]]) -> Samples:
    return {label: dict(np.load(each)) if isinstance(each, Path) else each for label, each in samples.items()}


def _draw(recipe: Recipe, given: Inputs, folder: Path) -> list[Shown]:
    """Draw and save a figure, for each training norm on its own where the recipe says so; the primary norm first."""
    shown = []
    for i, norm in enumerate(given.norms if recipe.per_norm else [given.norm]):
        figure = recipe.draw(given.trained_on(norm) if recipe.per_norm else given)
        if figure is not None:
            name = recipe.name if i == 0 else f"{recipe.name}_{norm}"
            picture = _data_address(save(figure, folder, name))
            shown.append(Shown(name, recipe.caption, picture, recipe.source, NORMS[norm]))
    return shown or [Shown(recipe.name, recipe.missing, "", recipe.source)]


def _data_address(paths: Mapping[str, Path]) -> str:
    """Put a figure into an address of its own, so that the page needs no other file."""
    small = paths["svg"].stat().st_size <= LARGEST_SVG
    path, kind = (paths["svg"], "svg+xml") if small else (paths["png"], "png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _write_tables(folder: Path, given: Inputs, numbers: pd.DataFrame) -> None:
    """Write the main table and the verdicts as CSV and LaTeX."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers.to_csv(folder / "main.csv", index=False)
    columns = told.main_columns(given)
    headings = ["arm", "seeds", *(f"{column.group} {column.heading}".strip() for column in columns)]
    rows = numbers.to_dict("records")
    cells = [[row["name"], str(row["seeds"]), *(told.with_interval(row, c.key) for c in columns)] for row in rows]
    told.write_latex(headings, cells, folder / "main.tex")
    for name, table in MORE.items():
        frame = table(given)
        if len(frame):
            frame.to_csv(folder / f"{name}.csv", index=False)
            shown = insights.as_table(frame)
            told.write_latex(shown["headings"], shown["rows"], folder / f"{name}.tex")
    verdicts = given.findings
    if verdicts.empty:
        return
    verdicts.to_csv(folder / "verdicts.csv", index=False)
    primary = verdicts[verdicts["primary"].astype(bool)].rename(columns={"low": "effect_low", "high": "effect_high"})
    cells = [
        [row["claim"], row["question"], told.with_interval(row, "effect"), *_sizes(row), row["verdict"]]
        for row in primary.to_dict("records")
    ]
    headings = ["claim", "question", "effect [points]", "seeds × n", "detectable", "verdict"]
    told.write_latex(headings, cells, folder / "verdicts.tex")


def _sizes(row: Mapping[Any, Any]) -> list[str]:
    detectable = f"{row['detectable']:.1f}" if np.isfinite(row["detectable"]) else "-"
    return [f"{row['seeds']} × {row['n']}", detectable]


def _context(given: Inputs, tables: Tables, numbers: pd.DataFrame) -> dict[str, Any]:
    """Gather what the template shows beside the figures."""
    study, empty = given.study, pd.DataFrame()
    stages, checks = tables.get("stages", empty), tables.get("checks", empty)
    robustness = with_names(tables["robustness"], given.arms) if len(tables.get("robustness", empty)) else empty
    return {
        "study": study,
        "summary": _summary(given),
        "demonstration": told.demonstration(given.findings, study.findings.detectable),
        "weak": told.weak_cells(given.findings),
        "ways": ways(given),
        "name_parts": PARTS,
        "unexplained": told.unexplained(study, stages),
        "claims": claims(study.findings),
        "untested": told.untested(given.findings, study.findings),
        "symbols": SYMBOLS,
        "findings": _records(given.findings),
        "columns": told.main_columns(given),
        "numbers": _records(numbers),
        "checkpoint": headline_checkpoint(study),
        "checkpoints": told.checkpoints(given, robustness),
        "not_run": _records(told.not_run(tables.get("not_run", empty))),
        "warnings": insights.pretraining_warnings(given),
        "more": {name: insights.as_table(table(given)) for name, table in MORE.items()},
        "diagnosis": insights.diagnosis_words(given),
        "checks": _checks(checks, given.arms),
        "costs": _records(told.costs(given.arms)),
        "totals": _records(told.stage_totals(stages)) if len(stages) else [],
        "provenance": told.provenance(stages) if len(stages) else {},
        "config": yaml.safe_dump(_config(given), sort_keys=False, allow_unicode=True, width=100),
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dictionaries, with None for what is missing."""
    rows = frame.to_dict("records")
    return [{str(key): None if pd.isna(value) else value for key, value in row.items()} for row in rows]


def _summary(given: Inputs) -> dict[str, Any]:
    """Return the facts of the opening paragraph."""
    study, arms = given.study, given.arms
    arguments = ", ".join(f"{key} {value}" for key, value in study.model.arguments.items())
    return {
        "models": len(arms),
        "arms": arms["name"].nunique(),
        "ways": arms["variant"].nunique(),
        "seeds": sorted(set(arms["seed"])),
        "inits": list(dict.fromkeys(arms["init"])),
        "model": f"{study.model.name} ({arguments})" if arguments else study.model.name,
        "threats": [f"{NORMS[norm]} with eps = {eps_text(threat.eps)}" for norm, threat in study.threat.items()],
        "n": sorted(set(given.robustness["n"])) if len(given.robustness) else [],
        "multiples": sorted(set(given.robustness["eps_multiple"])) if len(given.robustness) else [],
        "corruptions": given.corruptions["corruption"].nunique() if len(given.corruptions) else 0,
        "severities": given.corruptions["severity"].nunique() if len(given.corruptions) else 0,
    }


def _checks(checks: pd.DataFrame, arms: pd.DataFrame) -> dict[str, Any]:
    """Count the checks and list those that did not pass, by arm."""
    if checks.empty:
        return {"total": 0, "failed": []}
    failed = with_names(checks[~checks["passed"].astype(bool)], arms)
    seeds = failed.merge(arms[["arm", "seed"]], on="arm", how="left")
    return {
        "total": len(checks),
        "found": {name: CHECKS.get(name, "") for name in dict.fromkeys(checks["check"])},
        "failed": _records(seeds),
    }


def _config(given: Inputs) -> dict[str, Any]:
    """Return the study with every default filled in, less the ways and pre-trainings that it does not use."""
    config: dict[str, Any] = given.study.model_dump(mode="json")
    for section, used in (("variants", set(given.arms["variant"])), ("pretraining", set(given.arms["init"]))):
        config[section] = {name: row for name, row in config[section].items() if name in used}
    return config


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "signed": _signed, "duration": duration}
    folder = files("ssrob.reporting") / "templates"
    environment.globals["css"] = (folder / "report.css").read_text(encoding="utf-8")
    return environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:+.1f}".replace("-", "−")
