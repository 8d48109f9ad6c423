"""Counts of discrepancies by kind, on a real PostgreSQL."""

from datetime import UTC, datetime

import httpx
import pytest

from services.alerts.adapters.counts_store import PostgresCounts
from services.alerts.adapters.database import Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.http import counts, create_app
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from shared.contracts.directory import Role
from shared.telemetry.health import Health
from tests.support.results import START, found, resolved

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def answer(database: Database, role: Role, org: str = "acme") -> httpx.Response:
    directory = PostgresDirectory(database)
    key = (await Keys(directory, lambda: NOW).create(org, role, f"{role} key")).key
    app = create_app([counts.router(PostgresCounts(database))], directory, Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tieout") as client:
        return await client.get("/v1/discrepancy-counts", headers={"Authorization": f"Bearer {key}"})


async def test_counts_by_kind_of_the_own_organisation(database: Database):
    """Each kind once, with how many there are; a viewer may look; other organisations see nothing of it."""
    rows = [found("a"), found("b"), found("c", severity="high"), found("d"), resolved("d")]
    await store(
        PostgresSink(database),
        Batch(spans=[], discrepancies=[Found(d, Place("discrepancies", 0), 0, START) for d in rows]),
        NOW,
    )
    body = (await answer(database, "viewer")).json()
    kind = {"pack": "billing", "rule": "billing.payments", "type": "AmountMismatch", "shadow": False}
    assert body == {
        "data": [
            kind | {"severity": "high", "state": "raised", "status": "open", "count": 1},
            kind | {"severity": "medium", "state": "raised", "status": "open", "count": 2},
            kind | {"severity": "medium", "state": "resolved", "status": "resolved", "count": 1},
        ],
        "next_cursor": None,
    }
    assert (await answer(database, "owner", "other")).json()["data"] == []


async def test_a_key_that_only_sends_may_not_count(database: Database):
    """403, and the answer names its role."""
    refused = await answer(database, "ingest")
    assert (refused.status_code, refused.json()["role"]) == (403, "ingest")
