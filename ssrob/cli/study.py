"""Commands about a study as a whole: what it is, what is done, running it in portions."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssrob.cli.common import Config, Device, Json, Overrides, plan_and_store, say, set_options

if TYPE_CHECKING:
    from ssrob.planning.plan import Plan
    from ssrob.runtime.process_pool import Workers
    from ssrob.runtime.time_budget import Portion
    from ssrob.storage.store import Store

app = typer.Typer()


@app.command()
def plan(
    config: Config,
    override: Overrides = None,
    speed: Annotated[
        list[str] | None,
        typer.Option(metavar="[KIND=]NUMBER", help="Passes per second to assume: of all kinds of stages, or of one."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the network here for half a second, and reckon with that.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a study consists of and what it costs.

    Stages, the work and time in each, what is already there, and the order of a portion. The exit code is 1 if the
    study cannot start here.
    """
    from ssrob.cli import as_json as write
    from ssrob.cli import plan_view
    from ssrob.data.sources import opened_once
    from ssrob.scheduling import preflight

    planned, store = plan_and_store(config, override)
    with opened_once():
        refusal = preflight.refusal(planned)
        speeds = plan_view.measured_speeds(planned.study) if measure else {}
        speeds |= plan_view.parse_speeds(speed or [])
        if as_json:
            typer.echo(write.plan_json(planned, store, speeds, refusal))
        else:
            typer.echo(plan_view.plan_text(planned, store, speeds))
            typer.echo(f"\nIt cannot start here: {refusal}" if refusal else "", nl=bool(refusal))
    sys.exit(1 if refusal else 0)


@app.command()
def portion(
    config: Config,
    budget: Annotated[str, typer.Option(help="Time after which to stop, such as 8m, 90s or 1h30m.")],
    override: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Stages at a time; each takes a GPU of its own.")] = 1,
    device: Device = "auto",
) -> None:
    """Run what fits into a time budget.

    The central comparison comes first; call it again to go on. Of a study with planned looks, what is due after a look
    follows.
    """
    from ssrob.cli import plan_view
    from ssrob.runtime import time_budget
    from ssrob.runtime.process_pool import Workers
    from ssrob.scheduling import preflight

    seconds = time_budget.parse_budget(budget)
    plan, store = plan_and_store(config, override)
    preflight.check(plan, starts=False)  # the disk need not hold all of it
    plan, done = _run_with_looks(plan, store, Workers(store.root, device, quiet=jobs > 1), seconds, jobs)
    typer.echo(plan_view.portion_text(plan, store, done))
    sys.exit(128 + done.signal if done.signal else int(bool(done.failed)))


def _run_with_looks(
    plan: "Plan", store: "Store", workers: "Workers", budget: float, jobs: int
) -> "tuple[Plan, Portion]":
    """Run a portion, and within the same budget what is due after each look; return the plan that was due last."""
    from ssrob.cli.power import take_look
    from ssrob.runtime.time_budget import run_portion

    ends = time.monotonic() + budget
    done = run_portion(plan, store, workers, budget=budget, jobs=jobs, say=say)
    while not done.signal and not done.failed and (left := ends - time.monotonic()) > 0:
        due = take_look(plan, store)
        if due is None:
            break
        plan, done = due, done.followed_by(run_portion(due, store, workers, budget=left, jobs=jobs, say=say))
    return plan, done


@app.command()
def ls(config: Config, override: Overrides = None, as_json: Json = False) -> None:
    """List stages with their state, size and time."""
    from ssrob.cli import as_json as write
    from ssrob.cli import status_view

    text = write.stages_json if as_json else status_view.stages_text
    typer.echo(text(*plan_and_store(config, override)))


@app.command()
def status(
    config: Config,
    override: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it on a terminal until all is done.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is done, running, failed and waiting.

    It also says how long the rest will take.
    """
    from ssrob.cli import as_json as write
    from ssrob.cli import status_view

    if watch and as_json:
        raise ValueError("status: --watch or --json, found both")
    plan, store = plan_and_store(config, override)
    if as_json:
        typer.echo(write.status_json(plan, store))
    elif watch:
        with contextlib.suppress(KeyboardInterrupt):
            status_view.watch(plan, store)
    else:
        typer.echo(status_view.status_text(plan, store, time.time()))


@app.command()
def gc(
    configs: Annotated[list[str], typer.Argument(help="The YAML files of all studies to keep.", metavar="CONFIG...")],
    override: Overrides = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them; without it they are listed.")] = False,
) -> None:
    """List or delete stages that no config refers to.

    Give the configs of all studies that are to stay.
    """
    from ssrob.scheduling import garbage

    plans: dict[Path, list[Plan]] = {}
    stores = {}
    for config in configs:
        plan, store = plan_and_store(config, override)
        root = store.root.resolve()  # two configs may write the same folder in two ways
        plans.setdefault(root, []).append(plan)
        stores[root] = store
    for root, store in stores.items():
        unused = garbage.unused(plans[root], store)
        if delete:
            garbage.delete(unused, store)
        typer.echo(garbage.unused_text(unused, store, deleted=delete))


@app.command()
def where(config: Config, override: Overrides = None) -> None:
    """Say where a study's report and tables are.

    It also says how to look at its runs.
    """
    plan, _ = plan_and_store(config, override)
    page = plan.folder / "report.html"
    typer.echo(f"\nReport:     {page.resolve() if page.exists() else 'not made yet'}")
    typer.echo(f"Tables:     {plan.folder.resolve() / 'tables'}")
    command = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else sys.argv[0]
    typer.echo(f"MLflow UI:  {command} ui {config}{set_options(override)}   (then open the address it prints)")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study's config."""
    from ssrob.config.study import Study

    typer.echo(json.dumps(Study.model_json_schema(), indent=2))
