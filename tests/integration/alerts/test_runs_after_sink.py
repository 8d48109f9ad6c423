"""Runs over what the sink itself stored, and the request for a cut on a real Kafka."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from services.alerts.adapters.cuts import KafkaCuts
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.domain.settled import arrived
from services.alerts.ports.sink import Batch, Found, Place, Span
from services.alerts.use_cases.sink import store
from shared.contracts.discrepancy import LogPosition
from shared.contracts.inbox import CutRequested, decode_inbox
from shared.ids import canonical
from shared.kafka.client import consumer
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.integration.alerts.runs_desk import LATER, Desk, open_desk
from tests.integration.alerts.stored_month import PARTITIONS, TOPICS, amount, generated_month


async def sink_month(desk: Desk, size: int, *, shadow: bool = False) -> None:
    """Feed a month through the sink in batches, as it polls them, then progress past the cut."""
    month = generated_month(size)
    if shadow:
        month.items = [msgspec.structs.replace(one, shadow=True) for one in month.items]
        month.discrepancies = [msgspec.structs.replace(one, shadow=True) for one in month.discrepancies]
    sink = PostgresSink(desk.database)
    places = [Place(topic, number) for topic in TOPICS for number in range(PARTITIONS)]
    at = await sink.open_places(dict.fromkeys(places, 0), dict.fromkeys(places, 0))
    results = [*month.items, *month.discrepancies]
    for first in range(0, len(results), 1000):
        some = results[first : first + 1000]
        spans = [Span(place, at[place], at[place] + 1000) for place in places]
        discrepancies = [
            Found(one, Place("discrepancies", one.log.partition), at[places[0]] + n, LATER)
            for n, one in enumerate(some)
            if hasattr(one, "difference")
        ]
        items = [one for one in some if not hasattr(one, "difference")]
        progress = {
            place: LogPosition(partition=place.partition, offset=10**9, time=LATER + timedelta(seconds=10))
            for place in places
        }
        await store(
            sink,
            Batch(spans=spans, discrepancies=discrepancies, items=[arrived(one) for one in items], progress=progress),
            LATER,
        )
        at = {span.place: span.end for span in spans}


@pytest.mark.postgres
async def test_a_month_stored_by_the_sink_adds_up_to_the_cent(database_url: str) -> None:
    async with open_desk(database_url) as desk:
        manager = await desk.key("manager")
        await sink_month(desk, 3000)

        run = (await desk.trigger(manager)).json()

        assert (run["status"], run["error"]) == ("completed", None)
        figures = (await desk.report(manager, run["id"]))["reportJson"]["reports"]
    for rule, sums in generated_month(3000).sums.items():
        assert figures[rule]["items"]["total"] == sums.items
        assert figures[rule]["residual"] == {"EUR": "0.00", "USD": "0.00"}
        for (side, currency), cents in sums.cents.items():
            assert figures[rule]["totals"][side][currency]["amount"] == amount(cents)
        for (type_, currency), cents in sums.differences.items():
            assert Decimal(figures[rule]["gaps"][currency][type_]) * 100 == cents


@pytest.mark.postgres
async def test_what_shadow_rules_found_is_in_no_figure(database_url: str) -> None:
    """A month that only shadows looked at has no rule, no item and nothing open."""
    async with open_desk(database_url) as desk:
        manager = await desk.key("manager")
        await sink_month(desk, 300, shadow=True)
        run = (await desk.trigger(manager)).json()
        assert (run["status"], run["error"]) == ("completed", None)
        assert (await desk.report(manager, run["id"]))["reportJson"]["reports"] == {}


@pytest.mark.kafka
async def test_a_cut_is_asked_for_in_the_inbox_and_its_time_is_the_brokers(
    kafka_settings: KafkaSettings, topics: Topics
) -> None:
    cuts = KafkaCuts(kafka_settings)
    before = datetime.now(UTC) - timedelta(seconds=5)
    asked_at = await cuts.request("acme", "run-1")
    await cuts.close()

    reader = consumer(kafka_settings, f"{kafka_settings.topic_prefix}inbox", auto_offset_reset="earliest")
    await reader.start()
    try:
        record = await reader.getone()
    finally:
        await reader.stop()
    assert decode_inbox(record.value) == CutRequested(org="acme", id="run-1")
    assert record.key == canonical(["acme", "cut", "run-1"])
    assert asked_at == datetime.fromtimestamp(record.timestamp / 1000, UTC)
    assert before < asked_at < datetime.now(UTC) + timedelta(seconds=5)


async def test_without_kafka_a_cut_is_refused_within_its_time_and_can_be_asked_again() -> None:
    cuts = KafkaCuts(KafkaSettings(bootstrap_servers="127.0.0.1:9"))

    for _ in range(2):
        with pytest.raises(KafkaAway, match=r"127\.0\.0\.1:9 did not take the request for a cut of acme"):
            await cuts.request("acme", "run-1")
