"""From inbox records to events, legs and dead letters, with the billing pack in force."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.ingest.domain.normalise import Normaliser, Outcome
from services.ingest.domain.providers import MappingOptions
from services.ingest.domain.rule_book import RuleBook
from shared.contracts.event import milliseconds
from shared.contracts.inbox import (
    CutRequested,
    InboxRecord,
    RowReceived,
    TickRequested,
    WebhookReceived,
    WithdrawRequested,
    encode_inbox,
)
from shared.contracts.leg import Cut, Leg, Withdraw, group_key, keyless_group_key
from shared.contracts.rule_set import RuleSetRecord
from shared.rules.generation import specification
from shared.rules.load import RulesInvalid, load_rules

BILLING = load_rules(Path(__file__).parents[3] / "shared/packs/billing/rules.yaml")
FIXTURES = Path(__file__).parent / "fixtures/stripe"
RECEIVED = datetime(2026, 11, 20, 10, 0, 1, tzinfo=UTC)
PLACE = (2, 41, milliseconds(RECEIVED))


def rule_set(names: set[str] | None = None, withdrawn: tuple[str, ...] = (), **changes: Any) -> RuleSetRecord:
    rules = [specification(rule) | changes for rule in BILLING.rules if names is None or rule.name in names]
    return RuleSetRecord(
        version=1,
        org="acme",
        pack="billing",
        rules=rules,
        applied_at=RECEIVED,
        applied_by="me",
        withdrawn=list(withdrawn),
    )


def normaliser() -> Normaliser:
    book = RuleBook()
    book.apply("acme", "billing", rule_set(), 7)
    return Normaliser(book, lambda _org, _source: MappingOptions())


def outcome_of(*records: InboxRecord | bytes) -> Outcome:
    outcome = Outcome()
    of = normaliser()
    for record in records:
        of.add(record if isinstance(record, bytes) else encode_inbox(record), PLACE, outcome)
    return outcome


def row(**fields: Any) -> RowReceived:
    event = {
        "source": "ledger",
        "type": "payment.succeeded",
        "id": "e1",
        "record": "pay_1",
        "occurred_at": "2026-11-20T10:00:00Z",
        "amount": "120.50",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": "pay_1"},
    } | fields
    return RowReceived(org="acme", row=json.dumps({k: v for k, v in event.items() if v is not None}).encode())


def webhook(body: bytes, provider: str = "stripe") -> WebhookReceived:
    return WebhookReceived(
        org="acme", source=provider, provider=provider, delivery_id="d", body=body, verdict="verified"
    )


def test_a_row_becomes_an_event_received_at_broker_time_and_a_leg_at_its_place():
    outcome = outcome_of(row())
    (event,), ((group, leg),) = outcome.events, outcome.legs
    assert (event.org, event.received_at) == ("acme", RECEIVED)
    assert group == group_key("acme", "billing.payments", ("pay_1",))
    assert isinstance(leg, Leg)
    assert (leg.inbox_partition, leg.inbox_offset, leg.received_at) == PLACE
    assert outcome.dead_letters == []


def test_a_webhook_and_its_ledger_row_meet_in_one_group():
    document = json.loads((FIXTURES / "payment_intent.succeeded.json").read_bytes()) | {
        "created": milliseconds(RECEIVED) // 1000
    }
    outcome = outcome_of(row(), webhook(json.dumps(document).encode()))
    assert {group for group, _ in outcome.legs} == {group_key("acme", "billing.payments", ("pay_1",))}
    assert [leg.side for _, leg in outcome.legs if isinstance(leg, Leg)] == [0, 1]


def test_the_same_record_normalised_twice_gives_the_same():
    once, twice = outcome_of(row()), outcome_of(row(), row())
    assert twice.events == once.events * 2
    assert twice.legs == once.legs * 2


def test_an_event_that_no_rule_selects_is_told_and_still_an_event():
    outcome = outcome_of(row(source="shop"), row(type="coffee.brewed"), row())
    assert len(outcome.events) == 3
    assert len(outcome.legs) == 1
    first, second = outcome.events[:2]
    assert [(one.source, one.type) for one in outcome.not_reconciled] == [
        ("shop", "payment.succeeded"),
        ("ledger", "coffee.brewed"),
    ]
    assert [one.event_id for one in outcome.not_reconciled] == [first.uuid, second.uuid]
    assert {(one.org, one.occurred_at, one.received_at) for one in outcome.not_reconciled} == {
        ("acme", first.occurred_at, RECEIVED)
    }


def test_an_event_that_no_rule_selects_is_told_under_one_name_however_often_it_comes():
    outcome = outcome_of(row(source="shop"), row(source="shop"))
    assert len({one.event_id for one in outcome.not_reconciled}) == 1


def test_the_rules_in_force_when_an_event_is_read_decide_whether_it_is_reconciled():
    """A rule that is withdrawn later takes nothing back, nor does one that comes later."""
    book = RuleBook()
    of = Normaliser(book, lambda _org, _source: MappingOptions())
    before, during, after = Outcome(), Outcome(), Outcome()
    of.add(encode_inbox(row()), PLACE, before)
    book.apply("acme", "billing", rule_set(), 7)
    of.add(encode_inbox(row()), PLACE, during)
    book.apply("acme", "billing", rule_set(names=set(), withdrawn=("billing.payments",)), 8)
    of.add(encode_inbox(row()), PLACE, after)
    assert [len(one.not_reconciled) for one in (before, during, after)] == [1, 0, 1]


def test_an_event_that_a_rule_selects_and_cannot_use_is_a_dead_letter_and_not_told_as_unselected():
    outcome = outcome_of(row(amount=None))
    assert [letter.reason for letter in outcome.dead_letters] == ["no amount"]
    assert outcome.not_reconciled == []


def test_without_rules_every_event_of_an_org_is_not_reconciled():
    outcome = Outcome()
    Normaliser(RuleBook(), lambda _o, _s: MappingOptions()).add(encode_inbox(row()), PLACE, outcome)
    assert [(one.source, one.type) for one in outcome.not_reconciled] == [("ledger", "payment.succeeded")]


def test_a_live_event_without_key_is_a_dead_letter_and_a_keyless_leg():
    outcome = outcome_of(row(refs={"payment_id": " "}))
    assert [group for group, _ in outcome.legs] == [keyless_group_key("acme", "billing.payments", "ledger", "pay_1")]
    (letter,) = outcome.dead_letters
    assert (letter.reason, letter.rule, letter.event) == ("no match key", "billing.payments", "e1")
    assert (letter.inbox_partition, letter.inbox_offset, letter.received_at) == (2, 41, RECEIVED)


def test_a_live_event_without_amount_is_a_dead_letter_and_no_leg():
    outcome = outcome_of(row(amount=None))
    assert outcome.legs == []
    assert [letter.reason for letter in outcome.dead_letters] == ["no amount"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{broken", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (row(amount=1.5).row, "decimal string"),
        (row(amount="-1").row, "negative"),
        (row(currency="XXQ").row, "currency"),
        (row(occurred_at="2026-11-20T10:00:00").row, "zone"),
        (row(occurred_at="2099-01-01T00:00:00Z").row, "ahead"),
        (row(received_at="2026-11-20T10:00:00Z").row, "received_at"),
        (row(org="other").row, "org"),
        (row(surprise=1).row, "surprise"),
    ],
)
def test_a_row_that_breaks_the_contract_is_a_dead_letter_with_its_bytes(raw: bytes, says: str):
    outcome = outcome_of(RowReceived(org="acme", row=raw))
    (letter,) = outcome.dead_letters
    assert (letter.reason, letter.raw, letter.org) == ("refused", raw, "acme")
    assert says in letter.detail
    assert outcome.events == []


@pytest.mark.parametrize("value", [b"", b"\x02x", b"\x01", b"\x01\xc1", b"text", encode_inbox(row())[:-3]])
def test_what_is_no_inbox_record_is_unreadable_and_kept(value: bytes):
    (letter,) = outcome_of(value).dead_letters
    assert (letter.reason, letter.raw) == ("unreadable", value)


def test_unknown_mappings_are_dead_letters_with_the_raw_bytes():
    odd = WebhookReceived(org="acme", source="x", provider="abacus", delivery_id="d", body=b"raw", verdict="v")
    letters = outcome_of(odd, webhook(b"{broken")).dead_letters
    assert [(letter.reason, letter.raw) for letter in letters] == [
        ("unknown mapping", b"raw"),
        ("unknown mapping", b"{broken"),
    ]
    assert all(letter.hint for letter in letters)


def test_a_webhook_about_no_money_is_counted_and_no_dead_letter():
    outcome = outcome_of(webhook((FIXTURES / "customer.created.json").read_bytes()))
    assert (outcome.events, outcome.dead_letters) == ([], [])
    assert outcome.ignored == {("stripe", "customer.created"): 1}


def test_the_generic_webhook_carries_one_event_or_several_and_bad_ones_do_not_take_the_others_down():
    good = {"type": "payment.succeeded", "id": "e1", "occurred_at": "2026-11-20T10:00:00Z"}
    batch = [good, good | {"id": "e2", "source": "other"}, good | {"amount": 1.5}, 7, good | {"id": "e3"}]
    outcome = outcome_of(webhook(json.dumps(batch).encode(), "standard"))
    assert [event.id for event in outcome.events] == ["e1", "e3"]
    assert {event.source for event in outcome.events} == {"standard"}
    assert [letter.reason for letter in outcome.dead_letters] == ["refused"] * 3


def test_control_requests_go_where_they_belong_and_ticks_nowhere():
    outcome = outcome_of(
        TickRequested(),
        CutRequested(org="acme", id="2026-11"),
        WithdrawRequested(org="acme", rule="billing.payments", source="ledger", record="pay_1"),
    )
    assert outcome.legs == [
        (None, Cut("acme", "2026-11", 2, milliseconds(RECEIVED))),
        (
            keyless_group_key("acme", "billing.payments", "ledger", "pay_1"),
            Withdraw("ledger", "pay_1", 2, milliseconds(RECEIVED)),
        ),
    ]


# ---- rule book


def test_withdrawn_rules_are_announced_with_an_empty_specification():
    book = RuleBook()
    book.apply("acme", "billing", rule_set(), 3)
    book.apply("acme", "billing", rule_set({"billing.payments"}), 9)
    records = {record.rule: record for record in book.records()}
    assert {name for name, record in records.items() if not record.specification} == {
        "billing.refunds", "billing.disputes", "billing.payouts", "billing.invoices",
    }  # fmt: skip
    assert {record.version for record in records.values()} == {9}


def test_rules_withdrawn_before_this_process_lived_are_announced_too():
    book = RuleBook()
    book.apply("acme", "billing", rule_set({"billing.payments"}, withdrawn=("billing.old",)), 9)
    assert [(r.rule, r.specification == "") for r in book.records()] == [
        ("billing.old", True),
        ("billing.payments", False),
    ]


def test_an_older_rule_set_changes_nothing_and_a_tombstone_withdraws():
    book = RuleBook()
    book.apply("acme", "billing", rule_set(), 3)
    book.apply("acme", "billing", None, 2)
    assert book.revision == 1
    book.apply("acme", "billing", None, 4)
    assert all(record.specification == "" for record in book.records())
    assert len(book.records()) == 5


def test_a_rule_set_that_cannot_be_read_leaves_the_former_in_force():
    book = RuleBook()
    book.apply("acme", "billing", rule_set(), 3)
    with pytest.raises(RulesInvalid, match="kind"):
        book.apply("acme", "billing", rule_set(kind="guess"), 4)
    assert len(book.records()) == 5
    assert all(record.specification for record in book.records())


def test_legs_carry_the_generation_of_the_record_that_announced_their_rule():
    of = normaliser()
    outcome = Outcome()
    of.add(encode_inbox(row()), PLACE, outcome)
    _, leg = outcome.legs[0]
    assert isinstance(leg, Leg)
    assert leg.generation in {record.generation for record in of._rules.records()}
    assert of._rules.name_of(leg.generation) == "billing.payments"
