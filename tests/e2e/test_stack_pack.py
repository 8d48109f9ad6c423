"""Goal: the stack pack's six checks are live: all pass on a clean day, and each fails within seconds on what is wrong; and
the run of the day says the same, in its report and in the tables that operators ask.

Method: real processes on Kafka and PostgreSQL, the pack's own rules (only the deadlines of minutes are seconds), the
day of examples/stack moved to now, a run, then one fault for each check, and another run.
"""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.alerts.adapters.database import Database
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.packs.stack import CHECK_TYPES, check_type_of
from shared.rules.load import validate_rules
from shared.strict_yaml import parse_yaml
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, prepared
from tests.support.stored_rows import become, contain, rows

ROOT = Path(__file__).parents[2]
OPENED, CLOSED = datetime(2026, 11, 20, 10, 0, tzinfo=UTC), datetime(2026, 11, 20, 11, 0, tzinfo=UTC)
CHECKS = "SELECT DISTINCT rule, key #>> '{}', result FROM checks"
FOUND = "SELECT rule, type, key #>> '{}', currency, difference::text FROM discrepancies WHERE state = 'raised'"
REPORTS = "SELECT run_type, status, checks_total, checks_passed, checks_failed FROM reconciliation_reports"
FAILED = "SELECT check_type FROM reconciliation_checks WHERE NOT passed"
EXCEPTIONS = "SELECT check_type, key #>> '{}', currency, difference::text FROM reconciliation_exceptions WHERE resolved_at IS NULL"
SHOWN_WITHIN_S = 25
"""The readings wait 10 s for late movements (`settle`); the rest is what a loaded machine takes."""

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=3, inbox=2)]


def pack() -> Any:
    """The pack, with deadlines short enough for a test."""
    document = parse_yaml((ROOT / "shared/packs/stack/rules.yaml").read_text(), "rules.yaml")
    for rule in document["rules"]:
        if rule["kind"] == "match":
            rule["deadline"] = "3s"
    return validate_rules(document)


def day(until: datetime, start: datetime) -> list[dict[str, Any]]:
    """The clean day's events from `start` to before `until`, moved so that it ended a minute ago."""
    moved = datetime.now(UTC) - timedelta(minutes=1) - CLOSED
    found = []
    for line in (ROOT / "examples/stack/clean.jsonl").read_text().splitlines():
        event = json.loads(line)
        at = datetime.fromisoformat(event["occurred_at"])
        if start <= at < until:
            found.append(event | {"occurred_at": (at + moved).isoformat()})
    assert found
    return found


def posted(events: list[dict[str, Any]]) -> list[Event]:
    return [Event(0.0, "ledger", one["source"], one["id"], one) for one in events]


def now(source: str, type_: str, id_: str, amount: str, currency: str, **fields: Any) -> dict[str, Any]:
    event = {"source": source, "type": type_, "id": id_, "amount": amount, "currency": currency, **fields}
    return event | {"occurred_at": datetime.now(UTC).isoformat()}


def faults() -> list[dict[str, Any]]:
    """One for each check."""
    line = {"refs": {"transaction": "t9"}, "attrs": {"direction": "debit", "entries": "2"}}
    job = {"refs": {"conversion_job": "c9"}, "status": "completed"}
    return [
        now("ledger", "entry.costs", "t9-1", "1.20", "USD", account="custody_fees", **line),
        now(
            "ledger",
            "entry.payables",
            "t9-2",
            "1.02",
            "USD",
            account="payables",
            refs={"transaction": "t9"},
            attrs={"direction": "credit", "entries": "2"},
        ),
        now("circle", "balance.total", "total-2", "979.500000", "USDC", account="usdc_buffer", attrs={"accounts": "2"}),
        now("circle", "balance.user", "w2-2", "329.500000", "USDC", account="circle:w2", attrs={"accounts": "1"}),
        now("alpaca", "balance.total", "total-2", "5200.30", "USD", account="alpaca_exposure", attrs={"accounts": "2"}),
        now("alpaca", "balance.user", "a1-2", "3200.30", "USD", account="alpaca:a1", attrs={"accounts": "1"}),
        now("circle", "deposit.completed", "d9", "12.000000", "USDC", refs={"deposit_id": "d9"}),
        now("circle", "withdrawal.completed", "wd9", "7.000000", "USDC", refs={"withdrawal_id": "wd9"}),
        now("conversions", "conversion.completed", "c9-out", "50.000000", "USDC", attrs={"direction": "debit"}, **job),
    ]


