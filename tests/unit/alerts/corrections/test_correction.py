"""Auto-correction as decisions: what is tried on whom, what counts as help, and what is left to people."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.alerts.domain.adjustment import AdjustmentRefused, RuleShape
from services.alerts.domain.correction import (
    Allowed,
    Attempt,
    Fresh,
    Policy,
    attempt_id,
    figures,
    judge,
    make_attempt,
    next_action,
    percent,
    with_body,
)
from services.alerts.domain.triage import Facts, Standing
from shared.contracts.discrepancy import Discrepancy
from tests.support.results import found as published
from tests.support.results import uid

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULE = "stack.circle_balance"
POLICY = Policy(
    allowed={RULE: Allowed("circle", True), "stack.deposits": Allowed(None, True)},
    ceilings={"USDC": Decimal("1.00")},
    ledger_source="ledger",
)
SHAPE = RuleShape(key_fields=("account",), sources={"movements": "ledger"})


def exception(**changes: Any) -> Discrepancy:
    values = {
        "rule": RULE, "pack": "stack", "type": "BalanceMismatch", "severity": "low", "key": "usdc_buffer",
        "account": "usdc_buffer", "expected": "990.000000", "actual": "989.500000", "difference": "-0.500000",
        "currency": "USDC", "raised_at": NOW - 5 * MINUTE, "sides": {},
    }  # fmt: skip
    return published(**values | changes)


def standing(**changes: Any) -> Standing:
    values: dict[str, Any] = {
        "status": "open", "state": "raised", "revision": 1, "log_offset": 10, "resolution": None, "status_at": NOW,
        "facts": Facts("BalanceMismatch", "990.000000", "989.500000", "USDC"),
    }  # fmt: skip
    return Standing(**values | changes)


def tried(action: str = "refetch", outcome: str | None = "still_differs", number: int = 1, **changes: Any) -> Attempt:
    made = make_attempt(action, exception(), standing(), number, POLICY, NOW - 20 * MINUTE)  # type: ignore[arg-type]
    ended = {} if outcome is None else {"state": "failed", "outcome": outcome, "finished_at": NOW - 10 * MINUTE}
    return msgspec.structs.replace(made, **ended | changes)


def test_first_the_provider_is_asked_again_then_the_ledger_and_then_people() -> None:
    """An entry follows only a fresh reading that says the same."""
    assert next_action(exception(), standing(), [], POLICY, NOW) == "refetch"
    assert next_action(exception(), standing(), [tried(outcome=None)], POLICY, NOW) is None
    assert next_action(exception(), standing(), [tried()], POLICY, NOW) == "adjust"
    both = [tried(), tried("adjust", "still_differs", 2)]
    assert next_action(exception(), standing(), both, POLICY, NOW) is None


@pytest.mark.parametrize("outcome", ["refused", "unavailable", "still_differs", "changed"])
def test_a_ledger_is_asked_once_per_raise_whatever_it_said(outcome: str) -> None:
    """One that did not answer may have booked: another key could book twice."""
    assert next_action(exception(), standing(), [tried(), tried("adjust", outcome, 2)], POLICY, NOW) is None


def test_an_exception_that_came_back_is_tried_anew() -> None:
    earlier = [tried(), tried("adjust", "resolved", 2)]
    assert next_action(exception(), standing(reopened=1), earlier, POLICY, NOW) == "refetch"


def test_a_reading_that_says_another_difference_confirms_nothing() -> None:
    assert next_action(exception(difference="-0.700000"), standing(), [tried()], POLICY, NOW) == "refetch"


def test_a_provider_that_cannot_be_read_is_asked_three_times_with_pauses() -> None:
    """And nothing is ever adjusted on an old reading."""
    one = tried(outcome="no_fresh_reading")
    young = msgspec.structs.replace(one, finished_at=NOW - MINUTE)
    assert next_action(exception(), standing(), [one], POLICY, NOW) == "refetch"
    assert next_action(exception(), standing(), [young], POLICY, NOW) is None
    assert next_action(exception(), standing(), [one, one, one], POLICY, NOW) is None


@pytest.mark.parametrize(
    ("changes", "stands"),
    [
        ({"severity": "medium"}, {}),
        ({"state": "resolved"}, {}),
        ({"expired": True}, {}),
        ({"shadow": True}, {}),
        ({"rule": "stack.conversion_jobs"}, {}),
        ({"raised_at": NOW - timedelta(seconds=59)}, {}),
        ({}, {"status": "acknowledged"}),
        ({}, {"status": "resolved"}),
        ({}, {"assignee": "ann"}),
    ],
    ids=str,
)
def test_what_is_left_alone(changes: dict[str, Any], stands: dict[str, Any]) -> None:
    """Above low, gone, young, not allowed by the pack, or in somebody's hands."""
    assert next_action(exception(**changes), standing(**stands), [], POLICY, NOW) is None


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({"difference": "1.000001"}, {}),
        ({"difference": "-1.000001"}, {}),
        ({"currency": "EUR"}, {}),
        ({"type": "MissingInternalRecord"}, {}),
        ({"difference": None}, {}),
        ({}, {"ledger_source": None}),
        ({}, {"ceilings": {}}),
        ({}, {"allowed": {"stack.deposits": Allowed(None, False)}}),
    ],
    ids=str,
)
def test_what_is_never_adjusted(changes: dict[str, Any], policy: dict[str, Any]) -> None:
    """Too much, of a currency without a ceiling, no amount, no ledger, or not allowed."""
    own = Policy(**{"allowed": POLICY.allowed, "ceilings": POLICY.ceilings, "ledger_source": "ledger"} | policy)
    deposit = {"rule": "stack.deposits", "type": "AmountMismatch", "key": "d1", "account": None}
    assert next_action(exception(**deposit), standing(), [], POLICY, NOW) == "adjust"
    assert next_action(exception(**deposit | changes), standing(), [], own, NOW) is None


