"""Reports as people take them away, and runs of every pack, on a real PostgreSQL: figures are the sums of the items."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import update

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.report_rows import PostgresReportRows
from services.alerts.adapters.tables import items
from services.alerts.domain.period import Span
from services.alerts.handlers.reports.table import csv_of
from services.alerts.ports.report_rows import UnreadableItem
from services.alerts.ports.runs import NewRun
from services.alerts.use_cases.run_reports import RunReports
from shared.contracts.item import ItemDiscrepancy
from shared.kafka.errors import KafkaAway
from tests.integration.alerts.runs_desk import LATER, NOVEMBER, TOKEN, Desk, open_desk
from tests.integration.alerts.stored_month import Month, generated_month, item
from tests.integration.alerts.test_schedule import store_check

pytestmark = pytest.mark.postgres
STACK = {"stack.deposits": "match", "stack.circle_balance": "balance"}
Row = dict[str, str]


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as desk:
        yield desk


class InForce:
    """Rules in force; None: Kafka does not answer."""

    def __init__(self, found: Mapping[tuple[str, str], Mapping[str, str]] | None) -> None:
        self.found = found

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        if self.found is None:
            raise KafkaAway("Kafka does not answer")
        return self.found


def in_force(desk: Desk, found: Mapping[tuple[str, str], Mapping[str, str]] | None) -> None:
    """Put rules in force under the routes that are there already."""
    object.__setattr__(desk.runs, "rules", InForce(found))


async def make(desk: Desk, headers: dict[str, str], pack: str, period: Any = "2026-10") -> httpx.Response:
    return await desk.client.post("/v1/runs", json={"pack": pack, "period": period}, headers=headers)


async def report(desk: Desk, headers: dict[str, str], run_id: str, form: str) -> httpx.Response:
    return await desk.client.get(f"/v1/runs/{run_id}/report", params={"format": form}, headers=headers)


def rows(answer: httpx.Response) -> list[Row]:
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def totals(found: list[Row]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Sum the CSV's rows as a report states it: per rule, side and currency."""
    sums: dict[tuple[str, str, str], list[Any]] = {}
    for row in found:
        for which in ("expected", "actual"):
            if row[f"{which}_amount"]:
                entry = sums.setdefault((row["rule"], row[f"{which}_side"], row["currency"]), [0, Decimal(0)])
                entry[0] += int(row[f"{which}_records"])
                entry[1] += Decimal(row[f"{which}_amount"])
    told: dict[str, Any] = {}
    for (rule, side, currency), (count, amount) in sums.items():
        told.setdefault(rule, {}).setdefault(side, {})[currency] = {"count": count, "amount": f"{amount:.2f}"}
    return told


async def test_items_as_csv_add_up_to_the_report_also_when_items_have_changed_since(desk: Desk) -> None:
    """A complete report is not rewritten, and neither are the items that it counted."""
    manager = await desk.key("manager", zone="Europe/Berlin")
    month = generated_month(500)
    await desk.store(month, LATER + timedelta(seconds=10))
    run = (await make(desk, manager, "billing")).json()
    figures = (await desk.report(manager, run["id"]))["reportJson"]["reports"]
    before = rows(await report(desk, manager, run["id"], "csv"))
    later = LATER + timedelta(hours=1)
    moved = [
        msgspec.structs.replace(
            one, revision=2, status="matched", discrepancies=[], occurred_at=later,
            log=msgspec.structs.replace(one.log, offset=one.log.offset + 1, time=later),
        )
        for one in month.items[:40]
    ]  # fmt: skip
    new = item(9_001, at=NOVEMBER - timedelta(days=2), internal=[777], provider=[777], status="matched", made_at=later)
    await desk.store(Month(items=[*moved, new]), later + timedelta(hours=1))

    after = rows(await report(desk, manager, run["id"], "csv"))

    assert after == before
    assert (await desk.report(manager, run["id"]))["reportJson"]["reports"] == figures
    assert totals(after) == {
        rule: {side: amounts for side, amounts in one["totals"].items() if amounts} for rule, one in figures.items()
    }
    for rule, one in figures.items():
        mine = [row for row in after if row["rule"] == rule]
        assert len({row["item_id"] for row in mine}) == one["items"]["total"]
        assert sum(row["status"] == "matched" for row in mine) == one["items"]["matched"]
        for currency, causes in one["gaps"].items():
            gap = sum(Decimal(row["gap"]) for row in mine if row["currency"] == currency)
            assert gap == sum(map(Decimal, causes.values()))


