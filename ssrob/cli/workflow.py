"""Commands for your own folder: a config to start from, and the packaged workflow that runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from ssrob.cli.common import Overrides, any_path, plan_and_store, say
from ssrob.cli.study import where
from ssrob.registry.optional import missing

app = typer.Typer()


def shipped(name: str) -> Path:
    """Return a file or folder that ships with the package; in a checkout, the one at its top."""
    package = Path(__file__).parents[1]
    packaged = package / "shipped" / name
    return packaged if packaged.exists() else package.parent / name


@app.command()
def init(
    to: Annotated[Path, typer.Argument(parser=any_path, metavar="PATH", help="The YAML file to write.")] = Path(
        "study.yaml"
    ),
    like: Annotated[str, typer.Option("--from", help="The shipped config to start from.")] = "quickstart",
) -> None:
    """Write a config to start from.

    It is a copy of a shipped one, with the schema beside it from which editors complete.
    """
    from ssrob.registry.lookup import check_choice
    from ssrob.storage.files import check_writable

    there = {path.stem: path for path in sorted(shipped("config").glob("*.yaml"))}
    source = there[check_choice("shipped config", like, there)]
    if to.exists():
        raise ValueError(f"{to}: already exists; name another file, or remove it first")
    check_writable(to.parent, str(to), "name a file in another folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text().replace(f"study: {like}\n", f"study: {to.stem}\n", 1)
    to.write_text(text)
    schema, beside = shipped("config") / "schema.json", to.parent / "schema.json"
    if not (beside.exists() and beside.samefile(schema)):  # in a checkout's own config/
        shutil.copyfile(schema, beside)
    say(f"{to}: a copy of {like}. Next: ssrob plan {to}; ssrob study {to}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def study(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(parser=any_path, metavar="CONFIG", help="A study's YAML file.")],
    override: Overrides = None,
) -> None:
    """Run a study in this folder with Snakemake.

    Further options go to Snakemake, such as --cores 2 or --dry-run. Called again, it continues with what is left.
    """
    from ssrob.cli.power import take_look
    from ssrob.config.loader import load_study
    from ssrob.storage.files import user_cache

    load_study(config, override)  # a mistake is answered at once
    _check_executor(context.args)
    snakefile = shipped("Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(config)]
    command += ["--config", *map(_nested, override)] if override else []
    if not any(argument.startswith(("--workflow-profile", "--profile")) for argument in context.args):
        command += ["--workflow-profile", str(shipped("workflow") / "profiles" / "default")]
    environment = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | os.environ
    environment["XDG_CACHE_HOME"] = str(user_cache("snakemake").parent)  # Snakemake ends without one that it can write
    while True:
        done = subprocess.run([*command, *context.args], check=False, env=environment)
        if done.returncode or {"-n", "--dry-run", "--dryrun"} & {*context.args}:
            sys.exit(done.returncode)
        if take_look(*plan_and_store(str(config), override)) is None:
            break
    where(str(config), override)


def _check_executor(arguments: list[str]) -> None:
    """Refuse an executor whose plugin is not installed, named on the command line or in a profile."""
    name = _value_of(arguments, "--executor", "-e")
    for option in ("--workflow-profile", "--profile"):
        profile = Path(_value_of(arguments, option) or "") / "config.yaml"
        if name is None and profile.is_file():
            name = (yaml.safe_load(profile.read_text()) or {}).get("executor")
    if name in (None, "local", "dryrun", "touch"):
        return
    if line := missing(f"snakemake_executor_plugin_{name.replace('-', '_')}"):
        raise ValueError(f"study: Snakemake's executor {name!r} is not installed: {line}")


def _value_of(arguments: list[str], *options: str) -> str | None:
    """Return what follows an option, after a space or an equals sign."""
    for here, following in zip(arguments, [*arguments, None][1:], strict=True):
        option, equals, value = here.partition("=")
        if option in options:
            return value if equals else following
    return None


def _nested(override: str) -> str:
    """Write an override such as ``data.path=/data`` as Snakemake reads it: ``data={path: /data}``."""
    key, _, value = override.partition("=")
    first, *rest = key.split(".")
    for part in reversed(rest):
        value = f"{{{part}: {value}}}"
    return f"{first}={value}"
