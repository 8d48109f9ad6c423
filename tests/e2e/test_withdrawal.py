"""Goal: money whose record came without a match key and with one counts once, whichever came first.

Method: real processes of ingest, matcher and alerts. The matcher raises the record without a key as missing at its
deadline; alerts sees it in two groups of one rule and asks, through the inbox, to take it out of the one without a key.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.alerts.adapters.database import Database
from shared.contracts.inbox import WithdrawRequested, decode_inbox
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, prepared, short_rules
from tests.support.stored_rows import become
from tests.support.topic_log import all_records

DEADLINE_S = 2.0
KEYLESS_FIRST, KEYED_FIRST = "led_keyless_first", "led_keyed_first"
RECORDS = (KEYLESS_FIRST, KEYED_FIRST)

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=3, inbox=2)]


def event(source: str, record: str, name: str, payment: str | None, minutes_ago: int = 5) -> Event:
    body: dict[str, Any] = {
        "source": source,
        "type": "payment.noted",
        "id": f"evt_{record}_{name}",
        "record": record,
        "occurred_at": (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat(),
        "amount": "10.00",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {} if payment is None else {"payment_id": payment},
    }
    return Event(0.0, "ledger" if source == "ledger" else "provider", source, body["id"], body)


def keyless(record: str) -> Event:
    return event("ledger", record, "keyless", None, minutes_ago=9)


def keyed(record: str) -> list[Event]:
    payment = f"pay_{record}"
    return [event("ledger", record, "keyed", payment), event("stripe", f"pi_{record}", "charge", payment)]


MATCHED = "SELECT key #>> '{}' FROM items WHERE status = 'matched'"
FOUND = "SELECT key #>> '{}', type, state, resolution FROM discrepancies"


async def test_a_record_with_and_without_a_key_is_no_longer_missing(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """In both orders; and an event without a key that is delivered once more stays without effect."""
    withdrawn = {(f"record:ledger/{one}", "MissingProviderRecord", "resolved", "superseded") for one in RECORDS}
    async with prepared(kafka_settings, database_url, short_rules(DEADLINE_S)) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        database = Database(database_url)
        async with ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET) as client:
            await client.send([keyless(KEYLESS_FIRST)])
            await client.send(keyed(KEYED_FIRST))
            raised = (f"record:ledger/{KEYLESS_FIRST}", "MissingProviderRecord", "raised", None)
            await become(database, FOUND, {raised})
            await become(database, MATCHED, {(f"pay_{KEYED_FIRST}",)})
            await client.send(keyed(KEYLESS_FIRST))
            await client.send([keyless(KEYED_FIRST)])
            await become(database, FOUND, withdrawn)
            await become(database, MATCHED, {(f"pay_{one}",) for one in RECORDS})
            for one in RECORDS:
                await client.send([keyless(one)])
            await asyncio.sleep(DEADLINE_S + 2)
        await become(database, FOUND, withdrawn)
        await become(database, MATCHED, {(f"pay_{one}",) for one in RECORDS})
        await database.close()
    requests = [decode_inbox(record.value) for record in await all_records(kafka_settings, topics.inbox)]
    assert {one.record for one in requests if isinstance(one, WithdrawRequested)} == set(RECORDS)