async def test_the_page_shows_the_figures_of_the_json_to_the_cent(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(400), LATER + timedelta(seconds=10))
    run = (await make(desk, manager, "billing")).json()

    answer = await report(desk, manager, run["id"], "html")
    page = answer.text
    figures = (await desk.report(manager, run["id"]))["reportJson"]["reports"]

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('inline; filename="reconciliation-acme-billing-2026-10-01-')
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert re.findall(r"<script|\bon[a-z]+=|https?://| style=", page) == []
    shown = []
    for one in figures.values():
        for currency in one["residual"]:
            first, last = (one["totals"][side].get(currency, {"amount": "0.00"})["amount"] for side in one["totals"])
            gap = Decimal(last) - Decimal(first)
            steps = one["gaps"].get(currency, {}).values()
            # Among the totals the currency stands once a row; where there are steps, they begin and end with them.
            shown += [f">{Decimal(amount):,}<" for amount in (first, last) if amount != "0.00"] + [
                f"<td>{currency}</td>"
            ]
            shown += [f"{Decimal(first):,} {currency}", f"{Decimal(last):,} {currency}"] if steps else []
            words = f"{abs(gap):,} {currency} {'less' if gap < 0 else 'more'} than internal"
            shown += [f"provider has {words}"] if gap else []
            shown += [f"{Decimal(step):+,} {currency}" for step in steps]
            assert Decimal(first) + sum(map(Decimal, steps)) == Decimal(last)
        for currency, by_type in one["open_amounts"].items():
            shown += [f"{Decimal(amount):,} {currency}" for amount in by_type.values()]
    assert [one for one in shown if one not in page] == []
    assert len(shown) > 20


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/csv", "text/csv"),
        ("text/markdown;q=0.5, application/json", "application/json"),
        ("text/html;q=0, text/markdown", "text/markdown"),
        ("*/*", "application/json"),
    ],
)
async def test_the_form_is_the_one_that_is_liked_best(desk: Desk, accept: str, media: str) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()

    for path in ("/v1/runs", "/billing/reconciliation/runs"):
        answer = await desk.client.get(f"{path}/{run['id']}/report", headers={**manager, "Accept": accept})
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media)


@pytest.mark.parametrize(
    ("headers", "form", "status", "says"),
    [
        ({"Accept": "application/pdf"}, None, 406, "text/html"),
        ({}, "xlsx", 422, "format"),
        ({"Accept": "application/pdf"}, "csv", 200, ""),
    ],
)
async def test_another_form_is_refused_with_those_there_are(
    desk: Desk, headers: dict[str, str], form: str | None, status: int, says: str
) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(5), LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()

    answer = await desk.client.get(
        f"/v1/runs/{run['id']}/report", params={"format": form} if form else None, headers=manager | headers
    )

    assert (answer.status_code, says in answer.text) == (status, True)


async def test_what_producers_wrote_runs_in_no_spreadsheet_and_is_no_markup(desk: Desk) -> None:
    manager = await desk.key("manager")
    key = '=HYPERLINK("http://evil","<img src=x onerror=alert(1)>")'
    one = item(1, at=NOVEMBER - timedelta(days=1), internal=[1000], provider=[900], status="discrepant")
    raised = ItemDiscrepancy(id=one.id, type="AmountMismatch", side="provider", difference="-1.00", currency="EUR")
    await desk.store(
        Month(items=[msgspec.structs.replace(one, key=key, rule="<b>.@rule", discrepancies=[raised])]),
        LATER + timedelta(seconds=10),
    )
    run = (await desk.trigger(manager)).json()

    [row] = rows(await report(desk, manager, run["id"], "csv"))
    page = (await report(desk, manager, run["id"], "html")).text

    assert (row["key"], row["gap"], row["discrepancies"]) == (f"'{key}", "-1.00", "AmountMismatch -1.00")
    assert "<img" not in page
    assert "&lt;b&gt;.@rule" in page


