"""Commands about one stage: run it, and say why it is run or is not."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssrob.cli.common import Device, Overrides, path_option, plan_and_store, say
from ssrob.config.fields import ConfigError

if TYPE_CHECKING:
    from ssrob.planning.stage import Stage
    from ssrob.storage.store import Store

app = typer.Typer()
NAMED = "KIND/KEY, or any part of it that means one stage."
Results = Annotated[Path, path_option("The results folder, without a config.")]


@app.command()
def run(
    *,
    config: Annotated[str | None, typer.Argument(help="A study's YAML file.", metavar="CONFIG")] = None,
    name: Annotated[str | None, typer.Argument(help=NAMED, metavar="STAGE")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage as JSON, the way a workflow rule passes it.")] = None,
    results: Results = Path("results"),
    override: Overrides = None,
    device: Device = "auto",
) -> None:
    """Run one stage of a study.

    The workflow's rules pass it as JSON.
    """
    from ssrob.planning.stage import Stage
    from ssrob.runtime import job
    from ssrob.storage.store import Store

    config, name = config_first(config, name)
    if stage and not config:
        sys.exit(job.run(Stage.from_json(stage), Store(results), device, say))
    if not config or not name or stage:
        raise ConfigError("run: expected a config and a stage, or --stage")
    chosen, store = _ready(config, name, override)
    sys.exit(job.run(chosen, store, device, say))


def config_first(config: str | None, name: str | None) -> tuple[str | None, str | None]:
    """Return a config and a stage in this order, whichever way round they were given."""
    given = [each for each in (config, name) if each]
    configs = [each for each in given if each.endswith((".yaml", ".yml", ".json"))]
    if len(configs) != 1:
        return config, name
    return configs[0], next((each for each in given if each not in configs), None)


def _ready(config: str, name: str, override: list[str] | None) -> "tuple[Stage, Store]":
    """Return a stage of a study that can be run now."""
    from ssrob.scheduling import preflight
    from ssrob.scheduling.explain import find_stage

    plan, store = plan_and_store(config, override)
    preflight.check(plan, starts=False)
    stage = find_stage(name, plan.stages)
    if missing := [path for path in stage.parents.values() if not store.done(path)]:
        raise ConfigError(f"{stage.path} is made from {', '.join(missing)}; run that first")
    return stage, store


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help=NAMED, metavar="STAGE")],
    config: Annotated[str | None, typer.Argument(help="The study's YAML file.", metavar="CONFIG")] = None,
    results: Results = Path("results"),
    override: Overrides = None,
) -> None:
    """Say why a stage is run again, or is not.

    What its key is made of, how the nearest other stage differs, and what made it.
    """
    from ssrob.registry.stages import revision
    from ssrob.scheduling import explain as of
    from ssrob.storage.store import Store

    config, stage_name = config_first(config, name)
    if stage_name is None:
        raise ConfigError(f"explain: expected a stage, found the config {config} alone")
    plan, store = plan_and_store(config, override) if config else (None, Store(results))
    stages = of.known_stages(plan, store)
    stage = of.find_stage(stage_name, stages)
    again = of.reasons_to_run(stage, plan, store)
    typer.echo(f"{stage.path}: {_finished(store.done(stage.path))}")
    decides = {f"revision of {stage.kind}": revision(stage.kind)} | of.identity(stage, {})
    _section("What decides its result, and its key:", [f"{name}: {value}" for name, value in decides.items()])
    if other := of.nearest(stage, stages, store):
        rows = [f"{name}: {here} here, {there} there" for name, (here, there) in other.differences.items()]
        _section(f"The nearest other one is {other.path} ({_finished(other.done)}):", rows or ["no difference"])
    if store.done(stage.path):
        _section("What made it:", _maker(stage, store))
    _section("What makes it run:" if again else "Nothing makes it run again.", again)


def _finished(done: bool) -> str:
    return "finished" if done else "not finished"


def _section(title: str, rows: Iterable[str]) -> None:
    typer.echo("\n".join(["", title, *(f"  {row}" for row in rows)]))


def _maker(stage: "Stage", store: "Store") -> list[str]:
    facts = store.provenance(stage.path)
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items() if version)
    rows = {"commit": facts.get("commit"), "on": facts.get("device"), "at": facts.get("started"), "with": versions}
    return [f"{name}: {value}" for name, value in rows.items() if value]
