"""The ``ssrob`` command: parsing and wiring alone. Every command imports what it needs when it runs."""

import contextlib
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="How does visual self-supervision change a model's robustness?",
)

Config = Annotated[str, typer.Argument(help="A study's YAML file.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. data.path=/data."),
]

Partial = Annotated[
    bool, typer.Option("--partial", help="Of an unfinished study: of the models that are trained and tested.")
]


def main() -> None:
    """Run the command line; every expected mistake ends in one message and exit code 2."""
    from ssrob.spec import ConfigError
    from ssrob.store import StoreError
    from ssrob.tracking import TrackingError

    try:
        app()
    except (ConfigError, StoreError, TrackingError, ValueError, OSError) as error:
        typer.echo(f"ssrob: {error}", err=True)
        sys.exit(2)


@app.command()
def plan(
    config: Config,
    override: Overrides = None,
    speed: Annotated[
        list[str] | None,
        typer.Option(metavar="[KIND=]NUMBER", help="Passes per second to reckon with: of networks, or of a kind."),
    ] = None,
) -> None:
    """Print a study's stages, the work and time in each, what is already there, and the order of a portion."""
    from ssrob import plan_view

    typer.echo(plan_view.plan_text(*_plan_and_store(config, override), plan_view.parse_speeds(speed or [])))


@app.command()
def portion(
    config: Config,
    budget: Annotated[str, typer.Option(help="Time after which to stop, such as 8m, 90s or 1h30m.")],
    override: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Stages at a time; each takes a GPU of its own.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Run what fits into a time budget, the central comparison first; call it again to go on."""
    from ssrob import plan_view, portion
    from ssrob.config import load_config
    from ssrob.door import open_study
    from ssrob.store import Store
    from ssrob.worker import Workers

    seconds = portion.parse_budget(budget)
    plan = open_study(load_config(Path(config), override), config, starts=False)  # the disk need not hold all of it
    store = Store(plan.study.results)
    workers = Workers(store.root, device, quiet=jobs > 1)
    found = portion.run_portion(plan, store, workers, budget=seconds, jobs=jobs, say=_told)
    typer.echo(plan_view.portion_text(plan, store, found))
    sys.exit(128 + found.signal if found.signal else int(bool(found.failed)))


@app.command()
def ls(config: Config, override: Overrides = None) -> None:
    """List a study's stages with their state, size and key."""
    from ssrob import status_view

    typer.echo(status_view.stages_text(*_plan_and_store(config, override)))


@app.command()
def status(
    config: Config,
    override: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it on a terminal until all is done.")] = False,
) -> None:
    """Say what is done, running, failed and waiting, and how long the rest will take."""
    from ssrob import status_view

    plan, store = _plan_and_store(config, override)
    if watch:
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
    """List the stages that no config given here refers to, with their sizes."""
    from ssrob import unused

    plans: dict[Path, list[Any]] = {}
    stores = {}
    for config in configs:
        plan, store = _plan_and_store(config, override)
        root = store.root.resolve()  # two configs may write the same folder in two ways
        plans.setdefault(root, []).append(plan)
        stores[root] = store
    for root, store in stores.items():
        found = unused.unused(plans[root], store)
        if delete:
            unused.delete(found, store)
        typer.echo(unused.unused_text(found, store, deleted=delete))


@app.command()
def export(
    *,
    what: Annotated[str, typer.Argument(help="A trained model's key, or a part of it; or a study's YAML file.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder, or .tar, .tar.gz or .zip file. [default: by its name]")
    ] = None,
    results: Annotated[Path, typer.Option(help="The results folder that has the key.")] = Path("results"),
    override: Overrides = None,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Of a study: trained weights.")] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Of a study: prepared data.")] = True,
    work: Annotated[bool, typer.Option("--work", help="Of a study: checkpoints of unfinished stages, too.")] = False,
) -> None:
    """Write a trained model with its card, or a study's finished stages, for use elsewhere."""
    from ssrob import exchange

    if not what.endswith((".yaml", ".yml", ".json")):
        from ssrob.store import Store

        typer.echo(f"export    {exchange.export_model(what, Store(results), to)}", err=True)
        return
    plan, store = _plan_and_store(what, override)
    to = to or Path(f"{plan.study.study}.tar.gz")
    told = exchange.export_study(plan, store, to, weights=weights, data=data, work=work)
    typer.echo(f"export    {to}: {len(told['stages'])} finished, {len(told['work'])} unfinished stages", err=True)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A results folder, or what `ssrob export CONFIG` wrote.")],
    results: Annotated[Path, typer.Option(help="The results folder to import into.")] = Path("results"),
    work: Annotated[bool, typer.Option("--work", help="Newer checkpoints of unfinished stages, too.")] = False,
) -> None:
    """Take over finished stages from another machine, verified; what is here stays."""
    from ssrob import exchange
    from ssrob.store import Store

    outcome = exchange.take_over(source, Store(results), work=work)
    typer.echo(str(outcome))
    sys.exit(1 if outcome.refused else 0)


