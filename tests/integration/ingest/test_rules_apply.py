"""`tieout rules apply` on a real broker, and the normaliser's groups: what changes hands, and what may not change."""

import asyncio

import msgspec
import pytest

from shared.contracts.inbox import RowReceived, encode_inbox
from shared.contracts.leg import Leg, Tick, decode_leg_record
from shared.contracts.rule_set import decode_rule_set
from shared.errors import UsageError
from shared.kafka.client import producer
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import load_rules, parse_rules
from tests.support.ingest import (
    BILLING,
    IngestProcess,
    free_port,
    ledger_event,
    prepare,
    read_topic,
    running,
    until,
)
from tieout.rules_topic import apply_rules

pytestmark = pytest.mark.kafka


async def test_applying_tells_what_changed_and_remembers_what_is_gone(kafka_settings: KafkaSettings, topics: Topics):
    file = load_rules(BILLING)
    first = (await apply_rules(kafka_settings, file, "acme", "me")).lines
    again = (await apply_rules(kafka_settings, file, "acme", "me")).lines
    fewer = file.model_copy(update={"rules": file.rules[:1]})
    less = (await apply_rules(kafka_settings, fewer, "acme", "me")).lines
    back = (await apply_rules(kafka_settings, file, "acme", "me")).lines
    assert first[0] == "+ billing.payments: new"
    assert again[0] == "= billing.payments: unchanged"
    assert "- billing.payouts: withdrawn" in less
    assert "+ billing.payouts: new" in back
    sets = [decode_rule_set(record.value) for record in await read_topic(kafka_settings, topics.rules)]
    assert [len(record.withdrawn) for record in sets] == [0, 0, 4, 0]
    assert sets[0].applied_by == "me"


async def test_a_rule_may_not_change_what_open_groups_were_made_by(kafka_settings: KafkaSettings, topics: Topics):
    await apply_rules(kafka_settings, load_rules(BILLING), "acme", "me")
    other_key = parse_rules(BILLING.read_text().replace("key: refs.payment_id", "key: refs.invoice"))
    with pytest.raises(UsageError, match=r"billing\.payments: key.* --rederive"):
        await apply_rules(kafka_settings, other_key, "acme", "me")
    other_pack = parse_rules(BILLING.read_text().replace("pack: billing", "pack: shop"))
    with pytest.raises(UsageError, match="exists in pack billing"):
        await apply_rules(kafka_settings, other_pack, "acme", "me")
    assert len(await read_topic(kafka_settings, topics.rules)) == 1
    await apply_rules(kafka_settings, other_pack, "another", "me")


async def test_without_topics_or_kafka_the_error_says_what_to_do(kafka_settings: KafkaSettings):
    file = load_rules(BILLING)
    with pytest.raises(UsageError, match="topics apply"):
        await apply_rules(kafka_settings, file, "acme", "me")
    nowhere = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    with pytest.raises(KafkaAway):
        await apply_rules(nowhere, file, "acme", "me")
    with pytest.raises(UsageError, match="--org"):
        await apply_rules(kafka_settings, file, "../acme", "me")


@pytest.mark.usefixtures("real_kafka")  # the embedded broker cannot lead a group of two
async def test_a_second_normaliser_takes_its_share_and_nothing_is_lost_when_it_goes(
    kafka_settings: KafkaSettings, topics: Topics
):
    """Goal: partitions change hands twice under load without loss, and log time goes on for all of them."""
    await prepare(kafka_settings)
    sender = producer(kafka_settings)
    await sender.start()

    async def send(numbers: range) -> None:
        for number in numbers:
            row = msgspec.json.encode(ledger_event(number))
            await sender.send_and_wait(topics.inbox, encode_inbox(RowReceived(org="acme", row=row)), key=b"%d" % number)

    with running(kafka_settings, TIEOUT_SESSION_TIMEOUT_MS="6000"):
        await send(range(100))
        second = IngestProcess(
            kafka_settings,
            TIEOUT_INGEST_ROLE="normaliser",
            TIEOUT_GROUP_INSTANCE_ID="two",
            TIEOUT_SESSION_TIMEOUT_MS="6000",
        )
        try:
            await send(range(100, 300))
            second.wait_ready()
            await send(range(300, 400))
        finally:
            second.kill()
        await send(range(400, 500))

        async def complete() -> bool:
            records = [decode_leg_record(record.value) for record in await read_topic(kafka_settings, topics.legs)]
            return {leg.id for leg in records if isinstance(leg, Leg)} == {f"evt_{n}" for n in range(500)}

        await until(complete, timeout_s=30)
        last = len(await read_topic(kafka_settings, topics.legs))
        await asyncio.sleep(1.5)
        later = [decode_leg_record(record.value) for record in await read_topic(kafka_settings, topics.legs)]
        assert len(later) > last
        newest = {
            inbox: max(t.time for t in later if isinstance(t, Tick) and t.inbox_partition == inbox)
            for inbox in range(2)
        }
        assert abs(newest[0] - newest[1]) < 3_000
    await sender.stop()


async def test_the_trace_of_a_sampled_request_goes_on_to_its_event_and_leg(
    kafka_settings: KafkaSettings, topics: Topics
):
    await prepare(kafka_settings)
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sender = producer(kafka_settings)
    await sender.start()
    try:
        for number, headers in ((1, []), (2, [("traceparent", traceparent)])):
            row = msgspec.json.encode(ledger_event(number))
            await sender.send_and_wait(topics.inbox, encode_inbox(RowReceived(org="acme", row=row)), headers=headers)
    finally:
        await sender.stop()
    with running(kafka_settings):

        async def both() -> bool:
            return len(await read_topic(kafka_settings, topics.events)) == 2

        await until(both)
        events = await read_topic(kafka_settings, topics.events)
        legs = [r for r in await read_topic(kafka_settings, topics.legs) if isinstance(decode_leg_record(r.value), Leg)]
    assert sorted(dict(r.headers).get("traceparent", b"") for r in events) == [b"", traceparent]
    assert [r.headers for r in legs if decode_leg_record(r.value).id == "evt_2"] == [(("traceparent", traceparent),)]
