"""Goal: another number of partitions under a stream, and nothing is stuck, lost or doubled.

Method: a stream of known outcome goes over HTTP through ingest, matcher and alerts as three real processes. In the
middle ingest is killed, the topics are migrated from four partitions to six (cut short once on the way, and begun
again), and all three start again under the new prefix while the producer goes on trying. What both sets of topics,
PostgreSQL and a receiver of webhooks hold in the end is compared with the outcome that the generator wrote down.

`TIEOUT_TEST_MIGRATE_EVENTS=240000 TIEOUT_TEST_MIGRATE_EVENTS_PER_SECOND=2000 pytest tests/e2e/test_topics_migrate.py`
is the same for two minutes.
"""

import asyncio
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item
from shared.contracts.matched_pair import read_item
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.planted import Open, Plan, plan, requests
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, Services, prepared, short_rules
from tests.support.topic_log import all_records, inbox_events, is_progress, results_past
from tieout.topic_migration import Migration, NotDrained, group_after, migrate_topics

EVENTS = int(os.environ.get("TIEOUT_TEST_MIGRATE_EVENTS", "6000"))
EVENTS_PER_SECOND = float(os.environ.get("TIEOUT_TEST_MIGRATE_EVENTS_PER_SECOND", "800"))
DEADLINE_S = 10.0
SETTLE_TIMEOUT_S = DEADLINE_S + 120.0
PARTITIONS = 6

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=4, inbox=2)]


class CutShortError(Exception):
    """What a test does to a migration."""


@pytest.mark.timeout(600)
async def test_a_stream_goes_on_over_more_partitions(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    planned = plan(EVENTS, EVENTS // 25)
    new = kafka_settings.model_copy(update={"topic_prefix": f"{kafka_settings.topic_prefix}p{PARTITIONS}."})
    async with prepared(kafka_settings, database_url, short_rules(DEADLINE_S)) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        client = ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET, repeat_every=40)
        async with client, asyncio.TaskGroup() as tasks:
            moving = tasks.create_task(_move(services, client, new, len(planned.events)))
            await client.send_all(requests(planned.events, 100), per_second=EVENTS_PER_SECOND)
            await moving
        assert client.acknowledged == {(event.source, event.id) for event in planned.events}
        old_inbox, old_ms = await inbox_events(kafka_settings, topics.inbox)
        new_inbox, last_ms = await inbox_events(new, Topics(new.topic_prefix).inbox)
        assert client.acknowledged - old_inbox - new_inbox == set()
        until = datetime.fromtimestamp(max(old_ms, last_ms) / 1000, UTC) + timedelta(seconds=DEADLINE_S + 1)
        found = await _results(kafka_settings, new, "discrepancies", Discrepancy, until)
        items = await _results(kafka_settings, new, "matches", Item, until)
        database = Database(database_url)
        try:
            await _check_tables(database, planned, until, len(found), len(items))
        finally:
            await database.close()
        _check_topics(planned, found, items)


async def _move(services: Services, client: ProducerClient, new: KafkaSettings, total: int) -> None:
    while client.sent < total / 4:  # noqa: ASYNC110 - the stream is watched from outside
        await asyncio.sleep(0.02)
    with pytest.raises(NotDrained, match="ingest is running"):
        await migrate_topics(_plan(services, new))
    await services.kill("ingest")

    def cut(line: str) -> None:
        if "laid out" in line:
            raise CutShortError

    with pytest.raises(CutShortError):
        await migrate_topics(_plan(services, new, cut))
    told: list[str] = []
    await migrate_topics(_plan(services, new, told.append))
    assert "the sink's places are those of" in told[-1]
    await migrate_topics(_plan(services, new, told.append))
    assert "are complete" in told[-1]
    services.environment["TIEOUT_KAFKA_TOPIC_PREFIX"] = new.topic_prefix
    for service in ("ingest", "matcher", "sink"):
        name = f"TIEOUT_{service.upper()}_GROUP"
        services.environment[name] = group_after(
            services.environment[name], services.kafka.topic_prefix, new.topic_prefix
        )
    for name in ("matcher", "alerts"):
        await services.kill(name)
    for name in ("ingest", "matcher", "alerts"):
        await services.start(name)


def _plan(services: Services, new: KafkaSettings, tell: Any = lambda _line: None) -> Migration:
    prefix = services.kafka.topic_prefix
    return Migration(
        old=services.kafka,
        new=new,
        partitions=PARTITIONS,
        replication=1,
        ingest_group=f"{prefix}ingest",
        matcher_group=f"{prefix}matcher",
        sink_group=f"{prefix}sink",
        database_url=services.database_url,
        drain_timeout_s=90.0,
        tell=tell,
    )


async def _results(old: KafkaSettings, new: KafkaSettings, name: str, kind: type[Any], until: datetime) -> list[Any]:
    import msgspec

    decode = read_item if kind is Item else msgspec.json.Decoder(kind).decode
    before = [decode(r.value) for r in await all_records(old, old.topic_prefix + name) if not is_progress(r)]
    after = await results_past(new, new.topic_prefix + name, kind, until, SETTLE_TIMEOUT_S)
    return before + [one for _, one in after]


# ---- checks


def _check_topics(planned: Plan, found: list[Discrepancy], items: list[Item]) -> None:
    by_id: dict[str, list[Discrepancy]] = defaultdict(list)
    for one in found:
        by_id[one.id].append(one)
    for revisions in by_id.values():
        assert [one.revision for one in revisions] == list(range(1, len(revisions) + 1))
        places = [(one.log.offset, one.revision) for one in revisions]
        assert places == sorted(places)
    open_now = Counter(
        Open(d.rule, str(d.key), d.type, str(d.side), d.duplicate, d.expected, d.actual, d.difference, d.currency)
        for d in (revisions[-1] for revisions in by_id.values())
        if d.state == "raised"
    )
    expected = Counter(planned.open)
    assert (list((expected - open_now).elements()), list((open_now - expected).elements())) == ([], [])
    revisions_of: dict[str, list[int]] = defaultdict(list)
    for item in items:
        revisions_of[item.id].append(item.revision)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in revisions_of.values())
    last = {item.id: item for item in items}
    assert {(item.rule, str(item.key)): item.status for item in last.values()} == planned.status
    assert len(last) == len(planned.status)


async def _check_tables(database: Database, planned: Plan, until: datetime, revisions: int, items: int) -> None:
    async def rows(query: str, **values: Any) -> list[dict[str, Any]]:
        async with database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query), values)).mappings()]

    late = "SELECT topic FROM progress WHERE topic IN ('discrepancies', 'matches') AND log_time > :until"
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while len(await rows(late, until=until)) < 2 * PARTITIONS:  # noqa: ASYNC110 - other processes write the rows
            await asyncio.sleep(0.5)
    open_rows = Counter(
        (row["rule"], str(row["key"]), row["type"], row["side"], row["duplicate"])
        for row in await rows("SELECT * FROM discrepancies WHERE state = 'raised' AND status = 'open'")
    )
    assert open_rows == Counter(tuple(one)[:5] for one in planned.open)
    stored = await rows("SELECT rule, key, status FROM items")
    assert {(row["rule"], str(row["key"])): row["status"] for row in stored} == planned.status
    assert len(stored) == len(planned.status)
    assert len(await rows("SELECT id FROM discrepancy_revisions")) == revisions
    assert len(await rows("SELECT id FROM item_revisions UNION ALL SELECT id FROM items")) == items
