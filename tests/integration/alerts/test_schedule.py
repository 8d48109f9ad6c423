"""A scheduler's days on a real PostgreSQL: every run exactly once, over changes of the clock, a kill and downtime."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, select, text, update

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.report_rows import PostgresReportRows
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.adapters.tables import checks, items, runs
from services.alerts.domain.period import day_period
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.runs import UNFINISHED_MAX
from shared.contracts.item import ItemDiscrepancy
from shared.kafka.errors import KafkaAway
from shared.packs.stack import rules_of_checks
from shared.rules.load import load_rules
from tests.integration.alerts.runs_desk import Desk, open_desk
from tests.integration.alerts.stored_month import Month, item
from tests.support import simulated_scheduler
from tests.support.results import uid
from tests.support.simulated_scheduler import Clock, go, simulated

pytestmark = pytest.mark.postgres

ZONE = "Europe/Berlin"
HOUR = timedelta(hours=1)
ROOT = Path(__file__).parents[3]
KILL_TIMEOUT_S = 90


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as desk:
        yield desk


def deposits(start: datetime, end: datetime, every: timedelta) -> Month:
    """One deposit per `every`, matched but for each fifth, whose broker side is 7 cents short."""
    made, number, at = Month(), 0, start
    while at < end:
        cents, short = 1_000 + number, 7 if number % 5 == 0 else 0
        one = item(
            number, at=at, internal=[cents], provider=[cents - short], status="discrepant" if short else "matched"
        )
        found = ItemDiscrepancy(id=one.id, type="AmountMismatch", side="provider", difference="-0.07", currency="EUR")
        raised = [found] if short else []
        made.items.append(msgspec.structs.replace(one, rule="stack.deposits", pack="stack", discrepancies=raised))
        number, at = number + 1, at + every
    return made


async def stored_runs(desk: Desk, run_type: str) -> list[Any]:
    query = select(runs).where(runs.c.run_type == run_type).order_by(runs.c.period_start)
    async with desk.database.transaction(EVERY_ORG) as connection:
        return list(await connection.execute(query))


async def child(url: str, *given: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        simulated_scheduler.__name__,
        url,
        *given,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
async def test_a_day_on_which_the_clock_changes_with_a_kill_in_the_middle_of_a_run(
    desk: Desk, database_url: str, day: str, hours: int
) -> None:
    """Every hour and day once, each complete; figures of the reports are the sums of what is stored."""
    period = day_period(date.fromisoformat(day), ZONE)
    desk.now = period.start - 3 * HOUR
    await desk.key("owner", zone=ZONE)
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(text("UPDATE orgs SET created_at = :at"), {"at": period.start - 3 * HOUR})
    month = deposits(period.start - HOUR, period.end + 3 * HOUR, timedelta(minutes=17))
    await desk.store(month, period.start - 3 * HOUR)
    hang = (period.start + 9 * HOUR).isoformat()

    first = await child(
        database_url, (period.start - HOUR / 2).isoformat(), (period.end + 3 * HOUR).isoformat(), "20", hang
    )
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            assert first.stdout is not None
            while not (line := (await first.stdout.readline()).decode()).startswith("computing"):
                assert line, "the scheduler ended before it was killed"
    finally:
        first.send_signal(signal.SIGKILL)
        await first.wait()
    killed = line.split()[1]
    # Nobody runs for four hours; then another scheduler comes, and goes on past the end of the day.
    clock = Clock(period.start + 13 * HOUR)
    await go(desk.database, clock, period.end + 3 * HOUR, timedelta(minutes=20), simulated(desk.database, clock))

    hourly = [one for one in await stored_runs(desk, "hourly") if period.start <= one.period_start < period.end]
    [daily] = [one for one in await stored_runs(desk, "daily") if one.period_start >= period.start]
    assert len(hourly) == hours
    assert (hourly[0].period_start, hourly[-1].period_end) == (period.start, period.end)
    assert all(before.period_end == after.period_start for before, after in pairwise(hourly))
    assert Counter(one.status for one in [*hourly, daily]) == {"completed": hours + 1}
    assert killed in {str(one.id) for one in hourly}
    assert (daily.period_start, daily.period_end) == (period.start, period.end)
    await _reports_are_the_items(desk, month, [*hourly, daily])


async def _reports_are_the_items(desk: Desk, month: Month, found: list[Any]) -> None:
    for run in found:
        inside = [one for one in month.items if run.period_start <= one.occurred_at < run.period_end]
        figures = run.report_json["reports"]["stack.deposits"]
        short = sum(one.status == "discrepant" for one in inside)
        assert figures["items"] == {
            "total": len(inside), "matched": len(inside) - short, "discrepant": short, "pending": 0,
        }  # fmt: skip
        for side in ("internal", "provider"):
            total = sum(Decimal(one.sides[side].totals["EUR"].amount) for one in inside)
            assert Decimal(figures["totals"][side]["EUR"]["amount"]) == total
        [check] = run.summary["checks"]
        assert (check["check_type"], check["passed"], check["discrepant"]) == ("deposits", short == 0, short)
        assert check["discrepancy"] == ({"EUR": f"{Decimal(7 * short) / 100:.2f}"} if short else {})
        await _items_are_the_reports(desk, str(run.id), figures)


async def _items_are_the_reports(desk: Desk, run_id: str, figures: dict[str, Any]) -> None:
    """What a person takes away as CSV is what the run counted, to the cent."""
    run = await desk.runs.store.run("acme", run_id)
    assert run is not None
    async with RunReports(desk.runs.store, PostgresReportRows(desk.database)).item_rows(run) as found:
        names, *rows = [row async for row in found]
    taken = [dict(zip(names, row, strict=True)) for row in rows]
    assert len(taken) == figures["items"]["total"]
    for side, column in (("internal", "expected_amount"), ("provider", "actual_amount")):
        assert sum(Decimal(row[column]) for row in taken) == Decimal(figures["totals"][side]["EUR"]["amount"])


async def test_two_schedulers_at_once_make_every_run_once_and_only_one_of_them_runs(desk: Desk) -> None:
    start = datetime(2026, 11, 20, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start)
    clock = Clock(start)
    replicas = [simulated(desk.database, clock) for _ in range(3)]
    for _ in range(12):
        clock.now += HOUR / 2
        await desk.store(Month(), clock.now + timedelta(seconds=2))
        await asyncio.gather(*(one.round() for one in replicas))

    found = await stored_runs(desk, "hourly")

    assert [one.period_start for one in found] == [start + n * HOUR for n in range(6)]
    async with PostgresRuns(desk.database).runner() as first, PostgresRuns(desk.database).runner() as second:
        assert (first, second) == (True, False)
    async with PostgresRuns(desk.database).runner() as again:
        assert again


async def _created(desk: Desk, at: datetime) -> None:
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(text("UPDATE orgs SET created_at = :at"), {"at": at})


async def test_what_downtime_missed_is_caught_up_the_oldest_first_and_nothing_from_before_the_schedule(
    desk: Desk,
) -> None:
    start = datetime(2026, 11, 10, 12, 10, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start - timedelta(days=90))
    clock = Clock(start)
    await simulated(desk.database, clock).round()
    clock.now += timedelta(days=3)
    await simulated(desk.database, clock).round()

    hourly, daily = await stored_runs(desk, "hourly"), await stored_runs(desk, "daily")

    assert [one.period_end for one in hourly] == [datetime(2026, 11, 10, 12, tzinfo=UTC) + n * HOUR for n in range(73)]
    assert [one.period_start.day for one in daily] == [9, 10, 11, 12]
    made = sorted(hourly, key=lambda one: one.created_at)
    assert [one.period_start for one in made] == [one.period_start for one in hourly]


async def test_a_day_that_a_person_ran_is_not_run_again_and_the_ones_before_it_are(desk: Desk) -> None:
    manager = await desk.key("manager")
    await _created(desk, datetime(2026, 11, 1, tzinfo=UTC))
    clock = Clock(datetime(2026, 11, 5, 3, tzinfo=UTC))
    clock.in_force = _billing  # type: ignore[method-assign]
    await simulated(desk.database, clock).round()
    desk.now = clock.now = datetime(2026, 11, 9, 3, tzinfo=UTC)
    by_person = (await desk.trigger(manager, "2026-11-07")).json()
    await simulated(desk.database, clock).round()

    found = await stored_runs(desk, "daily")

    assert [one.period_start.day for one in found] == [4, 5, 6, 7, 8]
    assert [str(one.id) for one in found if one.trigger == "manual"] == [by_person["id"]]
    assert await stored_runs(desk, "hourly") == []


async def _billing() -> dict[tuple[str, str], dict[str, str]]:
    return {("acme", "billing"): {"billing.payments": "match"}, ("gone", "billing"): {"billing.payments": "match"}}


async def test_kafka_away_makes_nothing_new_completes_what_was_made_and_is_made_up_for(desk: Desk) -> None:
    start = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start)
    clock = Clock(start)
    scheduler = simulated(desk.database, clock)
    clock.now += HOUR
    await scheduler.round()
    here = clock.in_force

    async def away() -> dict[tuple[str, str], dict[str, str]]:
        raise KafkaAway("Kafka does not answer")

    clock.in_force = away  # type: ignore[method-assign]
    clock.now += 2 * HOUR
    await desk.store(Month(), clock.now + timedelta(seconds=2))
    assert await scheduler.round() == 1
    assert len(await stored_runs(desk, "hourly")) == 1

    clock.in_force = here  # type: ignore[method-assign]
    clock.now += timedelta(seconds=2)
    await scheduler.round()
    assert len(await stored_runs(desk, "hourly")) == 3


async def store_check(desk: Desk, rule: str, key: str, result: str, as_of: datetime, **given: Any) -> None:
    place = {"log_partition": 0, "log_offset": int(as_of.timestamp()), "log_time": as_of} | given
    row = {"id": uid(f"{rule}{key}{as_of}{given}"), "org": "acme", "rule": rule, "pack": "stack", "key": key,
           "result": result, "currency": "USDC", "as_of": as_of} | place  # fmt: skip
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(insert(checks).values(**row))


async def test_a_check_takes_the_last_verdict_of_every_account_in_the_period(desk: Desk) -> None:
    start = datetime(2026, 11, 20, 9, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start)
    minute = timedelta(minutes=1)
    await store_check(desk, "stack.circle_balance", "w1", "failed", start + minute, difference=Decimal(5))
    await store_check(desk, "stack.circle_balance", "w1", "passed", start + 9 * minute)
    await store_check(desk, "stack.circle_balance", "w2", "passed", start + 2 * minute)
    await store_check(desk, "stack.circle_balance", "w2", "failed", start + 59 * minute, difference=Decimal("-2.5"))
    await store_check(desk, "stack.circle_balance", "w2", "stale", start + 59.5 * minute)
    await store_check(desk, "stack.circle_balance", "w2", "passed", start + 60 * minute)
    await store_check(desk, "stack.alpaca_balance", "a1", "passed", start - minute)
    await store_check(desk, "stack.ledger_consistency", "t1", "error", start + minute, cause="no amount")
    clock = Clock(start + HOUR)
    kinds = {"stack.circle_balance": "balance", "stack.alpaca_balance": "balance", "stack.ledger_consistency": "zero_sum",
             "stack.withdrawals": "match"}  # fmt: skip

    async def rules() -> dict[tuple[str, str], dict[str, str]]:
        return {("acme", "stack"): kinds}

    clock.in_force = rules  # type: ignore[method-assign]
    scheduler = simulated(desk.database, clock)
    await scheduler.round()
    clock.now += timedelta(minutes=1)
    await desk.store(Month(), clock.now + timedelta(seconds=2))
    await scheduler.round()

    async with desk.database.transaction("acme") as connection:
        rows = (await connection.execute(text(
            "SELECT check_type, passed, outcome, readings, failed, discrepancy, error FROM reconciliation_checks "
            "WHERE run_type = 'hourly' AND created_at <= now() ORDER BY check_type"
        ))).all()  # fmt: skip
        [report] = (await connection.execute(text(
            "SELECT status, checks_total, checks_passed, checks_failed, duration_ms FROM reconciliation_reports "
            "WHERE run_type = 'hourly'"
        ))).all()  # fmt: skip

    assert [tuple(row) for row in rows] == [
        ("alpaca_balance", False, "error", 0, 0, {},
         "there is no reading in the period; the last one is of 2026-11-20T08:59:00+00:00"),
        ("circle_balance", False, "failed", 2, 1, {"USDC": "2.500000"}, None),
        ("ledger_consistency", False, "error", 1, 0, {}, "1 reading could not be judged: no amount"),
        ("withdrawals", True, "passed", 0, 0, {}, None),
    ]  # fmt: skip
    assert tuple(report)[:4] == ("completed", 4, 1, 3)
    assert report.duration_ms >= 0


async def test_a_rule_whose_data_cannot_be_read_fails_alone_and_the_run_heals_by_itself(desk: Desk) -> None:
    start = datetime(2026, 11, 20, 9, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start)
    month = deposits(start, start + HOUR, timedelta(minutes=10))
    other = [msgspec.structs.replace(one, id=uid(one.id), rule="stack.withdrawals") for one in month.items]
    clock = Clock(start + HOUR)
    await desk.store(Month(items=[*month.items, *other]), clock.now + timedelta(minutes=2))
    broken = update(items).where(items.c.id == other[0].id)
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(broken.values(sides={"internal": {"totals": "none"}}))
    scheduler = simulated(desk.database, clock)
    await scheduler.round()
    clock.now += timedelta(minutes=1)
    await scheduler.round()

    [run] = await stored_runs(desk, "hourly")
    assert run.status == "failed"
    assert run.error.startswith("checks that could not be computed: withdrawals: item ")
    assert run.report_json["reports"]["stack.deposits"]["items"]["total"] == 6
    assert {one["check_type"]: one["outcome"] for one in run.summary["checks"]} == {
        "deposits": "failed",
        "withdrawals": "error",
    }

    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(broken.values(sides=msgspec.to_builtins(other[0].sides)))
    clock.now += timedelta(minutes=20)
    await scheduler.round()
    [run] = await stored_runs(desk, "hourly")
    assert (run.status, run.error) == ("completed", None)
    assert run.report_json["reports"]["stack.withdrawals"]["items"]["total"] == 6


async def test_hundreds_of_old_runs_that_wait_hide_no_young_one(desk: Desk) -> None:
    """Each old one is looked at every ten minutes; the young one is due at once."""
    old = datetime(2026, 11, 1, tzinfo=UTC)
    row = {"org": "acme", "pack": "stack", "zone": "UTC", "run_type": "hourly", "trigger": "schedule",
           "requested_by": "scheduler", "status": "running", "provisional": True}  # fmt: skip
    rows = [
        row | {"id": uid(f"run {n}"), "period_start": old + n * HOUR, "period_end": old + (n + 1) * HOUR,
               "created_at": old, "updated_at": desk.now - timedelta(minutes=5)}
        for n in range(UNFINISHED_MAX * 2)
    ]  # fmt: skip
    rows[-1] |= {"created_at": desk.now - timedelta(seconds=3), "updated_at": desk.now - timedelta(seconds=2)}
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(insert(runs), rows)

    due = await PostgresRuns(desk.database).unfinished(desk.now, UNFINISHED_MAX)

    assert [one.id for one in due] == [rows[-1]["id"]]


async def test_the_stack_packs_rules_are_its_six_checks_also_where_nothing_was_stored(desk: Desk) -> None:
    """Balances that nobody has read are no pass; where nothing moved nothing disagrees."""
    start = datetime(2026, 11, 20, 9, tzinfo=UTC)
    await desk.key("owner")
    await _created(desk, start)
    clock = Clock(start + HOUR)
    pack = load_rules(ROOT / "shared" / "packs" / "stack" / "rules.yaml")

    async def rules() -> dict[tuple[str, str], dict[str, str]]:
        return {("acme", "stack"): {rule.name: rule.kind for rule in pack.rules}}

    clock.in_force = rules  # type: ignore[method-assign]
    scheduler = simulated(desk.database, clock)
    await scheduler.round()
    clock.now += timedelta(minutes=1)
    await desk.store(Month(), clock.now + timedelta(seconds=2))
    await scheduler.round()

    [run] = await stored_runs(desk, "hourly")
    found = {one["check_type"]: one["outcome"] for one in run.summary["checks"]}
    assert set(found) == set(rules_of_checks())
    assert {name for name, outcome in found.items() if outcome == "error"} == {"circle_balance", "alpaca_balance"}
    assert {name for name, outcome in found.items() if outcome == "failed"} == set()
