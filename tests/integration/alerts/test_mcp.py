"""The official MCP client over HTTP and stdio calls every tool: as owner, as viewer, with a wrong key, and read-only."""

import asyncio
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError

from services.alerts.adapters.database import Database
from services.alerts.ports.budgets import Usage
from services.alerts.use_cases.budgets import Budgets
from tests.support.mcp_desk import NOW, Desk, open_desk, read, refusal
from tests.support.results import uid

pytestmark = pytest.mark.postgres
D1, D2 = {"discrepancy_id": uid("d1")}, {"discrepancy_id": uid("d2")}
READS: dict[str, dict[str, Any]] = {
    "get_budget_status": {},
    "get_reconciliation_status": {},
    "get_unified_cost_status": {},
    "get_groq_status": {},
    "get_narrator_context": {},
    "list_discrepancies": {},
    "explain_discrepancy": D1,
    "why_is_this_open": {"record": "pay_1"},
    "list_runs": {},
    "get_run": {"run_id": uid("none")},
    "list_dead_letters": {},
    "explain_dead_letter": {"dead_letter_id": uid("l1")},
}
WRITES: dict[str, dict[str, Any]] = {
    "record_budget_reconciliation": {"current_budget": 19.54, "manual_adjustment": -5.31},
    "update_budget": {"remaining_budget": 19.54},
    "acknowledge_discrepancy": D1 | {"reason": "x"},
    "assign_discrepancy": D1 | {"assignee": "ada", "reason": "x"},
    "note_discrepancy": D1 | {"notes": "x"},
    "resolve_discrepancy": D1 | {"reason": "accepted", "notes": "x"},
    "trigger_run": {"reason": "x"},
}


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with open_desk(database) as desk:
        yield desk


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
    assert row["actor"] == "owner key (tk_owner1)"
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
    assert (groq["days_until_reset"], groq["historic_months"][0]["usage"]) == (10, "0.80")
    told = await client.call_tool("get_narrator_context", {})
    assert told.content[0].text.startswith("claude (anthropic): 19.54 USD of 24.96 USD remain")


async def check_triage(client: Client) -> None:
    """From "what is open?" to "resolved with reason", and the action log after it."""
    first = read(await client.call_tool("list_discrepancies", {"limit": 1}))
    second = read(await client.call_tool("list_discrepancies", {"limit": 1, "cursor": first["next_cursor"]}))
    assert [one["id"] for page in (first, second) for one in page["discrepancies"]] == [uid("d2"), uid("d1")]
    assert second["next_cursor"] is None
    why = await client.call_tool("why_is_this_open", {"record": "pi_1"})
    assert "an adjustment entry is posted: 10.00 EUR on provider" in why.content[0].text
    assert why.structured_content["stories"][0]["discrepancy"] == uid("d1")
    await client.call_tool("acknowledge_discrepancy", D1 | {"reason": "looking at it this morning"})
    await client.call_tool("assign_discrepancy", D1 | {"assignee": "ada", "reason": "she knows the ledger"})
    await client.call_tool("note_discrepancy", D1 | {"notes": "the refund was booked twice"})
    assert "use accepted, written_off" in refusal(
        await client.call_tool("resolve_discrepancy", D1 | {"reason": "because", "notes": "x"})
    )
    done = read(await client.call_tool("resolve_discrepancy", D1 | {"reason": "accepted", "notes": "explained"}))
    assert done["discrepancy"]["status"] == "resolved"
    story = read(await client.call_tool("explain_discrepancy", D1))
    assert [(row["action"], row["notes"]) for row in story["log"]] == [
        ("acknowledge", "looking at it this morning"),
        ("assign", "she knows the ledger"),
        ("note", "the refund was booked twice"),
        ("resolve", "explained"),
    ]
    assert {row["actor"] for row in story["log"]} == {"owner key (tk_owner1)"}
    again = await client.call_tool("resolve_discrepancy", D1 | {"reason": "accepted", "notes": "again"})
    assert "it is resolved now" in refusal(again)


