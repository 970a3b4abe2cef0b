"""`ssrob evaluate`: any PyTorch model, without a study."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssrob.cli.common import Device, any_path, any_uri, path_option, say

app = typer.Typer()
FOLDER = Path("evaluation")


@app.command()
def evaluate(
    *,
    json_file: Annotated[Path | None, typer.Argument(hidden=True, parser=any_path, metavar="FILE")] = None,
    model: Annotated[
        str, typer.Option(help="package.module:factory, or torchvision:NAME, timm:NAME, robustbench:NAME.")
    ],
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, a folder of images or parquet files, or {source: ...}.")
    ],
    eps: Annotated[str, typer.Option(help="Budgets in [0, 1] pixel units, ascending: 2/255,4/255,8/255.")],
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    preset: Annotated[str, typer.Option(help="fast, standard, strong or autoattack.")] = "standard",
    name: Annotated[str | None, typer.Option(help="What to call the model. [default: its factory]")] = None,
    weights: Annotated[Path | None, path_option("A state dict: safetensors, or a checkpoint of tensors.")] = None,
    weights_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the weights' names; default: what fits.")
    ] = None,
    model_args: Annotated[str, typer.Option(help="Arguments of the factory as JSON.")] = "{}",
    preprocess: Annotated[
        str, typer.Option(help="none, imagenet, cifar10, cifar100, half, clip, mnist or MEAN;STD per channel.")
    ] = "none",
    classes: Annotated[
        str | None, typer.Option(help="Which class is which output: a file, names in their order, model or numbers.")
    ] = None,
    over: Annotated[str, typer.Option(help="With --classes: accuracy over allowed outputs or over all.")] = "allowed",
    skip_nan: Annotated[bool, typer.Option("--skip-nan", help="Leave out images whose logits are NaN.")] = False,
    images: Annotated[int | None, typer.Option(help="Number of test images, class-balanced; all by default.")] = None,
    corruptions: Annotated[bool, typer.Option("--corruptions", help="Test natural corruptions, too.")] = False,
    official: Annotated[Path | None, path_option("Folder of the published corruption files to use.")] = None,
    frost: Annotated[Path | None, path_option("Folder of photographs for the frost corruption.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of attacks and corruptions.")] = 0,
    gradients_in: Annotated[str, typer.Option(help="float32 or bfloat16; float32 decides success.")] = "float32",
    out: Annotated[Path, path_option("Folder for tables and report.html.")] = FOLDER,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as JSON, not as text; with a file's name, into that file.")
    ] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            parser=any_uri, metavar="URI", help="Log it to this MLflow store, too, such as sqlite:///mlflow.db."
        ),
    ] = None,
    progress: Annotated[
        bool | None, typer.Option(help="Show how far it is. [default: on a terminal]", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images attacked at once.")] = 256,
    device: Device = "auto",
) -> None:
    """Evaluate a PyTorch model of your own.

    No study is needed. `ssrob compare` compares two results.
    """
    from ssrob.external import entry
    from ssrob.external import run as external
    from ssrob.external.page import write_page
    from ssrob.external.screen import as_text
    from ssrob.storage.files import check_writable
    from ssrob.tracking import evaluation as tracking

    if json_file and not as_json:
        raise ValueError(f"evaluate: expected options alone, found {str(json_file)!r}; a model goes after --model")
    if json_file and json_file.is_dir():
        raise ValueError(f"--json: expected a file, found the folder {json_file}")
    sys.path.append(os.getcwd())  # so that a factory in a file of this folder is found
    request = external.parse_request(
        model=model,
        data=data,
        eps=eps,
        norm=norm,
        preset=preset,
        name=name,
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
    for what, folder in (("--out", out), ("--json", json_file and json_file.parent)):
        if folder:
            check_writable(folder, what, "name another folder")
    if tracking_uri:
        tracking.check_store(tracking_uri, out)
    if out == FOLDER:
        _ignore_by_git(out)
    try:
        result = external.evaluate(request, out, say=_say_warnings, progress=progress)
    except KeyboardInterrupt:
        say("evaluate  stopped; finished blocks of images are kept, the same command goes on with the others")
        raise
    typer.echo(entry.as_json(result) if as_json and not json_file else as_text(result))
    say(f"evaluate  {write_page(result, out)}")
    if json_file:
        entry.write_document(result, json_file)
    if tracking_uri:
        say(f"track     {tracking_uri}: run {tracking.track_evaluation(out, tracking_uri)}")


def _say_warnings(line: str) -> None:
    """Say at once what may make hours of attacks worthless; the rest stands below the result."""
    from ssrob.external.assumptions import WARNING

    if line.startswith(WARNING):
        say(line)


def _ignore_by_git(folder: Path) -> None:
    """Keep the folder that nobody has named out of commits, as pytest does with its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
