"""Commands about models: evaluate any, carry them elsewhere."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssrob.cli.common import Device, Overrides, any_path, path_option, plan_and_store, say

app = typer.Typer()


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
    weights: Annotated[Path | None, path_option("A state dict: safetensors, or a checkpoint of tensors.")] = None,
    weights_prefix: Annotated[str | None, typer.Option(help="Of their names; by default the one that fits.")] = None,
    model_args: Annotated[str, typer.Option(help="Arguments of the factory as JSON.")] = "{}",
    preprocess: Annotated[str, typer.Option(help="none, imagenet or MEAN;STD per channel.")] = "none",
    classes: Annotated[
        str | None, typer.Option(help="Which class is which output: a file, names in their order, model or numbers.")
    ] = None,
    over: Annotated[str, typer.Option(help="With --classes: accuracy over allowed outputs or over all.")] = "allowed",
    skip_nan: Annotated[bool, typer.Option("--skip-nan", help="Leave out images that the model makes NaN of.")] = False,
    images: Annotated[int | None, typer.Option(help="So many test images, class-balanced; all by default.")] = None,
    corruptions: Annotated[bool, typer.Option("--corruptions", help="Test natural corruptions, too.")] = False,
    official: Annotated[Path | None, path_option("Folder of the published corruption files to use.")] = None,
    frost: Annotated[Path | None, path_option("Folder of photographs for the frost corruption.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws of attacks and corruptions.")] = 0,
    gradients_in: Annotated[str, typer.Option(help="float32 or bfloat16; float32 decides success.")] = "float32",
    out: Annotated[Path, path_option("Folder for tables and report.html.")] = Path("evaluation"),
    json_file: Annotated[Path | None, path_option("A RobustBench-style entry, too.", "--json")] = None,
    batch_size: Annotated[int, typer.Option(help="Images attacked at once.")] = 256,
    device: Device = "auto",
) -> None:
    """Evaluate a PyTorch model of your own.

    No study is needed.
    """
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
        weights_prefix=weights_prefix,
        classes=classes,
        over=over,
        skip_nan=skip_nan,
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
    found = external.evaluate(request, out, say=say)
    typer.echo(entry.as_text(found))
    say(f"evaluate  {write_page(found, out)}")
    if json_file:
        entry.write_summary(found, json_file)


@app.command()
def export(
    *,
    what: Annotated[str, typer.Argument(help="A trained model's key, or a part of it; or a study's YAML file.")],
    to: Annotated[Path | None, path_option("Folder, or .tar, .tar.gz or .zip file. [default: by its name]")] = None,
    results: Annotated[Path, path_option("The results folder that has the key.")] = Path("results"),
    override: Overrides = None,
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Of a study: trained weights.")] = True,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Of a study: prepared data.")] = True,
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
    exported = export_study(plan, store, to, weights=weights, data=data, work=work)
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
