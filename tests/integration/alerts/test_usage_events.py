"""Usage that arrives as events: counted into its budget once, however often it is read; set aside where no budget can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import Database
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.handlers.usage import UsageLoop
from services.alerts.ports.dead_letters import LetterFilter
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.tracked_events import TrackedEvents
from shared.contracts.event import Event
from shared.kafka.client import await_sent, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.telemetry.health import Health

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WAIT_S = 60


def usage(id_: str, amount: str | None = "0.11", **more: Any) -> Event:
    """Usage of anthropic in USD."""
    values: dict[str, Any] = {
        "org": "acme",
        "source": "anthropic",
        "type": "usage.recorded",
        "id": id_,
        "record": id_,
        "occurred_at": NOW,
        "received_at": NOW,
        "amount": amount,
        "currency": "USD",
    }
    return Event(**values | more)


async def publish(kafka: KafkaSettings, *events: Event) -> None:
    """As ingest does: JSON, with the place in the inbox as a header."""
    client = producer(kafka)
    await client.start()
    try:
        topic = kafka.topic_prefix + "events"
        sent = [
            await client.send(
                topic, msgspec.json.encode(event), key=event.uuid.encode(), headers=[("inbox", b"1/%d" % at)]
            )
            for at, event in enumerate(events)
        ]
        await await_sent(sent)
    finally:
        await client.stop()


@asynccontextmanager
async def reading(kafka: KafkaSettings, database: Database, group: str) -> AsyncIterator[None]:
    counting = TrackedEvents(PostgresBudgets(database), PostgresDeadLetters(database), lambda: NOW)
    loop = UsageLoop(kafka, counting, Health(["x"]), group=f"{kafka.topic_prefix}{group}", retry_pause_s=0.2)
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(budgets: Budgets, expected: str, name: str = "claude") -> None:
    """Wait until so much is tracked, and a moment longer, so that too much is seen too."""
    async with asyncio.timeout(WAIT_S):
        while (await budgets.status("acme", name)).api_usage_tracked < Decimal(expected):  # noqa: ASYNC110 - another task writes
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    assert (await budgets.status("acme", name)).api_usage_tracked == Decimal(expected)


async def test_usage_on_the_topic_is_counted_once(kafka_settings: KafkaSettings, topics: Topics, database: Database):
    """By its provider, or by the budget it names; repeated, and read again from the start by another group."""
    budgets = Budgets(PostgresBudgets(database), lambda: NOW)
    await budgets.create("acme", "claude", provider="anthropic", currency="USD", total=Decimal("24.96"))
    await budgets.create("acme", "maps", provider="here", currency="EUR", total=Decimal(50))
    await publish(
        kafka_settings,
        usage("u1"),
        usage("u1"),
        usage("u2", "0.05", attrs={"note": '"type":"usage.'}),
        usage("u3", "1.00", type="movement.usage"),
        usage("u4", "2.00", source="tracker", account="maps", currency="EUR"),
        usage("u5", "4.00", source="someone"),
        usage("u9", "16.00", received_at=NOW - timedelta(days=1)),
        usage("u6", "8.00", org="other"),
        usage("odd1", "1.00", attrs={"budget": "none"}),
        usage("odd2", "1.00", currency="EUR"),
        usage("odd3", None),
        usage("odd4\x00", "1.00"),
    )
    async with reading(kafka_settings, database, "one"):
        await until(budgets, "0.16")
        await publish(kafka_settings, usage("u1"), usage("u1", "0.12"), usage("u7", "0.04"))
        await until(budgets, "0.20")
    async with reading(kafka_settings, database, "two"):
        await publish(kafka_settings, usage("u8", "0.01"))
        await until(budgets, "0.21")
    assert (await budgets.status("acme", "maps")).api_usage_tracked == Decimal("2.00")
    assert (await budgets.status("acme")).ties_out
    await check_letters(database)


async def check_letters(database: Database) -> None:
    """One each, with what to do and the place in the inbox to send it through again from."""
    kept = await PostgresDeadLetters(database).list("acme", LetterFilter(), None, 50)
    letters = {one.letter.event: one.letter for one in kept}
    assert len(letters) == len(kept) == 5
    assert {name: letter.reason for name, letter in letters.items()} == {
        "odd1": "refused",
        "odd2": "refused",
        "odd3": "no amount",
        "odd4\N{REPLACEMENT CHARACTER}": "refused",
        "u1": "id reused",
    }
    assert "names budget 'none', which there is not" in letters["odd1"].detail
    assert letters["odd1"].hint.startswith("Make the budget (tieout budget create none")
    assert (letters["odd1"].inbox_partition, letters["odd1"].inbox_offset) == (1, 8)
    assert "is in EUR, and budget claude is in USD" in letters["odd2"].detail
    assert "is known as 0.11" in letters["u1"].detail


async def test_two_budgets_of_a_provider_need_the_name(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Nobody guesses: the event is set aside, and counted once the budget is named."""
    budgets = Budgets(PostgresBudgets(database), lambda: NOW)
    for name in ("claude", "second"):
        await budgets.create("acme", name, provider="anthropic", currency="USD", total=Decimal(20))
    await publish(kafka_settings, usage("u1"), usage("u2", attrs={"budget": "second"}), usage("u3", account="claude"))
    async with reading(kafka_settings, database, "one"):
        await until(budgets, "0.11", "second")
        await until(budgets, "0.11", "claude")
    (kept,) = await PostgresDeadLetters(database).list("acme", LetterFilter(), None, 50)
    assert kept.letter.detail.endswith("may belong to each of the budgets of anthropic: claude, second")
