"""`ssrob power`: what a study could detect as it is planned. `ssrob look`: what is decided, and which seeds follow."""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ssrob.cli.common import Config, Overrides, plan_and_store, say
from ssrob.planning.specs import EvaluateSpec
from ssrob.storage.store import Store, prepared_facts

if TYPE_CHECKING:
    from ssrob.analysis.power import Cost, Outlook
    from ssrob.analysis.sweeps import Cell
    from ssrob.planning.plan import Plan
    from ssrob.planning.stage import Stage

app = typer.Typer()


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
    from ssrob.analysis import from_tables
    from ssrob.analysis.collect import collect
    from ssrob.analysis.comparisons import Comparisons
    from ssrob.analysis.power import outlook
    from ssrob.planning.evaluation_specs import evaluate_spec
    from ssrob.scheduling.priority import finished_part

    plan, store = plan_and_store(config, override)
    source, its_store = plan_and_store(pilot, None) if pilot else (plan, store)
    finished = finished_part(source, its_store)
    tables = collect(finished, its_store)
    sweeps = from_tables(tables["robustness"], tables["examples"], tables["arms"])
    settings = plan.study.findings.model_copy(update={"primary": source.study.findings.primary})
    images = evaluate_spec(plan.study, "best").images_of(settings.primary.norm)
    images = images or int(tables["robustness"]["n"].max())
    seeds = len(plan.study.seeds)
    comparisons = Comparisons(sweeps, settings, source.study.variants)
    found = outlook(comparisons, seeds, images, costs(finished, its_store))
    if not found:
        raise ValueError(f"{pilot or config}: no claim has two finished seeds yet; train more, or name a --pilot")
    lines = [line for row in found for line in _lines(row)]
    typer.echo("\n".join([f"{seeds} seeds and {images:,} test images are planned; with 80 % power:", "", *lines]))


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
    from ssrob.analysis import from_tables
    from ssrob.analysis.collect import collect
    from ssrob.analysis.comparisons import Comparisons
    from ssrob.analysis.looks import needed
    from ssrob.planning.plan import make_plan
    from ssrob.scheduling.due import due_part, identity, write_record

    if not plan.study.findings.looks or not all(map(store.done, plan.stages)):
        return None
    tables = collect(plan, store)
    sweeps = from_tables(tables["robustness"], tables["examples"], tables["arms"])
    found = needed(Comparisons(sweeps, plan.study.findings, plan.study.variants))
    write_record(plan, {seeds: map(identity, cells) for seeds, cells in found.items()})
    due = due_part(make_plan(plan.study))
    return due if len(due.arms) > len(plan.arms) else None


def costs(plan: "Plan", store: "Store") -> "Mapping[Cell, Cost]":
    """Return what a model of each cell costs in core-seconds, mean over its seeds."""
    from ssrob.analysis.power import Cost
    from ssrob.analysis.sweeps import Cell

    def seconds(path: str) -> float:
        return float(store.provenance(path, "seconds")["seconds"]) * plan.stages[path].cores

    found: dict[Cell, list[Cost]] = {}
    for arm in plan.arms:
        training = sum(seconds(path) for path in (arm.pretrain, arm.finetune) if path)
        for checkpoint, path in arm.evaluate.items():
            columns = {name: getattr(arm, name) for name in Cell._fields if name != "checkpoint"}
            cell = Cell(**columns, checkpoint=checkpoint)
            found.setdefault(cell, []).append(Cost(training, seconds(path) / _images(plan.stages[path], store)))
    return {
        cell: Cost(sum(c.training for c in each) / len(each), sum(c.per_image for c in each) / len(each))
        for cell, each in found.items()
    }


def _images(stage: "Stage", store: "Store") -> float:
    """Return the test images of a sweep, mean over its norms."""
    sweep = EvaluateSpec.model_validate(stage.spec)
    every = prepared_facts(store, stage.parents["data"])["counts"]["test"]
    counts = [sweep.images_of(norm) or every for norm in sweep.eps]
    return sum(counts) / len(counts)


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
