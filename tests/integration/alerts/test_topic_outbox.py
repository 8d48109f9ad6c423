"""What alerts writes to and reads from Kafka beside results: the directory, requests to ingest, the rules in force."""

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.rule_topic import RuleTopic
from services.alerts.adapters.topic_outbox import TopicOutbox
from services.alerts.domain.adjustment import RuleShape
from services.alerts.use_cases.keys import Keys
from shared.contracts.directory import KeyEntry, OrgEntry, SourceEntry, decode_entry
from shared.contracts.rule_set import RuleSetRecord, encode_rule_set, rule_set_key
from shared.kafka.client import consumer, producer
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.results import START

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


async def waiting(database: Database) -> int:
    async with database.transaction(EVERY_ORG) as connection:
        return int((await connection.execute(text("SELECT count(*) FROM topic_outbox"))).scalar_one())


async def entries(kafka: KafkaSettings, topics: Topics) -> list[object]:
    place = TopicPartition(topics.directory, 0)
    reader = consumer(kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        reader.assign([place])
        await reader.seek_to_beginning(place)
        end = (await reader.end_offsets([place]))[place]
        found: list[object] = []
        while await reader.position(place) < end:
            records = (await reader.getmany(place, timeout_ms=200)).get(place, ())
            found += [decode_entry(record.value) for record in records]
        return found
    finally:
        await reader.stop()


async def test_the_directory_reaches_kafka_in_the_order_it_was_written(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Organisation, key, source, revoke; afterwards nothing waits and a second round sends nothing."""
    directory = PostgresDirectory(database)
    keys = Keys(directory, lambda: START)
    new = await keys.create("acme", "owner", "finance", "Europe/Berlin")
    await directory.put_source("acme", "stripe", "stripe")
    await keys.revoke("acme", new.entry.id)
    outbox = TopicOutbox(database, kafka_settings)
    try:
        assert await outbox.publish_once() == 4
        assert await outbox.publish_once() == 0
    finally:
        await outbox.close()
    assert await waiting(database) == 0
    org, key, source, revoked = await entries(kafka_settings, topics)
    assert org == OrgEntry(org="acme", zone="Europe/Berlin")
    assert key == new.entry
    assert source == SourceEntry(org="acme", source="stripe", provider="stripe")
    assert isinstance(revoked, KeyEntry)
    assert (revoked.id, revoked.revoked) == (new.entry.id, True)


async def test_while_kafka_is_away_everything_stays_in_the_outbox(database: Database):
    """Nothing is deleted before it was acknowledged."""
    await PostgresDirectory(database).put_org("acme", "UTC")
    outbox = TopicOutbox(database, KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_ms=1000))
    with pytest.raises(KafkaAway):
        await outbox.publish_once()
    assert await waiting(database) == 1


async def test_the_shape_of_a_rule_is_read_from_the_rules_in_force(kafka_settings: KafkaSettings, topics: Topics):
    """The last set of the org's pack counts; another org's does not; a rule that is gone is None."""
    sides = {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    }
    writer = producer(kafka_settings)
    await writer.start()
    try:
        for org, name, key in (
            ("acme", "billing.old", "refs.old"),
            ("acme", "billing.payments", ["refs.payment_id", "account"]),
            ("other", "billing.other", "refs.x"),
        ):
            rule = {"name": name, "kind": "match", "key": key, "sides": sides}
            record = RuleSetRecord(version=1, org=org, pack="billing", rules=[rule], applied_at=START, applied_by="ann")
            await writer.send_and_wait(topics.rules, encode_rule_set(record), key=rule_set_key(org, "billing"))
    finally:
        await writer.stop()
    rules = RuleTopic(kafka_settings)
    assert await rules.shape("acme", "billing", "billing.payments") == RuleShape(
        key_fields=("refs.payment_id", "account"), sources={"internal": "ledger", "provider": "stripe"}
    )
    assert await rules.shape("acme", "billing", "billing.old") is None
    assert await rules.shape("nobody", "billing", "billing.payments") is None


async def test_the_rules_are_said_to_be_away_with_kafka():
    """An adjustment then answers 503 instead of waiting for ever."""
    with pytest.raises(KafkaAway, match="rules could not be read"):
        await RuleTopic(KafkaSettings(bootstrap_servers="127.0.0.1:1")).shape("acme", "billing", "billing.payments")
