"""The ``ssrob`` command: parsing and wiring alone. Every command imports what it needs when it runs."""

import sys
from typing import Annotated

import typer

from ssrob import __version__
from ssrob.cli import compare, evaluate, models, power, results, stage, study, workflow
from ssrob.cli.common import say, words

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ssrob {__version__}")
        raise typer.Exit


@app.callback()
def ssrob(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    """How does visual self-supervision change a model's robustness?"""


for part in (workflow, study, stage, power, results, evaluate, compare, models):  # the order of the help
    app.add_typer(part.app)


def main() -> None:
    """Run the command line; every expected mistake ends in one message and exit code 2."""
    from ssrob.config.fields import ConfigError
    from ssrob.storage.store import StoreError
    from ssrob.tracking import TrackingError

    try:
        app()
    except (ConfigError, StoreError, TrackingError, ValueError, OSError) as error:
        say(f"ssrob: {words(error)}")
        sys.exit(2)
