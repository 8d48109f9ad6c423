"""Ingest as a process on a real broker: what is answered 2xx is in the inbox, and flows on to events and legs."""

import asyncio
import json
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from shared.contracts.event import Event
from shared.contracts.inbox import (
    RowReceived,
    TickRequested,
    WebhookReceived,
    WithdrawRequested,
    decode_inbox,
    encode_inbox,
)
from shared.contracts.leg import Leg, RuleRecord, Tick, Withdraw, decode_leg_record, read_group_key
from shared.ids import event_id
from shared.kafka.client import producer
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics, partitions_of
from shared.rules.load import parse_rules
from tests.support.ingest import (
    BILLING,
    KEY,
    key_entry,
    ledger_event,
    prepare,
    publish,
    read_topic,
    running,
    signed,
    until,
)
from tieout.rules_topic import apply_rules

pytestmark = pytest.mark.kafka

AUTHORIZED = {"authorization": f"Bearer {KEY}"}
FIXTURES = Path(__file__).parents[2] / "unit/ingest/fixtures/stripe"


class Counts(NamedTuple):
    """Partitions, as the broker has them: the embedded one chooses them itself."""

    inbox: int
    events: int
    legs: int


async def counts_of(settings: KafkaSettings, topics: Topics) -> Counts:
    found = await partitions_of(settings, topics.inbox, topics.events, topics.legs)
    return Counts(found[topics.inbox], found[topics.events], found[topics.legs])


async def legs_of(settings: KafkaSettings, topics: Topics) -> list[tuple[bytes, Leg]]:
    found = [(record.key, decode_leg_record(record.value)) for record in await read_topic(settings, topics.legs)]
    return [(key, leg) for key, leg in found if isinstance(leg, Leg)]


async def events_of(settings: KafkaSettings, topics: Topics) -> list[Event]:
    return [msgspec.json.decode(r.value, type=Event) for r in await read_topic(settings, topics.events)]


async def test_what_is_answered_202_is_in_the_inbox_and_becomes_an_event_and_a_leg(
    kafka_settings: KafkaSettings, topics: Topics
):
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        answer = ingest.post("/v1/events", json=[ledger_event(1), ledger_event(2)], headers=AUTHORIZED)
        assert (answer.status_code, answer.json()["accepted"]) == (202, 2)

        inbox = [decode_inbox(record.value) for record in await read_topic(kafka_settings, topics.inbox)]
        rows = [json.loads(record.row)["id"] for record in inbox if isinstance(record, RowReceived)]
        assert sorted(rows) == ["evt_1", "evt_2"]

        async def both() -> bool:
            return len(await legs_of(kafka_settings, topics)) == 2

        await until(both)
        counts = await counts_of(kafka_settings, topics)
        events = await read_topic(kafka_settings, topics.events)
        assert {record.key.decode() for record in events} == {event_id("acme", "ledger", f"evt_{n}") for n in (1, 2)}
        assert all(record.partition == partition_of(record.key, counts.events) for record in events)
        for key, leg in await legs_of(kafka_settings, topics):
            assert read_group_key(key).key == (leg.record,)
            assert (leg.amount, leg.currency, leg.source) == ("120.50", "EUR", "ledger")


