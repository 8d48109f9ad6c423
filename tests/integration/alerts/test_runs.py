"""Runs on a real PostgreSQL: figures are the sums of what is stored, one run per period, final once complete."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr

from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.report_rows import PostgresReportRows
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.domain.names import name_id
from services.alerts.handlers.http import create_app
from services.alerts.handlers.http.runs import router
from services.alerts.ports.sink import Batch, Place
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.sink import store
from shared.contracts.not_reconciled import NotReconciledEvent
from shared.telemetry.health import Health
from tests.integration.alerts.runs_desk import LATER, NOVEMBER, TOKEN, Desk, open_desk
from tests.integration.alerts.stored_month import (
    Month,
    amount,
    discrepancy,
    generated_month,
    item,
    on_item,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as desk:
        yield desk


async def test_the_report_of_a_generated_month_is_the_sum_of_what_is_stored(desk: Desk) -> None:
    month = generated_month(4000)
    manager = await desk.key("manager")
    await desk.store(month, LATER + timedelta(seconds=10))

    answer = await desk.trigger(manager)

    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert (run["status"], run["provisional"], run["error"]) == ("completed", False, None)
    report = (await desk.report(manager, run["id"]))["reportJson"]
    assert report["verdict"] == "complete"
    assert list(report["reports"]) == ["billing.payments", "billing.refunds"]
    for rule, sums in month.sums.items():
        figures = report["reports"][rule]
        assert figures["items"]["total"] == sums.items
        assert figures["items"]["matched"] == sums.matched
        assert list(figures["totals"]) == ["internal", "provider"]
        assert figures["residual"] == {"EUR": "0.00", "USD": "0.00"}
        for currency in ("EUR", "USD"):
            for side in ("internal", "provider"):
                expected = {"count": sums.count[side, currency], "amount": amount(sums.cents[side, currency])}
                assert figures["totals"][side][currency] == expected
            gap = sum(Decimal(one) for one in figures["gaps"][currency].values())
            cents = sums.cents["provider", currency] - sums.cents["internal", currency]
            assert str(gap) == amount(cents)
        for (type_, currency), cents in sums.differences.items():
            assert figures["gaps"][currency][type_] == amount(cents)
        closing = sum(row["closing"] for types in figures["open"].values() for row in types.values())
        assert closing == sum(one.rule == rule for one in month.discrepancies)


async def test_the_same_period_twice_is_the_same_run_and_asks_the_matcher_once(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(20), LATER + timedelta(seconds=10))

    first = await desk.trigger(manager)
    second = await desk.trigger(manager, {"start": "2026-10-01", "end": "2026-11-01"})

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert len(desk.cuts) == 1


async def test_triggers_at_the_same_moment_make_one_run(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(20), LATER + timedelta(seconds=10))

    answers = await asyncio.gather(*(desk.trigger(manager) for _ in range(5)))

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]


async def test_a_run_is_provisional_until_progress_is_past_period_and_cut_then_final(desk: Desk) -> None:
    """It completes through the scheduler alone, and what comes later leaves it as it is."""
    manager = await desk.key("manager")
    await desk.store(generated_month(30), LATER, matches_1=NOVEMBER)
    run = (await desk.trigger(manager)).json()
    assert (run["status"], run["provisional"]) == ("running", True)

    desk.now += timedelta(seconds=5)
    await desk.store(Month(), LATER)  # past the period's end, not past the cut
    assert await desk.runs.advance_unfinished() == 0
    desk.now += timedelta(seconds=5)
    await desk.store(Month(), LATER + timedelta(seconds=1))
    assert await desk.runs.advance_unfinished() == 1
    final = await desk.report(manager, run["id"])
    assert final["run"]["status"] == "completed"

    late = item(
        999_999, at=NOVEMBER - timedelta(hours=1), internal=[100], provider=[100], status="matched", made_at=LATER
    )
    await desk.store(Month(items=[late]), LATER + timedelta(days=1))
    desk.now += timedelta(days=1)
    assert await desk.runs.advance_unfinished() == 0
    assert (await desk.trigger(manager)).json()["id"] == run["id"]
    assert await desk.report(manager, run["id"]) == final


async def test_a_pending_item_keeps_the_run_provisional_until_it_is_judged(desk: Desk) -> None:
    manager = await desk.key("manager")
    at = NOVEMBER - timedelta(hours=2)
    pending = item(1, at=at, internal=[4000], provider=[], status="pending")
    await desk.store(Month(items=[pending]), LATER + timedelta(seconds=1))
    run = (await desk.trigger(manager)).json()
    first = (await desk.report(manager, run["id"]))["reportJson"]["reports"]["billing.payments"]
    assert (run["status"], first["gaps"]) == ("running", {"EUR": {"pending": "-40.00"}})

    matched = item(
        1, at=at, internal=[4000], provider=[4000], status="matched", revision=2, made_at=LATER + timedelta(minutes=1)
    )
    await desk.store(Month(items=[matched]), LATER + timedelta(minutes=2))
    desk.now += timedelta(minutes=2)

    assert await desk.runs.advance_unfinished() == 1
    final = (await desk.report(manager, run["id"]))["reportJson"]["reports"]["billing.payments"]
    assert (final["verdict"], final["gaps"], final["items"]["matched"]) == ("complete", {}, 1)


async def test_figures_stand_at_one_log_time_whatever_is_stored_beyond_it(desk: Desk) -> None:
    """A partition that is ahead of the others does not let its newer revisions into the run."""
    manager = await desk.key("manager")
    at = NOVEMBER - timedelta(hours=2)
    old = item(1, at=at, internal=[4000], provider=[4000], status="matched")
    ahead = LATER + timedelta(seconds=30)
    withdrawn = item(1, at=at, internal=[4000], provider=[], status="pending", revision=2, made_at=ahead)
    await desk.store(
        Month(items=[old, withdrawn]), ahead + timedelta(seconds=1), checks_0=LATER + timedelta(seconds=10)
    )

    run = (await desk.trigger(manager)).json()

    report = (await desk.report(manager, run["id"]))["reportJson"]
    assert report["reports"]["billing.payments"]["items"]["matched"] == 1
    assert (run["status"], report["at"]) == ("completed", "2026-11-02T06:00:09.999000Z")


async def test_a_change_in_a_complete_month_stands_in_the_next_run_and_only_there(desk: Desk) -> None:
    manager = await desk.key("manager")
    at = NOVEMBER - timedelta(days=3)
    of = item(1, at=at, internal=[10000], provider=[], status="discrepant")
    raised = discrepancy(of, "MissingProviderRecord", -10000)
    await desk.store(
        Month(items=[msgspec.structs.replace(of, discrepancies=[on_item(raised)])], discrepancies=[raised]),
        LATER + timedelta(seconds=1),
    )
    october = (await desk.trigger(manager)).json()
    assert october["status"] == "completed"

    healed_at = LATER + timedelta(days=9)
    healed = item(1, at=at, internal=[10000], provider=[10000], status="matched", revision=2, made_at=healed_at)
    resolved = discrepancy(of, "MissingProviderRecord", -10000, state="resolved", revision=2, at=healed_at)
    desk.now = datetime(2026, 12, 2, tzinfo=UTC)
    await desk.store(Month(items=[healed], discrepancies=[resolved]), desk.now + timedelta(seconds=1))
    november = (await desk.trigger(manager, "2026-11")).json()
    desk.now = datetime(2027, 1, 2, tzinfo=UTC)
    await desk.store(Month(), desk.now + timedelta(seconds=1))
    december = (await desk.trigger(manager, "2026-12")).json()

    figures = (await desk.report(manager, november["id"]))["reportJson"]["reports"]["billing.payments"]
    assert figures["items"]["total"] == 0
    assert figures["open"]["EUR"]["MissingProviderRecord"]["cleared"] == 1
    [change] = figures["prior_period"]
    assert (change["key"], change["was"], change["now"], change["gap_change"], change["period"]) == (
        "p1", "discrepant", "matched", {"EUR": "100.00"}, "2026-10",
    )  # fmt: skip
    last = (await desk.report(manager, december["id"]))["reportJson"]["reports"]
    assert last == {}
    assert [run["status"] for run in (october, november, december)] == ["completed"] * 3


async def test_kafka_being_away_leaves_the_run_provisional_and_the_scheduler_asks_again(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER + timedelta(hours=1))
    desk.kafka_away = True
    run = (await desk.trigger(manager)).json()
    assert (run["status"], desk.cuts) == ("running", [])

    desk.kafka_away = False
    desk.now += timedelta(minutes=1)

    assert await desk.runs.advance_unfinished() == 1
    assert len(desk.cuts) == 1


async def test_a_period_that_goes_on_is_provisional_and_cut_again_after_its_end(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER)
    run = (await desk.trigger(manager, "2026-11")).json()
    assert run["status"] == "running"
    assert "The period goes on until 2026-12-01" in (await desk.report(manager, run["id"]))["reportMarkdown"]

    desk.now = datetime(2026, 12, 1, 0, 10, tzinfo=UTC)
    await desk.store(Month(), desk.now + timedelta(seconds=1))

    assert await desk.runs.advance_unfinished() == 1
    assert len(desk.cuts) == 2


async def test_without_progress_of_every_partition_there_is_no_report_and_the_reason_is_told(desk: Desk) -> None:
    manager = await desk.key("manager")
    run = (await desk.trigger(manager)).json()

    answer = await desk.client.get(f"/billing/reconciliation/runs/{run['id']}/report", headers=manager)

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tieout:problem:report-not-ready")
    assert "progress" in answer.json()["detail"]


async def test_markdown_is_answered_where_it_is_accepted(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(50), LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()

    answer = await desk.client.get(
        f"/billing/reconciliation/runs/{run['id']}/report", headers={**manager, "Accept": "text/markdown"}
    )

    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text.startswith("# Reconciliation of acme: October 2026\n\n**Complete.**")
    assert (await desk.report(manager, run["id"]))["reportMarkdown"] == answer.text


async def test_runs_are_listed_newest_first_page_by_page_and_per_organisation(desk: Desk) -> None:
    manager = await desk.key("manager")
    stranger = await desk.key("owner", org="other")
    made = [(await desk.trigger(manager, f"2026-10-{day:02d}")).json()["id"] for day in range(1, 6)]

    ids, cursor = [], None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        answer = (await desk.client.get("/billing/reconciliation/runs", params=query, headers=manager)).json()
        ids += [run["id"] for run in answer["data"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break

    assert ids == made[::-1]
    assert (await desk.client.get("/billing/reconciliation/runs", headers=stranger)).json()["data"] == []
    answer = await desk.client.get(f"/billing/reconciliation/runs/{made[0]}/report", headers=stranger)
    assert answer.status_code == 404
    answer = await desk.client.get("/billing/reconciliation/runs", params={"cursor": "WyJhIl0"}, headers=manager)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tieout:problem:bad-cursor")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"period": "2026-12"}, 422, "lies in the future"),
        ({"period": {"start": "2026-10-02", "end": "2026-10-01"}}, 422, "not after its start"),
        ({"period": "October"}, 422, "is no day"),
        ({"period": 202610}, 422, "period"),
        ({}, 422, "period"),
        ({"period": "2026-10", "organisation": "acme"}, 422, "organisation"),
        ({"period": "2026-10", "org": "other"}, 403, "another organisation"),
    ],
)
async def test_a_wrong_trigger_is_refused_with_the_reason(desk: Desk, body: dict, status: int, says: str) -> None:
    manager = await desk.key("manager")

    answer = await desk.client.post("/billing/reconciliation/runs/trigger", json=body, headers=manager)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert (await desk.client.get("/billing/reconciliation/runs", headers=manager)).json()["data"] == []


async def test_only_owner_and_manager_may_run_and_read(desk: Desk) -> None:
    for role, status in (("owner", 201), ("manager", 200), ("viewer", 403), ("ingest", 403)):
        headers = await desk.key(role)
        assert (await desk.trigger(headers)).status_code == status
        assert (await desk.client.get("/billing/reconciliation/runs", headers=headers)).status_code in {200, status}
    assert (await desk.trigger({})).status_code == 401


async def test_the_daily_run_makes_yesterday_in_each_zone_and_a_repeat_answers_the_same_runs(desk: Desk) -> None:
    """At 12:30 UTC on 1 November it is already the 2nd in Auckland, so yesterday is another day there."""
    await desk.key("owner", org="acme")
    await desk.key("owner", org="kiwi", zone="Pacific/Auckland")
    desk.now = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    headers = {"x-reconciliation-token": TOKEN}

    first = await desk.client.post("/billing/reconciliation/runs/daily", headers=headers)
    second = await desk.client.post("/billing/reconciliation/runs/daily", headers=headers, json={})

    assert (first.status_code, second.status_code) == (200, 200)
    assert [run["id"] for run in first.json()["runs"]] == [run["id"] for run in second.json()["runs"]]
    assert [(run["org"], run["period"]["start"], run["trigger"]) for run in first.json()["runs"]] == [
        ("acme", "2026-10-31", "daily"),
        ("kiwi", "2026-11-01", "daily"),
    ]


async def test_the_daily_run_takes_one_organisation_and_a_period(desk: Desk) -> None:
    await desk.key("owner", org="acme")
    await desk.key("owner", org="other")
    headers = {"x-reconciliation-token": TOKEN}

    async def daily(**body: Any) -> httpx.Response:
        return await desk.client.post("/billing/reconciliation/runs/daily", headers=headers, json=body)

    [run] = (await daily(org="other", period="2026-10-07")).json()["runs"]
    assert (run["org"], run["period"]["start"], run["period"]["end"]) == ("other", "2026-10-07", "2026-10-08")
    assert (await daily(org="nobody")).status_code == 404
    assert (await daily(org="acme", period="2027-01")).status_code == 422
    both = (await daily(period="2026-11-02")).json()
    assert [one["org"] for one in both["runs"]] == ["acme", "other"]
    none = (await daily(period="2026-11-03")).json()
    assert (none["runs"], [one["org"] for one in none["failed"]]) == ([], ["acme", "other"])


@pytest.mark.parametrize("given", [None, "", "wrong", "daily-secre", "daily-secret2", "töken"])
async def test_a_missing_or_wrong_token_is_refused(desk: Desk, given: str | None) -> None:
    await desk.key("owner")
    headers = {} if given is None else {"x-reconciliation-token": given.encode("latin-1")}

    answer = await desk.client.post("/billing/reconciliation/runs/daily", headers=headers)

    assert (answer.status_code, answer.json()["type"]) == (401, "urn:tieout:problem:unauthorized")
    assert TOKEN not in answer.text


@pytest.mark.parametrize("token", [None, SecretStr("")])
async def test_without_a_token_in_the_settings_the_daily_run_is_off(desk: Desk, token: SecretStr | None) -> None:
    reports = RunReports(desk.runs.store, PostgresReportRows(desk.database))
    app = create_app([router(desk.runs, reports, token)], PostgresDirectory(desk.database), Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
        answer = await client.post("/billing/reconciliation/runs/daily", headers={"x-reconciliation-token": ""})

    assert (answer.status_code, answer.json()["type"]) == (404, "urn:tieout:problem:not-found")


def unselected(name: str, occurred_at: datetime, **changes: Any) -> NotReconciledEvent:
    values: dict[str, Any] = {
        "org": "acme",
        "source": "crm",
        "type": "lead.created",
        "event_id": name_id(name),
        "occurred_at": occurred_at,
        "received_at": NOVEMBER,
    }
    return NotReconciledEvent(**values | changes)


async def test_events_that_no_rule_selects_are_counted_by_source_and_type_in_the_days_of_the_orgs_zone(
    desk: Desk,
) -> None:
    """From the period's first instant up to, not including, its end; each event once; never those of another org."""
    manager = await desk.key("manager", zone="Europe/Berlin")
    start, end = datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)
    instant = timedelta(microseconds=1)
    events = [
        unselected("before", start - instant),
        unselected("first", start),
        unselected("first", start),
        unselected("last", end - instant),
        unselected("after", end),
        unselected("other type", start, type="lead.lost"),
        unselected("other source", start, source="app"),
        unselected("other org", start, org="other"),
        unselected("received after what the report knows", start, received_at=LATER + timedelta(days=1)),
    ]
    sink = PostgresSink(desk.database)
    await store(sink, Batch(spans=[], not_reconciled=events), LATER)
    await store(sink, Batch(spans=[], not_reconciled=events[:3]), LATER)
    await desk.store(generated_month(5), LATER + timedelta(seconds=10))

    report = await desk.report(manager, (await desk.trigger(manager)).json()["id"])

    assert report["reportJson"]["not_reconciled"] == [
        {"source": "app", "type": "lead.created", "count": 1},
        {"source": "crm", "type": "lead.created", "count": 2},
        {"source": "crm", "type": "lead.lost", "count": 1},
    ]
    assert "| crm | lead.created | 2 |" in report["reportMarkdown"]


