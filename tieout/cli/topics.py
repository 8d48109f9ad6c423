"""`tieout topics`: the Kafka topics that tieout needs."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command group."""
    topics = typer.Typer(help="Kafka topics.", no_args_is_help=True)
    topics.command("apply", epilog="Example: tieout topics apply --partitions 12 --org acme")(apply)
    app.add_typer(topics, name="topics")


def apply(
    partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="Of legs, state and results; never changes later.")
    ] = 12,
    inbox_partitions: Annotated[int, typer.Option(min=1, max=1000, help="Of the inbox; never changes later.")] = 6,
    replication: Annotated[
        int | None, typer.Option(min=1, max=9, help="Replicas; as many as brokers, at most 3.")
    ] = None,
    org: Annotated[
        list[str] | None, typer.Option(help="Also create this org's own inbox for direct producers.")
    ] = None,
) -> None:
    """Create the topics that are missing; safe to run again, refuses to change counts under data."""
    import asyncio

    from shared.kafka.settings import KafkaSettings
    from shared.kafka.topics import apply_topics
    from shared.settings import load_settings

    applied = asyncio.run(
        apply_topics(load_settings(KafkaSettings), partitions, inbox_partitions, replication, orgs=org or ())
    )
    for topic in applied:
        typer.echo(f"{topic.action:<10} {topic.name} ({topic.partitions} partitions)")
