"""Events that no rule selects, from a real ingest process over Kafka and PostgreSQL into a report."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.sink import SinkLoop
from services.alerts.use_cases.sink import store
from shared.contracts.leg import RuleRecord, decode_leg_record
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import load_rules
from shared.rules.model import RuleFile
from shared.telemetry.health import Health
from tests.integration.alerts.runs_desk import Desk, open_desk
from tests.integration.alerts.stored_month import Month
from tests.support.ingest import BILLING, KEY, IngestProcess, ledger_event, prepare, read_topic, running, until
from tieout.rules_topic import apply_rules

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
TYPE = "coffee.brewed"


def rules_with_coffee() -> RuleFile:
    """The billing pack with a rule that selects what no rule selected before."""
    pack = load_rules(BILLING)
    (payments,) = (rule for rule in pack.rules if rule.name == "billing.payments")
    sides = {name: one.model_copy(update={"type": ["coffee.*"]}) for name, one in payments.sides.items()}
    return pack.model_copy(
        update={"rules": [*pack.rules, payments.model_copy(update={"name": "billing.coffee", "sides": sides})]}
    )


def post(ingest: IngestProcess, event: dict[str, Any]) -> None:
    answer = ingest.post("/v1/events", json=event, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 202, answer.text


async def stored_up_to(database: Database) -> int:
    """How many records of the topic the sink has stored."""
    query = "SELECT coalesce(sum(next_offset), 0) FROM sink_offsets WHERE topic = 'not-reconciled'"
    async with database.transaction(EVERY_ORG) as connection:
        return int((await connection.execute(text(query))).scalar_one())


async def counted(desk: Desk, manager: dict[str, str], period: Any) -> list[dict[str, Any]]:
    run = (await desk.trigger(manager, period)).json()
    assert run["status"] == "completed", run
    found: list[dict[str, Any]] = (await desk.report(manager, run["id"]))["reportJson"]["not_reconciled"]
    return found


async def test_an_event_of_a_type_without_rule_is_counted_once_and_a_rule_that_comes_later_changes_nothing(
    kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """It is delivered twice, counted once; a rule for its type comes, it is delivered again, and still counts once."""
    now = datetime.now(UTC)
    yesterday = (now - timedelta(days=1)).date()
    occurred_at = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC).isoformat()
    event = ledger_event(type=TYPE, occurred_at=occurred_at)
    await prepare(kafka_settings)
    async with open_desk(database_url) as desk:
        manager = await desk.key("manager")
        sink = PostgresSink(desk.database)
        loop = SinkLoop(
            kafka_settings,
            sink,
            lambda batch: store(sink, batch, datetime.now(UTC)),
            Health(["sink"]),
            group=f"{kafka_settings.topic_prefix}sink",
            poll_ms=50,
        )
        with running(kafka_settings) as ingest:
            post(ingest, event)
            post(ingest, event)
            task = asyncio.create_task(loop.run())
            try:

                async def both_stored() -> bool:
                    return await stored_up_to(desk.database) == 2

                await until(both_stored, timeout_s=60)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            desk.now = datetime.now(UTC)
            await desk.store(Month(), desk.now + timedelta(seconds=10))
            day = yesterday.isoformat()
            once = [{"source": "ledger", "type": TYPE, "count": 1}]
            assert await counted(desk, manager, day) == once

            await apply_rules(kafka_settings, rules_with_coffee(), "acme", "test")

            async def in_force() -> bool:
                records = [decode_leg_record(r.value) for r in await read_topic(kafka_settings, topics.legs)]
                return any(isinstance(r, RuleRecord) and r.rule == "billing.coffee" for r in records)

            await until(in_force)
            post(ingest, event)

            async def has_leg() -> bool:
                records = await read_topic(kafka_settings, topics.legs)
                return any(r.key is not None and b"billing.coffee" in r.key for r in records)

            await until(has_leg)
        assert len(await read_topic(kafka_settings, topics.not_reconciled)) == 2
        before = (yesterday - timedelta(days=1)).isoformat()
        longer = {"start": before, "end": (yesterday + timedelta(days=1)).isoformat()}
        assert await counted(desk, manager, longer) == once
        assert await counted(desk, manager, before) == []
