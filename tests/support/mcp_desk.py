"""A running service with the MCP tools on a real PostgreSQL, and clients over HTTP and stdio."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from sqlalchemy import insert

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.run_requests_store import PostgresRunRequests
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.tables import progress
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.handlers.http import budget, create_app
from services.alerts.handlers.mcp import McpTools, UseCases
from services.alerts.ports.budgets import Usage
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases import dead_letters
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.dead_letters import DeadLetters
from services.alerts.use_cases.keys import key_sha256
from services.alerts.use_cases.requested_runs import RequestedRuns
from services.alerts.use_cases.runs import Runs
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.triage import Triage
from shared.contracts.directory import KeyEntry, Role
from shared.contracts.discrepancy import Discrepancy
from shared.telemetry.health import Health
from tests.support.letters import letter
from tests.support.results import START, found, log_at, record, side_of

NOW = datetime(2026, 11, 21, 7, 30, tzinfo=UTC)
TIMEOUT_S = 60.0
"""A loaded machine takes longer than the client's own 5 s."""
ROLES: tuple[Role, ...] = ("owner", "viewer", "ingest")


class Outside:
    """Kafka's part: rules in force, cuts that are taken at once, and an inbox that nobody looks into."""

    async def shape(self, org: str, pack: str, rule: str) -> None:
        return None

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        return {("acme", "billing"): {"billing.payments": "match"}, ("acme", "budgets"): {"budgets.plug": "invariant"}}

    async def request(self, org: str, cut_id: str) -> datetime:
        return NOW

    async def find(self, partition: int, offset: int) -> None:
        return None


@dataclass(frozen=True)
class Desk:
    """A running service of acme, with a key of each role: `owner`, `viewer`, `ingest`."""

    url: str
    keys: Mapping[str, str]
    budgets: Budgets
    database: Database

    @asynccontextmanager
    async def client(self, key: str, path: str = "/mcp") -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http,
            Client(streamable_http_client(self.url + path, http_client=http)) as client,
        ):
            yield client

    def stdio(self, key: str, *options: str) -> StdioServerParameters:
        environment = {"TIEOUT_API_URL": self.url, "TIEOUT_API_KEY": self.keys.get(key, key)}
        return StdioServerParameters(
            command=sys.executable, args=["-m", "tieout", "mcp", *options], env=environment, cwd=Path.cwd()
        )


def lost(name: str = "pay_2") -> Discrepancy:
    """A payment of 80.00 EUR that Stripe has not told of."""
    return found(
        "d2",
        type="MissingProviderRecord",
        severity="high",
        key=name,
        sides={"internal": side_of(record(name, "80.00")), "provider": None},
        expected="80.00",
        actual=None,
        difference=None,
        raised_at=log_at(20).time,
        explanation=f"Ledger {name} of 80.00 EUR from 2026-11-20 10:00 UTC has no provider record after 2 hours.",
        log=log_at(20),
    )


def use_cases(database: Database, outside: Outside | None = None) -> UseCases:
    """What the tools are over, on a real PostgreSQL, at `NOW`."""
    outside = outside or Outside()
    runs = Runs(
        store=PostgresRuns(database),
        directory=PostgresDirectory(database),
        cuts=outside,
        now=lambda: NOW,
        wait_s=0.0,
        rules=outside,
    )
    return UseCases(
        budgets=Budgets(PostgresBudgets(database), lambda: NOW),
        triage=Triage(PostgresTriage(database), outside, lambda: NOW),
        runs=RequestedRuns(runs, PostgresRunRequests(database), lambda: NOW),
        letters=DeadLetters(PostgresDeadLetters(database), outside, lambda: NOW),
    )


async def fill(database: Database, cases: UseCases) -> None:
    """Budget claude of 24.96 with 0.11 tracked, groq's August, two open discrepancies, a dead letter."""
    await cases.budgets.create("acme", "claude", provider="anthropic", currency="USD", total=Decimal("24.96"))
    await cases.budgets.track("acme", [Usage(id="u1", amount=Decimal("0.11"), occurred_at=NOW)])
    await cases.budgets.read_odometer("acme", "groq", Decimal("0.80"), month="2026-10", currency="USD", actor="me")
    place = Place("discrepancies", 0)
    open_ = [Found(found(), place, 10, START), Found(lost(), place, 20, START)]
    await store(PostgresSink(database), Batch(spans=[], discrepancies=open_), START)
    await dead_letters.store(PostgresDeadLetters(database), [letter()], START)
    async with database.transaction(EVERY_ORG) as connection:
        for topic in ("discrepancies", "matches", "checks"):
            row = {"topic": topic, "partition": 0, "log_time": NOW + timedelta(minutes=1), "log_offset": 30}
            await connection.execute(insert(progress).values(row))


@asynccontextmanager
async def open_desk(database: Database) -> AsyncIterator[Desk]:
    """Serve acme's tools, and `/budget`, until the end of the block."""
    directory = PostgresDirectory(database)
    keys = {}
    for role in ROLES:
        keys[role] = f"tk_{role}1_secret"
        entry = KeyEntry(
            org="acme", id=f"{role}1", sha256=key_sha256(keys[role]), role=role, name=f"{role} key", created_at=START
        )
        await directory.add_key(entry, None)
    cases = use_cases(database)
    await fill(database, cases)
    tools = McpTools(directory, cases)
    app = create_app([tools.router(), budget.router(cases.budgets, lambda: NOW)], directory, Health(["database"]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(_served(tools, server, listener))
        while not server.started:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        yield Desk(f"http://127.0.0.1:{listener.getsockname()[1]}", keys, cases.budgets, database)
        server.should_exit = True
        await serving


async def _served(tools: McpTools, server: uvicorn.Server, listener: socket.socket) -> None:
    """In one task: what serves the tools is left by the task that entered it."""
    async with tools.serving():
        await server.serve([listener])


def read(result: CallToolResult) -> Any:
    """The answer by its text, numbers as they were written."""
    assert not result.is_error, result.content
    return json.loads(result.content[0].text, parse_float=str)  # type: ignore[union-attr]


def refusal(result: CallToolResult) -> str:
    """What a refused call was told."""
    assert result.is_error, result.content
    return str(result.content[0].text)  # type: ignore[union-attr]
