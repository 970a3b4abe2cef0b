"""What a study leaves in the repository: small tables, figures, the report and a page that says what was run on what.

Nothing is written by hand: verdicts and numbers come from the tables, all else from the stages' provenance.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from PIL import Image

from ssrob.analysis.collect import read_tables
from ssrob.config.study import Study
from ssrob.formatting import NORMS, eps_text, file_size
from ssrob.planning.plan import Plan
from ssrob.registry.stages import STAGES
from ssrob.reporting import tables as report_tables
from ssrob.reporting.figures.inputs import Inputs, inputs
from ssrob.reporting.figures.recipes import RECIPES
from ssrob.reporting.names import claims
from ssrob.scheduling.disk_usage import folder_size
from ssrob.storage import tables
from ssrob.storage.store import Store, StoreError, prepared_facts

MOST = 2_000_000  # bytes of a published study
BULK = ("examples",)  # tables with a row per test image, left out
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
    made = read_tables(plan)
    to = to.absolute()
    _check_place(to)
    fresh = to.with_name(f".{to.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    left_out = _write(fresh, plan, store, made, command)
    shutil.rmtree(to, ignore_errors=True)
    fresh.rename(to)
    return left_out


def _check_place(to: Path) -> None:
    """Refuse a folder that holds anything but what was published there earlier: it will be replaced."""
    page = to / "README.md"
    ours = page.is_file() and WRITTEN in page.read_text(encoding="utf-8")
    empty = not to.exists() or (to.is_dir() and not any(to.iterdir()))
    if not ours and not empty:
        told = "name a new folder, or an earlier one of its own"
        raise StoreError(f"{to}: ssrob publish did not write what is there; {told}")


def _write(to: Path, plan: Plan, store: Store, made: Mapping[str, pd.DataFrame], command: str) -> list[str]:
    """Write all files into a new folder; return what was left out."""
    page = plan.folder / "report.html"
    (to / "tables").mkdir(parents=True)
    _write_tables(made, plan.folder / "tables", to / "tables")
    left_out = [f"`{name}` (a row per test image)" for name in BULK]
    left_out += _write_figures(plan.folder / "figures", to / "figures", MOST - PAGE - folder_size(to))
    if folder_size(to) + page.stat().st_size <= MOST:
        shutil.copyfile(page, to / page.name)
    else:
        left_out.append(f"`{page.name}` ({file_size(page.stat().st_size)})")
    (to / "config.yaml").write_text(yaml.safe_dump(plan.study.model_dump(mode="json"), sort_keys=False))
    facts = _facts(plan, store, made, command) + f"\n| left out | {', '.join(left_out)} |"
    page_text = "\n\n".join(_page(plan.study, made, facts, to / "figures"))
    (to / "README.md").write_text(page_text + "\n", encoding="utf-8")
    if folder_size(to) > MOST:
        raise StoreError(
            f"the study to publish has {file_size(folder_size(to))}, at most {file_size(MOST)} are for the repository"
        )
    return left_out


def _write_tables(made: Mapping[str, pd.DataFrame], source: Path, to: Path) -> None:
    """Copy the tables, of the training records validation alone, and the CSV and LaTeX of the main ones."""
    for name, table in made.items():
        if name == "training":
            kept = table[table["metric"].str.startswith("validation/")].reset_index(drop=True)
            tables.write_table(kept, tables.TRAINING, to / f"{name}.parquet")
        elif name not in BULK:
            shutil.copyfile(source / f"{name}.parquet", to / f"{name}.parquet")
    for file in [*source.glob("*.csv"), *source.glob("*.tex")]:
        shutil.copyfile(file, to / file.name)


def _write_figures(source: Path, to: Path, room: int) -> list[str]:
    """Write figures as SVG, or as PNG if that is smaller; return what is not there: the largest go if room is short.

    Those of the page go last.
    """
    to.mkdir()
    figures = sorted(source.glob("*.svg"))
    left_out = [f"`{figure.stem}` (images of the data set)" for figure in figures if figure.stem == PICTURES]
    written = [_smaller(figure, to) for figure in figures if figure.stem != PICTURES]
    sizes = {file: file.stat().st_size for file in written}
    for file in sorted(written, key=lambda file: (file.stem in HEADINGS, -sizes[file])):
        if sum(sizes.values()) <= room:
            break
        left_out.append(f"`{file.name}` ({file_size(sizes.pop(file))})")
        file.unlink()
    return left_out


def _smaller(vector: Path, to: Path) -> Path:
    """Write a figure as it is or as a bitmap of 256 colours, a third of its size.

    They are chosen to cover all that are there: by frequency, thin lines would take the colours of others.
    """
    bitmap = to / f"{vector.stem}.png"
    full = Image.open(vector.with_suffix(".png")).convert("RGB")
    few = full.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(bitmap, optimize=True)
    if bitmap.stat().st_size < vector.stat().st_size:
        return bitmap
    bitmap.unlink()
    return Path(shutil.copyfile(vector, to / vector.name))


def _page(study: Study, made: Mapping[str, pd.DataFrame], facts: str, figures: Path) -> Iterator[str]:
    missing, findings = made["not_run"], made["findings"]
    primary = findings[findings["primary"].astype(bool)]
    yield f"# {study.title or study.study}"
    yield WRITTEN
    if len(missing):
        yield (
            f"**The study is not finished:** {len(missing)} of {len(missing) + len(made['arms'])} models are"
            " [not run](#not-run), and verdicts may change with them."
        )
    yield "## Outcome\n\n" + "\n".join(_outcome(study, primary))
    yield _verdicts(primary, study.findings.level)
    for name in HEADINGS:
        for file in figures.glob(f"{name}.*"):
            yield f"![{name.replace('_', ' ')}](figures/{file.name})\n\n{RECIPES[name].caption}"
    yield "## Main numbers\n\n" + _numbers(inputs(study, {name: each for name, each in made.items() if len(each)}, {}))
    yield "## What it ran on\n\n" + facts
    if len(missing):
        yield "## Not run\n\n" + _missing(report_tables.not_run(missing))
    yield (
        "## Files\n\n`tables/`: parquet, columns as `ssrob/storage/tables.py` describes them; of the training records"
        " validation alone; main table and verdicts as CSV and LaTeX. `config.yaml`: every setting."
    )


def _facts(plan: Plan, store: Store, made: Mapping[str, pd.DataFrame], command: str) -> str:
    """List what was run on what."""
    ran = report_tables.provenance(made["stages"])
    arms, robustness = made["arms"], made["robustness"]
    prepared = {
        path: prepared_facts(store, path)["fingerprint"]
        for path, stage in plan.stages.items()
        if stage.kind == "data" and store.done(path)
    }
    data = ", ".join(f"{plan.stages[path].spec['name']}, fingerprint `{told}`" for path, told in prepared.items())
    whole = len(arms) + len(made["not_run"])
    explain = [path for path, stage in (plan.whole or plan).stages.items() if STAGES[stage.kind].role == "explanation"]
    done = sum(map(store.done, explain))
    rows = {
        "to run it": f"`{command}`, as often as it takes",
        "data": data,
        "models": f"{len(arms)} of {whole} trained and tested; seeds {', '.join(map(str, sorted(set(arms['seed']))))}",
        "test images": ", ".join(map(str, sorted(set(robustness["n"])))) + f", preset `{plan.study.evaluate.preset}`",
        "checks of the evaluations": f"{int(made['checks']['passed'].sum())} of {len(made['checks'])} passed",
        "probes and diagnoses": f"{done} of {len(explain)} run",
        "dates": ran["dates"],
        "hardware": f"{ran['devices']}; {ran['compute']} of computing",
        "versions": ran["versions"],
        "commits": ran["commits"],
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {told} |" for name, told in rows.items())


def _outcome(study: Study, primary: pd.DataFrame) -> Iterator[str]:
    """Say what came of each claim in one sentence; its cells' effects in their order."""
    questions = claims(study.findings)
    for claim, rows in primary.groupby("claim", sort=False):
        verdicts = " and ".join(dict.fromkeys(rows["verdict"]))
        effects = ", ".join(_effect(row) for row in rows.to_dict("records") if not pd.isna(row["effect"]))
        found = f"{effects} points" if effects else "not compared"
        yield f"- **{claim}: {verdicts}.** {questions.get(str(claim), claim)}: {found}."
    untested = report_tables.untested(primary, study.findings)
    if untested:
        yield f"- Not tested, as what they compare was not trained: {', '.join(untested)}."


