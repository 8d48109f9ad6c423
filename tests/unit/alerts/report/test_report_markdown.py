"""The Markdown says first what is wrong and how much, its tables are whole, and producers' text cannot break it."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from services.alerts.domain.figures import NotReconciled
from services.alerts.domain.history import DiscrepancyHistory, ItemState, RaisedType, SideState, SideTotal
from services.alerts.domain.period import Period, day_period
from services.alerts.domain.report import PriorRun, Reading, RuleSides, make_report
from services.alerts.domain.report_markdown import markdown_of

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1), "Europe/Berlin")
AT = datetime(2026, 12, 2, tzinfo=UTC)
RULES = [
    RuleSides("billing.payments", ("internal", "provider")),
    RuleSides("billing.refunds", ("internal", "provider")),
]


def side(amount: str | None, count: int = 1, currency: str = "EUR") -> SideState | None:
    return None if amount is None else SideState(totals={currency: SideTotal(count, Decimal(amount))})


def item(key: str, internal: str | None, provider: str | None, status: str, *raised: RaisedType, **fields) -> ItemState:
    base = {
        "item_id": f"id-{key}", "rule": RULES[0].name, "key": key, "status": status, "live": True, "raised": raised,
        "at": datetime(2026, 11, 10, tzinfo=UTC), "occurred_at": datetime(2026, 11, 10, tzinfo=UTC),
        "sides": {"internal": side(internal), "provider": side(provider)},
    }  # fmt: skip
    return ItemState(**{**base, **fields})


def history(key: str, type_: str, difference: str | None, **fields) -> DiscrepancyHistory:
    base = {
        "discrepancy_id": f"d-{key}", "rule": RULES[0].name, "type": type_, "key": key, "currency": "EUR",
        "difference": None if difference is None else Decimal(difference), "severity": "high",
        "raised": (datetime(2026, 11, 10, 23, 30, tzinfo=UTC),), "resolved": (), "explanation": f"{key} differs.",
    }  # fmt: skip
    return DiscrepancyHistory(**{**base, **fields})


def text_of(items: list[ItemState], histories: list[DiscrepancyHistory] | None = None, **fields) -> str:
    reading = Reading(at=AT, progress=AT, items=[[one] for one in items], discrepancies=histories or [])
    period = fields.pop("period", NOVEMBER)
    return markdown_of(make_report("acme", period, RULES, replace(reading, **fields)))


def test_the_first_lines_say_verdict_share_open_money_and_gap() -> None:
    mismatch = RaisedType("AmountMismatch", Decimal("-1200.50"), "EUR")
    text = text_of(
        [item("p1", "3000.00", "3000.00", "matched"), item("p2", "2000.00", "799.50", "discrepant", mismatch)],
        [history("p2", "AmountMismatch", "-1200.50")],
    )

    assert text.splitlines()[:5] == [
        "# Reconciliation of acme: November 2026",
        "",
        "**Complete.** All of the period is stored, every gap between the totals is explained, these figures are final.",
        "",
        (
            "- **Payments:** 50.00 % matched (1 of 2 items; by value EUR 60.00 %). **1 open**, differences of EUR 1,200.50. "
            "Provider total - internal total: EUR -1,200.50, all explained below."
        ),
    ]
    assert "| Payments succeeded | EUR | 5,000.00 (2) | 3,799.50 (2) | -1,200.50 |" in text
    assert "1. **p2** EUR -1,200.50 (high, AmountMismatch, since 2026-11-11): p2 differs. `d-p2`" in text


def test_a_rule_without_anything_is_not_spoken_of() -> None:
    assert "Refunds" not in text_of([item("p1", "1.00", "1.00", "matched")])
    assert "Nothing was recorded and nothing was open in this period." in text_of([])


@pytest.mark.parametrize(
    ("fields", "items", "says"),
    [
        (
            {"at": AT - timedelta(days=10), "progress": AT - timedelta(days=10)},
            [],
            "The period goes on until 2026-12-01 00:00 CET; this is how it stood on 2026-11-22 01:00 CET.",
        ),
        ({}, [item("p1", "1.00", None, "pending")], "1 item still waits for its other side or deadline."),
        (
            {},
            [item(f"p{n}", "1.00", None, "pending") for n in range(2)],
            "2 items still wait for their other side or deadline.",
        ),
        ({"progress": NOVEMBER.end}, [], "Results up to the period's end are still being stored."),
    ],
)
def test_a_provisional_report_says_why_and_that_it_completes(fields: dict, items: list[ItemState], says: str) -> None:
    text = text_of(items, **fields)

    assert f"**Provisional.** {says} The run completes by itself; figures may still change." in text


def test_money_that_nothing_explains_is_named_at_the_top() -> None:
    text = text_of([item("p1", "100.00", "93.00", "discrepant")])

    assert "**Incomplete.** No stored discrepancy explains EUR -7.00 (billing.payments)" in text
    assert "| **unexplained** | **-7.00** |" in text


def test_what_producers_wrote_cannot_break_a_table_or_become_markup() -> None:
    key = "p|1\n# [x](http://evil) <b> `code`"
    prior = PriorRun(day_period(date(2026, 10, 1), "Europe/Berlin"), AT - timedelta(days=30))
    old = item(key, "1.00", "2.00", "matched", occurred_at=datetime(2026, 10, 1, 9, tzinfo=UTC))
    text = text_of(
        [old], [history(key, "AmountMismatch", "1.00", discrepancy_id="d")], prior_runs=[prior],
        not_reconciled=[NotReconciled(source="a|b", type="c", count=1)],
    )  # fmt: skip

    assert "\n# [x]" not in text
    assert r"p\|1 \# \[x\](http://evil) \<b\> \`code\`" in text
    assert r"| a\|b | c | 1 |" in text
    assert_tables_are_whole(text)


def test_every_bridge_leads_from_the_first_total_to_the_last() -> None:
    missing = RaisedType("MissingProviderRecord", Decimal("-40.00"), "EUR")
    text = text_of([
        item("p1", "1234.50", "1234.51", "matched"), item("p2", "40.00", None, "discrepant", missing),
        item("p3", None, "7.00", "pending"),
    ])  # fmt: skip
    bridge = text.split("### From the internal to the provider total\n\n")[1].split("\n\n")[0]
    amounts = [Decimal(re.sub(r"[*,+ ]", "", line.split("|")[2])) for line in bridge.splitlines()[2:]]

    assert sum(amounts[:-1]) == amounts[-1] == Decimal("1241.51")
    assert_tables_are_whole(text)


def test_a_resolved_or_acknowledged_discrepancy_says_so_in_the_list() -> None:
    text = text_of(
        [],
        [
            history("p1", "AmountMismatch", "1.00", resolved=(datetime(2026, 12, 1, 12, tzinfo=UTC),)),
            history("p2", "StatusMismatch", None, status="acknowledged"),
        ],
    )

    assert "**p1** EUR +1.00 (high, AmountMismatch, since 2026-11-11, resolved by itself on 2026-12-01)" in text
    assert "**p2** (high, StatusMismatch, since 2026-11-11, acknowledged by a person)" in text


def test_at_most_ten_are_listed_the_worst_first_and_the_rest_is_counted() -> None:
    many = [history(f"p{n:02d}", "AmountMismatch", f"{n}.00") for n in range(12)]
    worst = history("critical", "CurrencyMismatch", None, severity="critical")
    text = text_of([], [*many, worst])

    listed = re.findall(r"^\d+\. \*\*(\S+)\*\*", text, re.MULTILINE)
    assert listed == ["critical", *(f"p{n:02d}" for n in range(11, 2, -1))]
    assert "3 more are in the list of discrepancies." in text


@pytest.mark.parametrize(
    ("period", "title"),
    [
        (day_period(date(2026, 11, 20), "UTC"), "Friday 20 November 2026"),
        (Period(date(2026, 11, 2), date(2026, 11, 9), "UTC"), "2 November 2026 to 8 November 2026"),
        (Period(date(2026, 12, 1), date(2027, 1, 1), "UTC"), "December 2026"),
        (Period(date(2026, 11, 1), date(2027, 1, 1), "UTC"), "1 November 2026 to 31 December 2026"),
    ],
)
def test_the_title_names_the_period_as_people_do(period: Period, title: str) -> None:
    assert text_of([], period=period).splitlines()[0] == f"# Reconciliation of acme: {title}"


def assert_tables_are_whole(text: str) -> None:
    """Every row of a table has as many cells as its header."""
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, block