async def test_an_item_that_cannot_be_read_breaks_the_csv_off(desk: Desk) -> None:
    """Half of the items must not pass for all of them."""
    manager = await desk.key("manager")
    month = generated_month(5)
    await desk.store(month, LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()
    async with desk.database.transaction(EVERY_ORG) as connection:
        broken = update(items).where(items.c.id == month.items[0].id)
        await connection.execute(broken.values(sides={"internal": {"totals": "none"}}))

    stored = await desk.runs.store.run("acme", run["id"])
    assert stored is not None
    reports = RunReports(desk.runs.store, PostgresReportRows(desk.database))

    async def whole() -> None:
        async with reports.item_rows(stored) as found:
            assert [piece async for piece in csv_of(found)] == []

    with pytest.raises(UnreadableItem, match=f"item {month.items[0].id} cannot be read"):
        await whole()


async def test_items_stream_in_little_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two thousand items a hundred are held at a time: far less than holding them all."""
    monkeypatch.setattr("services.alerts.adapters.report_rows.ROWS_AT_ONCE", 100)
    manager = await desk.key("manager")
    await desk.store(Month(items=generated_month(2_000).items), LATER + timedelta(seconds=10))
    run = await desk.runs.store.run("acme", (await make(desk, manager, "billing")).json()["id"])
    assert run is not None
    rows_of_run = PostgresReportRows(desk.database)
    length = 0

    tracemalloc.start()
    async with RunReports(desk.runs.store, rows_of_run).item_rows(run) as found:
        async for piece in csv_of(found):
            length += len(piece)
    streamed = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    async with rows_of_run.items(run) as stored:
        everything = [one async for one in stored]
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (len(everything), length > 200_000) == (2_000, True)
    assert streamed < held / 3


async def test_the_drift_of_readings_is_drawn_for_accounts_that_drifted_furthest(desk: Desk) -> None:
    manager = await desk.key("manager")
    in_force(desk, {("acme", "stack"): STACK})
    for number in range(7):
        for hour in range(4):
            at = datetime(2026, 10, 20, 6 * hour, tzinfo=UTC)
            difference = Decimal(number * hour) / 2 * (-1 if number % 2 else 1)
            result = "failed" if difference else "passed"
            await store_check(desk, "stack.circle_balance", f"w{number}", result, at, difference=difference)
    await desk.store(Month(), LATER + timedelta(seconds=10))
    run = (await make(desk, manager, "stack")).json()

    page = (await report(desk, manager, run["id"], "html")).text

    assert re.findall(r"</svg>(w[0-9])", page) == ["w6", "w5", "w4", "w3", "w2"]
    assert "reads 9.000000 USDC more than expected" in page
    assert "reads 7.500000 USDC less than expected" in page
    assert "2 more accounts drifted less and are not drawn." in page
    assert page.count("<polyline") == 5
    assert page.count("<circle") == 5 * 3
    assert "1 of 2 checks did not pass." in page


async def test_every_pack_is_run_listed_and_shown_and_each_keeps_its_own_runs(desk: Desk) -> None:
    manager = await desk.key("manager")
    in_force(desk, {("acme", "stack"): STACK, ("acme", "mine"): {"mine.orders": "match"}, ("other", "theirs"): STACK})
    own = [msgspec.structs.replace(one, pack="mine", rule="mine.orders") for one in generated_month(20).items]
    await desk.store(Month(items=own), LATER + timedelta(seconds=10))

    made = {pack: (await make(desk, manager, pack)).json() for pack in ("billing", "stack", "mine")}
    again = await make(desk, manager, "mine")
    listed = (await desk.client.get("/v1/runs", headers=manager)).json()["data"]
    billing = (await desk.client.get("/billing/reconciliation/runs", headers=manager)).json()["data"]
    mine = (await desk.client.get("/v1/runs", params={"pack": "mine"}, headers=manager)).json()["data"]

    assert len({run["id"] for run in made.values()}) == 3
    assert (again.status_code, again.json()["id"]) == (200, made["mine"]["id"])
    assert sorted(run["id"] for run in listed) == sorted(run["id"] for run in made.values())
    assert [run["id"] for run in billing] == [made["billing"]["id"]]
    assert [run["id"] for run in mine] == [made["mine"]["id"]]
    assert made["mine"]["summary"]["rules"]["mine.orders"]["items"]["total"] == 20
    assert (made["mine"]["stage"], made["mine"]["duration_ms"] >= 0) == ("completed", True)
    one = await desk.client.get(f"/v1/runs/{made['stack']['id']}", headers=manager)
    assert one.json() == made["stack"]
    packs = await desk.client.get("/v1/runs/packs", headers=manager)
    assert packs.json() == {"data": ["billing", "mine", "stack"]}
    assert (await make(desk, manager, "theirs")).status_code == 404
    assert (await make(desk, manager, "stack", "2027-01")).status_code == 422
    viewer = await desk.key("viewer")
    assert (await make(desk, viewer, "stack")).status_code == 403


async def test_the_daily_token_runs_every_pack_in_force_and_a_repeat_answers_the_same(desk: Desk) -> None:
    await desk.key("owner")
    await desk.key("owner", org="other")
    in_force(desk, {("acme", "stack"): STACK})

    async def daily(**body: Any) -> httpx.Response:
        headers = {"x-reconciliation-token": TOKEN}
        return await desk.client.post("/billing/reconciliation/runs/daily", headers=headers, json=body)

    first, second, stack = (await daily()).json(), (await daily()).json(), (await daily(pack="stack")).json()

    told = [(run["org"], run["pack"], run["run_type"]) for run in first["runs"]]
    assert told == [("acme", "billing", "daily"), ("acme", "stack", "daily"), ("other", "billing", "daily")]
    assert [run["id"] for run in second["runs"]] == [run["id"] for run in first["runs"]]
    assert [run["id"] for run in stack["runs"]] == [first["runs"][1]["id"]]
    assert stack["failed"] == []
    assert (await daily(org="other", pack="stack")).status_code == 404


async def test_a_run_over_a_part_of_what_is_being_run_is_refused_with_which_one(desk: Desk) -> None:
    manager = await desk.key("manager")
    in_force(desk, {("acme", "stack"): STACK})
    day = Span(datetime(2026, 10, 7, 8, tzinfo=UTC), datetime(2026, 10, 7, 9, tzinfo=UTC), "UTC")
    hour, _ = await desk.runs.store.open(NewRun("acme", "stack", day, "schedule", "scheduler", "hourly", LATER))

    refused = await make(desk, manager, "stack", "2026-10-07")
    beside = await make(desk, manager, "stack", "2026-10-08")
    other = await make(desk, manager, "billing", "2026-10-07")

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tieout:problem:run-under-way")
    assert refused.json()["running"]["id"] == hour.id
    assert (beside.status_code, other.status_code) == (201, 201)
    await desk.store(Month(), LATER + timedelta(seconds=10))
    desk.now += timedelta(seconds=10)
    await desk.runs.advance_unfinished()
    assert (await make(desk, manager, "stack", "2026-10-07")).status_code == 201


async def test_while_kafka_is_away_packs_with_results_are_run_and_unknown_ones_wait(desk: Desk) -> None:
    manager = await desk.key("manager")
    own = [msgspec.structs.replace(one, pack="mine", rule="mine.orders") for one in generated_month(5).items]
    await desk.store(Month(items=own), LATER + timedelta(seconds=10))
    in_force(desk, None)

    assert (await make(desk, manager, "mine")).status_code == 201
    assert (await make(desk, manager, "stack")).status_code == 503


async def test_json_of_both_addresses_is_the_stored_report(desk: Desk) -> None:
    manager = await desk.key("manager")
    await desk.store(generated_month(20), LATER + timedelta(seconds=10))
    run = (await desk.trigger(manager)).json()

    told = [
        (await desk.client.get(f"{path}/{run['id']}/report", headers=manager)).text
        for path in ("/v1/runs", "/billing/reconciliation/runs")
    ]

    assert told[0] == told[1]
    assert json.loads(told[0])["run"] == run