def test_the_key_of_an_attempt_is_the_same_after_a_crash_and_another_for_the_next() -> None:
    """And the body is the difference, as an entry of the ledger that names its exception."""
    attempt = with_body(tried("adjust", None, 2), exception(), SHAPE)
    assert attempt.id == attempt_id(exception().id, 2) == tried("adjust", None, 2).id
    assert attempt.id != attempt_id(exception().id, 3)
    assert attempt.body is not None
    assert (attempt.body["idempotency_key"], attempt.body["amount"]) == (attempt.id, "-0.500000")
    entry = attempt.body["entry"]
    assert (entry["amount"], entry["account"], entry["source"]) == ("-0.500000", "usdc_buffer", "ledger")
    assert entry["refs"] == {"discrepancy": uid("d1")}


def test_a_rule_whose_first_side_is_not_the_ledger_takes_no_entry() -> None:
    """The difference would have the other sign there."""
    shape = RuleShape(key_fields=("account",), sources={"job": "conversions", "internal": "ledger"})
    with pytest.raises(AdjustmentRefused, match="not the first side"):
        with_body(tried("adjust", None), exception(), shape)


READ = Fresh(as_of=NOW, result="failed", difference="-0.500000", cause=None)


@pytest.mark.parametrize(
    ("action", "changes", "stands", "fresh", "minutes", "expected"),
    [
        ("refetch", {"state": "resolved", "resolution": "corrected"}, {}, None, 0, (True, "resolved")),
        ("adjust", {"state": "resolved", "resolution": "adjusted"}, {}, None, 0, (True, "resolved")),
        ("refetch", {}, {}, None, 9, None),
        ("refetch", {}, {}, None, 11, (False, "no_fresh_reading")),
        ("refetch", {}, {}, READ, 0, (False, "still_differs")),
        ("refetch", {}, {}, msgspec.structs.replace(READ, result="passed"), 0, None),
        ("refetch", {}, {}, msgspec.structs.replace(READ, result="passed"), 11, (False, "still_differs")),
        ("refetch", {}, {}, msgspec.structs.replace(READ, result="error", cause="x"), 0, (False, "read_failed")),
        ("adjust", {}, {}, None, 9, None),
        ("adjust", {}, {}, None, 11, (False, "still_differs")),
        ("adjust", {"difference": "-0.600000"}, {}, None, 0, (False, "changed")),
        ("adjust", {}, {"status": "resolved"}, None, 0, (False, "left_to_people")),
        ("adjust", {}, {"assignee": "ann"}, None, 0, (False, "left_to_people")),
    ],
)
def test_whether_it_helped_is_what_the_matcher_says_in_time(
    action: str,
    changes: dict[str, Any],
    stands: dict[str, Any],
    fresh: Fresh | None,
    minutes: int,
    expected: tuple[bool, str] | None,
) -> None:
    """A ledger's yes is no success, and neither is a person's word."""
    at = NOW + minutes * MINUTE
    made = make_attempt(action, exception(), standing(), 1, POLICY, NOW)  # type: ignore[arg-type]
    attempt = msgspec.structs.replace(made, state="waiting")
    verdict = judge(attempt, exception(**changes), standing(**stands), fresh, at)
    assert (verdict and (verdict.succeeded, verdict.outcome)) == expected
    if verdict:
        assert verdict.detail


def test_an_attempt_that_the_ledger_has_not_answered_is_not_judged_by_its_time() -> None:
    """Whoever posts decides when to give up."""
    begun = make_attempt("adjust", exception(), standing(), 1, POLICY, NOW)
    assert judge(begun, exception(), standing(), None, NOW + timedelta(hours=2)) is None
    assert judge(begun, exception(state="resolved"), standing(), None, NOW) is not None


def test_the_success_rate() -> None:
    """Of what has finished, half even to two places; of nothing there is none."""
    counts = {("refetch", "resolved"): 1, ("refetch", "still_differs"): 2, ("adjust", "resolved"): 1}
    read, posted = figures(counts)  # type: ignore[arg-type]
    assert (read.action, read.finished, read.succeeded, read.failed, read.success_percent) == (
        "refetch", 3, 1, 2, "33.33",
    )  # fmt: skip
    assert read.outcomes == {"resolved": 1, "still_differs": 2}
    assert (posted.action, posted.success_percent) == ("adjust", "100.00")
    assert figures({}) == []
    assert (percent(1, 8), percent(0, 0), percent(1, 3)) == ("12.50", None, "33.33")
