"""Bad input to budgets by HTTP, MCP and command: a sentence that says what to do, and nothing half-written."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from services.alerts.adapters.database import EVERY_ORG, Database
from tests.support.mcp_desk import Desk, open_desk, read, refusal
from tieout.cli import build

pytestmark = pytest.mark.postgres
OUT = "budget_reconciliation", "budget_calls", "budget_usage", "odometer_readings", "topic_outbox"


@dataclass(frozen=True)
class Ways:
    """The three ways into one running service."""

    desk: Desk

    async def http(self, method: str, path: str, body: str, key: str = "owner") -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.desk.keys.get(key, key)}", "Content-Type": "application/json"}
        async with httpx2.AsyncClient(headers=headers) as client:
            answer = await client.request(method, f"{self.desk.url}/budget{path}", content=body)
        return answer.status_code, answer.json()

    async def command(self, line: str, key: str = "owner") -> tuple[int, str]:
        environment = {"TIEOUT_API_URL": self.desk.url, "TIEOUT_API_KEY": self.desk.keys.get(key, key)}
        words = ["budget", *shlex.split(line)]
        done = await asyncio.to_thread(CliRunner().invoke, build(), words, env=environment)
        error = done.exception
        code = getattr(error, "exit_code", done.exit_code)
        return code, f"{done.output}{'' if error is None else error}"

    async def written(self) -> list[int]:
        async with self.desk.database.transaction(EVERY_ORG) as connection:
            return [(await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() for table in OUT]


@pytest.fixture
async def ways(database: Database) -> AsyncIterator[Ways]:
    async with open_desk(database) as desk:
        yield Ways(desk)


BAD: Sequence[tuple[str, str, dict[str, Any], str, str]] = [
    # what; HTTP body; MCP arguments of update_budget; command; what is said
    ("NaN", '{"remaining_budget": NaN}', {"remaining_budget": "NaN"}, "--remaining NaN", "send an amount such as 19.54|is not a decimal amount"),
    ("infinity", '{"remaining_budget": -Infinity}', {"remaining_budget": "-Infinity"}, "--remaining=-Infinity", "send an amount such as 19.54|is not a decimal amount"),
    ("no number", '{"remaining_budget": true}', {"remaining_budget": True}, "--remaining yes", "must be a number such as 19.54|is not a decimal amount"),
    ("negative", '{"remaining_budget": -0.01}', {"remaining_budget": -0.01}, "--remaining=-0.01", "-0.01 is negative; send what the console says is left"),
    ("negative total", '{"remaining_budget": 1, "total_budget": -24.96}', {"remaining_budget": 1, "total_budget": -24.96}, "--remaining 1 --total=-24.96", "total: -24.96 is negative; send the whole budget"),
    ("more than there is", '{"remaining_budget": 30}', {"remaining_budget": 30}, "--remaining 30", "more than the total of 24.96 USD; if money was added, send the new total too"),
    ("no reason", '{"remaining_budget": 1, "adjustment_reason": " "}', {"remaining_budget": 1, "adjustment_reason": " "}, "--remaining 1 --reason ' '", "adjustment_reason: say why"),
    ("unknown budget", '{"remaining_budget": 1, "budget": "no"}', {"remaining_budget": 1, "budget": "no"}, "--remaining 1 --budget no", "there is no budget 'no'"),
    ("too many digits", '{"remaining_budget": 0.1234567890123456789}', {"remaining_budget": "0.1234567890123456789"}, "--remaining 0.1234567890123456789", "a point and up to 18 more if need be"),
]  # fmt: skip


async def test_what_is_wrong_is_said_the_same_three_ways(ways: Ways):
    """Amounts that are none, that do not fit, and budgets that there are not; nothing was written after all of them."""
    before = await ways.written()
    async with ways.desk.client("owner") as client:
        for what, body, arguments, line, said in BAD:
            status, problem = await ways.http("POST", "/reconcile", body)
            code, output = await ways.command(f"reconcile {line}")
            told = refusal(await client.call_tool("update_budget", arguments))
            assert status in {404, 422}, what
            assert code == 2, (what, output)
            for answer in (problem["detail"], output, told):
                assert any(one in answer for one in said.split("|")), (what, answer)
                assert "Traceback" not in answer
    assert await ways.written() == before


async def test_floats_are_read_by_their_text(ways: Ways):
    """0.1 + 0.2 stays what was written; a float that lost digits before it came is refused with advice."""
    exact = "19.540000000000000001"
    status, _ = await ways.http("POST", "/reconcile", f'{{"remaining_budget": {exact}}}')
    assert status == 200
    code, output = await ways.command(f"reconcile --remaining {exact}")
    assert (code, output.splitlines()[0]) == (0, "nothing differs, nothing recorded")
    async with ways.desk.client("owner") as client:
        assert read(await client.call_tool("update_budget", {"remaining_budget": exact}))["recorded"] == []
        said = refusal(await client.call_tool("update_budget", {"remaining_budget": 0.1 + 0.2}))
        assert "0.30000000000000004 has more digits than a float keeps: send it as a string" in said
        cents = read(await client.call_tool("update_budget", {"remaining_budget": 19.1}))
    assert cents["updated_budget_status"]["remaining_budget"] == "19.10"


async def test_an_adjustment_that_does_not_fit_is_refused_with_the_expected_figure(ways: Ways):
    """409, an error result, exit 2; each with -5.31, and nothing recorded."""
    before = await ways.written()
    body = '{"current_budget": 19.54, "manual_adjustment": -5.30, "adjustment_reason": "console"}'
    status, problem = await ways.http("POST", "/reconciliation/manual", body)
    assert (status, problem["expected_adjustment"], problem["tracked_remaining"]) == (409, "-5.31", "24.85")
    code, output = await ways.command("reconcile --remaining 19.54 --adjustment=-5.30")
    async with ways.desk.client("owner") as client:
        arguments = {"current_budget": 19.54, "manual_adjustment": -5.30}
        said = refusal(await client.call_tool("record_budget_reconciliation", arguments))
    assert code == 2
    for answer in (problem["detail"], output, said):
        assert "19.54 USD remaining less 24.85 USD tracked as remaining is -5.31 USD; send that" in answer
    assert await ways.written() == before
    code, output = await ways.command("reconcile --remaining 19.54 --adjustment=-5.31")
    assert (code, "24.85 -5.31 = 19.54 USD" in output) == (0, True)


async def test_the_same_call_with_its_key_is_recorded_once_whichever_way_it_comes(ways: Ways):
    """The second and third get the rows of the first; another call under the key is refused."""
    first = (await ways.http("POST", "/reconcile", '{"remaining_budget": 19.54, "idempotency_key": "k"}'))[1]
    code, output = await ways.command("reconcile --remaining 19.54 --key k")
    assert (code, output.splitlines()[0]) == (0, "this call was recorded before:")
    async with ways.desk.client("owner") as client:
        again = read(await client.call_tool("update_budget", {"remaining_budget": 19.54, "idempotency_key": "k"}))
        other = refusal(await client.call_tool("update_budget", {"remaining_budget": 19, "idempotency_key": "k"}))
    assert (again["repeated"], again["reconciliation_id"]) == (True, first["reconciliation_id"])
    assert "idempotency_key: 'k' was used for another call" in other
    assert "take a new key" in other
    code, output = await ways.command("reconcile --remaining 19 --key k")
    assert (code, "used for another call" in output) == (2, True)
    assert (await ways.http("POST", "/reconcile", '{"remaining_budget": 19, "idempotency_key": "k"}'))[0] == 409
    assert (await ways.written())[0] == 1


async def test_a_wrong_or_missing_key_is_told_apart_from_a_wrong_role(ways: Ways):
    """401 and 403 by HTTP, exit 2 with the variable's name by command; MCP is in test_mcp.py."""
    body = '{"remaining_budget": 19.54}'
    for key, status, said in (
        ("tk_wrong_key", 401, "this API key is unknown or revoked"),
        ("viewer", 403, "this needs a key with the role owner or manager; yours is viewer"),
        ("ingest", 403, "this needs a key with the role owner or manager; yours is ingest"),
    ):
        answered, problem = await ways.http("POST", "/reconcile", body, key)
        assert (answered, said in problem["detail"]) == (status, True)
        code, output = await ways.command("reconcile --remaining 19.54", key)
        assert (code, f"{said} (the key is TIEOUT_API_KEY)" in output) == (2, True), output
    code, output = await ways.command("reconcile --remaining 19.54", "")
    assert (code, "set TIEOUT_API_KEY to an API key" in output) == (2, True)
    assert (await ways.written())[0] == 0