async def check_runs(client: Client) -> None:
    """A run of billing and one of another pack, read back with who asked why, and as a resource."""
    made = read(await client.call_tool("trigger_run", {"period": "2026-11-20", "reason": "the morning's review"}))
    assert (made["made_now"], made["run"]["pack"], made["run"]["status"]) == (True, "billing", "completed")
    again = read(await client.call_tool("trigger_run", {"period": "2026-11-20", "reason": "once more"}))
    assert (again["made_now"], again["run"]["id"]) == (False, made["run"]["id"])
    found = read(await client.call_tool("get_run", {"run_id": made["run"]["id"]}))
    assert [(one["actor"], one["reason"]) for one in found["requests"]] == [
        ("owner key (tk_owner1)", "the morning's review"),
        ("owner key (tk_owner1)", "once more"),
    ]
    other = read(await client.call_tool("trigger_run", {"pack": "budgets", "reason": "plugs"}))
    assert other["run"]["pack"] == "budgets"
    listed = read(await client.call_tool("list_runs", {"limit": 1}))
    assert listed["next_cursor"] is not None
    listed = read(await client.call_tool("list_runs", {"pack": "billing"}))
    assert [run["id"] for run in listed["runs"]] == [made["run"]["id"]]
    report = await client.read_resource(made["run"]["report"])
    assert report.contents[0].text == found["report_markdown"]
    latest = await client.read_resource("tieout://packs/billing/latest-report")
    assert latest.contents[0].text == found["report_markdown"]
    assert "period:" in refusal(await client.call_tool("trigger_run", {"period": "yesterday", "reason": "x"}))


async def check_letters(client: Client) -> None:
    (one,) = read(await client.call_tool("list_dead_letters", {}))["dead_letters"]
    assert (one["id"], one["hint"]) == (uid("l1"), "Send a newer event of the same record with the key.")
    shown = read(await client.call_tool("explain_dead_letter", {"dead_letter_id": one["id"]}))
    assert shown["dead_letter"]["raw"] == '{"id": "x", "amount": "1.00"}'


async def check_errors(client: Client) -> None:
    """What is not there, or is no value: a sentence that says what to take instead."""
    for name, arguments, said in (
        ("explain_discrepancy", {"discrepancy_id": "nope"}, "list_discrepancies gives their ids"),
        ("why_is_this_open", {"record": "nope"}, "list_dead_letters"),
        ("list_discrepancies", {"status": "closed"}, "use open, acknowledged or resolved"),
        ("list_discrepancies", {"cursor": "x"}, "next_cursor of the answer before"),
        ("list_discrepancies", {"key": "a\x00b"}, "NUL character"),
        ("list_dead_letters", {"reason": "odd"}, "use refused, unknown mapping"),
        ("explain_dead_letter", {"dead_letter_id": "nope"}, "list_dead_letters gives their ids"),
        ("get_run", {"run_id": "nope"}, "list_runs gives their ids"),
        ("trigger_run", {"pack": "none", "reason": "x"}, "has no rules in force"),
        ("trigger_run", {}, "reason: Field required"),
        ("update_budget", {"remaining_budget": 1, "total": 2}, "total: update_budget has no such argument; it takes"),
        ("update_budget", {"remaining_budget": 1, "budget": "a\x00b"}, "budget: holds a NUL character"),
    ):
        assert said in refusal(await client.call_tool(name, arguments)), name


async def check_resources_and_prompts(client: Client) -> None:
    templates = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
    assert templates == {
        "tieout://runs/{run_id}/report",
        "tieout://runs/{run_id}/report.json",
        "tieout://packs/{pack}/latest-report",
        "tieout://budgets/{budget}/picture",
    }
    picture = await client.read_resource("tieout://budgets/claude/picture")
    assert picture.contents[0].mime_type == "image/svg+xml"
    assert "<title" in picture.contents[0].text
    with pytest.raises(MCPError, match="no budget 'none'"):
        await client.read_resource("tieout://budgets/none/picture")
    asked = await client.get_prompt("morning_review", {"pack": "billing"})
    assert "pack billing" in asked.messages[0].content.text
    assert {one.name for one in (await client.list_prompts()).prompts} >= {"morning_review", "explain_record"}


