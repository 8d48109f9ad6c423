"""Auto-correction over stored exceptions and a real ledger's address: what it says, what is repeated, what is refused."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import stamina
from aiohttp import web
from sqlalchemy import text

from services.alerts.adapters import ledger_client
from services.alerts.adapters.correction_file import read_policies
from services.alerts.adapters.correction_store import PostgresCorrections
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.ledger_client import HttpLedgers
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.domain.adjustment import RuleShape
from services.alerts.domain.triage import Assign
from services.alerts.handlers.corrector import correct_once
from services.alerts.handlers.http import create_app
from services.alerts.handlers.http.auth import key_sha256
from services.alerts.handlers.http.corrections import router
from services.alerts.use_cases.corrections import ASK_AGAIN_AFTER, Corrections
from services.alerts.use_cases.triage import Triage
from shared.contracts.directory import KeyEntry, PollEntry, decode_entry
from shared.telemetry.health import Health
from tests.integration.alerts.stored_month import store_discrepancies
from tests.support.ledger import LEDGER_KEY, Ledger
from tests.support.results import found as published

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DEPOSITS = "stack.deposits"
SHAPE = RuleShape(key_fields=("refs.deposit_id",), sources={"internal": "ledger", "provider": "circle"})


@dataclass
class Desk:
    database: Database
    address: str
    folder: Path
    ledger: Ledger
    now: datetime = NOW
    told: list[dict[str, Any]] = field(default_factory=list)

    async def shape(self, *_: str) -> RuleShape:
        return SHAPE

    def corrections(self, ledgers: HttpLedgers, **settings: Any) -> Corrections:
        policies = self.policies(**settings)
        return Corrections(
            PostgresCorrections(self.database), policies, self, ledgers,
            watched=policies.watched, now=lambda: self.now, shortest=policies.shortest,
        )  # fmt: skip

    def policies(self, **settings: Any) -> Any:
        given = {
            "ledger": {"url": self.address, "timeout_s": 0.5},
            "adjust_up_to": {"EUR": "1.00"},
            "validate_within_s": 60,
        }
        (self.folder / "corrections.yaml").write_bytes(msgspec.yaml.encode({"acme": given | settings}))
        variables = {"TIEOUT_LEDGER_KEY__ACME": LEDGER_KEY}
        return read_policies(self.folder / "corrections.yaml", allow_http=False, environment=variables)

    async def exception(self, name: str, difference: str = "0.50", **changes: Any) -> None:
        values = {
            "rule": DEPOSITS, "pack": "stack", "severity": "low", "difference": difference, "key": name,
            "account": name, "raised_at": NOW - timedelta(hours=1),
        }  # fmt: skip
        async with self.database.transaction(EVERY_ORG) as connection:
            await store_discrepancies(connection, [published(name, **values | changes)])

    async def attempts(self) -> list[tuple[str, str, str | None]]:
        found = await PostgresCorrections(self.database).attempts("acme", after=None, limit=50)
        return sorted((str(one.key), one.state, one.outcome) for one in found)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return [tuple(row) for row in await connection.execute(text(query))]


@pytest.fixture
async def desk(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(ledger_client, "WAIT_INITIAL_S", 0.001)
    monkeypatch.setattr(ledger_client, "WAIT_MAX_S", 0.002)
    await PostgresDirectory(database).put_org("acme", "UTC")
    told: list[dict[str, Any]] = []

    async def tell(entry: dict[str, Any]) -> None:
        told.append(entry)

    ledger = Ledger(tell)
    async with ledger.serve() as address:
        yield Desk(database, address, tmp_path, ledger, told=told)
    stamina.set_active(True)


async def test_a_refused_adjustment_is_a_clear_failed_attempt(desk: Desk) -> None:
    """In the ledger's own words; it is not asked again, and nothing was booked."""
    await desk.exception("closed")
    desk.ledger.answers["closed"] = lambda _: web.json_response({"detail": "the period is closed"}, status=422)
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers)
        for _ in range(3):
            await correct_once(corrections)
            desk.now += timedelta(minutes=10)
    assert await desk.attempts() == [("closed", "failed", "refused")]
    assert await desk.rows("SELECT detail FROM corrections") == [
        ("the ledger refused it: HTTP 422: the period is closed",)
    ]
    assert (desk.ledger.books, len(desk.ledger.asked)) == ({}, 1)
    log = await desk.rows("SELECT actor, action, reason, notes FROM action_log ORDER BY id")
    assert [row[:3] for row in log] == [
        ("auto-correction", "post_adjustment", None),
        ("auto-correction", "correction_failed", "refused"),
    ]
    assert "the period is closed" in log[1][3]


