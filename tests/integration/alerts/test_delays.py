"""Delays of stored items, read from a real PostgreSQL, and the deadline they ask for."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.alerts.adapters.database import Database
from services.alerts.adapters.delay_store import PostgresDelays
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.domain.delays import Arrival, learn
from services.alerts.domain.settled import arrived
from services.alerts.ports.sink import Batch
from services.alerts.use_cases.sink import store
from tests.support.feed_log import BEGIN, MINUTE, PAYMENTS, SECOND, payment
from tests.support.offline import run_offline

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SINCE = datetime(2026, 1, 1, tzinfo=UTC)


async def test_what_was_waited_for_is_read_from_the_items(database: Database) -> None:
    """The provider comes up to 200 s later, twice after the deadline of two minutes; the ledger once came last."""
    late = [number * SECOND for number in range(1, 199)] + [15 * MINUTE, 20 * MINUTE]
    events = []
    for number, delay in enumerate(late):
        events.append(payment("ledger", number, BEGIN + number * SECOND))
        events.append(payment("stripe", number, BEGIN + number * SECOND + delay))
    events += [payment("stripe", 1000, BEGIN), payment("ledger", 1000, BEGIN + 7 * SECOND)]
    events += [payment("stripe", 1001, BEGIN)]  # never matched: nobody knows how long it takes
    events.sort(key=lambda event: event["received_at"])
    engine, _ = run_offline([{**PAYMENTS, "deadline": "2m"}], events, "2026-03-02T12:00:00Z")
    await store(PostgresSink(database), Batch(spans=[], items=[arrived(item) for item in engine.items.values()]), NOW)

    arrivals = await PostgresDelays(database).arrivals("acme", "billing.payments", SINCE)
    assert sorted(arrivals) == sorted([Arrival("internal", 7000), *(Arrival("provider", delay) for delay in late)])
    deadlines = {"internal": ("2m", 2 * MINUTE), "provider": ("2m", 2 * MINUTE)}
    internal, provider = learn(arrivals, deadlines, Decimal("0.99"))
    assert (provider.proposed, provider.late_now, provider.late_then) == ("4m", 80, 2)
    assert internal.proposed is None
    assert await PostgresDelays(database).arrivals("other", "billing.payments", SINCE) == []
    assert await PostgresDelays(database).arrivals("acme", "billing.payments", NOW) == []
