"""`ssrob compare`: two results on the same images."""

from typing import Annotated, cast, get_args

import typer

from ssrob.cli.common import Json, Overrides, any_path, plan_and_store

app = typer.Typer()
SIDE = "A folder that `ssrob evaluate` wrote; with --study, an arm by its name in the report or its key."


@app.command()
def compare(
    *,
    a: Annotated[str, typer.Argument(help=SIDE, metavar="A")],
    b: Annotated[str, typer.Argument(help="The other one.", metavar="B")],
    study: Annotated[str | None, typer.Option(metavar="CONFIG", help="Compare two arms of this study.")] = None,
    override: Overrides = None,
    checkpoint: Annotated[str, typer.Option(help="With --study: best or last.")] = "best",
    as_json: Json = False,
) -> None:
    """Compare two models on the same images.

    Paired differences of accuracy, A − B, with 95 % intervals: clean, at every eps that both were attacked at, and
    under natural corruptions where both have them. Refuses what was not tested alike.
    """
    from ssrob.config.fields import Checkpoint
    from ssrob.external.comparison import compare as of_folders
    from ssrob.external.comparison import compare_arms
    from ssrob.registry.lookup import check_choice

    if override and not study:
        raise ValueError("compare: --set changes a study's config; it needs --study CONFIG")
    if study:
        plan, store = plan_and_store(study, override)
        chosen = check_choice("--checkpoint", checkpoint, get_args(Checkpoint))
        comparison = compare_arms(plan, store, (a, b), cast(Checkpoint, chosen))
    else:
        comparison = of_folders(any_path(a), any_path(b))
    typer.echo(comparison.as_json() if as_json else str(comparison))