def _effect(row: Mapping[Any, Any]) -> str:
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:+.1f} to {row['high']:+.1f})"
    return "" if pd.isna(row["effect"]) else f"{row['effect']:+.1f}{interval}"


def _verdicts(primary: pd.DataFrame, level: str) -> str:
    """Lay out the primary cells."""
    headings = [
        "claim",
        "compared",
        f"effect in points ({level} interval)",
        "seeds × images",
        "detectable",
        "verdict",
        "why",
    ]
    lines = []
    for row in primary.to_dict("records"):
        sizes = f"{row['seeds']} × {row['n']}" if row["seeds"] else ""
        detectable = "" if pd.isna(row["detectable"]) else f"{row['detectable']:.1f}"
        compared = row["cell"].partition(" | ")[0]
        lines.append([row["claim"], compared, _effect(row), sizes, detectable, row["verdict"], row["note"]])
    return _table(headings, lines) + "\n\nDetectable: the smallest effect in points found with 80 % power."


def _numbers(given: Inputs) -> str:
    """Lay out the main table: arms by clean, robust and corruption accuracy."""
    columns = report_tables.main_columns(given)
    headings = ["arm", "seeds", *(f"{each.group.removeprefix('robust, ')} {each.heading}".strip() for each in columns)]
    rows = report_tables.main_numbers(given).to_dict("records")
    lines = [
        [row["name"], row["seeds"], *(report_tables.with_interval(row, each.key) for each in columns)] for row in rows
    ]
    words = (
        "Per cent of test images, mean over seeds; in brackets the interval that the figures show. eps: the reference, "
    )
    words += ", ".join(f"{NORMS[norm]} {eps_text(threat.eps)}" for norm, threat in given.study.threat.items())
    return f"{words}.\n\n{_table(headings, lines)}"


def _missing(rows: pd.DataFrame) -> str:
    return _table(
        ["part", "arm", "seeds"], [[row["part"], row["label"], row["seed"]] for row in rows.to_dict("records")]
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
