"""Budgets over HTTP on a real PostgreSQL: the worked examples, refusals, many writers at once, and the database's own guards."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.domain.budget import Wish
from services.alerts.handlers.http import budget, create_app
from services.alerts.ports.budgets import Usage
from services.alerts.use_cases.budgets import Asker, Budgets
from services.alerts.use_cases.keys import Keys
from shared.contracts.inbox import RowReceived, decode_inbox
from shared.telemetry.health import Health

pytestmark = pytest.mark.postgres
NOW = datetime(2025, 9, 10, 12, tzinfo=UTC)
ME = Asker(actor="finance (tk_1)", reconciled_by="finance (tk_1)")
ROW = """INSERT INTO budget_reconciliation (reconciliation_date, budget_before, manual_adjustment, budget_after,
    adjustment_reason, api_usage_tracked, manual_plug_amount, org, budget, provider, currency)
    VALUES ('2025-09-10', {}, {}, {}, '{}', {}, {}, 'acme', 'claude', 'anthropic', 'USD')"""


class Api:
    """The application and a client per key; answers are read with exact numbers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.budgets = Budgets(PostgresBudgets(database), lambda: NOW)
        directory = PostgresDirectory(database)
        self.keys = Keys(directory, lambda: NOW)
        self.app = create_app([budget.router(self.budgets, lambda: NOW)], directory, Health(["database"]))
        self.secrets: dict[str, str] = {}

    async def raw(self, method: str, path: str, body: str | None = None, key: str = "owner") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.secrets.get(key, key)}", "Content-Type": "application/json"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tieout") as client:
            return await client.request(method, f"/budget{path}", headers=headers, content=body)

    async def ask(self, method: str, path: str, body: str | None = None, key: str = "owner") -> Any:
        answer = await self.raw(method, path, body, key)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_float=str)

    async def refused(self, status: int, method: str, path: str, body: str | None = None, key: str = "owner") -> Any:
        answer = await self.raw(method, path, body, key)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.json()

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]


@pytest.fixture
async def api(database: Database) -> Api:
    """Budget claude of 24.96 with 0.11 tracked."""
    api = Api(database)
    for role in ("owner", "manager", "viewer", "ingest"):
        api.secrets[role] = (await api.keys.create("acme", role, f"{role} key")).key
    api.secrets["stranger"] = (await api.keys.create("other", "owner", "other's key")).key
    await api.ask("PUT", "/budgets/claude", '{"provider": "anthropic", "total_budget": 24.96}')
    await api.ask("POST", "/usage", '{"usage": [{"id": "u1", "amount": 0.11}]}', "ingest")
    return api


async def test_the_first_worked_example_to_the_cent(api: Api):
    """24.96, 0.11 tracked, 19.54 remain: a plug of 5.31; everything that was used is named."""
    answer = await api.ask("POST", "/reconcile", '{"remaining_budget": 19.54}')
    (row,) = answer["recorded"]
    figures = ("budget_before", "manual_adjustment", "budget_after", "api_usage_tracked", "manual_plug_amount")
    assert [row[name] for name in figures] == ["24.85", "-5.31", "19.54", "0.11", "5.31"]
    assert row["adjustment_reason"] == "anthropic-console-sync"
    assert row["reconciliation_date"] == "2025-09-10"
    status = answer["updated_budget_status"]
    shown = ("total_budget", "remaining_budget", "used_budget", "api_usage_tracked", "manual_plug_amount", "ties_out")
    assert [status[name] for name in shown] == ["24.96", "19.54", "5.42", "0.11", "5.31", True]
    assert (await api.ask("GET", "/status", key="viewer")) == status


async def test_the_second_worked_example_on_another_budget(api: Api):
    """19.65 less 0.11 is 19.54; an adjustment of -5.31 leaves 14.23."""
    await api.ask("PUT", "/budgets/second", '{"provider": "anthropic", "total_budget": 19.65}')
    await api.ask("POST", "/usage", '{"budget": "second", "usage": [{"id": "u1", "amount": 0.11}]}')
    body = '{"budget": "second", "current_budget": 14.23, "manual_adjustment": -5.31, "adjustment_reason": "console"}'
    (row,) = (await api.ask("POST", "/reconciliation/manual", body))["recorded"]
    assert [row[n] for n in ("budget_before", "budget_after", "manual_plug_amount")] == ["19.54", "14.23", "5.31"]
    assert (await api.ask("GET", "/status?budget=claude"))["remaining_budget"] == "24.85"


