"""Commands about what a study has found: tables, report, a repository's page, MLflow."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssrob.cli.common import Config, Overrides, Partial, path_option, plan_and_store, say, set_options

app = typer.Typer()


@app.command()
def collect(config: Config, override: Overrides = None, partial: Partial = False) -> None:
    """Gather a study's results into tables and findings."""
    from ssrob.analysis.collect import collect as gather
    from ssrob.scheduling.priority import finished_part
    from ssrob.scheduling.staleness import check_alike
    from ssrob.storage.store import StoreError

    plan, store = plan_and_store(config, override)
    left = [] if partial else [path for path in plan.stages if not store.done(path)]
    if left:
        advice = f"`ssrob study {config}` finishes it, --partial takes what there is"
        raise StoreError(f"{plan.study.study}: {len(left)} of {len(plan.stages)} stages are not finished; {advice}")
    plan = finished_part(plan, store) if partial else plan
    check_alike(plan, store)
    tables = gather(plan, store)
    say(f"collect   {plan.folder / 'tables'}: {sum(map(len, tables.values()))} rows")


@app.command()
def report(config: Config, override: Overrides = None, partial: Partial = False) -> None:
    """Draw the figures and write report.html.

    They show what `ssrob collect` has gathered.
    """
    from ssrob.analysis.collect import class_names, read_tables, samples
    from ssrob.analysis.collect import collect as gather
    from ssrob.reporting.report import build_report
    from ssrob.scheduling.priority import finished_part

    plan, store = plan_and_store(config, override)
    if partial:  # no workflow has collected what is finished by now
        plan = finished_part(plan, store)
        gather(plan, store)
    written = build_report(plan.folder, plan.study, read_tables(plan), samples(plan, store), class_names(plan, store))
    say(f"report    {written}")


@app.command()
def publish(
    config: Config,
    to: Annotated[Path, path_option("Folder to write, such as docs/results/NAME; an earlier one is replaced.")],
    override: Overrides = None,
    partial: Partial = False,
) -> None:
    """Write a study's small results for a repository.

    Tables, figures, report, and a page on what was run on what.
    """
    from ssrob.reporting.publish import publish as write
    from ssrob.scheduling.priority import finished_part

    plan, store = plan_and_store(config, override)
    command = f"ssrob portion {config} --budget 8m{set_options(override)}"
    left_out = write(finished_part(plan, store) if partial else plan, store, to, command)
    say(f"publish   {to}, without {', '.join(left_out)}")


@app.command()
def track(
    config: Config,
    override: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on importing until all stages are done.")] = False,
) -> None:
    """Import a study's stages into MLflow.

    Safe to repeat: nothing is logged twice.
    """
    from ssrob import tracking
    from ssrob.storage.store import write_json

    plan, store = plan_and_store(config, override)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            tracking.follow(plan, store)
        return
    tracked = tracking.track(plan, store)
    if plan.folder.is_dir():
        write_json(plan.folder / "tracked.json", {"stages": len(plan.stages)})
    say(f"track     {tracked}")


@app.command()
def ui(
    config: Config,
    override: Overrides = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; the next free one if it is taken.")] = 5000,
    follow: Annotated[bool, typer.Option("--follow", help="Import what a running study adds, too.")] = False,
) -> None:
    """Open MLflow with a study's runs on 127.0.0.1."""
    from ssrob import tracking

    plan, store = plan_and_store(config, override)
    if follow:
        sys.exit(tracking.serve_and_follow(plan, store, port))
    sys.exit(tracking.serve(store.root, plan.study.tracking_uri, port, study=plan.study.study))