async def test_an_odometer_goes_back_only_at_its_reset(ways: Ways):
    """By HTTP and command; over MCP it is read only."""
    assert (await ways.http("POST", "/odometer", '{"provider": "groq", "reading": 0.42}'))[0] == 200
    before = await ways.written()
    status, problem = await ways.http("POST", "/odometer", '{"provider": "groq", "reading": 0.41}')
    code, output = await ways.command("odometer groq --read 0.41")
    assert (status, code) == (422, 2)
    for answer in (problem["detail"], output):
        assert "0.41 is less than 0.42, read before in 2026-11; an odometer goes back only at its reset" in answer
        assert "--month 2026-11" in answer
    for bad, said in (("NaN", "NaN"), ("-1", "-1 is negative; an odometer counts from 0")):
        status, problem = await ways.http("POST", "/odometer", f'{{"provider": "groq", "reading": {bad}}}')
        assert (status, said in problem["detail"]) == (422, True), problem
    status, problem = await ways.http("POST", "/odometer", '{"provider": "groq", "reading": 1, "currency": "EUR"}')
    assert (status, "counts USD, not EUR" in problem["detail"]) == (409, True)
    assert await ways.written() == before


async def test_a_console_that_cannot_be_reached_is_named_and_stops_no_other(ways: Ways, tmp_path: Path):
    """File gone, nobody listening, an answer without an amount, a negative balance: each its own result, exit 3."""
    places = {
        "gone": f"{{file: {tmp_path}/none.json, field: left}}",
        "away": '{url: "http://127.0.0.1:9/balance", field: left}',
        "odd": f"{{file: {tmp_path}/odd.json, field: left}}",
        "claude": f"{{file: {tmp_path}/claude.json, field: left}}",
        "minus": f"{{file: {tmp_path}/minus.json, field: left}}",
    }
    (tmp_path / "odd.json").write_text('{"left": NaN}')
    (tmp_path / "minus.json").write_text('{"left": -3}')
    (tmp_path / "claude.json").write_text('{"left": 19.54}')
    await ways.http("PUT", "/budgets/minus", '{"provider": "p", "total_budget": 5}')
    consoles = tmp_path / "consoles.yaml"
    consoles.write_text("consoles:\n" + "".join(f"  {name}: {place}\n" for name, place in places.items()))
    code, output = await ways.command(f"daily {consoles}")
    results = {one["provider"]: one for one in map(json.loads, output.splitlines()[:5])}
    assert code == 3
    assert results["claude-budget"] == {
        "provider": "claude-budget", "success": True, "manual_adjustment": -5.31, "error": None
    }  # fmt: skip
    for name, said in (
        ("gone", "cannot be read: No such file"),
        ("away", "the console does not answer"),
        ("odd", "the console says no amount"),
        ("minus", "-3 is negative"),
    ):
        assert results[f"{name}-budget"]["success"] is False
        assert said in results[f"{name}-budget"]["error"], results[f"{name}-budget"]
    consoles.write_text("consoles: {claude: {file: a, url: b}}")
    code, output = await ways.command(f"daily {consoles}")
    assert (code, "consoles.yaml: consoles.claude" in output) == (2, True), output