async def test_an_adjustment_that_does_not_fit_is_refused_and_nothing_is_written(api: Api):
    """The expected figure is in the answer, for people and for programs."""
    body = '{"current_budget": 19.54, "manual_adjustment": -5.30, "adjustment_reason": "console"}'
    problem = await api.refused(409, "POST", "/reconciliation/manual", body)
    assert problem["expected_adjustment"] == "-5.31"
    assert "-5.31 USD; send that" in problem["detail"]
    assert (await api.ask("GET", "/reconciliation/history"))["data"] == []


async def test_the_value_just_recorded_is_no_second_row(api: Api):
    """A script that runs twice changes nothing the second time."""
    first = await api.ask("POST", "/reconcile", '{"remaining_budget": 19.54, "total_budget": 24.96}')
    again = await api.ask("POST", "/reconcile", '{"remaining_budget": 19.540, "total_budget": 24.96}')
    assert again["recorded"] == []
    assert again["reconciliation_id"] is None
    assert again["updated_budget_status"] == first["updated_budget_status"]


async def test_an_idempotency_key_answers_the_rows_of_the_first_call(api: Api):
    """The same key with another call is refused."""
    body = '{"remaining_budget": 19.54, "idempotency_key": "k1"}'
    first = await api.ask("POST", "/reconcile", body)
    await api.ask("POST", "/usage", '{"usage": [{"id": "u2", "amount": 0.2}]}')
    again = await api.ask("POST", "/reconcile", body)
    assert (again["repeated"], again["recorded"]) == (True, first["recorded"])
    problem = await api.refused(409, "POST", "/reconcile", body.replace("19.54", "19.00"))
    assert "used for another call" in problem["detail"]
    assert len((await api.ask("GET", "/reconciliation/history"))["data"]) == 1


async def test_a_top_up_is_a_row_of_its_own(api: Api):
    """With plug 0; the books tie out over both rows."""
    answer = await api.ask("POST", "/reconcile", '{"remaining_budget": 29.54, "total_budget": 34.96}')
    reasons = [(row["adjustment_reason"], row["manual_plug_amount"], row["budget_after"]) for row in answer["recorded"]]
    assert reasons == [("top-up", "0.00", "34.85"), ("anthropic-console-sync", "5.31", "29.54")]
    assert answer["updated_budget_status"]["ties_out"] is True
    assert answer["updated_budget_status"]["used_budget"] == "5.42"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"remaining_budget": NaN}', "NaN, which is no number"),
        ('{"remaining_budget": -Infinity}', "-Infinity, which is no number"),
        ('{"remaining_budget": "NaN"}', "is not a decimal amount"),
        ('{"remaining_budget": -0.01}', "-0.01 is negative"),
        ('{"remaining_budget": 1, "total_budget": -1}', "-1 is negative"),
        ('{"remaining_budget": 1e999999999}', "too large or too small"),
        ('{"remaining_budget": true}', "must be a number"),
        ('{"remaining_budget": null}', "must be a number"),
        ('{"remaining": 1}', "remaining_budget: Field required"),
        ('{"remaining_budget": 30}', "more than the total of 24.96 USD"),
        ('{"remaining_budget": 1, "adjustment_reason": "top-up"}', "kept for changes of the total"),
        ("[1]", "must be a JSON object"),
        ("{", "is not valid JSON"),
        ('{"remaining_budget": ' + "9" * 5000 + "}", "too large or too small"),
    ],
)
async def test_bad_input_is_a_clear_error_and_writes_nothing(api: Api, body: str, said: str):
    """Whatever is sent: 422, a sentence, and the history is as before."""
    assert said in (await api.refused(422, "POST", "/reconcile", body))["detail"]
    assert await api.rows("SELECT id FROM budget_reconciliation UNION ALL SELECT id FROM budget_calls") == []


async def test_numbers_are_read_and_written_by_their_text(api: Api):
    """More digits than a float keeps come back as they went in."""
    total, remaining = "12345678901234567890.123456789012345678", "12345678901234567890.123456789012345677"
    await api.ask("PUT", "/budgets/wide", f'{{"provider": "p", "total_budget": {total}}}')
    answer = await api.raw("POST", "/reconcile", f'{{"budget": "wide", "remaining_budget": {remaining}}}')
    assert f'"remaining_budget":{remaining}' in answer.text
    assert '"manual_plug_amount":0.000000000000000001' in answer.text