async def test_a_period_in_which_rules_selected_every_event_says_so(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER + timedelta(seconds=10))

    report = await desk.report(manager, (await desk.trigger(manager)).json()["id"])

    assert report["reportJson"]["not_reconciled"] == []
    assert "A rule selected every event of the period." in report["reportMarkdown"]


async def test_a_period_does_not_wait_for_partitions_of_not_reconciled(desk: Desk) -> None:
    """That topic has other partitions than legs, and no progress."""
    manager = await desk.key("manager")
    places = dict.fromkeys([Place("not-reconciled", number) for number in range(20)], 0)
    await PostgresSink(desk.database).open_places(places, {})
    await desk.store(generated_month(5), LATER + timedelta(seconds=10))

    run = (await desk.trigger(manager)).json()

    assert (run["status"], run["provisional"]) == ("completed", False)


async def test_a_stored_item_that_cannot_be_read_fails_its_run_only_and_says_so(desk: Desk) -> None:
    manager = await desk.key("manager")
    broken = item(1, at=NOVEMBER - timedelta(hours=1), internal=[100], provider=[], status="pending")
    sides = {
        "internal": msgspec.structs.replace(broken.sides["internal"], adjustments={"EUR": "ten"}),
        "provider": None,
    }
    await desk.store(Month(items=[msgspec.structs.replace(broken, sides=sides)]), LATER + timedelta(seconds=10))

    run = (await desk.trigger(manager)).json()
    other = (await desk.trigger(manager, "2026-10-02")).json()

    assert (run["status"], "ten" in run["error"]) == ("failed", True)
    assert other["status"] == "completed"


async def test_another_process_that_has_the_run_in_hand_is_not_disturbed(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER - timedelta(hours=1))
    run = await desk.runs.store.run("acme", (await desk.trigger(manager)).json()["id"])
    assert run is not None
    await desk.store(Month(), LATER + timedelta(hours=1))

    async with desk.runs.store.in_hand(run) as mine:
        assert mine is not None
        same = await desk.runs.advance(run)
    assert (same.status, (await desk.runs.advance(run)).status) == ("running", "completed")


async def test_the_report_json_keeps_the_order_and_text_of_its_figures(desk: Desk) -> None:
    """`reportJson` stands in the answer byte for byte as it was computed."""
    manager = await desk.key("manager")
    await desk.store(generated_month(40), LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()

    stored = await desk.runs.store.report("acme", run["id"])
    answer = await desk.client.get(f"/billing/reconciliation/runs/{run['id']}/report", headers=manager)

    assert stored is not None
    assert stored.json in answer.text
    assert list(json.loads(stored.json))[:4] == ["version", "org", "period", "at"]
