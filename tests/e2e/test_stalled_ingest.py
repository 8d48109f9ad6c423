"""Goal: an ingest that stands still, whole or in part, delays what is raised and never invents a missing record.

Method: real processes of ingest and matcher; ingest is frozen (SIGSTOP) for longer than the rules' deadline while the
other sides of payments are already in the inbox, or still at the provider. Beside them one payment is really missing
its other side: it is raised once ingest goes on, so a matcher that raises nothing at all does not pass.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item
from shared.contracts.leg import Leg, Tick, decode_leg_record
from shared.ids import canonical
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, Services, prepared, short_rules
from tests.support.topic_log import all_records, inbox_events, results_past

PAIRS = 200
LONELY = "pay_lonely"
TIMEOUT_S = 90.0
INBOX_PARTITIONS = 2

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.partitions(state=3, inbox=INBOX_PARTITIONS),
]


def _booked(payment: str, record: str = "") -> Event:
    return _row("ledger", payment, record or f"led_{payment}")


def _charged(payment: str, record: str = "") -> Event:
    return _row("stripe", payment, record or f"pi_{payment}")


def _row(source: str, payment: str, record: str) -> Event:
    body = {
        "source": source,
        "type": "payment.noted",
        "id": f"evt_{record}",
        "record": record,
        "occurred_at": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        "amount": "10.00",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": payment},
    }
    return Event(0.0, "ledger" if source == "ledger" else "provider", source, body["id"], body)


def _webhook(payment: str) -> Event:
    intent = {
        "id": f"pi_{payment}",
        "object": "payment_intent",
        "amount": 1000,
        "amount_received": 1000,
        "currency": "eur",
        "status": "succeeded",
        "metadata": {"payment_id": payment},
        "created": int(time.time()) - 300,
    }
    body = {
        "id": f"evt_{payment}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(time.time()) - 300,
        "data": {"object": intent},
    }
    return Event(0.0, "webhook", "stripe", body["id"], body)


def _client(services: Services, name: str) -> ProducerClient:
    return ProducerClient(services.url(name), ORG, services.keys["ingest"], SECRET)


async def _outcome(kafka: KafkaSettings, topics: Topics, deadline_s: float) -> tuple[list[Discrepancy], dict[str, str]]:
    """Return every revision and every item's last status once the deadline of all that came in has passed."""
    _, last_ms = await inbox_events(kafka, topics.inbox)
    until = datetime.fromtimestamp(last_ms / 1000, UTC) + timedelta(seconds=deadline_s + 1)
    found = await results_past(kafka, topics.discrepancies, Discrepancy, until, TIMEOUT_S)
    items = await results_past(kafka, topics.matches, Item, until, TIMEOUT_S)
    return [one for _, one in found], {str(item.key): item.status for _, item in items}


async def _raised_now(kafka: KafkaSettings, topics: Topics) -> list[bytes]:
    return [
        record.value
        for record in await all_records(kafka, topics.discrepancies)
        if ("kind", b"progress") not in record.headers
    ]


async def _legs(kafka: KafkaSettings, topics: Topics) -> list[Leg | Tick]:
    read = [decode_leg_record(record.value) for record in await all_records(kafka, topics.legs)]
    return [record for record in read if isinstance(record, Leg | Tick)]


async def _until_normalised(kafka: KafkaSettings, topics: Topics, records: Iterable[str]) -> None:
    wanted = set(records)
    async with asyncio.timeout(TIMEOUT_S):
        while wanted - {leg.record for leg in await _legs(kafka, topics) if isinstance(leg, Leg)}:  # noqa: ASYNC110 - a topic
            await asyncio.sleep(0.1)


