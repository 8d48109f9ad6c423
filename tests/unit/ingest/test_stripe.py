"""Stripe's webhooks to events: which record, which amount, which status counts, which event of two is newer."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.ingest.domain.providers import MAPPINGS, MappingOptions, Unmapped
from services.ingest.domain.providers.stripe import read
from shared.contracts.event import PostedEvent
from shared.rules.match_rule import NOT_LIVE

FIXTURES = Path(__file__).parent / "fixtures/stripe"


def body_of(name: str, **changes: Any) -> bytes:
    document = json.loads((FIXTURES / f"{name}.json").read_bytes())
    document["data"]["object"].update(changes)
    return json.dumps(document).encode()


def event_of(name: str, **changes: Any) -> PostedEvent:
    mapped = read(body_of(name, **changes), "stripe", MappingOptions())
    assert mapped.refused == []
    (event,) = mapped.events
    return event


def is_live(status: str | None) -> bool:
    return status not in NOT_LIVE and not (status or "").startswith("requires_")


def newer(one: str, other: str) -> bool:
    """Tell whether fixture `one` wins over `other` (DESIGN: occurred_at, sequence, id)."""
    a, b = event_of(one), event_of(other)
    assert a.record == b.record, "only events of one record replace each other"
    return (a.occurred_at, a.sequence, a.id) > (b.occurred_at, b.sequence, b.id)


EXPECTED = [
    # fixture, type, record, amount, status, live (amount None: nothing was received)
    ("payment_intent.created", "payment.created", "pi_1", None, "requires_payment_method", False),
    ("payment_intent.requires_action", "payment.requires_action", "pi_1", None, "requires_action", False),
    ("payment_intent.processing", "payment.processing", "pi_1", None, "processing", False),
    ("payment_intent.payment_failed", "payment.payment_failed", "pi_1", None, "failed", False),
    (
        "payment_intent.amount_capturable_updated",
        "payment.amount_capturable_updated",
        "pi_1",
        None,
        "authorized",
        False,
    ),
    ("payment_intent.succeeded", "payment.succeeded", "pi_1", "120.50", "succeeded", True),
    ("payment_intent.succeeded_partial_capture", "payment.succeeded", "pi_1", "80.00", "succeeded", True),
    ("payment_intent.canceled", "payment.canceled", "pi_1", None, "canceled", False),
    ("charge.failed", "payment.failed", "pi_1", None, "failed", False),
    ("charge.pending", "payment.pending", "pi_1", None, "pending", False),
    ("charge.succeeded", "payment.succeeded", "pi_1", "120.50", "succeeded", True),
    ("charge.succeeded_uncaptured", "payment.succeeded", "pi_1", None, "authorized", False),
    ("charge.captured_partial", "payment.captured", "pi_1", "80.00", "succeeded", True),
    ("charge.expired", "payment.expired", "pi_1", None, "expired", False),
    ("charge.succeeded_without_intent", "payment.succeeded", "ch_9", "120.50", "succeeded", True),
    ("refund.created", "refund.created", "re_1", "20.00", "pending", False),
    ("charge.refund.updated", "refund.updated", "re_1", "20.00", "succeeded", True),
    ("refund.failed", "refund.failed", "re_1", "20.00", "failed", False),
    ("charge.dispute.created", "dispute.created", "dp_1", "120.50", "needs_response", True),
    ("charge.dispute.created_inquiry", "dispute.created", "dp_1", "120.50", "pending", False),
    ("charge.dispute.closed_won", "dispute.closed", "dp_1", "120.50", "won", True),
    ("charge.dispute.closed_lost", "dispute.closed", "dp_1", "120.50", "lost", True),
    ("payout.created", "payout.created", "po_1", "5000.00", "processing", False),
    ("payout.paid", "payout.paid", "po_1", "5000.00", "paid", True),
    ("payout.failed", "payout.failed", "po_1", "5000.00", "failed", False),
    ("invoice.finalized", "invoice.finalized", "in_1", "99.00", "open", True),
    ("invoice.paid", "invoice.paid", "in_1", "99.00", "paid", True),
    ("invoice.voided", "invoice.voided", "in_1", "99.00", "voided", False),
]


@pytest.mark.parametrize(
    ("name", "type_", "record", "amount", "status", "live"), EXPECTED, ids=[e[0] for e in EXPECTED]
)
def test_each_webhook_makes_one_event_of_its_record(
    name: str, type_: str, record: str, amount: str, status: str, live: bool
):
    event = event_of(name)
    assert (event.type, event.record, event.amount, event.status) == (type_, record, amount, status)
    assert is_live(event.status) is live
    assert (event.source, event.currency) == ("stripe", "EUR")
    assert event.attrs["stripe_type"]


@pytest.mark.parametrize("name", ["charge.refunded", "charge.updated", "invoice.upcoming", "customer.created"])
def test_what_is_no_movement_of_its_own_makes_no_event_and_no_dead_letter(name: str):
    mapped = read(body_of(name), "stripe", MappingOptions())
    assert (mapped.events, mapped.refused, mapped.kind) == ([], [], json.loads(body_of(name))["type"])


def test_every_fixture_is_expected_somewhere():
    silent = {
        "charge.refunded",
        "charge.updated",
        "invoice.upcoming",
        "customer.created",
        "payment_intent.succeeded_jpy",
    }
    assert {path.stem for path in FIXTURES.glob("*.json")} == {row[0] for row in EXPECTED} | silent


def test_a_retry_that_succeeds_in_the_second_of_its_decline_wins():
    assert newer("payment_intent.succeeded", "payment_intent.payment_failed")
    assert newer("payment_intent.succeeded", "charge.failed")
    assert newer("charge.succeeded", "payment_intent.payment_failed")


def test_an_intent_outranks_its_charge_of_the_same_second():
    assert newer("payment_intent.succeeded", "charge.succeeded")


def test_a_partial_capture_replaces_the_authorization_of_the_same_record():
    assert newer("payment_intent.succeeded_partial_capture", "payment_intent.amount_capturable_updated")
    assert newer("charge.captured_partial", "charge.succeeded_uncaptured")
    assert event_of("charge.captured_partial").record == event_of("payment_intent.succeeded_partial_capture").record


def test_a_payout_that_fails_after_it_was_paid_is_the_newest():
    assert newer("payout.paid", "payout.created")
    assert newer("payout.failed", "payout.paid")


def test_a_refund_that_fails_later_no_longer_counts():
    assert newer("charge.refund.updated", "refund.created")
    assert newer("refund.failed", "charge.refund.updated")


def test_a_dispute_ends_won_or_lost():
    assert newer("charge.dispute.closed_won", "charge.dispute.created")
    assert newer("charge.dispute.closed_lost", "charge.dispute.created")


def test_several_captures_count_what_has_been_received():
    event = event_of("payment_intent.amount_capturable_updated", amount_received=3000)
    assert (event.amount, event.status) == ("30.00", "succeeded")


def test_payment_refs_name_the_own_id_of_the_metadata_and_the_intent():
    refs = event_of("payment_intent.succeeded").refs
    assert refs == {"payment_id": "pay_1", "provider_payment_id": "pi_1"}
    assert event_of("payment_intent.succeeded", metadata={}).refs["payment_id"] == "pi_1"
    assert event_of("charge.succeeded").refs["charge_id"] == "ch_1"


def test_the_metadata_field_of_the_own_id_is_configured():
    options = MappingOptions(payment_id_field="order")
    mapped = read(body_of("payment_intent.succeeded", metadata={"order": " o-7 "}), "stripe", options)
    assert mapped.events[0].refs["payment_id"] == "o-7"


def test_refunds_and_disputes_name_the_payment_and_never_its_record():
    for name in ("refund.created", "charge.dispute.created"):
        event = event_of(name)
        assert event.refs["provider_payment_id"] == "pi_1"
        assert event.record not in {"pi_1", "ch_1"}
    assert event_of("refund.created", payment_intent=None).refs["provider_payment_id"] == "ch_1"


def test_references_may_be_expanded_objects():
    event = event_of(
        "charge.succeeded", payment_intent={"id": "pi_1", "object": "payment_intent"}, customer={"id": "cus_9"}
    )
    assert (event.record, event.account) == ("pi_1", "customer:cus_9")


def test_payouts_and_invoices_are_named_for_their_rules():
    assert event_of("payout.paid").refs == {"payout_id": "po_1"}
    assert event_of("invoice.paid").refs == {"invoice_id": "in_1", "invoice": "ACME-0007"}


@pytest.mark.parametrize(
    ("currency", "amount"),
    [("jpy", "12050"), ("bhd", "12.050"), ("usd", "120.50"), ("clp", "12050"), ("ugx", "120.50")],
)
def test_minor_units_are_stripes_own(currency: str, amount: str):
    assert event_of("payment_intent.succeeded", currency=currency).amount == amount
    assert event_of("payment_intent.succeeded", currency=currency).currency == currency.upper()


def test_an_unknown_status_goes_through_visible_and_live():
    event = event_of("payout.paid", status="teleported")
    assert (event.status, event.attrs["provider_status"]) == ("teleported", "teleported")


def test_test_mode_and_connected_accounts_are_shown():
    document = json.loads(body_of("payout.paid")) | {"livemode": False, "account": "acct_1"}
    (event,) = read(json.dumps(document).encode(), "stripe", MappingOptions()).events
    assert (event.attrs["test_mode"], event.attrs["connect_account"]) == ("true", "acct_1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{broken",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b"{}",
        b'{"object": "v2.core.event", "type": "payment_intent.succeeded"}',
        b'{"object": "event", "type": "payment_intent.succeeded"}',
        b'{"object": "event", "type": "charge.failed", "id": "evt_1", "created": "yesterday", "data": {}}',
        body_of("payment_intent.succeeded", currency="xxq"),
        body_of("payment_intent.succeeded", currency=None),
        body_of("payment_intent.succeeded", amount_received=None),
        body_of("payment_intent.succeeded", amount_received=120.5),
        body_of("payment_intent.succeeded", id=None),
        body_of("payout.paid", status=None),
        body_of("payment_intent.succeeded").replace(b'"pi_1"', b'"pi_\xff"', 1),
        body_of("payment_intent.succeeded").replace(b'"created": 1', b'"created": 1000000000', 1),
        body_of("payment_intent.succeeded").replace(b'"created": 1', b'"created": -1000000000', 1),
        b'{"object": "event", "type": ' + b"[" * 100_000,
    ],
)
def test_what_should_be_understood_and_is_not_is_unmapped_with_a_hint(body: bytes):
    with pytest.raises(Unmapped) as caught:
        read(body, "stripe", MappingOptions())
    assert str(caught.value)
    assert caught.value.hint


def test_a_negative_payout_is_refused_later_and_not_turned_positive():
    assert event_of("payout.paid", amount=-500).amount == "-5.00"


def test_a_field_that_breaks_the_contract_is_refused_and_not_raised():
    mapped = read(body_of("payout.paid", status="x" * 300), "stripe", MappingOptions())
    assert mapped.events == []
    assert [refusal.field for refusal in mapped.refused] == ["status"]


def test_the_mapping_is_known_by_its_provider():
    assert MAPPINGS["stripe"] is read
