"""One self-contained page on a study: the answer, then the evidence; and the figures and tables as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssrob.config.study import Study
from ssrob.formatting import NORMS
from ssrob.reporting import answer, insights
from ssrob.reporting import tables as report_tables
from ssrob.reporting.data import ReportData, Samples, Tables, headline_checkpoint, report_data
from ssrob.reporting.figures.saving import Saved, save
from ssrob.reporting.layout import Table, render, write_latex
from ssrob.reporting.registry import ITEMS, SECTIONS, FigureRow, Section, TableRow


@dataclass(frozen=True)
class Shown:
    """A figure or table on the page."""

    name: str
    caption: str
    folded: bool
    table: Table | None = None
    picture: Saved | None = None
    source: str = ""


def build_report(
    folder: Path,
    study: Study,
    tables: Tables,
    samples: Mapping[str, Path | Mapping[str, Any]],
    classes: Sequence[str] = (),
) -> Path:
    """Write figures, tables as CSV and LaTeX, and ``report.html`` below `folder`; returns the page's path.

    tables: by name as `collect` returns them; all but `arms` may be missing. samples: arm label -> example images
    (`figures.pictures`), or their .npz file. classes: their names in order, if known.
    """
    data = report_data(study, tables, _opened(samples), classes)
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    shown = {section.id: _shown(section, data, folder) for section in SECTIONS}
    page = folder / "report.html"
    absent = [section.title for section in SECTIONS if not shown[section.id]]
    page.write_text(render("report.html.j2", **_context(data), shown=shown, absent=absent), encoding="utf-8")
    return page


def _shown(section: Section, data: ReportData, folder: Path) -> list[Shown]:
    """Make the tables and figures of a section that there is anything for."""
    shown: list[Shown] = []
    for item in ITEMS:
        if item.section == section.id:
            shown += _drawn(item, data, folder) if isinstance(item, FigureRow) else _laid_out(item, data, folder)
    return shown


def _drawn(row: FigureRow, data: ReportData, folder: Path) -> list[Shown]:
    """Draw and save a figure, for each training norm on its own where its row says so; the primary norm first."""
    shown = []
    for i, norm in enumerate(data.norms if row.per_norm else [data.norm]):
        figure = row.draw(data.trained_on(norm) if row.per_norm else data)
        if figure is not None:
            name = row.name if i == 0 else f"{row.name}_{norm}"
            caption = row.caption if i == 0 else f"The same for models trained on {NORMS[norm]}."
            picture = save(figure, folder / "figures", name)
            shown.append(Shown(name, caption, row.folded or i > 0, picture=picture, source=row.source))
    return shown


def _laid_out(row: TableRow, data: ReportData, folder: Path) -> list[Shown]:
    """Make a table, and write it as CSV and LaTeX where its row says so."""
    table = row.make(data)
    if table is None:
        return []
    if row.saved:
        table.frame.to_csv(folder / "tables" / f"{row.name}.csv", index=False)
        write_latex(table, folder / "tables" / f"{row.name}.tex")
    return [Shown(row.name, row.caption, row.folded, table=table, source=row.name if row.saved else "")]


def _opened(samples: Mapping[str, Path | Mapping[str, Any]]) -> Samples:
    return {label: dict(np.load(each)) if isinstance(each, Path) else each for label, each in samples.items()}


def _context(data: ReportData) -> dict[str, Any]:
    """Gather what the page says beside its tables and figures."""
    study = data.study
    return {
        "study": study,
        "headline": answer.headline(data),
        "too_small": answer.too_small(data),
        "verdicts": answer.verdict_lines(data),
        "untested": {claim: answer.claim_sentence(claim, study.findings) for claim in answer.untested(data)},
        "what_was_run": answer.what_was_run(data),
        "warnings": insights.pretraining_warnings(data),
        "failed_checks": int((~data.checks["passed"].astype(bool)).sum()),
        "not_run": report_tables.not_run(data.not_run).to_dict("records"),
        "unexplained": report_tables.unexplained(study, data.stages),
        "checkpoint": headline_checkpoint(study),
        "sections": [(section, section.notes(data)) for section in SECTIONS],
        "config": yaml.safe_dump(_config(data), sort_keys=False, allow_unicode=True, width=100),
    }


def _config(data: ReportData) -> dict[str, Any]:
    """Return the study with every default filled in, less the variants and pre-trainings that it does not use."""
    config: dict[str, Any] = data.study.model_dump(mode="json")
    for section, used in (("variants", set(data.arms["variant"])), ("pretraining", set(data.arms["init"]))):
        config[section] = {name: row for name, row in config[section].items() if name in used}
    return config