async def test_other_sides_that_wait_in_the_inbox_are_never_missing(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """The normaliser freezes after the ledger's rows and before the provider's, until its group gives it up."""
    deadline_s = 10.0
    payments = [f"pay_{number}" for number in range(PAIRS)]
    async with prepared(kafka_settings, database_url, short_rules(deadline_s)) as services:
        await services.start("ingest-http", TIEOUT_INGEST_ROLE="http")
        await services.start("ingest-normaliser", TIEOUT_INGEST_ROLE="normaliser", TIEOUT_SESSION_TIMEOUT_MS="6000")
        await services.start("matcher")
        await services.ready("ingest-http", "ingest-normaliser", "matcher")
        async with _client(services, "ingest-http") as client:
            begun = time.monotonic()
            ledger = [_booked(payment) for payment in (*payments, LONELY)]
            await client.send(ledger)
            await _until_normalised(kafka_settings, topics, (event.body["record"] for event in ledger))
            services.freeze("ingest-normaliser")
            await client.send([_charged(payment) for payment in payments])
            assert time.monotonic() - begun < deadline_s, "this machine is too slow for the deadline of this test"
        await asyncio.sleep(deadline_s + 4)
        assert await _raised_now(kafka_settings, topics) == []
        services.thaw("ingest-normaliser")
        found, items = await _outcome(kafka_settings, topics, deadline_s)
    assert [(one.type, one.key, one.state) for one in found] == [("MissingProviderRecord", LONELY, "raised")]
    assert items == dict.fromkeys(payments, "matched") | {LONELY: "discrepant"}


async def test_a_frozen_ingest_raises_nothing_about_what_it_had_acknowledged(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """All of ingest freezes; some webhooks it has acknowledged, others wait at the provider, which repeats them."""
    deadline_s = 8.0
    before = [f"pay_{number}" for number in range(PAIRS)]
    after = [f"pay_after_{number}" for number in range(20)]
    async with prepared(kafka_settings, database_url, short_rules(deadline_s)) as services:
        await services.start("ingest")
        await services.start("matcher")
        await services.ready("ingest", "matcher")
        async with _client(services, "ingest") as client:
            begun = time.monotonic()
            await client.send([_booked(payment) for payment in (*before, *after, LONELY)])
            await asyncio.gather(*(client.send([_webhook(payment)]) for payment in before))
            services.freeze("ingest")
            assert time.monotonic() - begun < deadline_s, "this machine is too slow for the deadline of this test"
            waiting = [asyncio.create_task(client.send([_webhook(payment)])) for payment in after]
            await asyncio.sleep(deadline_s + 4)
            assert not any(task.done() for task in waiting)
            assert await _raised_now(kafka_settings, topics) == []
            services.thaw("ingest")
            await asyncio.gather(*waiting)
        found, items = await _outcome(kafka_settings, topics, deadline_s)
    late = {one.key for one in found} - {LONELY}
    assert late <= set(after)
    assert {one.key for one in found if one.state == "resolved"} == late
    assert items == dict.fromkeys((*before, *after), "matched") | {LONELY: "discrepant"}


async def test_one_lagging_inbox_partition_delays_and_never_invents(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """One of two normalisers freezes with its partition, while the other's traffic goes on past every deadline."""
    deadline_s = 4.0
    patient = {"TIEOUT_INGEST_ROLE": "normaliser", "TIEOUT_SESSION_TIMEOUT_MS": "60000"}
    async with prepared(kafka_settings, database_url, short_rules(deadline_s)) as services:
        await services.start("ingest-http", TIEOUT_INGEST_ROLE="http")
        await services.start("ingest-one", **patient)
        await services.start("ingest-two", **patient)
        await services.start("matcher")
        await services.ready("ingest-http", "ingest-one", "ingest-two", "matcher")
        flowing = await _freeze_one_partition(services, kafka_settings, topics)
        lagging = 1 - flowing
        payments = [f"pay_{number}" for number in range(50)]
        async with _client(services, "ingest-http") as client:
            await client.send(
                [_placed(_booked, payment, flowing) for payment in payments] + [_placed(_booked, LONELY, flowing)]
            )
            await client.send([_placed(_charged, payment, lagging) for payment in payments])
            end = time.monotonic() + deadline_s + 4
            while time.monotonic() < end:
                one = f"pay_flow_{len(payments)}"
                await client.send([_placed(_booked, one, flowing), _placed(_charged, one, flowing)])
                payments.append(one)
                await asyncio.sleep(0.3)
        assert await _raised_now(kafka_settings, topics) == []
        services.thaw("ingest-two")
        found, items = await _outcome(kafka_settings, topics, deadline_s)
    assert [(one.type, one.key, one.state) for one in found] == [("MissingProviderRecord", LONELY, "raised")]
    assert items == dict.fromkeys(payments, "matched") | {LONELY: "discrepant"}


async def _freeze_one_partition(services: Services, kafka: KafkaSettings, topics: Topics) -> int:
    """Freeze `ingest-two` once it holds one inbox partition; return the one that goes on."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            services.freeze("ingest-two")
            await asyncio.sleep(0.5)
            before = await _ticked(kafka, topics)
            await asyncio.sleep(2)
            after = await _ticked(kafka, topics)
            going = [number for number, time_ms in after.items() if time_ms > before.get(number, 0)]
            if len(going) == 1:
                return going[0]
            services.thaw("ingest-two")
            await asyncio.sleep(2)


async def _ticked(kafka: KafkaSettings, topics: Topics) -> dict[int, int]:
    """Return the last tick's time by inbox partition."""
    last: dict[int, int] = {}
    for record in await _legs(kafka, topics):
        if isinstance(record, Tick):
            last[record.inbox_partition] = max(record.time, last.get(record.inbox_partition, 0))
    return last


def _placed(event_of: Callable[[str, str], Event], payment: str, partition: int) -> Event:
    """Return an event of `payment` whose record stands in this inbox partition."""
    for number in range(100):
        event: Event = event_of(payment, f"{payment}_{event_of.__name__}_{number}")
        key = canonical([ORG, event.source, event.body["record"]])
        if partition_of(key, INBOX_PARTITIONS) == partition:
            return event
    raise AssertionError("a hundred records in one partition of two")