async def test_six_checks_pass_on_a_clean_day_and_each_fails_on_its_fault(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """With the right amounts, within seconds."""
    async with prepared(kafka_settings, database_url, pack()) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        database = Database(database_url)
        async with ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET) as client:
            opening = day(until=OPENED + timedelta(seconds=1), start=OPENED)
            await client.send(posted(opening))
            accounts = {(check_rule(one), one["account"]) for one in opening}
            assert len(accounts) == 9
            await contain(database, CHECKS, {(*account, "opening") for account in accounts})
            await client.send(posted(day(until=CLOSED + timedelta(seconds=1), start=OPENED + timedelta(seconds=1))))
            passed = {(*account, "passed") for account in accounts}
            passed |= {("stack.ledger_consistency", f"t{number}", "passed") for number in range(1, 6)}
            await contain(database, CHECKS, passed)
            await become(database, FOUND, set())
            clean = await report_of_a_run(services.url("alerts"), services.keys["owner"])
            assert {one["check_type"]: (one["outcome"], one["discrepancy"]) for one in clean["checks"]} == {
                check: ("passed", {}) for check in CHECK_TYPES
            }
            began = time.monotonic()
            await client.send(posted(faults()))
            expected = {
                ("stack.ledger_consistency", "LedgerImbalance", "t9", "USD", "-0.18"),
                ("stack.circle_balance", "BalanceMismatch", "usdc_buffer", "USDC", "-10.000000"),
                ("stack.circle_balance.users", "BalanceMismatch", "circle:w2", "USDC", "-10.000000"),
                ("stack.alpaca_balance", "BalanceMismatch", "alpaca_exposure", "USD", "0.50"),
                ("stack.alpaca_balance.users", "BalanceMismatch", "alpaca:a1", "USD", "0.50"),
                ("stack.deposits", "MissingInternalRecord", "d9", "USDC", "12.000000"),
                ("stack.withdrawals", "MissingInternalRecord", "wd9", "USDC", "7.000000"),
                ("stack.conversion_jobs", "MissingInternalRecord", "c9", "USDC", "50.000000"),
            }
            await become(database, FOUND, expected)
            assert time.monotonic() - began < SHOWN_WITHIN_S
            failed = {row[0] for row in await rows(database, CHECKS) if row[2] == "failed"}
            assert failed == {one[0] for one in expected if one[1] in {"LedgerImbalance", "BalanceMismatch"}}
            assert {check_type_of(one[0]) for one in expected} == set(CHECK_TYPES)
            wrong = await report_of_a_run(services.url("alerts"), services.keys["owner"])
            assert {one["check_type"]: (one["outcome"], one["discrepancy"]) for one in wrong["checks"]} == {
                "ledger_consistency": ("failed", {"USD": "0.18"}),
                "circle_balance": ("failed", {"USDC": "10.000000"}),
                "alpaca_balance": ("failed", {"USD": "0.50"}),
                "deposits": ("failed", {"USDC": "12.000000"}),
                "withdrawals": ("failed", {"USDC": "7.000000"}),
                "conversion_jobs": ("failed", {"USDC": "50.000000"}),
            }
            # What operators ask by SQL: reports, their checks, and exceptions down to single users.
            assert await rows(database, REPORTS) == {("manual", "completed", 6, 6, 0), ("manual", "completed", 6, 0, 6)}
            assert {row[0] for row in await rows(database, FAILED)} == set(CHECK_TYPES)
            assert await rows(database, EXCEPTIONS) == {
                (check_type_of(rule), key, currency, difference) for rule, _, key, currency, difference in expected
            }
        await database.close()


async def report_of_a_run(address: str, key: str) -> dict[str, Any]:
    """Ask for a run of the day up to now, and return it once everything of it is stored."""
    admin = "/api/admin/reconciliation"
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30) as people:
        asked = await people.post(f"{admin}/run", json={"run_type": "manual"})
        assert asked.status_code == 201, asked.text
        for _ in range(300):
            answer = await people.get(f"{admin}/reports/{asked.json()['id']}")
            run: dict[str, Any] = answer.json()
            if run["status"] == "completed":
                assert run["report"]["checks"] == run["checks"]
                return run
            await asyncio.sleep(0.1)
    raise AssertionError(f"the run is {run['status']}: {run['error']}")


def check_rule(reading: dict[str, Any]) -> str:
    if reading["source"] == "ledger":
        return "stack.ledger_consistency.accounts"
    return f"stack.{reading['source']}_balance" + (".users" if reading["type"] == "balance.user" else "")