async def test_a_ledger_that_does_not_answer_is_asked_again_under_the_same_key_and_books_once(desk: Desk) -> None:
    """It had booked before its answer was lost."""
    await desk.exception("slow")
    lost = [True, True]

    async def book_and_be_silent(request: web.Request) -> web.Response:
        answer = await desk.ledger._post(request)
        if lost:
            lost.pop()
            await asyncio.sleep(1)
        return answer

    app = web.Application()
    app.add_routes([web.post("/slow", book_and_be_silent)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = {"url": f"http://127.0.0.1:{runner.addresses[0][1]}/slow", "timeout_s": 0.3}
        async with HttpLedgers(desk.policies(ledger=url).addresses) as ledgers:
            await correct_once(desk.corrections(ledgers, ledger=url))
    finally:
        await runner.cleanup()
    assert len(desk.ledger.asked) == 3
    assert len({key for key, _ in desk.ledger.asked}) == 1
    assert desk.ledger.books == {"slow": Decimal("0.50")}
    assert await desk.attempts() == [("slow", "waiting", None)]


async def test_after_a_crash_the_same_attempt_goes_on_and_a_dead_ledger_is_given_up_in_time(desk: Desk) -> None:
    """Another process posts what was stored, under its key; no other key ever follows."""
    await desk.exception("away")
    desk.ledger.answers["away"] = lambda _: web.json_response({}, status=503)
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        await correct_once(desk.corrections(ledgers))
        assert await desk.attempts() == [("away", "begun", None)]
        tried = len(desk.ledger.asked)
        restarted = desk.corrections(ledgers)
        await correct_once(restarted)
        assert len(desk.ledger.asked) == 2 * tried
        await correct_once(restarted)
        assert len(desk.ledger.asked) == 2 * tried
        desk.now += timedelta(seconds=61) + ASK_AGAIN_AFTER
        await correct_once(restarted)
        desk.now += timedelta(hours=1)
        await correct_once(restarted)
    assert await desk.attempts() == [("away", "failed", "unavailable")]
    assert len({key for key, _ in desk.ledger.asked}) == 1
    assert desk.ledger.books == {}


async def test_a_ledger_that_is_silent_is_asked_once_a_round(desk: Desk) -> None:
    """Its other exceptions wait, so that nobody else's do."""
    for name in ("a", "b", "c"):
        await desk.exception(name)
        desk.ledger.answers[name] = lambda _: web.json_response({}, status=503)
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers)
        await correct_once(corrections)
        assert [state for _, state, _ in await desk.attempts()] == ["begun"]
        desk.ledger.answers.clear()
        desk.now += ASK_AGAIN_AFTER
        await correct_once(corrections)
    assert [state for _, state, _ in await desk.attempts()] == ["waiting", "waiting", "waiting"]
    assert desk.ledger.books == {name: Decimal("0.50") for name in ("a", "b", "c")}


async def test_an_hours_adjustments_are_limited(desk: Desk) -> None:
    """What is systematically wrong is not mended by a hundred entries."""
    for number in range(4):
        await desk.exception(f"d{number}")
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers, adjustments_per_hour_max=3)
        for _ in range(3):
            await correct_once(corrections)
        assert len(desk.ledger.asked) == 3
        desk.now += timedelta(hours=1, seconds=1)
        await correct_once(corrections)
    assert len(desk.ledger.asked) == 4


async def test_a_wish_to_read_again_goes_to_the_pollers_with_the_attempt(desk: Desk) -> None:
    """In one transaction; without a reading in time it has failed, and nothing is adjusted on the old one."""
    await desk.exception("usdc_buffer", rule="stack.circle_balance", type="BalanceMismatch")
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers)
        await correct_once(corrections)
        ((topic, value),) = await desk.rows(
            "SELECT topic, value FROM topic_outbox WHERE convert_from(value, 'utf8') LIKE '%poll%'"
        )
        wish = decode_entry(bytes(value))
        assert isinstance(wish, PollEntry)
        assert (topic, wish.org, wish.source, wish.at) == ("directory", "acme", "circle", NOW)
        desk.now += timedelta(seconds=61)
        await correct_once(corrections)
    assert await desk.attempts() == [("usdc_buffer", "failed", "no_fresh_reading")]
    assert desk.ledger.asked == []


async def test_what_somebody_takes_over_is_left_to_them(desk: Desk) -> None:
    await desk.exception("taken")
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers)
        await correct_once(corrections)
        triage = Triage(PostgresTriage(desk.database), desk, lambda: desk.now)  # type: ignore[arg-type]
        assert await triage.act("acme", published("taken").id, Assign("ann"), "ann") is not None
        await correct_once(corrections)
    assert await desk.attempts() == [("taken", "failed", "left_to_people")]


async def test_one_process_corrects_at_a_time_and_the_api_shows_what_was_tried(desk: Desk) -> None:
    await desk.exception("a")
    await desk.exception("b", severity="medium")
    await desk.exception("c", difference="1.01")
    store = PostgresCorrections(desk.database)
    async with HttpLedgers(desk.policies().addresses) as ledgers:
        corrections = desk.corrections(ledgers)
        async with store.corrector() as mine:
            assert mine
            assert await corrections.round() == ((), ())
        await correct_once(corrections)
        desk.now += timedelta(seconds=61)
        await correct_once(corrections)
    directory = PostgresDirectory(desk.database)
    for role in ("manager", "viewer"):
        entry = KeyEntry(org="acme", id=role, sha256=key_sha256(f"tk_{role}_x"), role=role, name="n", created_at=NOW)  # type: ignore[arg-type]
        await directory.add_key(entry, "UTC")
    app = create_app([router(store, lambda: desk.now)], directory, Health(["database"]))
    path = "/api/admin/reconciliation/corrections"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
        headers = {"Authorization": "Bearer tk_manager_x"}
        (one,) = (await client.get(path, params={"action": "adjust"}, headers=headers)).json()["data"]
        assert (one["key"], one["check_type"], one["difference"], one["outcome"]) == (
            "a",
            "deposits",
            "0.50",
            "still_differs",
        )
        assert one["posted"]["entry"]["refs"]["deposit_id"] == "a"
        assert one["id"] == desk.ledger.asked[0][0]
        assert (await client.get(path, params={"exception_id": "x"}, headers=headers)).status_code == 404
        summary = (await client.get(f"{path}/summary", headers=headers)).json()
        assert (summary["finished"], summary["success_percent"]) == (1, "0.00")
        assert (await client.get(path, headers={"Authorization": "Bearer tk_viewer_x"})).status_code == 403
