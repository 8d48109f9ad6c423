"""Goal: a source that goes silent while 10,000 records wait for it is one discrepancy; back again all heal but what was lost.

Method: real processes of ingest, matcher and alerts over several partitions. The ledger books 10,000 payments that the
provider says nothing about until long after their deadline; then it sends all but a few of them, and goes on sending.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from services.alerts.adapters.database import Database
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.feed_rule import FeedRuleModel
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, prepared, short_rules
from tests.support.stored_rows import become, rows

WAITING = 10_000
LOST = {f"pay_{number}" for number in range(0, WAITING, 2000)}
DEADLINE_S = 2.0
PER_REQUEST = 500

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=3, inbox=2)]

FOUND = "SELECT key #>> '{}', type, state, resolution FROM discrepancies"
HELD = "SELECT sum(waiting)::int FROM feeds WHERE source = 'stripe'"


def event(source: str, payment: str) -> Event:
    body = {
        "source": source,
        "type": "payment.noted",
        "id": f"evt_{source}_{payment}",
        "record": f"{source}_{payment}",
        "occurred_at": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        "amount": "10.00",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": payment},
    }
    return Event(0.0, "ledger" if source == "ledger" else "provider", source, str(body["id"]), body)


async def send(client: ProducerClient, source: str, payments: list[str]) -> None:
    parts = [payments[at : at + PER_REQUEST] for at in range(0, len(payments), PER_REQUEST)]
    requests = [[event(source, payment) for payment in part] for part in parts]
    await client.send_all(requests, per_second=20_000)


async def go_on(client: ProducerClient) -> None:
    """Send a payment that both sides have, again and again: both sources live."""
    for number in count():
        await client.send([event("ledger", f"alive_{number}")])
        await client.send([event("stripe", f"alive_{number}")])
        await asyncio.sleep(0.3)


async def test_ten_thousand_waiting_records_are_one_discrepancy(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    payments = [f"pay_{number}" for number in range(WAITING)]
    rules = short_rules(DEADLINE_S)
    feed = FeedRuleModel(name="billing.feeds", kind="feed", source=["stripe"], silent_after="4s")
    rules = rules.model_copy(update={"rules": [*rules.rules, feed]})
    async with prepared(kafka_settings, database_url, rules) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        database = Database(database_url)
        async with ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET) as client:
            await client.send([event("ledger", "pay_first"), event("stripe", "pay_first")])
            await send(client, "ledger", payments)
            await become(database, HELD, {(WAITING,)})
            # Feeds and discrepancies are two topics: the sink may store the one before the other.
            await become(database, FOUND, {("stripe", "FeedSilent", "raised", None)})

            await send(client, "stripe", [one for one in payments if one not in LOST])
            alive = asyncio.create_task(go_on(client))
            expected = {("stripe", "FeedSilent", "resolved", "late_arrival")}
            expected |= {(one, "MissingProviderRecord", "raised", None) for one in LOST}
            await become(database, FOUND, expected)
            await become(database, HELD, {(0,)})
            matched = "SELECT count(*) FROM items WHERE status = 'matched' AND key #>> '{}' LIKE 'pay_%'"
            assert await rows(database, matched) == {(WAITING - len(LOST) + 1,)}
            alive.cancel()
        revisions = (
            "SELECT type, count(*) FROM discrepancy_revisions WHERE id IN (SELECT id FROM discrepancies) GROUP BY type"
        )
        assert await rows(database, revisions) == {("FeedSilent", 2), ("MissingProviderRecord", len(LOST))}
        await database.close()
