"""Builders of dead letters, as ingest and the matcher publish them."""

from typing import Any

import msgspec

from shared.contracts.dead_letter import DeadLetter
from shared.kafka.client import await_sent, producer
from shared.kafka.settings import KafkaSettings
from tests.support.results import START, uid


def letter(name: str = "l1", **changes: Any) -> DeadLetter:
    """Return a ledger event of acme without a key; `name` decides its id and event."""
    values: dict[str, Any] = {
        "id": uid(name),
        "org": "acme",
        "source": "ledger",
        "reason": "no match key",
        "detail": f"ledger event {name}: refs.payment_id is empty, so nothing can be matched with it",
        "hint": "Send a newer event of the same record with the key.",
        "rule": "billing.payments",
        "event": name,
        "inbox_partition": 0,
        "inbox_offset": 7,
        "received_at": START,
        "raw": b'{"id": "x", "amount": "1.00"}',
    }
    return DeadLetter(**values | changes)


async def set_aside(kafka: KafkaSettings, *letters: DeadLetter | bytes, headers: Any = ()) -> None:
    """Write letters to the topic, spread over its partitions; bytes as they are."""
    values = [one if isinstance(one, bytes) else msgspec.json.encode(one) for one in letters]
    client = producer(kafka)
    await client.start()
    try:
        topic = kafka.topic_prefix + "dead-letters"
        await await_sent([await client.send(topic, value, key=value[:60], headers=headers) for value in values])
    finally:
        await client.stop()
