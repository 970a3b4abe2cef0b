"""`ssrob power`: what a study could detect as it is planned. `ssrob look`: what is decided, and which seeds follow."""

import math
import sys
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from ssrob.cli.common import Config, Overrides, plan_and_store, say
from ssrob.planning.evaluation_specs import evaluate_spec
from ssrob.planning.stage import data_stage
from ssrob.storage.store import prepared_facts

if TYPE_CHECKING:
    from ssrob.analysis.power import Cost, Outlook
    from ssrob.analysis.sweeps import Cell
    from ssrob.config.findings import Claim, Findings
    from ssrob.config.study import Study
    from ssrob.planning.plan import Plan
    from ssrob.storage.store import Store

app = typer.Typer()

TESTS = {"robust_accuracy": "evaluate", "auroc": "ood"}  # what is tested for a measure, by kind of stage


@app.command()
def power(
    config: Config,
    pilot: Annotated[
        str | None, typer.Option(help="Take the spread and the times from the finished seeds of this config.")
    ] = None,
    override: Overrides = None,
) -> None:
    """Say what each claim could detect as planned.

    And how many seeds or test images it would take to detect more: from two or more finished seeds of the study, or of
    a pilot. Core-hours are those of all arms that the claim needs.
    """
    from ssrob.analysis.collect import collect
    from ssrob.analysis.comparisons import comparisons_by_measure
    from ssrob.analysis.power import outlook
    from ssrob.scheduling.priority import finished_part

    plan, store = plan_and_store(config, override)
    source, its_store = plan_and_store(pilot, None) if pilot else (plan, store)
    finished = finished_part(source, its_store)
    tables = collect(finished, its_store)
    settings = plan.study.findings.model_copy(update={"primary": source.study.findings.primary})
    every = prepared_facts(its_store, data_stage(source.study.data).path)["counts"]["test"]
    seeds, images = len(plan.study.seeds), planned_images(plan.study, settings, every)
    rows = [
        row
        for each in comparisons_by_measure(tables, settings, source.study.variants)
        for row in outlook(each, seeds, images, costs(finished, its_store, TESTS[each.sweeps.measure]))
    ]
    if not rows:
        raise ValueError(f"{pilot or config}: no claim has two finished seeds yet; train more, or name a --pilot")
    compared = list(dict.fromkeys(row.claim for row in rows))
    typer.echo(f"{seeds} seeds and {_sizes_of(images, compared)} are planned; with 80 % power:\n")
    typer.echo("\n".join(line for row in rows for line in _lines(row)))
    if others := [name for name in images if name not in compared]:
        typer.echo(f"\nnot compared by two finished seeds: {', '.join(others)}")


@app.command()
def look(config: Config, override: Overrides = None) -> None:
    """Judge a study with planned looks.

    Exit code 0: more seeds are needed for what is still open; 1: none are.
    """
    plan, store = plan_and_store(config, override)
    going_on = take_look(plan, store)
    if going_on is None:
        if plan.study.findings.looks:
            say("look      no further models are due")
        sys.exit(1)
    say(f"look      {len(going_on.arms) - len(plan.arms)} more models are due: see ssrob plan {config}")


def take_look(plan: "Plan", store: "Store") -> "Plan | None":
    """Record what is open once all that is due is finished; return the plan that is due then, None if no more is."""
    from ssrob.analysis.collect import collect
    from ssrob.analysis.comparisons import comparisons_by_measure
    from ssrob.analysis.looks import needed
    from ssrob.planning.plan import make_plan
    from ssrob.scheduling.due import due_part, identity, write_record

    if not plan.study.findings.looks or not all(map(store.done, plan.stages)):
        return None
    tables = collect(plan, store)
    open_cells = needed(*comparisons_by_measure(tables, plan.study.findings, plan.study.variants))
    write_record(plan, {seeds: map(identity, cells) for seeds, cells in open_cells.items()})
    due = due_part(make_plan(plan.study))
    return due if len(due.arms) > len(plan.arms) else None


def planned_images(study: "Study", settings: "Findings", every: int) -> dict[str, int]:
    """Return how many test images each claim has in a study; `every`: all that there are."""
    swept, detection = evaluate_spec(study, "best").images_of(settings.primary.norm) or every, study.ood

    def images(claim: "Claim") -> int:
        if claim.measure == "robust_accuracy" or detection is None:
            return swept
        return min(every, detection.images if claim.where == (0, 0) else detection.attacked_images)

    return {name: images(claim) for name, claim in settings.all_claims.items()}


def costs(plan: "Plan", store: "Store", kind: str = "evaluate") -> "Mapping[Cell, Cost]":
    """Return what a model of each cell, and its test of a kind, cost in core-seconds, mean over its seeds."""
    from ssrob.analysis.power import Cost
    from ssrob.analysis.sweeps import Cell

    def seconds(path: str) -> float:
        return float(store.provenance(path, "seconds")["seconds"]) * plan.stages[path].cores

    arms, spent = {arm.finetune: arm for arm in plan.arms}, dict[Cell, list[tuple[float, float]]]()
    for test in plan.of_kind(kind).values():
        if (arm := arms.get(test.parents["model"])) is not None:
            columns = {name: getattr(arm, name) for name in Cell._fields if name != "checkpoint"}
            training = sum(seconds(path) for path in (arm.pretrain, arm.finetune) if path)
            cell = Cell(**columns, checkpoint=test.spec["checkpoint"])
            spent.setdefault(cell, []).append((training, seconds(test.path)))
    return {cell: Cost(*map(fmean, zip(*each, strict=True))) for cell, each in spent.items()}


def _sizes_of(images: "Mapping[str, int]", claims: list[str]) -> str:
    """Write numbers of test images, with their claims where these have different ones."""
    sizes = dict.fromkeys(images[name] for name in claims)
    named = {size: f" ({', '.join(name for name in claims if images[name] == size)})" for size in sizes}
    return ", ".join(f"{size:,} test images{named[size] if len(sizes) > 1 else ''}" for size in sizes)


def _lines(row: "Outlook") -> "Iterator[str]":
    yield f"{row.claim}: {row.cell}, limited by the comparison with {row.limiting}"
    yield f"  detects {row.now:.1f} points now, {row.detectable:.1f} as planned ({_hours(row.hours)} core-hours)"
    for size in row.seeds:
        yield f"  {size:g} point{'s' if size != 1 else ''}: {_sizes(row, size)}"
    if row.advice:
        yield f"  {row.advice} helps most per core-hour"


def _sizes(row: "Outlook", size: float) -> str:
    """Say how many seeds, or images, an effect of this size would take."""
    seeds, images = row.seeds[size], row.images[size]
    by_seeds = f"{seeds} seeds ({_hours(row.hours_seeds[size])} h)" if seeds else "no number of seeds"
    by_images = f"{images:,} images ({_hours(row.hours_images[size])} h)" if images else "no number of images"
    return f"{by_seeds}, or {by_images}"


def _hours(hours: float) -> str:
    return "?" if math.isnan(hours) else f"{hours:.1f}"
