"""Adjustment entries as events: what the matcher adds is what the person wrote, whatever kind of rule it is for."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from services.alerts.adapters.rule_topic import _shape
from services.alerts.domain.adjustment import AdjustmentRefused, Entry, adjust
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.rule_set import RuleSetRecord
from shared.rules.generation import specification
from tests.support.offline import rules_of, run_offline
from tests.support.results import START, found

AT = datetime(2026, 11, 21, tzinfo=UTC)
SIGNED: dict[str, Any] = {"by": "attrs.direction", "credit": 1, "debit": -1}


def zero_sum(sign: Any) -> dict[str, Any]:
    entries = {"source": "ledger", "type": ["entry.*"], "sign": sign}
    rule = {"name": "ledger.transactions", "kind": "zero_sum", "entries": entries}
    return rule | {"key": "refs.transaction", "deadline": "1m"}


def shape_of(rule: dict[str, Any]) -> Any:
    (model,) = rules_of([rule])
    record = RuleSetRecord(
        version=1, org="acme", pack="billing", rules=[specification(model)], applied_at=START, applied_by="ann"
    )
    shape = _shape(record, rule["name"])
    assert shape is not None
    return shape


def entry(id_: str, amount: str, direction: str) -> dict[str, Any]:
    return {
        "org": "acme", "source": "ledger", "type": "entry.posted", "id": id_, "amount": amount, "currency": "EUR",
        "occurred_at": "2026-11-20T10:00:00Z", "received_at": "2026-11-20T10:00:00Z",
        "refs": {"transaction": "t1"}, "attrs": {"direction": direction},
    }  # fmt: skip


def last(rule: dict[str, Any], events: list[dict[str, Any]]) -> Discrepancy:
    engine, _ = run_offline([rule], events, "2026-11-22T00:00:00Z")
    assert engine.dead_letters == []
    (one,) = engine.last_revisions()
    return one


@pytest.mark.parametrize("sign", [SIGNED, {"by": "attrs.direction", "debit": -1}, 1, -1], ids=str)
def test_what_a_person_adds_to_a_transaction_settles_it(sign: Any) -> None:
    """Through the triage API's own entry and the product: an imbalance of -10.00 is settled by +10.00."""
    rule = zero_sum(sign)
    events = [entry("e1", "-10.00" if sign == 1 else "10.00", "debit")]
    raised = last(rule, events)
    assert raised.difference == "-10.00"
    asked = Entry(source="ledger", amount="10.00", currency="EUR", reason="rounding")
    posted = adjust(raised, shape_of(rule), asked, id_="x", actor="ann", at=AT).event

    settled = last(rule, [*events, posted | {"org": "acme", "received_at": "2026-11-21T00:00:00Z"}])
    assert (settled.id, settled.state, settled.resolution) == (raised.id, "resolved", "adjusted")


def test_an_entry_for_a_match_keeps_the_sign_it_was_written_with() -> None:
    sides = {
        "internal": {"source": "ledger", "type": ["payment.*"], "sign": -1},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    }
    shape = shape_of({"name": "billing.payments", "kind": "match", "sides": sides, "key": "refs.payment_id"})
    asked = Entry(source="ledger", amount="-4.00", currency="EUR", reason="fee")
    posted = adjust(found(), shape, asked, id_="x", actor="ann", at=AT).event

    assert (posted["amount"], posted["refs"]["payment_id"]) == ("-4.00", msgspec.to_builtins(found())["key"])


def test_what_was_read_is_never_adjusted() -> None:
    """A snapshot is what it is; an entry would end among the dead letters."""
    rule = {
        "name": "bots.state",
        "kind": "invariant",
        "snapshots": {"source": "bot", "type": ["snapshot.*"]},
        "key": "account",
        "checks": [{"code": "equity", "field": "attrs.equity", "above": "0"}],
    }
    asked = Entry(source="bot", amount="1.00", currency="EUR", reason="other")
    with pytest.raises(AdjustmentRefused, match="resolve this with a reason"):
        adjust(found(), shape_of(rule), asked, id_="x", actor="ann", at=AT)


def bank_line(amount: str) -> dict[str, Any]:
    return {
        "org": "acme", "source": "bank", "type": "entry.booked", "id": "l1", "record": "l1", "amount": amount,
        "currency": "EUR", "account": "main", "attrs": {"text": "INV100017"},
        "occurred_at": "2026-11-10T10:00:00Z", "received_at": "2026-11-10T10:00:00Z",
    }  # fmt: skip


WITHOUT_KEY: dict[str, Any] = {
    "name": "bank.invoices",
    "kind": "match",
    "sides": {
        "internal": {"source": "erp", "type": ["invoice.*"]},
        "provider": {"source": "bank", "type": ["entry.*"]},
    },
    "partition_by": ["currency", "account"],
    "score": {"reference": {"fields": ["refs.invoice", "attrs.text"]}},
}


def test_an_entry_finds_what_was_matched_without_a_key() -> None:
    """A fee that the bank kept is booked against the mismatch that names it."""
    invoice = bank_line("100.00") | {
        "source": "erp", "type": "invoice.issued", "id": "i1", "record": "i1", "attrs": {}, "refs": {"invoice": "INV100017"},
    }  # fmt: skip
    events = [invoice, bank_line("98.50")]
    raised = last(WITHOUT_KEY, events)
    assert (raised.type, raised.difference) == ("AmountMismatch", "-1.50")
    asked = Entry(source="bank", amount="1.50", currency="EUR", reason="fee")
    posted = adjust(raised, shape_of(WITHOUT_KEY), asked, id_="x", actor="ann", at=AT).event

    settled = last(WITHOUT_KEY, [*events, posted | {"org": "acme", "received_at": "2026-11-21T00:00:00Z"}])
    assert (settled.id, settled.state, settled.resolution) == (raised.id, "resolved", "adjusted")


def test_an_entry_in_another_currency_than_its_partition_is_refused() -> None:
    raised = last(WITHOUT_KEY, [bank_line("98.50")])

    asked = Entry(source="bank", amount="1.50", currency="USD", reason="fee")
    with pytest.raises(AdjustmentRefused, match="this discrepancy is in EUR"):
        adjust(raised, shape_of(WITHOUT_KEY), asked, id_="x", actor="ann", at=AT)