@app.command()
def run(
    stage: Annotated[str, typer.Option(help="The stage as JSON, the way a workflow rule passes it.")],
    results: Annotated[Path, typer.Option(help="The results folder.")] = Path("results"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Run one stage (what the workflow's rules call)."""
    from ssrob import job
    from ssrob.stage import Stage
    from ssrob.store import Store

    sys.exit(job.run(Stage.from_json(stage), Store(results), device, _told))


@app.command()
def evaluate(
    *,
    model: Annotated[str, typer.Option(help="A function that returns the model, as package.module:factory.")],
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, a folder of images or parquet files, or {source: ...}.")
    ],
    eps: Annotated[str, typer.Option(help="Budgets in [0, 1] pixel units, ascending: 2/255,4/255,8/255.")],
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    preset: Annotated[str, typer.Option(help="fast, standard, strong or autoattack.")] = "standard",
    weights: Annotated[Path | None, typer.Option(help="A state dict: safetensors, or a checkpoint of tensors.")] = None,
    model_args: Annotated[str, typer.Option(help="Arguments of the factory as JSON.")] = "{}",
    preprocess: Annotated[str, typer.Option(help="none, imagenet or MEAN;STD per channel.")] = "none",
    images: Annotated[int | None, typer.Option(help="So many test images, class-balanced; all by default.")] = None,
    corruptions: Annotated[bool, typer.Option("--corruptions", help="Test natural corruptions, too.")] = False,
    official: Annotated[Path | None, typer.Option(help="Folder of the published corruption files to use.")] = None,
    frost: Annotated[Path | None, typer.Option(help="Folder of photographs for the frost corruption.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws of attacks and corruptions.")] = 0,
    gradients_in: Annotated[str, typer.Option(help="float32 or bfloat16; float32 decides success.")] = "float32",
    out: Annotated[Path, typer.Option(help="Folder for tables and report.html.")] = Path("evaluation"),
    json_file: Annotated[Path | None, typer.Option("--json", help="A RobustBench-style entry, too.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images attacked at once.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Evaluate a PyTorch model of your own, without a study."""
    from ssrob.external import entry
    from ssrob.external import run as external
    from ssrob.external.page import write_page

    sys.path.append(os.getcwd())  # so that a factory in a file of this folder is found
    request = external.parse_request(
        model=model,
        data=data,
        eps=eps,
        norm=norm,
        preset=preset,
        weights=weights,
        arguments=model_args,
        preprocess=preprocess,
        images=images,
        corruptions=corruptions,
        official=official,
        frost=frost,
        seed=seed,
        gradients_in=gradients_in,
        batch_size=batch_size,
        device=device,
    )
    found = external.evaluate(request, out, say=lambda line: typer.echo(line, err=True))
    typer.echo(entry.as_text(found))
    typer.echo(f"evaluate  {write_page(found, out)}", err=True)
    if json_file:
        entry.write_summary(found, json_file)


@app.command()
def collect(config: Config, override: Overrides = None, partial: Partial = False) -> None:
    """Gather a finished study's results into tables and findings."""
    from ssrob.collect import collect as gather
    from ssrob.order import finished_part

    plan, store = _plan_and_store(config, override)
    plan = finished_part(plan, store) if partial else plan
    made = gather(plan, store)
    typer.echo(f"collect   {plan.folder / 'tables'}: {sum(map(len, made.values()))} rows", err=True)


@app.command()
def report(config: Config, override: Overrides = None, partial: Partial = False) -> None:
    """Draw the figures and write report.html from a study's tables."""
    from ssrob.collect import class_names, read_tables, samples
    from ssrob.collect import collect as gather
    from ssrob.order import finished_part
    from ssrob.report import build_report

    plan, store = _plan_and_store(config, override)
    if partial:  # no workflow has collected what is finished by now
        plan = finished_part(plan, store)
        gather(plan, store)
    written = build_report(plan.folder, plan.study, read_tables(plan), samples(plan, store), class_names(plan, store))
    typer.echo(f"report    {written}", err=True)


@app.command()
def publish(
    config: Config,
    to: Annotated[Path, typer.Option(help="Folder to write, such as docs/results/NAME; an earlier one is replaced.")],
    override: Overrides = None,
    partial: Partial = False,
) -> None:
    """Write a study's small results for a repository: tables, figures, report, and a page on what was run on what."""
    from ssrob.order import finished_part
    from ssrob.publish import publish as write

    plan, store = _plan_and_store(config, override)
    options = "".join(f" --set {shlex.quote(each)}" for each in override or [])
    command = f"ssrob portion {config} --budget 8m{options}"
    left_out = write(finished_part(plan, store) if partial else plan, store, to, command)
    typer.echo(f"publish   {to}, without {', '.join(left_out)}", err=True)


@app.command()
def track(
    config: Config,
    override: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on importing until all stages are done.")] = False,
) -> None:
    """Import a study's stages into MLflow, as often as you like: every run and point is there once."""
    from ssrob import tracking
    from ssrob.store import write_json

    plan, store = _plan_and_store(config, override)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            tracking.follow(plan, store)
        return
    tracked = tracking.track(plan, store)
    if plan.folder.is_dir():
        write_json(plan.folder / "tracked.json", {"stages": len(plan.stages)})
    typer.echo(f"track     {tracked}", err=True)


@app.command()
def ui(
    config: Config,
    override: Overrides = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; the next free one if it is taken.")] = 5000,
    follow: Annotated[bool, typer.Option("--follow", help="Import what a running study adds, too.")] = False,
) -> None:
    """Open the MLflow server with the study's runs on 127.0.0.1."""
    from ssrob import tracking

    plan, store = _plan_and_store(config, override)
    if follow:
        sys.exit(tracking.serve_and_follow(plan, store, port))
    sys.exit(tracking.serve(store.root, plan.study.tracking_uri, port, study=plan.study.study))


@app.command()
def where(config: Config, override: Overrides = None) -> None:
    """Say where a study's report is and how to look at its runs."""
    plan, _ = _plan_and_store(config, override)
    page = plan.folder / "report.html"
    typer.echo(f"\nReport:     {page.resolve() if page.exists() else 'not made yet'}")
    typer.echo(f"Tables:     {plan.folder.resolve() / 'tables'}")
    options = "".join(f" --set {shlex.quote(each)}" for each in override or [])
    command = os.path.relpath(sys.argv[0]) if os.sep in sys.argv[0] else sys.argv[0]
    typer.echo(f"MLflow UI:  {command} ui {config}{options}   (then open the address it prints)")


@app.command()
def schema() -> None:
    """Print the JSON schema of a study's config."""
    from ssrob.spec import Study

    typer.echo(json.dumps(Study.model_json_schema(), indent=2))


def _told(line: str) -> None:
    typer.echo(line, err=True)


def _plan_and_store(config: str, overrides: list[str] | None) -> tuple[Any, Any]:
    """Read a config, a file's path or (from a workflow rule) the settings themselves as JSON."""
    from ssrob.config import load_study, parse_study
    from ssrob.plan import make_plan
    from ssrob.store import Store

    inline = config.lstrip().startswith("{")
    study = parse_study(json.loads(config)) if inline else load_study(Path(config), overrides)
    return make_plan(study), Store(study.results)
