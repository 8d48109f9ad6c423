"""`tieout keys` and `tieout sources`: API keys and sources, on the database itself, so that a first key can be made."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from services.alerts.adapters.database import Database

T = TypeVar("T")

HELP = "API keys. Works on the database of TIEOUT_DATABASE_URL, so that the first key can be made."
CREATE_EXAMPLE = """Example:

    tieout keys create --org acme --role owner --name "finance team" --zone Europe/Berlin
"""
LIST_EXAMPLE = """Example:

    tieout keys list --org acme
"""
REVOKE_EXAMPLE = """Example:

    tieout keys revoke 3f9a1c20b7de --org acme
"""
SOURCE_EXAMPLE = """Example:

    tieout sources put stripe --org acme --provider stripe
"""
PUBLISH_TIMEOUT_S = 3.0
"""Kafka is asked for a moment only: where it is away, the alerts service publishes the entry later."""

OrgOption = Annotated[str, typer.Option(help="Organisation.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help=HELP, no_args_is_help=True)
    keys.command(epilog=CREATE_EXAMPLE)(create)
    keys.command(name="list", epilog=LIST_EXAMPLE)(list_)
    keys.command(epilog=REVOKE_EXAMPLE)(revoke)
    app.add_typer(keys, name="keys")
    sources = typer.Typer(help="Where an organisation's money is recorded.", no_args_is_help=True)
    sources.command(name="put", epilog=SOURCE_EXAMPLE)(put_source)
    sources.command(name="list")(list_sources)
    app.add_typer(sources, name="sources")


def create(
    org: OrgOption,
    role: Annotated[Literal["owner", "manager", "viewer", "ingest"], typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="Who or what uses it; stands in the action log.")],
    zone: Annotated[
        str | None, typer.Option(help="IANA zone of a new organisation, e.g. Europe/Berlin. Default: UTC.")
    ] = None,
) -> None:
    """Make a key and print it: this once, it is stored nowhere. Makes the organisation at its first key."""
    from datetime import UTC, datetime

    from services.alerts.adapters.directory_store import PostgresDirectory
    from services.alerts.use_cases.keys import Keys, NewKey

    _check(org, name, zone)

    async def work(database: "Database") -> NewKey:
        return await Keys(PostgresDirectory(database), lambda: datetime.now(UTC)).create(org, role, name.strip(), zone)

    new, published = _on_database(work)
    _say(f"{role} key tk_{new.entry.id} of {org} ({new.org.zone}); it is shown this once:", error=True)
    print(new.key, flush=True)
    _tell(published)


def list_(org: OrgOption) -> None:
    """List the keys of an organisation; their secrets are stored nowhere."""
    from services.alerts.adapters.directory_store import PostgresDirectory

    found, _ = _on_database(lambda database: PostgresDirectory(database).keys(org), publish=False)
    if not found:
        _say(f"{org} has no keys: make one with `tieout keys create --org {org} --role owner --name NAME`", error=True)
    for key in found:
        revoked = f"  revoked {key.revoked_at:%Y-%m-%d %H:%M}Z" if key.revoked_at else ""
        print(f"tk_{key.id}  {key.role:<7}  made {key.created_at:%Y-%m-%d %H:%M}Z  {key.name}{revoked}", flush=True)


def revoke(
    key: Annotated[str, typer.Argument(help="Id of the key, with or without `tk_`.")],
    org: OrgOption,
) -> None:
    """Withdraw a key; ingest refuses it within seconds."""
    from datetime import UTC, datetime

    from services.alerts.adapters.directory_store import PostgresDirectory
    from shared.errors import UsageError

    # A whole key pasted here still names the right one.
    id_ = key.removeprefix("tk_").partition("_")[0]
    now = datetime.now(UTC)
    found, published = _on_database(lambda database: PostgresDirectory(database).revoke_key(org, id_, now))
    if found is None:
        raise UsageError(f"{org} has no key tk_{id_}; `tieout keys list --org {org}` lists them")
    print(f"revoked tk_{found.id} ({found.name})", flush=True)
    _tell(published)


def put_source(
    source: Annotated[str, typer.Argument(help="Name of the source; stands in URLs and events.")],
    org: OrgOption,
    provider: Annotated[
        str | None, typer.Option(help="Webhook mapping that reads it: stripe, standard. Default: it posts events.")
    ] = None,
) -> None:
    """Add a source, or change which mapping reads it. Its signing secret is given to ingest, never here."""
    from services.alerts.adapters.directory_store import PostgresDirectory

    _check(org, source, None)
    _, published = _on_database(lambda database: PostgresDirectory(database).put_source(org, source, provider))
    print(f"{org}: source {source}" + (f" read as {provider}" if provider else ""), flush=True)
    _tell(published)


def list_sources(org: OrgOption) -> None:
    """List the sources of an organisation."""
    from services.alerts.adapters.directory_store import PostgresDirectory

    found, _ = _on_database(lambda database: PostgresDirectory(database).sources(org), publish=False)
    for source in found:
        print(f"{source.source}  {source.provider or 'events'}", flush=True)


def _check(org: str, name: str, zone: str | None) -> None:
    from zoneinfo import ZoneInfo

    import msgspec

    from shared.contracts.event import Name
    from shared.errors import UsageError

    try:
        msgspec.convert(org, Name)
    except msgspec.ValidationError:
        raise UsageError(f"{org!r} is no organisation name: use letters, digits, . _ -, at most 64") from None
    if not name.strip():
        raise UsageError("--name is empty: say who or what uses the key")
    try:
        ZoneInfo(zone or "UTC")
    except (KeyError, ValueError, OSError):
        raise UsageError(f"{zone!r} is no IANA time zone, such as Europe/Berlin or UTC") from None


def _on_database(work: "Callable[[Database], Awaitable[T]]", *, publish: bool = True) -> tuple[T, bool]:
    """Do `work`, then try to publish what it left for the topic `directory`; tell whether that went out."""
    import asyncio

    from services.alerts.adapters.database import Database, wait_for_database
    from services.alerts.settings import AlertsSettings
    from shared.settings import load_settings

    settings = load_settings(AlertsSettings)

    async def run() -> tuple[T, bool]:
        database = Database(settings.database_url.get_secret_value(), role=settings.database_role, pool_size=1)
        try:
            await wait_for_database(database, settings.connect_timeout_s)
            result = await work(database)
            return result, publish and await _publish(database)
        finally:
            await database.close()

    return asyncio.run(run())


async def _publish(database: "Database") -> bool:
    import asyncio

    from services.alerts.adapters.topic_outbox import TopicOutbox
    from shared.errors import DependencyAway
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings

    outbox = TopicOutbox(database, load_settings(KafkaSettings))
    try:
        async with asyncio.timeout(PUBLISH_TIMEOUT_S):
            while await outbox.publish_once():
                pass
    except (DependencyAway, TimeoutError):
        return False
    finally:
        await outbox.close()
    return True


def _tell(published: bool) -> None:
    if not published:
        _say("Kafka did not answer: the alerts service tells ingest as soon as both run", error=True)


def _say(line: str, *, error: bool = False) -> None:
    typer.echo(line, err=error)
