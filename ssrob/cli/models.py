"""Commands that carry models and studies elsewhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ssrob.cli.common import Overrides, any_path, path_option, plan_and_store, say

app = typer.Typer()


@app.command()
def export(
    *,
    what: Annotated[str, typer.Argument(help="A trained model's key, or a part of it; or a study's YAML file.")],
    to: Annotated[Path | None, path_option("Folder, or .tar, .tar.gz or .zip file. [default: by its name]")] = None,
    results: Annotated[Path, path_option("The results folder that has the key.")] = Path("results"),
    override: Overrides = None,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Of a study: trained weights.")] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Of a study: prepared data.")] = True,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Of a study: example images.")] = True,
    work: Annotated[bool, typer.Option("--work", help="Of a study: checkpoints of unfinished stages, too.")] = False,
) -> None:
    """Write a trained model or a study for use elsewhere.

    A model comes with its card, a study as its finished stages.
    """
    from ssrob.storage.export import export_model, export_study

    if not what.endswith((".yaml", ".yml", ".json")):
        from ssrob.storage.store import Store

        say(f"export    {export_model(what, Store(results), to)}")
        return
    plan, store = plan_and_store(what, override)
    to = to or Path(f"{plan.study.study}.tar.gz")
    exported = export_study(plan, store, to, weights=weights, data=data, images=images, work=work)
    say(f"export    {to}: {len(exported['stages'])} finished, {len(exported['work'])} unfinished stages")


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(parser=any_path, help="A results folder, or what `ssrob export CONFIG` wrote.")
    ],
    results: Annotated[Path, path_option("The results folder to import into.")] = Path("results"),
    work: Annotated[bool, typer.Option("--work", help="Newer checkpoints of unfinished stages, too.")] = False,
) -> None:
    """Take over finished stages from another machine.

    They are verified, and what is here stays.
    """
    from ssrob.storage.importing import import_stages
    from ssrob.storage.store import Store

    outcome = import_stages(source, Store(results), work=work)
    typer.echo(str(outcome))
    sys.exit(1 if outcome.refused else 0)
