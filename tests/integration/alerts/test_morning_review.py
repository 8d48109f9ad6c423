"""A morning review as an agent does it over MCP, from "what is open?" to "resolved with reason", and the action log after it.

The transcript is `docs/morning-review.md`: it is compared here, and written anew with TIEOUT_WRITE_DOCS=1 (`make docs`).
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from sqlalchemy import text

from services.alerts.adapters.database import Database
from tests.support.mcp_desk import open_desk
from tests.support.results import uid

pytestmark = pytest.mark.postgres
FILE = Path(__file__).parents[3] / "docs" / "morning-review.md"
RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
HEAD = """# A morning review over MCP

What an agent does with the prompt `morning_review`: every call below is made by the official MCP client against the service on
a PostgreSQL, and every answer is as it came; of long ones only the fields that the next step needs (the test
`tests/integration/alerts/test_morning_review.py` makes this page, and compares it in every run). All tools: [mcp.md](mcp.md).
"""


ASIDE = ("sides", "log", "summary", "cluster", "near_miss", "last_reconciliation", "other_budgets")
"""Fields of long answers that are left out with all that is in them."""


class Transcript:
    """Calls tools and writes down what was asked and answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lines = [HEAD]

    def say(self, text_: str) -> None:
        self._lines.append(text_ + "\n")

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None, *fields: str) -> Any:
        """Call a tool; of the answer's rows or of the answer itself only `fields` are written down, where some are named."""
        result = await self._client.call_tool(name, dict(arguments or {}))
        (content,) = result.content
        self._lines.append(f"**{name}** `{json.dumps(arguments or {})}`\n")
        try:
            answer = json.loads(content.text, parse_float=_Number)  # type: ignore[union-attr]
        except ValueError:
            self._lines.append(f"```text\n{content.text}\n```\n")  # type: ignore[union-attr]
            return result.structured_content
        shown = _only(answer, fields) if fields else answer
        self._lines.append(f"```json\n{_json(shown)}\n```\n")
        return answer

    def page(self) -> str:
        """The whole; ids of runs are made up anew each time, so they are named in their order."""
        whole = "\n".join(self._lines)
        for number, id_ in enumerate(dict.fromkeys(RUN_ID.findall(whole)), 1):
            whole = whole.replace(id_, f"(id of run {number})")
        return whole


class _Number(str):
    """A number as its text."""

    __slots__ = ()


def _json(value: Any) -> str:
    return re.sub(
        r'"\u0001([^"]*)"', r"\1", json.dumps(_marked(value), indent=2, ensure_ascii=False).replace("\\u0001", "\u0001")
    )