async def test_who_may_do_what(api: Api):
    """Viewers look, producers add usage, nobody without a key, and another organisation sees nothing."""
    body = '{"remaining_budget": 19.54}'
    assert (await api.refused(403, "POST", "/reconcile", body, "viewer"))["role"] == "viewer"
    await api.refused(403, "POST", "/reconcile", body, "ingest")
    await api.refused(401, "POST", "/reconcile", body, "tk_wrong_key")
    assert "there are no budgets yet" in (await api.refused(404, "POST", "/reconcile", body, "stranger"))["detail"]
    assert "no budget 'x'" in (await api.refused(404, "GET", "/status?budget=x"))["detail"]
    await api.ask("POST", "/reconcile", body, "manager")
    (row,) = (await api.ask("GET", "/reconciliation/history", key="viewer"))["data"]
    assert row["actor"].startswith("manager key (tk_")


async def test_usage_is_counted_once_by_its_id(api: Api):
    """Sent again it is known; with another amount it is refused, whole."""
    body = '{"usage": [{"id": "u1", "amount": 0.11}, {"id": "u2", "amount": 0.05}]}'
    answer = await api.ask("POST", "/usage", body)
    assert (answer["added"], answer["known"], answer["budget_status"]["api_usage_tracked"]) == (1, 1, "0.16")
    body = '{"usage": [{"id": "u3", "amount": 1}, {"id": "u1", "amount": 0.12}]}'
    assert "is known as 0.11" in (await api.refused(409, "POST", "/usage", body))["detail"]
    assert (await api.ask("GET", "/status"))["api_usage_tracked"] == "0.16"


async def test_fifty_writers_at_once_keep_the_chain_unbroken(api: Api):
    """Fifty reconciliations and fifty usages of one budget together: each row follows the one before."""

    async def reconcile(number: int) -> None:
        wish = Wish(remaining=Decimal(number) / 10, reason=f"writer {number}")
        await api.budgets.reconcile("acme", wish, ME)

    async def track(number: int) -> None:
        await api.budgets.track("acme", [Usage(id=f"c{number}", amount=Decimal("0.01"), occurred_at=NOW)])

    await asyncio.gather(*[work(number) for number in range(1, 51) for work in (reconcile, track)])
    rows = await api.rows("SELECT * FROM budget_reconciliation ORDER BY id")
    assert len(rows) == 50
    after = Decimal("24.96")
    for row in rows:
        assert row["budget_before"] == after - row["api_usage_tracked"]
        assert row["budget_after"] == row["budget_before"] + row["manual_adjustment"]
        after = row["budget_after"]
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
    status = await api.budgets.status("acme")
    assert status.ties_out
    assert status.api_usage_tracked == Decimal("0.61")


async def test_the_same_call_from_two_writers_is_one_row(api: Api):
    """One of them records, the other gets what was recorded."""
    wish = Wish(remaining=Decimal("19.54"), adjustment=Decimal("-5.31"), reason="sync")
    done = await asyncio.gather(*[api.budgets.reconcile("acme", wish, ME, idempotency_key="once") for _ in range(8)])
    assert len({answer.reconciliation_id for answer in done}) == 1
    assert sum(not answer.repeated for answer in done) == 1


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        (("24.85", "-5.31", "19.55", "x", "0.11", "5.31"), "is not its tracked usage plus its plugs"),
        (("24.85", "-5.31", "19.54", "x", "0.11", "5.30"), "is not its tracked usage plus its plugs"),
        (("24.95", "-5.31", "19.64", "x", "0.11", "5.31"), "does not follow the last one"),
        (("24.96", "-5.42", "19.54", "x", "0", "5.42"), "usage of 0.11 was tracked"),
        (("24.85", "'NaN'", "'NaN'", "x", "0.11", "'NaN'"), "is not its tracked usage|violates check"),
        (("24.85", "-5.31", "19.54", "top-up", "0.11", "5.31"), "budget_reconciliation_top_up"),
    ],
)
async def test_the_database_refuses_a_row_that_breaks_the_identity(api: Api, row: tuple[str, ...], refusal: str):
    """By raw SQL, past every line of Python."""
    async with api.database.engine.connect() as connection:
        await connection.execute(text("SELECT set_config('tieout.org', 'acme', false)"))
        with pytest.raises(DBAPIError, match=refusal):
            await connection.execute(text(ROW.format(*row)))


@pytest.mark.parametrize(
    ("row", "check"),
    [
        (("24.85", "-5.31", "19.55", "x", "0.11", "5.31"), "budget_reconciliation_after"),
        (("24.85", "-5.31", "19.54", "x", "0.11", "5.30"), "budget_reconciliation_plug"),
        (("24.85", "'NaN'", "'NaN'", "x", "0.11", "'NaN'"), "budget_reconciliation_finite"),
        (("24.85", "0", "24.85", "x", "-1", "0"), "budget_reconciliation_usage"),
    ],
)
async def test_the_checks_hold_without_the_trigger(api: Api, migrated_url: str, row: tuple[str, ...], check: str):
    """The identity of a row is a CHECK of the table, whatever else is switched off."""
    owner = Database(migrated_url, role=None)
    async with owner.engine.connect() as connection:
        await connection.execute(text("SELECT set_config('tieout.org', 'acme', false)"))
        await connection.execute(text("ALTER TABLE budget_reconciliation DISABLE TRIGGER follows"))
        with pytest.raises(DBAPIError, match=check):
            await connection.execute(text(ROW.format(*row)))
    await owner.close()


