"""A payout against its charges, refunds and fees: what its item and its discrepancy show, and the report's gap."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from services.alerts.domain.gap import causes_of, gap_of
from services.alerts.domain.history import item_state
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item, totals_of
from tests.support.offline import run_offline

RULE: dict[str, Any] = {
    "name": "shop.payouts",
    "kind": "match",
    "sides": {
        "payout": {"source": "bank", "type": ["payout.*"]},
        "charges": {"source": "stripe", "type": ["charge.*"]},
        "refunds": {"source": "stripe", "type": ["refund.*"], "sign": -1},
        "fees": {"source": "stripe", "type": ["fee.*"], "sign": -1},
    },
    "key": "refs.payout",
    "cardinality": "one_to_many",
    "compare": {"amount": {"equals": {"payout": ["charges", "refunds", "fees"]}}, "currency": {}},
}


def event(type_: str, amount: str, record: str) -> dict[str, Any]:
    return {
        "org": "acme", "source": "bank" if type_.startswith("payout") else "stripe", "type": type_, "id": record,
        "record": record, "amount": amount, "currency": "EUR", "refs": {"payout": "po_1"},
        "occurred_at": "2026-03-02T10:00:00Z", "received_at": "2026-03-02T10:00:00Z",
    }  # fmt: skip


def ran(payout: str) -> tuple[Item, list[Discrepancy]]:
    parts = [
        event("charge.settled", "160.00", "c"),
        event("refund.settled", "25.00", "r"),
        event("fee.paid", "4.64", "f"),
    ]
    engine, _ = run_offline([RULE], [*parts, event("payout.paid", payout, "p")], "2026-03-05T00:00:00Z")
    (item,) = engine.items.values()
    return item, engine.last_revisions()


def test_the_parts_stand_as_one_side_with_their_sum() -> None:
    item, raised = ran("130.36")

    assert raised == []
    assert list(item.sides) == ["payout", "charges"]
    payout, charges = item.sides.values()
    assert payout is not None
    assert charges is not None
    assert totals_of(payout)["EUR"].amount == totals_of(charges)["EUR"].amount == "130.36"
    assert [record.record for record in charges.records] == ["c", "r", "f"]
    assert gap_of(item_state(item)) == {"EUR": Decimal(0)}


def test_the_gap_of_a_report_is_what_the_discrepancy_says() -> None:
    """No part of it is left unexplained."""
    item, (raised,) = ran("128.00")

    assert (raised.type, raised.expected, raised.actual, raised.difference) == (
        "AmountMismatch",
        "128.00",
        "130.36",
        "2.36",
    )
    assert causes_of(item_state(item)) == {("EUR", "AmountMismatch"): Decimal("2.36")}


def test_the_evidence_shows_every_part_with_its_own_sum() -> None:
    _, (raised,) = ran("128.00")

    shown = {name: side and side.amount for name, side in raised.sides.items()}
    assert shown == {"payout": "128.00", "charges": "160.00", "refunds": "-25.00", "fees": "-4.64"}
    assert "the sum of charges, refunds and fees" in raised.explanation.lower()
    assert raised.raised_at == datetime(2026, 3, 3, 10, 0, 0, 1000, tzinfo=UTC)
