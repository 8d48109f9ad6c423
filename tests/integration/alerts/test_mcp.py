"""The official MCP client over HTTP and stdio calls every tool: as owner, as viewer, with a wrong key, and read-only."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.handlers.http import create_app
from services.alerts.handlers.mcp import McpTools
from services.alerts.ports.budgets import Usage
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.triage import Triage
from shared.telemetry.health import Health
from tests.support.results import START, found, uid

pytestmark = pytest.mark.postgres
NOW = datetime(2025, 9, 10, 12, tzinfo=UTC)
READS = {
    "get_budget_status",
    "get_reconciliation_status",
    "get_unified_cost_status",
    "get_groq_status",
    "get_narrator_context",
    "list_discrepancies",
    "explain_discrepancy",
}
WRITES = {
    "record_budget_reconciliation",
    "update_budget",
    "acknowledge_discrepancy",
    "assign_discrepancy",
    "note_discrepancy",
    "resolve_discrepancy",
}


class NoRules:
    async def shape(self, org: str, pack: str, rule: str) -> None:
        return None


class Desk:
    """A running service with budget claude of 24.96, 0.11 tracked, and one open discrepancy."""

    def __init__(self, url: str, keys: dict[str, str], budgets: Budgets) -> None:
        self.url = url
        self.keys = keys
        self.budgets = budgets

    @asynccontextmanager
    async def client(self, key: str, path: str = "/mcp") -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.keys.get(key, key)}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(self.url + path, http_client=http)) as client,
        ):
            yield client

    def stdio(self, key: str, *options: str) -> StdioServerParameters:
        environment = {"TIEOUT_API_URL": self.url, "TIEOUT_API_KEY": self.keys.get(key, key)}
        return StdioServerParameters(
            command=sys.executable, args=["-m", "tieout", "mcp", *options], env=environment, cwd=Path.cwd()
        )


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    directory = PostgresDirectory(database)
    keys = Keys(directory, lambda: NOW)
    made = {role: (await keys.create("acme", role, f"{role} key")).key for role in ("owner", "viewer", "ingest")}
    budgets = Budgets(PostgresBudgets(database), lambda: NOW)
    await budgets.create("acme", "claude", provider="anthropic", currency="USD", total=Decimal("24.96"))
    await budgets.track("acme", [Usage(id="u1", amount=Decimal("0.11"), occurred_at=NOW)])
    await budgets.read_odometer("acme", "groq", Decimal("0.80"), month="2025-08", currency="USD", actor="me")
    batch = Batch(spans=[], discrepancies=[Found(found(), Place("discrepancies", 0), 0, START)])
    await store(PostgresSink(database), batch, NOW)
    tools = McpTools(directory, budgets, Triage(PostgresTriage(database), NoRules(), lambda: NOW))
    app = create_app([tools.router()], directory, Health(["database"]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(served(tools, server, listener))
        yield Desk(f"http://127.0.0.1:{listener.getsockname()[1]}", made, budgets)
        server.should_exit = True
        await serving


async def served(tools: McpTools, server: uvicorn.Server, listener: socket.socket) -> None:
    """In one task: what serves the tools is left by the task that entered it."""
    async with tools.serving():
        await server.serve([listener])


def read(result: CallToolResult) -> Any:
    """The answer by its text, numbers as they were written."""
    assert not result.is_error, result.content
    return json.loads(result.content[0].text, parse_float=str)  # type: ignore[union-attr]


def refusal(result: CallToolResult) -> str:
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


async def check_examples(client: Client, budgets: Budgets) -> None:
    """Both worked examples to the cent, the refusals and the no-op, by MCP alone."""
    wrong = await client.call_tool(
        "record_budget_reconciliation", {"current_budget": 19.54, "manual_adjustment": -5.30}
    )
    assert "is -5.31 USD; send that" in refusal(wrong)
    done = read(
        await client.call_tool("record_budget_reconciliation", {"current_budget": 19.54, "manual_adjustment": -5.31})
    )
    assert done["reconciliation_id"] == 1
    status = done["updated_budget_status"]
    assert (status["remaining_budget"], status["used_budget"]) == ("19.54", "5.42")
    (row,) = done["recorded"]
    assert (row["budget_before"], row["manual_plug_amount"], row["api_usage_tracked"]) == ("24.85", "5.31", "0.11")
    assert (row["reconciled_by"], row["adjustment_reason"]) == ("mcp-workflow", "anthropic-console-sync")
    assert row["actor"].startswith("owner key (tk_")
    assert read(await client.call_tool("update_budget", {"remaining_budget": 19.54}))["recorded"] == []
    await budgets.create("acme", "second", provider="anthropic", currency="USD", total=Decimal("19.65"))
    await budgets.track("acme", [Usage(id="u1", amount=Decimal("0.11"), occurred_at=NOW)], "second")
    arguments = {"current_budget": 14.23, "manual_adjustment": -5.31, "budget": "second"}
    (row,) = read(await client.call_tool("record_budget_reconciliation", arguments))["recorded"]
    assert (row["budget_before"], row["budget_after"]) == ("19.54", "14.23")


async def check_reads(client: Client) -> None:
    status = await client.call_tool("get_budget_status", {})
    assert read(status)["remaining_budget"] == "19.54"
    assert status.structured_content["remaining_budget"] == 19.54
    recent = read(await client.call_tool("get_reconciliation_status", {}))
    assert recent["total_manual_adjustments"] == {"USD": "-10.62"}
    assert recent["recommended_actions"]
    assert read(await client.call_tool("get_unified_cost_status", {}))["total_spent"] == {"USD": "11.64"}
    groq = read(await client.call_tool("get_groq_status", {}))
    assert (groq["days_until_reset"], groq["historic_months"][0]["usage"]) == (21, "0.80")
    told = await client.call_tool("get_narrator_context", {})
    assert told.content[0].text.startswith("claude (anthropic): 19.54 USD of 24.96 USD remain")


async def check_triage(client: Client) -> None:
    """From "what is open?" to "resolved with reason", and the action log after it."""
    listed = read(await client.call_tool("list_discrepancies", {}))
    (one,) = listed["discrepancies"]
    name = {"discrepancy_id": one["id"]}
    assert one["id"] == uid("d1")
    await client.call_tool("acknowledge_discrepancy", name | {"reason": "looking at it this morning"})
    await client.call_tool("assign_discrepancy", name | {"assignee": "ada", "reason": "she knows the ledger"})
    await client.call_tool("note_discrepancy", name | {"notes": "the refund was booked twice"})
    assert "use accepted, written_off" in refusal(
        await client.call_tool("resolve_discrepancy", name | {"reason": "because", "notes": "x"})
    )
    done = read(await client.call_tool("resolve_discrepancy", name | {"reason": "accepted", "notes": "explained"}))
    assert done["discrepancy"]["status"] == "resolved"
    story = read(await client.call_tool("explain_discrepancy", name))
    assert [row["action"] for row in story["log"]] == ["acknowledge", "note", "assign", "note", "note", "resolve"]
    assert all(row["actor"].startswith("owner key") for row in story["log"])
    again = await client.call_tool("resolve_discrepancy", name | {"reason": "accepted", "notes": "again"})
    assert "it is resolved now" in refusal(again)
    missing = await client.call_tool("explain_discrepancy", {"discrepancy_id": "nope"})
    assert "list_discrepancies gives their ids" in refusal(missing)


async def test_an_owner_calls_every_tool_over_http(desk: Desk):
    """Every tool once at least, with what it answers."""
    async with desk.client("owner") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READS | WRITES
        assert all(tool.description and tool.annotations for tool in tools.values())
        schema = tools["record_budget_reconciliation"].input_schema
        assert schema["required"] == ["current_budget", "manual_adjustment"]
        assert schema["properties"]["adjustment_reason"]["default"] == "anthropic-console-sync"
        assert tools["update_budget"].input_schema["required"] == ["remaining_budget"]
        assert tools["get_reconciliation_status"].input_schema["properties"]["days"]["default"] == 7
        await check_examples(client, desk.budgets)
        await check_reads(client)
        await check_triage(client)


async def test_an_owner_calls_every_tool_over_stdio(desk: Desk):
    """The same tools, the same answers."""
    async with Client(desk.stdio("owner")) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS | WRITES
        await check_examples(client, desk.budgets)
        await check_reads(client)
        await check_triage(client)
    async with Client(desk.stdio("viewer", "--read-only")) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS


async def test_a_viewer_reads_and_is_told_what_writing_needs(desk: Desk):
    """Every writing tool is refused with a sentence; nothing was written."""
    arguments: dict[str, dict[str, Any]] = {
        "record_budget_reconciliation": {"current_budget": 19.54, "manual_adjustment": -5.31},
        "update_budget": {"remaining_budget": 19.54},
        "acknowledge_discrepancy": {"discrepancy_id": uid("d1"), "reason": "x"},
        "assign_discrepancy": {"discrepancy_id": uid("d1"), "assignee": "ada", "reason": "x"},
        "note_discrepancy": {"discrepancy_id": uid("d1"), "notes": "x"},
        "resolve_discrepancy": {"discrepancy_id": uid("d1"), "reason": "accepted", "notes": "x"},
    }
    assert set(arguments) == WRITES
    async with desk.client("viewer") as client:
        for name, given in arguments.items():
            said = refusal(await client.call_tool(name, given))
            assert "needs a key with the role owner or manager; yours is viewer" in said
        assert read(await client.call_tool("get_budget_status", {}))["remaining_budget"] == "24.85"
        story = read(await client.call_tool("explain_discrepancy", {"discrepancy_id": uid("d1")}))
        assert story["log"] == []


async def test_the_read_only_server_has_no_tool_that_writes(desk: Desk):
    """Not even for an owner."""
    async with desk.client("owner", "/mcp/read-only") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READS
        assert "nknown tool" in refusal(await client.call_tool("update_budget", {"remaining_budget": 1}))


@pytest.mark.parametrize("key", ["tk_wrong_key", "ingest", ""])
async def test_a_wrong_key_is_not_let_in(desk: Desk, key: str):
    """401 or 403 with a problem, and over stdio a line and exit code 2."""
    headers = {"Authorization": f"Bearer {desk.keys.get(key, key)}"} if key else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        answer = await http.post(f"{desk.url}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert answer.status_code == (403 if key == "ingest" else 401)
    assert answer.headers["content-type"] == "application/problem+json"
    if key != "tk_wrong_key":
        return
    stdio = desk.stdio(key)
    process = await asyncio.create_subprocess_exec(
        stdio.command, *stdio.args, env={**os.environ, **(stdio.env or {})}, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert err.decode() == "error: this API key is unknown or revoked (the key is TIEOUT_API_KEY)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"remaining_budget": "NaN"}, "is not a decimal amount"),
        ({"remaining_budget": -1}, "negative"),
        ({"remaining_budget": True}, "must be a number"),
        ({"remaining_budget": 0.12345678901234568}, "send it as a string"),
        ({"remaining_budget": 1, "budget": "no"}, "there is no budget 'no'"),
        ({}, "remaining_budget"),
    ],
)
async def test_bad_arguments_are_errors_to_act_on(desk: Desk, arguments: dict[str, Any], said: str):
    """Said to the agent as the result of its call; nothing is written."""
    async with desk.client("owner") as client:
        assert said in refusal(await client.call_tool("update_budget", arguments))
        assert read(await client.call_tool("get_reconciliation_status", {}))["recent_reconciliations"] == []


async def test_amounts_wider_than_floats_are_exact_as_text(desk: Desk):
    """Sent as a string, answered in the text; there is no structure that would round them."""
    wide = "12345678901234567890.123456789"
    await desk.budgets.create("acme", "wide", provider="p", currency="USD", total=Decimal(wide))
    async with desk.client("owner") as client:
        result = await client.call_tool("update_budget", {"remaining_budget": "0.000000001", "budget": "wide"})
    assert read(result)["updated_budget_status"]["used_budget"] == "12345678901234567890.123456788"
    assert result.structured_content is None
