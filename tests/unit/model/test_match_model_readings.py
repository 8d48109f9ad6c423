"""Where the design leaves room, these are the readings the oracle takes; each test names one and shows it."""

from typing import Any

from tests.model.match_model import Outcome, run

RULE = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "key": "refs.payment_id",
    "compare": {"amount": {}, "currency": {}, "status": {}},
    "deadline": "24h",
    "keep": "7d",
    "duplicates": ["internal", "provider"],
}
SUMS = {**RULE, "cardinality": "many_to_many", "compare": {"amount": {}, "currency": {}}, "duplicates": []}
THREE = {**RULE, "sides": {**RULE["sides"], "bank": {"source": "bank", "type": ["payment.*"]}}}
COUNT = iter(range(1, 10_000))


def event(source: str, received: str, **fields: Any) -> dict[str, Any]:
    received_at = f"2026-03-{received}Z"
    whole = {
        "org": "acme", "source": source, "type": "payment.updated", "id": f"e{next(COUNT)}", "record": source,
        "occurred_at": received_at, "amount": "100.00", "currency": "EUR", "status": "succeeded",
        "refs": {"payment_id": "p1"}, "received_at": received_at,
    }  # fmt: skip
    return {name: value for name, value in (whole | fields).items() if value is not None}


def adjustment(source: str, received: str, amount: str, **fields: Any) -> dict[str, Any]:
    refs = {"payment_id": "p1", "discrepancy": "d"}
    return event(
        source, received, **({"type": "adjustment.fee", "record": "adj", "amount": amount, "refs": refs} | fields)
    )


def told(outcome: Outcome, *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(one[name] for name in fields) for one in outcome.discrepancies]


def test_a_discrepancy_is_raised_a_millisecond_after_its_time_ran_out_however_late_the_next_leg_comes() -> None:
    """Log time jumps from leg to leg; what happened in between is dated where it happened, so ticks change nothing."""
    outcome = run([RULE], [event("ledger", "02T10:00:00"), event("stripe", "09T10:00:00")], "2026-03-10T00:00:00Z")

    assert told(outcome, "raised_at", "resolved_at") == [("2026-03-03T10:00:00.001Z", "2026-03-09T10:00:00.000Z")]


def test_a_weekend_does_not_count_when_business_days_begin_on_it() -> None:
    """Armed on a Saturday afternoon, one business day is over when Monday is."""
    rule = RULE | {"deadline": "1bd"}
    outcome = run([rule], [event("ledger", "07T15:00:00")], "2026-03-12T00:00:00Z")

    assert told(outcome, "raised_at") == [("2026-03-10T00:00:00.001Z",)]


def test_unequal_sums_settle_from_the_record_and_wait_for_the_deadline_beside_it() -> None:
    """A difference that has lasted `settle` long before the deadline is raised at the deadline, not `settle` later."""
    rule = SUMS | {"settle": "10m"}
    early = [event("ledger", "02T10:00:00"), event("stripe", "02T10:05:00", amount="30.00")]
    late = [event("ledger", "02T10:00:00"), event("stripe", "03T09:55:00", amount="30.00")]

    assert told(run([rule], early, "2026-03-04T00:00:00Z"), "raised_at") == [("2026-03-03T10:00:00.001Z",)]
    assert told(run([rule], late, "2026-03-04T00:00:00Z"), "raised_at") == [("2026-03-03T10:05:00.001Z",)]


def test_sums_in_different_sets_of_currencies_are_one_currency_mismatch_after_the_deadline() -> None:
    """No sum is compared then, not even in the currency both sides have."""
    events = [
        event("ledger", "02T10:00:00", amount="10.00"),
        event("stripe", "02T10:01:00", amount="11.00"),
        event("stripe", "02T10:02:00", record="second", amount="5.00", currency="USD"),
    ]

    assert told(run([SUMS], events, "2026-03-03T10:00:00Z"), "type") == []
    assert told(run([SUMS], events, "2026-03-03T10:00:00.001Z"), "type") == [("CurrencyMismatch",)]


def test_a_missing_side_of_sums_is_one_discrepancy_per_currency() -> None:
    events = [
        event("stripe", "02T10:00:00"),
        event("stripe", "02T10:01:00", record="second", currency="USD", amount="5.00"),
    ]
    outcome = run([SUMS], events, "2026-03-04T00:00:00Z")

    assert told(outcome, "type", "currency", "difference") == [
        ("MissingInternalRecord", "EUR", "100.00"),
        ("MissingInternalRecord", "USD", "5.00"),
    ]


def test_a_missing_record_whose_currency_is_corrected_is_published_again() -> None:
    """Expected is 100.00 before and after, and yet what is missing is other money."""
    events = [event("ledger", "02T10:00:00"), event("ledger", "04T10:00:00", currency="USD")]
    outcome = run([RULE], events, "2026-03-05T00:00:00Z")

    assert told(outcome, "expected", "currency", "revision") == [("100.00", "USD", 2)]


