"""`tieout drill recovery` and `tieout bench load` as people run them: minutes, with processes of their own."""

import asyncio
import json
import os
import sys
from typing import Any

import httpx
import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.services import prepared, short_rules

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.e2e, pytest.mark.timeout(900)]


async def tieout(*words: str, **environment: str) -> tuple[int, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tieout",
        *words,
        "--json",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(said.splitlines()[-1])


async def test_postgresql_comes_back_from_the_topics_and_from_a_backup_table_by_table() -> None:
    code, told = await tieout("drill", "recovery", "--payments", "600")

    assert (code, told["passed"]) == (0, True), told
    topics, backup = told["ways"]
    rows = {one["table"]: one["before"] for one in topics["tables"]}
    assert min(rows[name] for name in ("discrepancies", "discrepancy_revisions", "items", "item_revisions")) > 100
    assert {"action_log", "api_keys", "runs", "webhook_endpoints"} <= set(topics["not_brought_back"])
    assert {"action_log", "api_keys", "runs", "webhook_endpoints"} <= {
        one["table"] for one in backup["tables"] if one["before"]
    }
    assert backup["not_brought_back"] == {}


async def test_a_copy_beside_a_running_installation_is_the_same_and_what_was_tampered_with_is_named(
    kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    from sqlalchemy import text

    from services.alerts.adapters.database import EVERY_ORG, Database

    assert topics
    async with prepared(kafka_settings, database_url, short_rules(2)) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        rows = [
            {"source": "ledger", "type": "payment.booked", "id": f"l{n}", "occurred_at": "2026-11-20T10:00:00Z",
             "amount": "10.00", "currency": "EUR", "status": "succeeded", "refs": {"payment_id": f"p{n}"}}
            for n in range(40)
        ]  # fmt: skip
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {services.keys['ingest']}"}) as client:
            assert (await client.post(f"{services.url('ingest')}/v1/events", json=rows)).status_code < 300
        database = Database(database_url)
        count = text("SELECT count(*) FROM discrepancies")
        async with asyncio.timeout(90):
            found = 0
            while found < len(rows):
                await asyncio.sleep(0.5)
                async with database.transaction(EVERY_ORG) as connection:
                    found = (await connection.execute(count)).scalar_one()

        code, told = await tieout("drill", "recovery", "--live", **services.environment)
        async with database.transaction(EVERY_ORG) as connection:
            await connection.execute(text("UPDATE discrepancies SET difference = 1 WHERE key = to_jsonb('p7'::text)"))
        await database.close()
        second, other = await tieout("drill", "recovery", "--live", **services.environment)

    assert (code, told["passed"]) == (0, True), told
    assert {one["table"]: one["before"] for one in told["ways"][0]["tables"]}["discrepancies"] == len(rows)
    assert (second, other["passed"]) == (1, False)
    changed = {one["table"]: (one["missing"], one["extra"], one["altered"]) for one in other["ways"][0]["tables"]}
    assert changed["discrepancies"] == (0, 0, 1)


async def test_the_load_climbs_until_something_falls_behind_and_loses_nothing() -> None:
    code, told = await tieout("bench", "load", "--from", "100", "--factor", "4", "--steps", "2", "--step-s", "4")

    assert (code, told["benchmark"]) == (0, "load")
    assert told["events"] == 2 * told["stored_items"]
    steps = told["steps"]
    # How much it is depends on what else the machine does; that the climb ends with the first step that fails does not.
    assert [one["fell_behind"] for one in steps[:-1]] == [None] * (len(steps) - 1)
    held = [one["events_per_second"] for one in steps if one["fell_behind"] is None]
    assert told["sustained_events_per_second"] == max(held, default=0)
    for one in steps:
        assert set(one["lag_records"]) == {"normaliser", "matcher", "sink"}
        assert min(one["memory_mib"].values()) > 10
        assert one["accepted_per_second"] > 0
        assert one["fell_behind"] is not None or one["latency_ms"]["p50"] > 0
