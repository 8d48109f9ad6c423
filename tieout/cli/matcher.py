"""`tieout matcher`: run the matcher."""

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "matcher",
        epilog="Example: TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 tieout matcher --instance matcher-0",
    )(matcher)


def matcher(
    group: Annotated[
        str | None, typer.Option(help="Consumer group and transactional ids.", show_default="tieout.matcher")
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            help="Stable, unique name of this process: keeps its partitions over a restart.", show_default="POD_NAME"
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of /health and /metrics; 0 takes any.", show_default="8082")] = None,
) -> None:
    """Match legs into discrepancies and settled groups, exactly once, until SIGTERM or Ctrl-C.

    Everything else comes from TIEOUT_... variables. Exit codes: 2 wrong settings or topics, 3 Kafka is away or nothing
    moves any more.
    """
    from services.matcher.__main__ import serve
    from services.matcher.settings import load

    given: dict[str, Any] = {"matcher_group": group, "group_instance_id": instance, "http_port": port}
    settings, kafka = load(**{name: value for name, value in given.items() if value is not None})
    serve(settings, kafka)
