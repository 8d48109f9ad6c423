"""What was matched without a shared key, stored in a real PostgreSQL: every record stands in one item, none has moved."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.domain.settled import arrived
from services.alerts.ports.sink import Batch, Found, Place, Span
from services.alerts.use_cases.sink import store
from services.matcher.domain.core import Core
from shared.contracts.item import Item
from shared.contracts.matched_pair import read_item
from tests.support.cases import MATCH_CASES, has_placeholder, load_match_cases
from tests.support.offline import log_of

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, tzinfo=UTC)
DISCREPANCIES, MATCHES = Place("discrepancies", 0), Place("matches", 0)
CASES = [
    case
    for case in load_match_cases(MATCH_CASES.with_name("match_without_key.yaml"))
    if not any(has_placeholder(event) for event in case.events)
]


async def test_every_case_through_the_sink(database: Database) -> None:
    """Each for an org of its own, a batch per record of the log: what is stored is what was last said."""
    sink = PostgresSink(database)
    begin = {DISCREPANCIES: 0, MATCHES: 0}
    places = await sink.open_places(begin, dict.fromkeys(begin, 0))
    said: dict[str, Any] = {}
    items: dict[str, Item] = {}
    offset = 0
    for number, case in enumerate(CASES):
        core = Core(0)
        events = [event | {"org": f"org{number}"} for event in case.events]
        for group, record in log_of(case.rules, events, case.until):
            core.apply(group, record, offset)
            offset += 1
            changes = core.take()
            made = [one if isinstance(one, Item) else read_item(one) for _, one in changes.items]
            if not made and not changes.discrepancies:
                continue
            start = places[DISCREPANCIES]
            wide = len(made) + len(changes.discrepancies)
            batch = Batch(
                spans=[Span(place, at, at + wide) for place, at in places.items()],
                discrepancies=[Found(d, DISCREPANCIES, start + n, NOW) for n, d in enumerate(changes.discrepancies)],
                items=[arrived(one) for one in made],
            )
            await store(sink, batch, NOW)
            places = {span.place: span.end for span in batch.spans}
            said |= {one.id: one for one in changes.discrepancies}
            items |= {one.id: one for one in made}

    async with database.transaction(EVERY_ORG) as connection:
        stored = (await connection.execute(text("SELECT id::text, type, state, reason FROM discrepancies"))).all()
        kept = (await connection.execute(text("SELECT id::text, revision, status FROM items"))).all()
    assert {row.type for row in stored} >= {"AmbiguousMatch", "AmountMismatch", "MissingInternalRecord"}
    assert {row.id: (row.type, row.state) for row in stored} == {id_: (d.type, d.state) for id_, d in said.items()}
    assert {row.id: (row.revision, row.status) for row in kept} == {
        id_: (item.revision, item.status) for id_, item in items.items()
    }
