"""Feeds on a real PostgreSQL: what partitions tell is put together, and a silent feed is one alert."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.feed_store import PostgresFeeds
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.http import create_app, feeds
from services.alerts.handlers.sink import read
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from services.matcher.adapters.results import FEED_HEADERS
from shared.contracts.discrepancy import FeedStatus
from shared.rules.load import load_rules
from shared.telemetry.health import Health
from tests.support.results import START, log_at
from tieout.offline.replay import replay

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[3] / "examples" / "feed"


def status(source: str, partition: int, offset: int, *, waiting: int = 0, silent: bool = False) -> FeedStatus:
    return FeedStatus(
        org="acme",
        source=source,
        rule="billing.feeds",
        last_seen_at=START,
        usual_silence_ms=40_000,
        silent_after_ms=900_000,
        silent_since=START if silent else None,
        waiting=waiting,
        log=log_at(offset, partition),
    )


class Record:
    """A record of the topic `checks`, as the sink's consumer gives it."""

    def __init__(self, told: FeedStatus) -> None:
        self.value = msgspec.json.encode(told)
        self.headers = FEED_HEADERS
        self.offset = 0
        self.timestamp = 0


async def put(database: Database, *told: FeedStatus) -> None:
    batch = Batch(spans=[])
    for one in told:
        read(Place("checks", one.log.partition), Record(one), batch)  # type: ignore[arg-type]  # what is read of it
    assert not batch.unreadable
    await store(PostgresSink(database), batch, NOW)


async def answer(database: Database, org: str = "acme") -> list[dict[str, object]]:
    directory = PostgresDirectory(database)
    key = (await Keys(directory, lambda: NOW).create(org, "viewer", f"{org} viewer")).key
    app = create_app([feeds.router(PostgresFeeds(database))], directory, Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tieout") as client:
        found: list[dict[str, object]] = (
            await client.get("/v1/feeds", headers={"Authorization": f"Bearer {key}"})
        ).json()["data"]
        return found


async def test_what_waits_is_added_over_the_partitions(database: Database) -> None:
    """The newest says when it was seen; older news changes nothing; other organisations see nothing."""
    await put(database, status("stripe", 0, 10, waiting=3000), status("stripe", 1, 12, waiting=7000, silent=True))
    await put(database, status("stripe", 0, 9, waiting=1), status("adyen", 1, 12))
    adyen, stripe = await answer(database)
    assert (adyen["source"], adyen["waiting"], adyen["silent_since"]) == ("adyen", 0, None)
    assert stripe["waiting"] == 10_000
    assert stripe["silent_since"] == START.isoformat().replace("+00:00", "Z")
    assert stripe["told_at"] == (START + timedelta(seconds=12)).isoformat().replace("+00:00", "Z")
    assert await answer(database, "other") == []
    await put(database, status("stripe", 7, 12 - 700, waiting=5))  # of a partition that is no more
    assert (await answer(database))[1]["waiting"] == 10_000
    await put(database, status("stripe", 0, 20), status("stripe", 1, 20), status("stripe", 1, 21))
    assert [(one["source"], one["waiting"]) for one in await answer(database)] == [("adyen", 0), ("stripe", 0)]


async def test_a_silent_feed_is_stored_and_told_once(database: Database) -> None:
    """The example's revisions: raised and resolved each make one message; what stays missing makes its own."""
    file = load_rules(EXAMPLE / "rules.yaml")
    run = replay(
        [EXAMPLE / "events.jsonl"],
        {file.pack: file.rules},
        org="acme",
        until=datetime(2026, 11, 20, 12, tzinfo=UTC),
        complain=lambda _place, _what: None,
    )
    async with database.transaction(EVERY_ORG) as connection:
        await connection.execute(
            text(
                "INSERT INTO webhook_endpoints (id, org, url, secret, types, severity_min, created_at) VALUES "
                "(gen_random_uuid(), 'acme', 'https://example.com/hook', 'whsec_dGVzdA==', '{}', 'low', '2026-01-01Z')"
            )
        )
    found = [Found(one, Place("discrepancies", 0), at, START) for at, one in enumerate(run.engine.revisions)]
    for _ in range(2):  # the same again, as after a rebalance
        await store(PostgresSink(database), Batch(spans=[], discrepancies=found), NOW)
    async with database.transaction("acme") as connection:
        sent = (
            await connection.execute(text("SELECT type, payload::json->'data'->>'type' FROM outbox ORDER BY id"))
        ).all()
    assert [tuple(one) for one in sent] == [
        ("discrepancy.raised", "FeedSilent"),
        ("discrepancy.resolved", "FeedSilent"),
        ("discrepancy.raised", "MissingProviderRecord"),
        ("discrepancy.raised", "MissingProviderRecord"),
    ]