async def test_a_webhook_delivered_twice_is_one_event_by_its_name(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    body = (FIXTURES / "payment_intent.succeeded.json").read_bytes()
    with running(kafka_settings) as ingest:
        for _ in range(2):
            answer = ingest.post("/webhooks/acme/stripe", content=body, headers=signed(body))
            assert answer.status_code == 200, answer.text

        async def twice() -> bool:
            return len(await events_of(kafka_settings, topics)) == 2

        await until(twice)
        inbox = [decode_inbox(record.value) for record in await read_topic(kafka_settings, topics.inbox)]
        kept = [record for record in inbox if isinstance(record, WebhookReceived)]
        assert [(record.body, record.verdict) for record in kept] == [(body, "verified stripe v1")] * 2
        assert len({event.uuid for event in await events_of(kafka_settings, topics)}) == 1
        assert len({key for key, _ in await legs_of(kafka_settings, topics)}) == 1


async def test_ticks_of_every_inbox_partition_reach_every_partition_of_legs_and_follow_their_legs(
    kafka_settings: KafkaSettings, topics: Topics
):
    counts = await counts_of(kafka_settings, topics)
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        for start in range(0, 200, 20):
            rows = [ledger_event(n) for n in range(start, start + 20)]
            assert ingest.post("/v1/events", json=rows, headers=AUTHORIZED).status_code == 202
            await asyncio.sleep(0.05)

        async def all_told() -> bool:
            records = await read_topic(kafka_settings, topics.legs)
            ticks = {
                (r.partition, t.inbox_partition) for r in records if isinstance(t := decode_leg_record(r.value), Tick)
            }
            legs = sum(isinstance(decode_leg_record(r.value), Leg) for r in records)
            return legs == 200 and ticks == {(p, i) for p in range(counts.legs) for i in range(counts.inbox)}

        await until(all_told)
        await asyncio.sleep(1.5)
    heard: dict[tuple[int, int], list[int]] = {}
    for record in await read_topic(kafka_settings, topics.legs):
        match decode_leg_record(record.value):
            case Tick(inbox_partition=inbox, time=time_ms, partitions=partitions):
                assert partitions == counts.inbox
                heard.setdefault((record.partition, inbox), []).append(time_ms)
            case Leg(inbox_partition=inbox, received_at=received):
                ticked = heard.get((record.partition, inbox), [0])[-1]
                assert received >= ticked, "a leg came after a tick of its time"
    for times in heard.values():
        assert times == sorted(times)
        assert times[-1] > time.time() * 1000 - 10_000, "log time went on while nothing came in"


async def test_a_rule_stands_in_every_partition_before_its_first_leg(kafka_settings: KafkaSettings, topics: Topics):
    counts = await counts_of(kafka_settings, topics)
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        ingest.post("/v1/events", json=[ledger_event(n) for n in range(30)], headers=AUTHORIZED)

        async def there() -> bool:
            return len(await legs_of(kafka_settings, topics)) == 30

        await until(there)
        only_payments = parse_rules(
            BILLING.read_text().replace("deadline: 24h\n    settle", "deadline: 1h\n    settle")
        )
        keep = only_payments.model_copy(update={"rules": only_payments.rules[:1]})
        lines = (await apply_rules(kafka_settings, keep, "acme", "test")).lines
        assert lines[0] == "~ billing.payments: deadline changed"
        assert "- billing.refunds: withdrawn" in lines

        async def announced() -> bool:
            records = [decode_leg_record(r.value) for r in await read_topic(kafka_settings, topics.legs)]
            return (
                sum(isinstance(r, RuleRecord) and r.rule == "billing.refunds" and not r.specification for r in records)
                == counts.legs
            )

        await until(announced)
        ingest.post("/v1/events", json=[ledger_event(n) for n in range(30, 60)], headers=AUTHORIZED)

        async def more() -> bool:
            return len(await legs_of(kafka_settings, topics)) == 60

        await until(more)
    known: dict[int, set[str]] = {partition: set() for partition in range(counts.legs)}
    generations = set()
    for record in await read_topic(kafka_settings, topics.legs):
        match decode_leg_record(record.value):
            case RuleRecord(generation=generation):
                known[record.partition].add(generation)
            case Leg(generation=generation):
                assert generation in known[record.partition]
                generations.add(generation)
    assert len(generations) == 2


async def test_killing_the_normaliser_loses_nothing_that_was_accepted(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    accepted: set[str] = set()
    with running(kafka_settings) as ingest:
        for start in range(0, 3000, 500):
            rows = [ledger_event(n) for n in range(start, start + 500)]
            answer = ingest.post("/v1/events", json=rows, headers=AUTHORIZED)
            accepted |= {result["id"] for result in answer.json()["results"]}
            if start in (500, 1500):
                ingest.kill()
                ingest.restart()
        assert len(accepted) == 3000

        async def complete() -> bool:
            return {event.id for event in await events_of(kafka_settings, topics)} == accepted

        await until(complete)
        assert {leg.id for _, leg in await legs_of(kafka_settings, topics)} == accepted


async def test_sigterm_drains_and_exits_0(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        ingest.post("/v1/events", json=[ledger_event(n) for n in range(100)], headers=AUTHORIZED)
        assert ingest.terminate() == 0, ingest.log()
    with running(kafka_settings) as ingest:

        async def complete() -> bool:
            return len({event.id for event in await events_of(kafka_settings, topics)}) == 100

        await until(complete)


async def test_a_revoked_key_is_refused_within_5_s(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        assert ingest.post("/v1/events", json=ledger_event(), headers=AUTHORIZED).status_code == 202
        await publish(kafka_settings, [key_entry(revoked=True)])

        async def refused() -> bool:
            answer = ingest.post("/v1/events", json=ledger_event(), headers=AUTHORIZED)
            return answer.status_code == 401

        await until(refused, timeout_s=5)


async def test_rows_written_to_the_inbox_of_an_org_are_copied_and_bad_ones_become_dead_letters(
    kafka_settings: KafkaSettings, topics: Topics
):
    await apply_topics(kafka_settings, 3, 2, orgs=["acme"])
    await prepare(kafka_settings)
    sender = producer(kafka_settings)
    await sender.start()
    try:
        for row in (json.dumps(ledger_event()).encode(), b"{broken", json.dumps(ledger_event(2, amount=1.5)).encode()):
            await sender.send_and_wait(topics.inbox_of("acme"), row, key=b"k")
    finally:
        await sender.stop()
    with running(kafka_settings):

        async def told_apart() -> bool:
            letters = [json.loads(r.value) for r in await read_topic(kafka_settings, topics.dead_letters)]
            events = await events_of(kafka_settings, topics)
            return [e.id for e in events] == ["evt_1"] and sorted(x["reason"] for x in letters) == [
                "refused",
                "refused",
            ]

        await until(told_apart)


async def test_a_withdraw_request_reaches_the_group_of_the_keyless_record(
    kafka_settings: KafkaSettings, topics: Topics
):
    await prepare(kafka_settings)
    sender = producer(kafka_settings)
    await sender.start()
    try:
        request = WithdrawRequested(org="acme", rule="billing.payments", source="ledger", record="pay_1")
        await sender.send_and_wait(topics.inbox, encode_inbox(request))
    finally:
        await sender.stop()
    with running(kafka_settings):

        async def there() -> list[bytes]:
            records = await read_topic(kafka_settings, topics.legs)
            return [r.key for r in records if isinstance(decode_leg_record(r.value), Withdraw)]

        keys = await until(there)
    assert [read_group_key(key).keyless for key in keys] == [True]


async def test_an_idle_inbox_gets_tick_requests_and_not_more_than_one_at_a_time(
    kafka_settings: KafkaSettings, topics: Topics
):
    counts = await counts_of(kafka_settings, topics)
    await prepare(kafka_settings)
    with running(kafka_settings):
        await asyncio.sleep(2)
    requests = [
        r for r in await read_topic(kafka_settings, topics.inbox) if isinstance(decode_inbox(r.value), TickRequested)
    ]
    by_partition = [sum(r.partition == number for r in requests) for number in range(counts.inbox)]
    assert all(2 <= count <= 14 for count in by_partition), by_partition