async def test_a_row_leaves_its_events_for_the_engine(api: Api):
    """Usage, plug, the console's reading and the plug's size go to the inbox in the same transaction."""
    await api.ask("POST", "/reconcile", '{"remaining_budget": 19.54}')
    rows = await api.rows("SELECT value FROM topic_outbox WHERE topic = 'inbox' ORDER BY id")
    found = [decode_inbox(row["value"]) for row in rows]
    events = [json.loads(record.row) for record in found if isinstance(record, RowReceived)]
    assert [(event["source"], event["type"], event["amount"]) for event in events] == [
        ("tracker", "movement.usage", "0.11"),
        ("tracker", "movement.plug", "5.31"),
        ("console", "balance.read", "19.54"),
        ("budgets", "snapshot.reconciliation", "5.31"),
    ]


async def test_odometer_with_historic_months_and_unified_cost(api: Api):
    """August and September 2025 at 0.80 each; groq has no budget, so its odometer is its cost."""
    await api.ask("POST", "/odometer", '{"provider": "groq", "reading": 0.80, "month": "2025-08"}')
    shown = await api.ask("POST", "/odometer", '{"provider": "groq", "reading": 0.80, "month": "2025-09"}')
    assert (shown["current_month"], shown["current_usage"], shown["days_until_reset"]) == ("2025-09", "0.80", 21)
    assert shown["historic_months"] == [{"month": "2025-08", "usage": "0.80", "partial": False}]
    assert shown["total_usage"] == "1.60"
    body = '{"provider": "groq", "reading": 0.90}'
    assert "more than 0.80" in (await api.refused(422, "POST", "/odometer", body))["detail"]
    body = '{"provider": "groq", "reading": 0.70, "month": "2025-13"}'
    assert "is no month" in (await api.refused(422, "POST", "/odometer", body))["detail"]
    unified = await api.ask("GET", "/unified")
    assert unified["total_spent"] == {"USD": "1.71"}
    assert [cost["provider"] for cost in unified["providers"]] == ["anthropic", "groq"]
    assert "no odometer of 'x'" in (await api.refused(404, "GET", "/odometer?provider=x"))["detail"]


async def test_status_of_the_last_days_says_what_to_do(api: Api):
    """A plug at its threshold, and tracking that sees little of the spend."""
    await api.ask("PUT", "/budgets/claude", '{"provider": "anthropic", "total_budget": 24.96, "plug_critical": 5}')
    assert "which nobody has done yet" in (await api.ask("GET", "/reconciliation/status"))["recommended_actions"][0]
    await api.ask("POST", "/reconcile", '{"remaining_budget": 19.54}')
    status = await api.ask("GET", "/reconciliation/status?days=7")
    assert (status["total_manual_adjustments"], status["total_plugs"]) == ({"USD": "-5.31"}, {"USD": "5.31"})
    assert (status["tracking_health"], status["plug_share_percent"]) == ("poor", "97.97")
    assert "reaches the critical threshold" in status["recommended_actions"][0]
    told = (await api.ask("GET", "/narrator"))["narrator_context"]
    assert told.startswith("claude (anthropic): 19.54 USD of 24.96 USD remain; 5.42 USD used, 0.11 USD of it tracked")


async def test_history_goes_page_by_page(api: Api):
    """The newest first; a cursor that was changed is refused."""
    for remaining in (20, 19, 18):
        await api.ask("POST", "/reconcile", f'{{"remaining_budget": {remaining}}}')
    first = await api.ask("GET", "/reconciliation/history?limit=2")
    second = await api.ask("GET", f"/reconciliation/history?limit=2&cursor={first['next_cursor']}")
    assert [row["budget_after"] for row in first["data"] + second["data"]] == ["18.00", "19.00", "20.00"]
    assert second["next_cursor"] is None
    await api.refused(422, "GET", "/reconciliation/history?cursor=WyJ4Il0")


async def test_openapi_describes_the_bodies(api: Api):
    """Also of those that are read by their text."""
    paths = api.app.openapi()["paths"]
    schema = paths["/budget/reconcile"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) >= {"remaining_budget", "total_budget", "adjustment_reason", "budget"}
