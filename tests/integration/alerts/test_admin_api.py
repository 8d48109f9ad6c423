"""The stack pack's admin API and its names in SQL, letter for letter, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.domain.period import Span
from services.alerts.handlers.http import create_app
from services.alerts.handlers.http.admin import router
from services.alerts.handlers.scheduler import declare_counters, show_gauges
from services.alerts.ports.runs import NewRun
from services.alerts.use_cases.runs import MANUAL_SPAN, Runs
from services.alerts.use_cases.triage import Triage
from shared.telemetry.health import Health
from tests.integration.alerts.runs_desk import LATER, Desk, open_desk
from tests.integration.alerts.stored_month import Month, discrepancy, item, on_item
from tests.integration.alerts.test_schedule import store_check

pytestmark = pytest.mark.postgres
ADMIN = "/api/admin/reconciliation"
RULES = {"stack.deposits": "match", "stack.circle_balance": "balance"}


class Admin:
    """The API with a clock that a test moves."""

    def __init__(self, desk: Desk, client: httpx.AsyncClient, runs: Runs) -> None:
        self.desk = desk
        self.client = client
        self.runs = runs
        self.keys: dict[str, dict[str, str]] = {"": {}}

    async def call(self, method: str, path: str, role: str = "manager", **given: Any) -> httpx.Response:
        if role not in self.keys:
            self.keys[role] = await self.desk.key(role)  # type: ignore[arg-type]  # tests write it as text
        return await self.client.request(method, ADMIN + path, headers=self.keys[role], **given)


class InForce:
    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        return {("acme", "stack"): RULES}

    async def shape(self, *_: str) -> None:
        return None


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    async with open_desk(database_url) as desk:
        directory = PostgresDirectory(desk.database)

        def now() -> datetime:
            desk.now += timedelta(milliseconds=1)
            return desk.now

        runs = Runs(PostgresRuns(desk.database), directory, desk, now, wait_s=0.0, rules=InForce())
        triage = Triage(PostgresTriage(desk.database), InForce(), now)
        app = create_app([router(runs, triage)], directory, Health(["database"]))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
            admin = Admin(desk, client, runs)
            admin.keys["manager"] = await desk.key("manager")
            yield admin


async def exceptions(desk: Desk) -> Month:
    """Two deposits with breaks, one critical, one low."""
    found = Month()
    for number, severity in ((1, "critical"), (2, "low")):
        of = item(number, at=LATER - timedelta(hours=2), internal=[1000], provider=[900], status="discrepant")
        of = msgspec.structs.replace(of, rule="stack.deposits", pack="stack")
        raised = discrepancy(of, "AmountMismatch", -100, severity=severity)  # type: ignore[arg-type]
        found.discrepancies.append(msgspec.structs.replace(raised, pack="stack", rule="stack.deposits"))
        found.items.append(msgspec.structs.replace(of, discrepancies=[on_item(raised)]))
    await desk.store(found, LATER + timedelta(seconds=10))
    return found


async def test_a_manual_run_looks_at_the_day_up_to_now_and_is_listed_and_shown_with_its_checks(admin: Admin) -> None:
    await exceptions(admin.desk)
    await store_check(admin.desk, "stack.circle_balance", "w1", "passed", LATER - timedelta(hours=1))

    made = await admin.call("POST", "/run", json={"run_type": "manual"})

    assert made.status_code == 201, made.text
    run = made.json()
    assert (run["run_type"], run["status"], run["pack"]) == ("manual", "completed", "stack")
    assert (run["checks_total"], run["checks_passed"], run["checks_failed"]) == (2, 1, 1)
    start, end = (datetime.fromisoformat(run[name]) for name in ("period_start", "period_end"))
    assert end - start == MANUAL_SPAN
    assert end == LATER + timedelta(milliseconds=1)
    assert run["requested_by"] == "manager (tk_manageracme)"
    listed = (await admin.call("GET", "/reports", params={"run_type": "manual"})).json()
    assert (listed["data"], listed["next_cursor"]) == ([run], None)
    assert (await admin.call("GET", "/reports", params={"pack": "billing"})).json()["data"] == []
    shown = (await admin.call("GET", f"/reports/{run['id']}")).json()
    assert {name: shown[name] for name in run} == run
    checks = {one["check_type"]: (one["passed"], one["discrepancy"]) for one in shown["checks"]}
    assert checks == {"circle_balance": (True, {}), "deposits": (False, {"EUR": "2.00"})}
    assert shown["report"]["reports"]["stack.deposits"]["items"]["discrepant"] == 2
    assert shown["report"]["checks"] == shown["checks"]


async def test_a_run_while_another_one_runs_is_refused_with_which_one(admin: Admin) -> None:
    """Nothing is stored yet, so the first one has no report; once it has, the next may run."""
    first = (await admin.call("POST", "/run", json={"run_type": "manual"})).json()
    assert first["status"] == "running"

    second = await admin.call("POST", "/run", json={"run_type": "manual"})

    assert (second.status_code, second.json()["type"]) == (409, "urn:tieout:problem:run-under-way")
    assert second.json()["running"]["id"] == first["id"]
    assert first["id"] in second.json()["detail"]
    assert "progress of every partition" in second.json()["detail"]
    await admin.desk.store(Month(), LATER + timedelta(seconds=10))
    admin.desk.now += timedelta(seconds=5)
    await admin.runs.advance_unfinished()
    assert (await admin.call("POST", "/run", json={"run_type": "manual"})).status_code == 201


async def test_manual_runs_at_the_same_moment_are_one_and_the_others_are_refused(admin: Admin) -> None:
    headers = await admin.desk.key("owner")
    answers = await asyncio.gather(
        *(admin.client.post(f"{ADMIN}/run", json={"run_type": "manual"}, headers=headers) for _ in range(5))
    )

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_a_scheduled_run_that_is_under_way_refuses_a_manual_one_too(admin: Admin) -> None:
    hour = Span(LATER - timedelta(hours=1), LATER, "UTC")
    run, _ = await admin.runs.store.open(NewRun("acme", "stack", hour, "schedule", "scheduler", "hourly", LATER))

    answer = await admin.call("POST", "/run", json={"run_type": "manual"})

    assert (answer.status_code, answer.json()["running"]["run_type"]) == (409, "hourly")
    assert answer.json()["running"]["id"] == run.id


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"run_type": "hourly"}, 422),
        ({}, 422),
        ({"run_type": "manual", "period": "2026-11"}, 422),
        ({"run_type": "manual", "pack": "nowhere"}, 404),
    ],
)
async def test_a_wrong_run_is_refused(admin: Admin, body: dict[str, str], status: int) -> None:
    answer = await admin.call("POST", "/run", json=body)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_exceptions_are_listed_resolved_once_and_stay_so_in_sql(admin: Admin) -> None:
    [critical, low] = [one.id for one in (await exceptions(admin.desk)).discrepancies]
    listed = (await admin.call("GET", "/exceptions", params={"severity": "critical"})).json()["data"]
    assert [(one["id"], one["check_type"], one["severity"], one["resolved_at"]) for one in listed] == [
        (critical, "deposits", "critical", None)
    ]
    assert (listed[0]["difference"], listed[0]["currency"]) == ("-1.00", "EUR")

    body = {"resolved_by": "j.doe", "notes": "booked by hand"}
    resolved = await admin.call("PUT", f"/exceptions/{critical}/resolve", json=body)
    again = await admin.call("PUT", f"/exceptions/{critical}/resolve", json=body)

    assert resolved.status_code == 200, resolved.text
    assert (resolved.json()["status"], resolved.json()["resolution"]) == ("resolved", "accepted")
    assert resolved.json()["resolved_at"] is not None
    assert (again.status_code, again.json()["current_status"]) == (409, "resolved")
    async with admin.desk.database.transaction("acme") as connection:
        rows = (await connection.execute(text(
            "SELECT id::text, severity, resolved_at IS NULL, resolved_by, notes, check_type, created_at "
            "FROM reconciliation_exceptions ORDER BY severity"
        ))).all()  # fmt: skip
    assert [tuple(row)[:6] for row in rows] == [
        (critical, "critical", False, "j.doe, by manager (tk_manageracme)", "booked by hand", "deposits"),
        (low, "low", True, None, None, "deposits"),
    ]
    async with admin.desk.database.transaction("other") as connection:
        assert (await connection.execute(text("SELECT 1 FROM reconciliation_exceptions"))).all() == []


async def test_what_does_not_exist_or_is_another_organisations_is_not_found(admin: Admin) -> None:
    [one, _] = (await exceptions(admin.desk)).discrepancies
    stranger = await admin.desk.key("owner", org="other")
    body = {"resolved_by": "x", "notes": "y"}

    for path in (f"/exceptions/{one.id}/resolve", "/exceptions/7/resolve"):
        answer = await admin.client.put(ADMIN + path, json=body, headers=stranger)
        assert answer.status_code == 404
    assert (await admin.call("GET", "/reports/nothing")).status_code == 404
    assert (await admin.call("PUT", f"/exceptions/{one.id}/resolve", json={"notes": "who?"})).status_code == 422


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 200), ("manager", 200), ("viewer", 403), ("ingest", 403), ("", 401)]
)
async def test_only_owners_and_managers_come_in(admin: Admin, role: str, status: int) -> None:
    for path in ("/reports", "/exceptions"):
        assert (await admin.call("GET", path, role)).status_code == status
    made = await admin.call("POST", "/run", role, json={"run_type": "manual"})
    assert made.status_code == (201 if status == 200 else status)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_metrics_count_a_run_and_its_checks_once_and_show_what_is_open(admin: Admin) -> None:
    declare_counters()
    assert REGISTRY.get_sample_value("reconciliation_runs_total", {"status": "failed"}) is not None
    names = [f"reconciliation_checks{name}_total" for name in ("", "_passed", "_failed")]
    before = [sample(name) for name in names]
    completed = sample("reconciliation_runs_total", status="completed")
    timed = sample("reconciliation_run_duration_seconds_count")
    await exceptions(admin.desk)
    await store_check(admin.desk, "stack.circle_balance", "w1", "passed", LATER - timedelta(hours=1))

    await admin.call("POST", "/run", json={"run_type": "manual"})
    admin.desk.now += timedelta(minutes=5)
    await admin.runs.advance_unfinished()
    async with admin.desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(text("UPDATE runs SET counted_at = now()"))
    showing = asyncio.create_task(show_gauges(admin.runs.store, Health(["database"])))
    await asyncio.wait([showing], timeout=2)
    showing.cancel()

    assert [sample(name) - old for name, old in zip(names, before, strict=True)] == [2, 1, 1]
    assert sample("reconciliation_runs_total", status="completed") - completed == 1
    assert sample("reconciliation_run_duration_seconds_count") - timed == 1
    assert sample("reconciliation_discrepancy_amount", check_type="deposits") == 2.0
    assert sample("reconciliation_exceptions_unresolved", severity="critical") == 1
    assert sample("reconciliation_exceptions_unresolved", severity="high") == 0