def test_a_missing_record_is_missing_with_the_adjusted_amount_of_the_other_side() -> None:
    """An adjustment on the side that is missing stands in for a record of its amount; no record, and it is null."""
    ledger = event("ledger", "02T10:00:00")

    for source, expected, actual, difference in (
        ("ledger", "103.00", None, "-103.00"),
        ("stripe", "100.00", "3.00", "-97.00"),
    ):
        outcome = run([RULE], [ledger, adjustment(source, "02T11:00:00", "3.00")], "2026-03-04T00:00:00Z")
        assert told(outcome, "expected", "actual", "difference") == [(expected, actual, difference)]


def test_an_adjustment_that_is_voided_no_longer_counts() -> None:
    events = [
        event("ledger", "02T10:00:00"),
        event("stripe", "02T10:01:00", amount="103.00"),
        adjustment("stripe", "02T11:00:00", "-3.00"),
        adjustment("stripe", "02T12:00:00", "-3.00", status="voided"),
    ]

    assert told(run([RULE], events, "2026-03-04T00:00:00Z"), "state", "difference") == [("raised", "3.00")]


def test_an_adjustment_without_a_match_key_is_a_dead_letter_and_no_money_that_is_missing() -> None:
    lost = adjustment("stripe", "02T11:00:00", "-3.00", refs={"discrepancy": "d"})
    outcome = run([RULE], [lost], "2026-03-04T00:00:00Z")

    assert (outcome.discrepancies, outcome.dead_letters) == ([], ["no match key"])


def test_with_the_first_side_missing_the_others_are_compared_with_the_first_that_is_there() -> None:
    events = [event("stripe", "02T10:00:00"), event("bank", "02T10:01:00", amount="99.00")]
    outcome = run([THREE], events, "2026-03-04T00:00:00Z")

    assert told(outcome, "type", "side", "difference") == [
        ("MissingInternalRecord", "internal", "100.00"),
        ("AmountMismatch", "bank", "-1.00"),
    ]


def test_of_several_records_that_are_not_live_the_first_is_compared_like_among_live_ones() -> None:
    events = [
        event("ledger", "02T10:00:00"),
        event("stripe", "02T10:01:00", record="try1", status="failed"),
        event("stripe", "02T10:02:00", record="try2", status="canceled"),
    ]

    assert told(run([RULE], events, "2026-03-04T00:00:00Z"), "type", "actual") == [("StatusMismatch", "failed")]


def test_an_armed_group_stays_armed_while_nothing_in_it_is_live() -> None:
    """Money that comes alive again after the first deadline is missing at once."""
    events = [
        event("ledger", "02T10:00:00"),
        event("ledger", "02T11:00:00", status="canceled"),
        event("ledger", "05T10:00:00"),
    ]

    assert told(run([RULE], events, "2026-03-05T10:00:00Z"), "type", "raised_at") == [
        ("MissingProviderRecord", "2026-03-05T10:00:00.000Z")
    ]


def test_a_superseded_record_does_not_stand_on_its_side() -> None:
    """Neither live nor present: with nothing else there, the side is missing."""
    events = [
        event("ledger", "02T10:00:00"),
        event("stripe", "02T10:01:00", record="old"),
        event("stripe", "02T10:02:00", record="new", supersedes="old"),
        event("stripe", "02T10:03:00", record="old", supersedes="new"),
    ]

    assert told(run([RULE], events, "2026-03-04T00:00:00Z"), "type") == [("MissingProviderRecord",)]


def test_a_no_op_does_not_lengthen_keep_but_an_older_event_that_tells_something_does() -> None:
    """`keep` counts from the last leg that changed what the group knows."""
    rule = RULE | {"keep": "1h"}
    first = event("ledger", "02T10:00:00")
    older = event("stripe", "02T10:30:00", occurred_at="2026-03-02T09:00:00Z", amount="1.00")
    wrong = event("stripe", "02T11:20:00", amount="71.00")

    known = run([rule], [first, event("stripe", "02T10:05:00"), older, wrong], "2026-03-02T12:00:00Z")
    forgotten = run(
        [rule],
        [first, event("stripe", "02T10:05:00"), first | {"received_at": "2026-03-02T10:30:00Z"}, wrong],
        "2026-03-02T12:00:00Z",
    )

    assert told(known, "type") == [("AmountMismatch",)]
    assert told(forgotten, "type") == []


def test_an_open_duplicate_keeps_its_group_from_being_a_match() -> None:
    events = [
        event("ledger", "02T10:00:00"),
        event("stripe", "02T10:01:00"),
        event("stripe", "02T10:02:00", record="again"),
    ]

    assert run([RULE], events, "2026-03-04T00:00:00Z").matches == 0
    assert run([RULE | {"duplicates": ["internal"]}], events, "2026-03-04T00:00:00Z").matches == 1
