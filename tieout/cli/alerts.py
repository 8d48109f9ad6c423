"""`tieout alerts`: store the matcher's results, serve the API and the reports, deliver webhooks."""

from enum import StrEnum
from typing import Annotated, Any

import typer

EXAMPLES = """Examples:

    tieout alerts

    tieout alerts --role sink --role api --port 8081
"""


class Role(StrEnum):
    """What a process may do; typer takes lists of enums only."""

    SINK = "sink"
    API = "api"
    DISPATCHER = "dispatcher"
    SCHEDULER = "scheduler"
    EXPLAINER = "explainer"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(alerts)


def alerts(
    role: Annotated[
        list[Role] | None,
        typer.Option(help="What this process does; may be given several times. Default: all."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: TIEOUT_HTTP_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes any free port.", show_default="8081")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First start on an empty database: store what is there, tell no endpoint.")
    ] = False,
) -> None:
    """Store the matcher's results, serve the API and the reports, deliver webhooks; until SIGTERM or Ctrl-C.

    Everything else comes from TIEOUT_... variables. Exit codes: 2 wrong settings or a database that is not migrated,
    3 Kafka or PostgreSQL is away at the start.
    """
    from services.alerts.__main__ import run

    given: dict[str, Any] = {"http_host": host, "http_port": port, "sink_rebuild": rebuild or None}
    run([each.value for each in role or ()], **{name: value for name, value in given.items() if value is not None})
