"""Goal: spend reaches its budget as an event, and a plug that grows is a discrepancy that a rule of the engine raises.

Method: real processes on Kafka and PostgreSQL with the budgets pack; usage is posted to ingest, twice and past a killed
alerts; then the console's figure is recorded, and an agent asks over MCP why it is open.
"""

import asyncio
import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from services.alerts.adapters.database import Database
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import load_rules
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, Services, prepared
from tests.support.stored_rows import become

PACK = Path(__file__).parents[2] / "shared/packs/budgets/rules.yaml"
TRACKED = "SELECT count(*), sum(amount)::text FROM budget_usage"
TIMEOUT_S = 60.0
"""A run may wait 8 s for its completion, which is more than the client's own 5 s."""
FOUND = "SELECT rule, type, severity, key #>> '{}' FROM discrepancies WHERE state = 'raised'"

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=3, inbox=2)]


def usage(number: int) -> Event:
    """0.11 USD at anthropic."""
    event = {
        "source": "anthropic",
        "type": "usage.recorded",
        "id": f"req_{number}",
        "occurred_at": datetime.now(UTC).isoformat(),
        "amount": "0.11",
        "currency": "USD",
    }
    return Event(0.0, "ledger", "anthropic", event["id"], event)


async def call(services: Services, method: str, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {services.keys['owner']}", "Content-Type": "application/json"}
    url = f"{services.url('alerts')}/budget{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)

    def answered() -> Any:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read(), parse_float=str)

    return await asyncio.to_thread(answered)


async def test_usage_events_are_tracked_once_and_a_grown_plug_is_raised_by_its_rule(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """Also where alerts is killed between; the agent is told what is open and what would close it."""
    async with prepared(kafka_settings, database_url, load_rules(PACK)) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        database = Database(database_url)
        budget = {"provider": "anthropic", "total_budget": "24.96", "plug_critical": "5.00"}
        await call(services, "PUT", "/budgets/claude", budget)
        async with ProducerClient(
            services.url("ingest"), ORG, services.keys["ingest"], SECRET, repeat_every=1
        ) as client:
            await client.send([usage(number) for number in range(5)])
            await become(database, TRACKED, {(5, "0.55")})
            await services.kill("alerts")
            await client.send([usage(number) for number in range(3, 10)])
        await services.start("alerts")
        await services.ready("alerts")
        await become(database, TRACKED, {(10, "1.10")})
        done = await call(services, "POST", "/reconcile", {"remaining_budget": "18.55"})
        assert done["recorded"][0]["manual_plug_amount"] == "5.31"
        await become(
            database,
            FOUND,
            {
                ("budgets.plug", "plug_grew", "critical", "claude"),
                ("budgets.plug", "plug_past_threshold", "high", "claude"),
            },
        )
        await ask_why(services)
        await database.close()


async def ask_why(services: Services) -> None:
    headers = {"Authorization": f"Bearer {services.keys['owner']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http,
        Client(streamable_http_client(f"{services.url('alerts')}/mcp", http_client=http)) as client,
    ):
        told = await client.call_tool("why_is_this_open", {"record": "claude"})
        text = told.content[0].text  # type: ignore[union-attr]
        assert "plug_grew of rule budgets.plug, pack budgets, key claude, severity critical." in text
        assert "the next reconciliation of claude has a smaller plug: find the spend that escapes and track it" in text
        run = await client.call_tool("trigger_run", {"pack": "budgets", "reason": "the plug grew"})
        assert not run.is_error, run.content