async def check_all(client: Client, budgets: Budgets) -> None:
    await check_examples(client, budgets)
    await check_reads(client)
    await check_runs(client)
    await check_letters(client)
    await check_errors(client)
    await check_resources_and_prompts(client)
    await check_triage(client)


async def test_an_owner_calls_every_tool_over_http(desk: Desk):
    """Every tool once at least, with what it answers; resources and prompts too."""
    async with desk.client("owner") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == set(READS) | set(WRITES)
        assert all(tool.description and tool.annotations for tool in tools.values())
        assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == set(READS)
        schema = tools["record_budget_reconciliation"].input_schema
        assert schema["required"] == ["current_budget", "manual_adjustment"]
        assert schema["properties"]["adjustment_reason"]["default"] == "anthropic-console-sync"
        assert tools["update_budget"].input_schema["required"] == ["remaining_budget"]
        assert tools["get_reconciliation_status"].input_schema["properties"]["days"]["default"] == 7
        assert all(
            "description" in parameter
            for tool in tools.values()
            for parameter in tool.input_schema["properties"].values()
        )
        await check_all(client, desk.budgets)


async def test_an_owner_calls_every_tool_over_stdio(desk: Desk):
    """The same tools, the same answers."""
    async with Client(desk.stdio("owner")) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(READS) | set(WRITES)
        await check_all(client, desk.budgets)
    async with Client(desk.stdio("viewer", "--read-only")) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(READS)
        assert "Change nothing" in (await client.get_prompt("morning_review", {})).messages[0].content.text
        assert "reconcile_budgets" not in {one.name for one in (await client.list_prompts()).prompts}


async def test_a_viewer_reads_everything_and_is_told_what_writing_needs(desk: Desk):
    """Every reading tool answers; every writing one is refused with a sentence, and nothing was written."""
    async with desk.client("viewer") as client:
        for name, given in WRITES.items():
            said = refusal(await client.call_tool(name, given))
            assert "needs a key with the role owner or manager; yours is viewer" in said
        for name, given in READS.items():
            answer = await client.call_tool(name, given)
            assert answer.is_error == (name == "get_run"), name
        assert read(await client.call_tool("get_budget_status", {}))["remaining_budget"] == "24.85"
        assert read(await client.call_tool("explain_discrepancy", D1))["log"] == []
        assert read(await client.call_tool("list_runs", {}))["runs"] == []
    async with desk.client("owner", "/mcp/read-only") as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(READS)
        assert "nknown tool" in refusal(await client.call_tool("update_budget", {"remaining_budget": 1}))


async def test_a_wrong_key_is_not_let_in(desk: Desk):
    """401 or 403 with a problem for every tool, and over stdio a line and exit code 2."""
    for key, status in (("tk_wrong_key", 401), ("", 401), ("ingest", 403)):
        headers = {"Authorization": f"Bearer {desk.keys.get(key, key)}"} if key else {}
        async with httpx2.AsyncClient(headers=headers) as http:
            for name, arguments in (READS | WRITES).items():
                call = {"name": name, "arguments": arguments}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
                answer = await http.post(f"{desk.url}/mcp", json=body)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
    stdio = desk.stdio("tk_wrong_key")
    process = await asyncio.create_subprocess_exec(
        stdio.command, *stdio.args, env={**os.environ, **(stdio.env or {})}, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert err.decode() == "error: this API key is unknown or revoked (the key is TIEOUT_API_KEY)\n"


async def test_amounts_wider_than_floats_are_exact_as_text(desk: Desk):
    """Sent as a string, answered in the text; there is no structure that would round them."""
    wide = "12345678901234567890.123456789"
    await desk.budgets.create("acme", "wide", provider="p", currency="USD", total=Decimal(wide))
    async with desk.client("owner") as client:
        result = await client.call_tool("update_budget", {"remaining_budget": "0.000000001", "budget": "wide"})
    assert read(result)["updated_budget_status"]["used_budget"] == "12345678901234567890.123456788"
    assert result.structured_content is None
