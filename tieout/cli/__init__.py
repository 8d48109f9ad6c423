"""The command `tieout`: one module per command in this folder, each with `register(app)`.

Modules import what is heavy inside their functions, so that `tieout --help` answers at once.
"""

import logging
import sys
from importlib import import_module
from typing import Annotated

import typer

from shared.errors import TieoutError

COMMANDS = (
    "demo",
    "up",
    "doctor",
    "topics",
    "migrate",
    "keys",
    "dead_letters",
    "import_",
    "replay",
    "rules",
    "discrepancies",
    "feeds",
    "runs",
    "budget",
    "bots",
    "verify",
    "ingest",
    "poll",
    "matcher",
    "alerts",
    "mcp",
    "bench",
    "drill",
)
"""Modules of this folder, in the order `--help` lists them."""

EXIT_CODES = (
    "Exit codes: 0 fine, 1 discrepancies found (only with --fail-on), 2 usage or bad input, 3 a dependency is away."
)


def build() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(
        name="tieout",
        help="Streaming reconciliation: says within a second that two records of the same money disagree, and takes it "
        "back when they agree again.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def version(
        show: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
    ) -> None:
        if show:
            from importlib.metadata import version as installed

            typer.echo(installed("tieout"))
            raise typer.Exit

    for name in COMMANDS:
        import_module(f"tieout.cli.{name}").register(app)
    return app


def main() -> None:
    """Run the command; a person's mistake is one clear message and an exit code, never a traceback."""
    # Libraries' warnings belong into the services' logs; a command says itself what is wrong.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        build()()
    except TieoutError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
