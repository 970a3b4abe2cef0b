"""What the commands share: arguments, how a study is opened, and how messages are printed."""

import errno
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ssrob.planning.plan import Plan
    from ssrob.storage.store import Store


def _device(name: str) -> str:
    from ssrob.hardware.gpu_lease import device_name

    return device_name(name)


def any_path(text: str) -> Path:
    """Read a path, with ``~`` and ``$NAME`` that a shell has left in it (``--out=~/x``)."""
    from ssrob.config.fields import expand

    try:
        return Path(expand(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def path_option(text: str, *names: str) -> Any:
    """Return an option that is a path (see `any_path`), with its help text."""
    return typer.Option(*names, parser=any_path, metavar="PATH", help=text)


def any_uri(text: str) -> str:
    """Read the address of a tracking store, with ``~`` and ``$NAME`` in its path."""
    from ssrob.config.fields import expand_uri

    try:
        return expand_uri(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Config = Annotated[str, typer.Argument(help="A study's YAML file.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. data.path=/data.")
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Of an unfinished study: of the models that are trained and tested.")
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=_device)]


def say(line: str) -> None:
    """Write a line for people; what other programs may read goes to stdout."""
    typer.echo(line, err=True)


def words(error: Exception) -> str:
    """Say what went wrong; of a file or folder that may not be written to, what to do about it."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        remedy = "change its permissions, or name another folder (`results` in a config; --results, --out, --to)"
        return f"{error.filename}: {error.strerror}; {remedy}"
    return str(error)


def plan_and_store(config: str, overrides: list[str] | None) -> "tuple[Plan, Store]":
    """Read a config, a file's path or (from a workflow rule) the settings themselves as JSON."""
    from ssrob.config.loader import load_study, parse_study
    from ssrob.planning.plan import make_plan
    from ssrob.scheduling.due import due_part
    from ssrob.storage.store import Store

    inline = config.lstrip().startswith("{")
    study = parse_study(json.loads(config)) if inline else load_study(any_path(config), overrides)
    return due_part(make_plan(study)), Store(study.results)


def set_options(overrides: Iterable[str] | None) -> str:
    """Write overrides as they stand on a command line, each after a space."""
    return "".join(f" --set {shlex.quote(each)}" for each in overrides or [])
