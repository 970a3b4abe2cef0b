"""What a study leaves in the repository: small tables, figures, the report and a page that says what was run on what.

Nothing is written by hand: verdicts and numbers come from the tables, all else from the stages' provenance.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import yaml

from ssrob.analysis.collect import read_tables
from ssrob.config.study import Study
from ssrob.formatting import file_size
from ssrob.planning.plan import Plan
from ssrob.registry.stages import kinds_of
from ssrob.reporting import tables as report_tables
from ssrob.reporting.answer import Line, headline, too_small, untested_text, verdict_lines
from ssrob.reporting.data import ReportData, report_data
from ssrob.reporting.layout import markdown, plain_table
from ssrob.reporting.main_table import main
from ssrob.reporting.registry import ITEMS
from ssrob.scheduling.disk_usage import folder_size
from ssrob.storage import tables
from ssrob.storage.files import check_writable
from ssrob.storage.store import Store, StoreError, prepared_facts

MOST = 4_000_000  # bytes of a published study
PER_IMAGE = "example"  # a column of tables with a row per test image, which are left out
HEADINGS = ("robust_accuracy", "difference_to_at", "effects")  # figures shown on the page
PICTURES = "adversarial_examples"  # images of the data set, which has terms of its own
WRITTEN = "Written by `ssrob publish` from the study's tables and the records of its stages; not by hand."
PAGE = 80_000  # bytes that are kept for the page and the config


def publish(plan: Plan, store: Store, to: Path, command: str) -> list[str]:
    """Write a collected and reported study into the folder `to`, anew; return what was left out for its size.

    command: what the study was run with, for the page. Raises StoreError if there is no report yet, or if the rest
    is larger than `MOST` without it.
    """
    page = plan.folder / "report.html"
    if not page.is_file():
        raise StoreError(f"{page}: not made yet; run the workflow, or ssrob report --partial for what is finished")
    collected = read_tables(plan)
    to = to.absolute()
    check_writable(to.parent, "--to", "name another folder")
    _check_place(to)
    fresh = to.with_name(f".{to.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    left_out = _write(fresh, plan, store, collected, command)
    shutil.rmtree(to, ignore_errors=True)
    fresh.rename(to)
    return left_out


def _check_place(to: Path) -> None:
    """Refuse a folder that holds anything but what was published there earlier: it will be replaced."""
    page = to / "README.md"
    ours = page.is_file() and WRITTEN in page.read_text(encoding="utf-8")
    empty = not to.exists() or (to.is_dir() and not any(to.iterdir()))
    if not ours and not empty:
        remedy = "name a new folder, or an earlier one of its own"
        raise StoreError(f"{to}: ssrob publish did not write what is there; {remedy}")


def _write(to: Path, plan: Plan, store: Store, collected: Mapping[str, pd.DataFrame], command: str) -> list[str]:
    """Write all files into a new folder; return what was left out."""
    (to / "tables").mkdir(parents=True)
    _write_tables(collected, plan.folder / "tables", to / "tables")
    per_image = [name for name, table in collected.items() if PER_IMAGE in table and len(table)]
    left_out = [f"`{name}` (a row per test image)" for name in per_image]
    figures, page = plan.folder / "figures", plan.folder / "report.html"
    _write_figures(figures, to / "figures", MOST, HEADINGS.__contains__)
    if _write_page(page, to):
        left_out.append("figures that are in `report.html`")
    else:
        left_out.append(f"`{page.name}` ({file_size(page.stat().st_size)})")
        shutil.rmtree(to / "figures")
        left_out += _write_figures(figures, to / "figures", MOST - PAGE - folder_size(to), lambda _: True)
    (to / "config.yaml").write_text(yaml.safe_dump(plan.study.model_dump(mode="json"), sort_keys=False))
    facts = _facts(plan, store, collected, command) + f"\n| left out | {', '.join(left_out)} |"
    page_text = "\n\n".join(filter(None, _page(plan.study, collected, facts, to / "figures")))
    (to / "README.md").write_text(page_text + "\n", encoding="utf-8")
    if folder_size(to) > MOST:
        raise StoreError(
            f"the study to publish has {file_size(folder_size(to))}, at most {file_size(MOST)} are for the repository"
        )
    return left_out


def _write_tables(collected: Mapping[str, pd.DataFrame], source: Path, to: Path) -> None:
    """Copy the tables, of the training records validation alone, and the CSV and LaTeX of the main ones."""
    for name, table in collected.items():
        if name == "training":
            kept = table[table["metric"].str.startswith("validation/")].reset_index(drop=True)
            tables.write_table(kept, tables.TRAINING, to / f"{name}.parquet")
        elif PER_IMAGE not in table:
            shutil.copyfile(source / f"{name}.parquet", to / f"{name}.parquet")
    for file in [*source.glob("*.csv"), *source.glob("*.tex")]:
        shutil.copyfile(file, to / file.name)


def _write_page(page: Path, to: Path) -> bool:
    """Copy the report without images of the data set, if there is room for it."""
    text = re.sub(
        rf'<figure id="figure-{PICTURES}">.*?</figure>', "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    fits = folder_size(to) + len(text.encode()) <= MOST - PAGE
    if fits:
        (to / page.name).write_text(text, encoding="utf-8")
    return fits


def _write_figures(source: Path, to: Path, room: int, chosen: Callable[[str], bool]) -> list[str]:
    """Copy the chosen figures; return what is not there: the largest go if room is short, those of the page last."""
    to.mkdir(exist_ok=True)
    kept = (file for file in source.iterdir() if not file.name.startswith("."))
    figures = sorted(file for file in kept if chosen(file.stem) and file.stem != PICTURES)
    left_out = [f"`{file.stem}` (images of the data set)" for file in source.glob(f"{PICTURES}.*")]
    sizes = {file: file.stat().st_size for file in figures}
    for file in sorted(figures, key=lambda file: (file.stem in HEADINGS, -sizes[file])):
        if sum(sizes.values()) <= room:
            break
        left_out.append(f"`{file.name}` ({file_size(sizes.pop(file))})")
    for file in sizes:
        shutil.copyfile(file, to / file.name)
    return left_out


def _page(study: Study, collected: Mapping[str, pd.DataFrame], facts: str, figures: Path) -> Iterator[str]:
    missing = collected["not_run"]
    yield f"# {study.title or study.study}"
    yield WRITTEN
    if len(missing):
        yield (
            f"**The study is not finished:** {len(missing)} of {len(missing) + len(collected['arms'])} models are"
            " [not run](#not-run), and verdicts may change with them."
        )
    data = report_data(study, {name: each for name, each in collected.items() if len(each)}, {})
    yield f"## Outcome\n\n**{headline(data)}**"
    yield too_small(data)
    yield _outcome(data)
    yield untested_text(data)
    yield markdown(report_tables.verdicts(data))
    captions = {item.name: item.caption for item in ITEMS}
    for name in HEADINGS:
        for file in figures.glob(f"{name}.*"):
            yield f"![{name.replace('_', ' ')}](figures/{file.name})\n\n{captions[name]}"
    yield f"## Main numbers\n\n{captions['main']}"
    yield markdown(main(data))
    yield "## What it ran on\n\n" + facts
    if len(missing):
        rows = report_tables.not_run(missing)[["part", "label", "seed"]]
        yield "## Not run\n\n" + markdown(plain_table(rows.rename(columns={"label": "arm", "seed": "seeds"})))
    yield (
        "## Files\n\n`tables/`: parquet, columns as `ssrob/storage/tables.py` describes them; of the training records"
        " validation alone; main table and verdicts as CSV and LaTeX. `config.yaml`: every setting."
    )


def _facts(plan: Plan, store: Store, collected: Mapping[str, pd.DataFrame], command: str) -> str:
    """List what was run on what."""
    ran = report_tables.provenance(collected["stages"])
    arms, robustness = collected["arms"], collected["robustness"]
    prepared = {
        path: prepared_facts(store, path)["fingerprint"]
        for path, stage in plan.stages.items()
        if stage.kind == "data" and store.done(path)
    }
    data = ", ".join(f"{plan.stages[path].spec['name']}, fingerprint `{mark}`" for path, mark in prepared.items())
    whole = len(arms) + len(collected["not_run"])
    explain = [path for path, stage in (plan.whole or plan).stages.items() if stage.kind in kinds_of("explanation")]
    done = sum(map(store.done, explain))
    rows = {
        "to run it": f"`{command}`, as often as it takes",
        "data": data,
        "models": f"{len(arms)} of {whole} trained and tested; seeds {', '.join(map(str, sorted(set(arms['seed']))))}",
        "test images": ", ".join(map(str, sorted(set(robustness["n"])))) + f", preset `{plan.study.evaluate.preset}`",
        "checks of the evaluations": f"{int(collected['checks']['passed'].sum())} of {len(collected['checks'])} passed",
        "probes and diagnoses": f"{done} of {len(explain)} run",
        "dates": ran["dates"],
        "hardware": f"{ran['devices']}; {ran['computing time']} of computing",
        "versions": ran["versions"],
        "commits": ran["commits"],
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {fact} |" for name, fact in rows.items())


def _outcome(data: ReportData) -> str:
    """Say what came of each claim in one line."""
    by_claim: dict[str, list[Line]] = {}
    for line in verdict_lines(data):
        by_claim.setdefault(line.claim, []).append(line)
    lines = []
    for claim, judged in by_claim.items():
        words = " and ".join(dict.fromkeys(line.verdict for line in judged))
        effects = ", ".join(line.effect_text for line in judged)
        lines.append(f"- **{claim}: {words}.** {judged[0].sentence}: {effects} points.")
    return "\n".join(lines)