def _marked(value: Any) -> Any:
    if isinstance(value, _Number):
        return f"\u0001{value}"
    if isinstance(value, dict):
        return {name: _marked(inner) for name, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


def _only(value: Any, fields: tuple[str, ...]) -> Any:
    """The named fields, wherever they stand."""
    if isinstance(value, list):
        return [_only(one, fields) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, inner in value.items():
        if name in fields:
            kept[name] = inner
        elif name not in ASIDE and isinstance(inner, dict | list) and ((below := _only(inner, fields)) or inner == []):
            kept[name] = below
    return kept


async def review(client: Client, database: Database) -> str:
    """The whole morning."""
    it = Transcript(client)
    asked = await client.get_prompt("morning_review", {})
    first = asked.messages[0].content.text.splitlines()[0]  # type: ignore[union-attr]
    it.say(f'The prompt `morning_review` begins: "{first}"')
    it.say("## Budgets\n\nHow do they stand, and what is to be done?")
    await it.call("get_narrator_context")
    await it.call("get_reconciliation_status", {}, "tracking_health", "recommended_actions")
    it.say("The provider's console says 19.54 is left. A guess at the adjustment is refused with the figure that fits:")
    await it.call("record_budget_reconciliation", {"current_budget": 19.54, "manual_adjustment": -5.30})
    key = {"idempotency_key": "review-2026-11-21"}
    fields = ("reconciliation_id", "budget_before", "manual_adjustment", "budget_after", "api_usage_tracked")
    fields += ("manual_plug_amount", "adjustment_reason", "remaining_budget", "used_budget", "ties_out")
    await it.call(
        "record_budget_reconciliation",
        {"current_budget": 19.54, "manual_adjustment": -5.31, "adjustment_reason": "console read at 07:30"} | key,
        *fields,
    )
    it.say("## Runs\n\nNone for yesterday yet, so one is asked for, with a reason.")
    await it.call("list_runs")
    wish = {"period": "2026-11-20", "reason": "morning review: yesterday was not run"}
    made = await it.call("trigger_run", wish, "id", "pack", "period", "status", "made_now", "report")
    await it.call("get_run", {"run_id": made["run"]["id"]}, "requests", "status")
    it.say("## What could not be read?")
    await it.call("list_dead_letters", {}, "id", "source", "reason", "detail", "hint", "event")
    it.say("## What is open?")
    listed = ("id", "pack", "type", "severity", "key", "difference", "currency", "status", "explanation", "next_cursor")
    await it.call("list_discrepancies", {"status": "open"}, *listed)
    await lost_payment(it)
    await short_payment(it)
    it.say("## What is left open")
    await it.call("list_discrepancies", {"status": "open"}, *listed)
    await it.call("list_discrepancies", {"status": "acknowledged"}, "id", "key", "status", "assignee", "next_cursor")
    it.say("## The action log after it\n\nTable `action_log`, which refuses UPDATE, DELETE and TRUNCATE:")
    it.say(await action_log(database))
    return it.page()


async def lost_payment(it: Transcript) -> None:
    """High: a person has to ask the provider."""
    it.say("### The most severe first: why is pay_2 open?")
    await it.call("why_is_this_open", {"record": "pay_2"})
    it.say("Nobody but a person can ask Stripe. Acknowledged, and given to one, with what was found.")
    name = {"discrepancy_id": uid("d2")}
    reason = "no record at Stripe 21 hours after the payment; its usual delay is minutes"
    await it.call("acknowledge_discrepancy", name | {"reason": reason}, "status")
    given = {"assignee": "ada@acme.example", "reason": "please ask Stripe support for pay_2, 80.00 EUR"}
    await it.call("assign_discrepancy", name | given, "status", "assignee")


async def short_payment(it: Transcript) -> None:
    """Medium: understood, and resolved with a reason."""
    it.say("### Why is pi_1 open?\n\nThe record's own id finds it too.")
    await it.call("why_is_this_open", {"record": "pi_1"})
    name = {"discrepancy_id": uid("d1")}
    await it.call("note_discrepancy", name | {"notes": "10.00 EUR less at Stripe: the customer's voucher 77"}, "status")
    it.say("A reason that is none is refused with those there are:")
    await it.call("resolve_discrepancy", name | {"reason": "voucher", "notes": "voucher 77"})
    notes = {"reason": "accepted", "notes": "voucher 77, agreed with finance; the ledger books the full price"}
    await it.call("resolve_discrepancy", name | notes, "status", "reason")
    it.say("Its history now:")
    await it.call("why_is_this_open", {"record": uid("d1")})


async def action_log(database: Database) -> str:
    """The log as a table, in its order."""
    names = ("at", "actor", "action", "from_status", "to_status", "reason", "assignee", "notes")
    async with database.transaction("acme") as connection:
        query = text(f"SELECT discrepancy_id, {', '.join(names)} FROM action_log ORDER BY id")
        rows = (await connection.execute(query)).mappings().all()
    keys = {uid("d1"): "pay_1", uid("d2"): "pay_2"}
    lines = [f"| discrepancy | {' | '.join(names)} |", f"| {' | '.join(['---'] * (len(names) + 1))} |"]
    for row in rows:
        cells = [f"{row['at']:%H:%M:%S}", *(str(row[name] or "") for name in names[1:])]
        lines.append(f"| {keys[str(row['discrepancy_id'])]} | {' | '.join(cells)} |")
    return "\n".join(lines)


async def test_the_transcript_of_a_morning_is_the_documented_one(database: Database):
    """Every call and answer, from "what is open?" to "resolved with reason", and the action log after it."""
    async with open_desk(database) as desk, desk.client("owner") as client:
        found = await review(client, database)
    if os.environ.get("TIEOUT_WRITE_DOCS"):
        FILE.write_text(found, encoding="utf-8")
    assert found == FILE.read_text(encoding="utf-8"), "docs/morning-review.md is stale: run `make docs`"
