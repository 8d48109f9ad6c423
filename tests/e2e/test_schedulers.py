"""Two replicas of alerts on a real Kafka and PostgreSQL: one runs what is due, the other takes over when it is killed."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import runs
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.services import prepared, short_rules

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.e2e]
MINUTE_S = 75.0
"""The next interval ends within a minute; the rest is for a busy machine."""


async def hourly(database: Database) -> Sequence[Any]:
    query = select(runs).where(runs.c.run_type == "hourly").order_by(runs.c.period_start)
    async with database.transaction(EVERY_ORG) as connection:
        return list(await connection.execute(query))


async def test_a_killed_replica_leaves_no_gap_and_no_run_twice(
    kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    assert topics
    rules = short_rules(60).model_copy(update={"pack": "stack"})
    database = Database(database_url)
    async with prepared(
        kafka_settings, database_url, rules, RECONCILIATION_HOURLY_INTERVAL="1", TIEOUT_LOG_LEVEL="INFO"
    ) as services:
        async with database.transaction(EVERY_ORG) as connection:
            await connection.execute(text("UPDATE orgs SET created_at = created_at - interval '1 hour'"))
        await services.start("alerts")
        await services.start("alerts-2")
        await services.ready("alerts", "alerts-2")
        async with asyncio.timeout(MINUTE_S):
            while not (before := await hourly(database)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"{services.url('alerts-2')}/metrics")).text
        assert 'reconciliation_runs_total{status="failed"} 0.0' in page

        await services.kill("alerts")
        async with asyncio.timeout(2 * MINUTE_S):
            while len(after := await hourly(database)) < len(before) + 1:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)

    assert [one.period_start for one in after[1:]] == [one.period_end for one in after[:-1]]
    assert len({(one.org, one.pack, one.period_start) for one in after}) == len(after)
    assert all(a.period_end <= b.period_start for a, b in itertools.pairwise(after))
    assert {one.trigger for one in after} == {"schedule"}
    assert set(after[0].expects) == {rule.name for rule in rules.rules}
    await database.close()
