"""Anomalies as decisions: raised, changed, closed, told once, and explained in one sentence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from services.alerts.domain.anomaly import Series, compose, is_news, money, next_anomalies, standing_of
from services.alerts.domain.baseline import Assessment, Breach, Limits, TooLittle
from shared.contracts.anomaly import Anomaly
from shared.contracts.webhook import AnomalyMessage

AT = datetime(2026, 11, 17, 14, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")
SERIES = Series(org="acme", pack="stack", rule="stack.circle_balance", account="usdc_buffer", currency="USDC")
LIMITS = Limits(tolerance=1.0, critical=10.0)
USUAL = Assessment(
    season="hour of the week", points=700, at=AT, seen=0.12, expected=0.1, sigma=0.02, sigmas=1.0, unusual_h=0,
    per_day=0.0, breach=None,
)  # fmt: skip
UNUSUAL = replace(USUAL, seen=0.62, sigmas=26.0, unusual_h=1)
LEADS = replace(USUAL, per_day=0.05, breach=Breach("tolerance", 1.0, AT + timedelta(days=6)))


def after(found: Assessment | TooLittle, *before: Anomaly, series: Series = SERIES) -> list[Anomaly]:
    families: dict[Any, Anomaly] = {"trend" if one.kind == "trend" else "level": one for one in before}
    return next_anomalies(series, found, LIMITS, families, UTC_ZONE)


def test_what_is_usual_raises_nothing() -> None:
    assert after(USUAL) == []


def test_an_outlier_says_what_was_expected_and_what_was_seen() -> None:
    (one,) = after(UNUSUAL)
    assert (one.kind, one.state, one.severity, one.check_type) == ("unusual", "open", "low", "circle_balance")
    assert one.explanation == (
        "stack.circle_balance of usdc_buffer (USDC), Tuesday 17 November 14:00: 0.100000 is usual at this hour of the week "
        "(give or take 0.020000), 0.620000 was seen; no breach is foreseen within two weeks."
    )


def test_a_trend_says_when_it_will_breach() -> None:
    """In the zone of the organisation's people."""
    (one,) = next_anomalies(SERIES, LEADS, LIMITS, {}, ZoneInfo("Europe/Berlin"))
    assert (one.kind, one.breach_of, one.breach_limit, one.breach_at) == (
        "trend", "tolerance", "1.000000", AT + timedelta(days=6),
    )  # fmt: skip
    assert one.explanation.endswith(
        "0.120000 was seen; it grows by 0.050000 a day and will pass the tolerance of 1.000000 about "
        "Monday 23 November 15:00."
    )
    falling = replace(LEADS, per_day=-0.05)
    assert "it falls by 0.050000 a day" in after(falling)[0].explanation


def test_three_hours_beside_the_usual_are_a_level_shift_of_the_same_anomaly() -> None:
    """It keeps its id and when it was raised, and is told again because it is another kind."""
    (first,) = after(UNUSUAL)
    second = replace(UNUSUAL, at=AT + timedelta(hours=1), unusual_h=2)
    third = replace(UNUSUAL, at=AT + timedelta(hours=2), unusual_h=3)
    (still,) = after(second, first)
    (shifted,) = after(third, still)
    assert {one.id for one in (first, still, shifted)} == {first.id}
    assert (shifted.kind, shifted.raised_at, shifted.seen_at) == ("level_shift", AT, AT + timedelta(hours=2))
    assert "(3 hours beside the usual by now)" in shifted.explanation
    assert [is_news(first, None), is_news(still, first), is_news(shifted, still)] == [True, False, True]


def test_it_is_closed_when_it_is_usual_again_and_not_at_the_edge() -> None:
    (one,) = after(UNUSUAL)
    assert after(replace(USUAL, sigmas=5.0), one) == []
    (closed,) = after(replace(USUAL, at=AT + timedelta(hours=1)), one)
    assert (closed.id, closed.state, closed.closed_at) == (one.id, "closed", AT + timedelta(hours=1))
    assert "usual again: 0.100000 is usual at this hour of the week" in closed.explanation
    assert is_news(closed, one)
    (again,) = after(replace(UNUSUAL, at=AT + timedelta(hours=2)))
    assert again.id != one.id


def test_a_level_and_a_trend_may_be_open_at_once() -> None:
    both = after(replace(UNUSUAL, per_day=LEADS.per_day, breach=LEADS.breach))
    assert [one.kind for one in both] == ["unusual", "trend"]
    (closed,) = after(replace(UNUSUAL, at=AT + timedelta(hours=1)), *both)[1:]
    assert (closed.kind, closed.state) == ("trend", "closed")


def test_severity_is_by_what_is_at_stake_and_how_soon() -> None:
    soon = replace(LEADS, breach=Breach("critical", 10.0, AT + timedelta(hours=20)))
    later = replace(LEADS, breach=Breach("critical", 10.0, AT + timedelta(days=3)))
    beyond = replace(UNUSUAL, seen=1.5)
    assert [after(one)[0].severity for one in (soon, later, LEADS, beyond, UNUSUAL)] == [
        "high", "medium", "medium", "medium", "low",
    ]  # fmt: skip
    assert "it is beyond the tolerance of 1.000000 already" in after(beyond)[0].explanation


def test_too_little_history_is_a_standing_and_no_alert() -> None:
    found = TooLittle(points=30, days=2.0)
    (one,) = after(UNUSUAL)
    assert after(found, one) == []
    standing = standing_of(SERIES, found, (AT, 0.5), LIMITS, UTC_ZONE)
    assert (standing.state, standing.expected, standing.seen) == ("learning", None, "0.500000")
    assert standing.sentence == (
        "Too little history to say what is usual: 30 hours with a reading over 2.0 days; "
        "72 hours over 5 days are needed."
    )


def test_a_check_as_a_whole_is_named_by_its_rule_and_a_count_has_no_currency() -> None:
    whole = Series(org="acme", pack="stack", rule="stack.deposits", account="", currency="EUR")
    (one,) = after(UNUSUAL, series=whole)
    assert one.account is None
    assert one.explanation.startswith("stack.deposits (EUR), Tuesday")
    assert "a discrepancy of 0.62 was seen" in one.explanation
    assert (money(3.7, ""), money(-0.001, "EUR"), money(-0.5, "EUR"), money(12.0, "JPY")) == (
        "4",
        "0.00",
        "-0.50",
        "12",
    )


def test_a_message_is_the_anomaly_and_has_the_same_id_in_every_process() -> None:
    (one,) = after(UNUSUAL)
    message = compose("e1", one, AT)
    assert (message.kind, message.type, message.severity) == ("anomaly", "anomaly.raised", "low")
    assert msgspec.json.decode(message.payload, type=AnomalyMessage).data == one
    assert compose("e1", one, AT + timedelta(hours=1)).message_id == message.message_id
    closed = msgspec.structs.replace(one, state="closed")
    assert compose("e1", closed, AT).type == "anomaly.closed"
    assert compose("e1", closed, AT).message_id != message.message_id
