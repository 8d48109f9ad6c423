"""`tieout ingest`: the service that takes webhooks and events in and normalises them."""

from typing import Annotated, Literal

import typer

EXAMPLE = """Example:

    TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 tieout ingest --port 8080
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLE)(ingest)


def ingest(
    role: Annotated[
        Literal["all", "http", "normaliser", "poller"] | None,
        typer.Option(
            help="Take requests, normalise the inbox, poll providers, or all. Default: TIEOUT_INGEST_ROLE, else all."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: TIEOUT_HTTP_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. Default: TIEOUT_HTTP_PORT.")] = None,
) -> None:
    """Take webhooks and events over HTTP, and turn the inbox into events and legs."""
    import asyncio

    from services.ingest.app import run
    from services.ingest.settings import IngestSettings
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings

    given = {"ingest_role": role, "http_host": host, "http_port": port}
    settings = load_settings(IngestSettings, **{name: value for name, value in given.items() if value is not None})
    asyncio.run(
        run(
            settings,
            load_settings(KafkaSettings),
            on_listening=lambda address: print(f"ingest listens on {address}", flush=True),
        )
    )
