"""`tieout topics`: the Kafka topics that tieout needs."""

from typing import Annotated

import typer

MIGRATE_EXAMPLE = """Example:

    tieout topics migrate --partitions 24 --to-prefix tieout.p24.
"""


def register(app: typer.Typer) -> None:
    """Add the command group."""
    topics = typer.Typer(help="Kafka topics.", no_args_is_help=True)
    topics.command("apply", epilog="Example: tieout topics apply --partitions 12 --org acme")(apply)
    topics.command("migrate", epilog=MIGRATE_EXAMPLE)(migrate)
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


def migrate(
    partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="Of legs, state and results under the new prefix.", show_default=False)
    ],
    to_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the new topics; the present one and p<partitions>. otherwise.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, max=9, help="Replicas; as many as brokers, at most 3.")
    ] = None,
    drain_timeout_s: Annotated[
        float,
        typer.Option("--drain-timeout", min=1, help="Seconds that matcher and alerts may take to come to the end."),
    ] = 600.0,
) -> None:
    """Move to another number of partitions, under a new prefix; the old topics stay untouched.

    Stop ingest first and leave matcher and alerts running: producers get no answer meanwhile and send again. The command
    waits until everything is stored, lays the matcher's state out anew, copies what ingest had not read, and switches
    the sink's places. Then stop matcher and alerts and start all with the new prefix. Cut short, it is run again.
    """
    import asyncio

    from services.alerts.settings import AlertsSettings
    from services.ingest.settings import IngestSettings
    from services.matcher.settings import MatcherSettings
    from shared.errors import UsageError
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings
    from tieout.topic_migration import Migration, group_after, migrate_topics

    kafka = load_settings(KafkaSettings)
    prefix = to_prefix or f"{kafka.topic_prefix}p{partitions}."
    if prefix == kafka.topic_prefix:
        raise UsageError(f"--to-prefix {prefix} is the present prefix: the new topics need another one")
    new = load_settings(KafkaSettings, topic_prefix=prefix)
    alerts = load_settings(AlertsSettings)
    plan = Migration(
        old=kafka,
        new=new,
        partitions=partitions,
        replication=replication,
        ingest_group=load_settings(IngestSettings).ingest_group,
        matcher_group=load_settings(MatcherSettings).matcher_group,
        sink_group=alerts.sink_group,
        database_url=alerts.database_url.get_secret_value(),
        drain_timeout_s=drain_timeout_s,
        tell=lambda line: print(line, flush=True),
    )
    asyncio.run(migrate_topics(plan))
    print("now stop matcher and alerts, set for every service and command", flush=True)
    print(f"  TIEOUT_KAFKA_TOPIC_PREFIX={prefix}", flush=True)
    for name, group in (("INGEST", plan.ingest_group), ("MATCHER", plan.matcher_group), ("SINK", plan.sink_group)):
        print(f"  TIEOUT_{name}_GROUP={group_after(group, kafka.topic_prefix, prefix)}", flush=True)
    print("and start ingest, matcher and alerts again", flush=True)
