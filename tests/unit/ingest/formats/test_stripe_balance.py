"""Stripe's itemised reports: gross, fee, net and payout of each row, and payouts with what goes to the bank."""

from decimal import Decimal

import pytest

from services.ingest.domain.formats.rows import FileUnreadable, Row, RowError
from services.ingest.domain.formats.stripe_balance import CATEGORIES, StripeBalanceFormat
from services.ingest.domain.formats.text_lines import text_lines
from shared.contracts.event import PostedEvent, accept

CHARGE = {
    "balance_transaction_id": "txn_1",
    "created_utc": "2026-10-01 12:30:00",
    "available_on_utc": "2026-10-03 00:00:00",
    "currency": "eur",
    "gross": "120.50",
    "fee": "2.06",
    "net": "118.44",
    "reporting_category": "charge",
    "source_id": "ch_1",
    "description": "Order, with comma",
    "automatic_payout_id": "po_1",
    "charge_id": "ch_1",
    "payment_intent_id": "pi_1",
    "payment_metadata[payment_id]": "SO-1",
}
PAYOUT = {
    "payout_id": "po_1",
    "effective_at_utc": "2026-10-05 00:00:00",
    "balance_transaction_id": "txn_p",
    "currency": "eur",
    "gross": "-118.44",
    "fee": "0.00",
    "net": "-118.44",
    "reporting_category": "payout",
    "payout_status": "paid",
    "trace_id": "T1",
    "trace_id_status": "supported",
}


def rows(*cells: dict[str, str], **options: object) -> list[Row]:
    columns = list(cells[0])
    text = ",".join(columns) + "\n" + "".join(",".join(f'"{one[c]}"' for c in columns) + "\n" for one in cells)
    return list(StripeBalanceFormat(**options).read([text.encode()], "stripe.csv"))  # type: ignore[arg-type]


def events(cells: dict[str, str], **changes: str) -> list[PostedEvent]:
    (row,) = rows({**cells, **changes})
    assert isinstance(row.outcome, list), row.outcome
    for event in row.outcome:
        accept(event, org="acme", received_at=event.occurred_at)
    return row.outcome


def reason(cells: dict[str, str], **changes: str) -> str:
    (row,) = rows({**cells, **changes})
    assert isinstance(row.outcome, RowError)
    return row.outcome.reason


def test_a_charge_is_its_gross_and_its_fee():
    gross, fee = events(CHARGE)

    assert (gross.source, gross.type, gross.id, gross.record) == ("stripe", "movement.charge", "txn_1@po_1", "txn_1")
    assert (fee.type, fee.id, fee.record) == ("movement.processing_fee", "txn_1/fee@po_1", "txn_1/fee")
    assert (gross.amount, fee.amount, gross.currency) == ("120.50", "-2.06", "EUR")
    assert gross.occurred_at.isoformat() == "2026-10-01T12:30:00+00:00"
    assert (
        gross.refs
        == fee.refs
        == {
            "balance_transaction_id": "txn_1",
            "charge_id": "ch_1",
            "source_id": "ch_1",
            "payout_id": "po_1",
            "payment_id": "SO-1",
            "provider_payment_id": "pi_1",
        }
    )
    assert gross.attrs["net"] == "118.44"
    assert Decimal(gross.amount or "") + Decimal(fee.amount or "") == Decimal("118.44")


@pytest.mark.parametrize(
    ("category", "gross", "fee", "net", "types"),
    [
        ("refund", "-120.50", "0.00", "-120.50", ["movement.refund"]),
        ("dispute", "-120.50", "20.00", "-140.50", ["movement.dispute", "movement.processing_fee"]),
        ("dispute_reversal", "120.50", "-20.00", "140.50", ["movement.dispute_reversal", "movement.processing_fee"]),
        ("fee", "-3.10", "0.00", "-3.10", ["movement.fee"]),
    ],
)
def test_each_category_adds_up_to_its_net(category: str, gross: str, fee: str, net: str, types: list[str]):
    made = events(CHARGE, reporting_category=category, gross=gross, fee=fee, net=net)

    assert [one.type for one in made] == types
    assert sum(Decimal(one.amount or "") for one in made) == Decimal(net)


def test_refunds_and_disputes_are_named_as_webhooks_name_them():
    assert (
        events(CHARGE, reporting_category="refund", source_id="re_1", gross="-1", fee="0", net="-1")[0].refs[
            "refund_id"
        ]
        == "re_1"
    )
    assert (
        events(CHARGE, reporting_category="dispute", source_id="dp_1", gross="-1", fee="0", net="-1")[0].refs[
            "dispute_id"
        ]
        == "dp_1"
    )


def test_a_transaction_that_is_not_paid_out_yet_is_the_same_record_later():
    """The report of tomorrow knows the payout: another event of the same record, and the later one wins."""
    today, later = events(CHARGE, automatic_payout_id="")[0], events(CHARGE)[0]

    assert "payout_id" not in today.refs
    assert today.record == later.record
    assert today.id != later.id
    assert (today.sequence or 0) < (later.sequence or 0)


def test_a_payout_is_what_goes_to_the_bank():
    (payout,) = events(PAYOUT)

    assert (payout.type, payout.record, payout.amount, payout.status) == ("payout.paid", "po_1", "118.44", "paid")
    assert payout.refs == {"payout_id": "po_1", "trace_id": "T1", "balance_transaction_id": "txn_p"}
    assert payout.occurred_at.isoformat() == "2026-10-05T00:00:00+00:00"


def test_the_fee_of_an_instant_payout_stands_beside_what_it_pays_out():
    payout, fee = events(PAYOUT, fee="1.00", net="-119.44")

    assert payout.amount == "118.44"
    assert (fee.type, fee.amount, fee.refs) == ("movement.payout_fee", "-1.00", {"fee_of_payout_id": "po_1"})


def test_a_payout_that_fails_later_is_another_event_of_its_record():
    (paid,), (failed,) = events(PAYOUT), events(PAYOUT, payout_status="failed")

    assert (paid.record, failed.record, failed.status) == ("po_1", "po_1", "failed")
    assert paid.id != failed.id
    assert (paid.sequence or 0) < (failed.sequence or 0)


def test_a_payout_without_its_columns_is_told_by_its_source():
    (payout,) = events(CHARGE, reporting_category="payout", source_id="po_7", gross="-5", fee="0", net="-5")
    assert (payout.record, payout.refs["payout_id"], payout.status) == ("po_7", "po_7", None)


def test_a_debit_of_the_bank_account_is_negative():
    (debit,) = events(PAYOUT, gross="50.00", net="50.00")
    assert (debit.type, debit.amount) == ("movement.payout_debit", "-50.00")


def test_a_reversed_payout_is_named_and_is_no_part_of_it():
    (reversal,) = events(PAYOUT, reporting_category="payout_reversal", gross="118.44", net="118.44")
    assert (reversal.type, reversal.amount) == ("movement.payout_reversal", "118.44")
    assert reversal.refs["reversed_payout_id"] == "po_1"
    assert "payout_id" not in reversal.refs


def test_a_trace_id_that_is_pending_is_none():
    assert "trace_id" not in events(PAYOUT, trace_id_status="pending")[0].refs


def test_an_unknown_category_counts_and_is_told():
    (row,) = rows({**CHARGE, "reporting_category": "moon_fee"})

    assert isinstance(row.outcome, list)
    assert row.outcome[0].type == "movement.unknown"
    assert row.outcome[0].attrs["reporting_category"] == "moon_fee"
    assert row.notice is not None
    assert row.notice.startswith("unknown reporting category 'moon_fee': taken as movement.unknown")


def test_every_known_category_makes_an_event():
    for category in sorted(CATEGORIES):
        assert events(CHARGE, reporting_category=category, gross="-1.00", fee="0.00", net="-1.00")


def test_yen_have_no_decimals():
    assert events(CHARGE, currency="jpy", gross="1200", fee="40", net="1160")[0].amount == "1200"


def test_times_without_utc_are_in_the_zone_of_the_report():
    from zoneinfo import ZoneInfo

    local = {("created" if name == "created_utc" else name): value for name, value in CHARGE.items()}
    (row,) = rows(local, zone=ZoneInfo("Europe/Berlin"))
    assert isinstance(row.outcome, list)
    assert row.outcome[0].occurred_at.isoformat() == "2026-10-01T10:30:00+00:00"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"net": "118.43"}, "gross 120.50 less fee 2.06 is 118.44, but net says 118.43"),
        ({"gross": "12,5"}, "'12,5' is not a decimal amount"),
        ({"gross": ""}, "column 'gross' is empty"),
        ({"created_utc": "01/10/2026"}, "column 'created_utc' holds '01/10/2026', which is no time like"),
        ({"created_utc": ""}, "none of created_utc"),
        ({"currency": "e--"}, "currency: is no currency code"),
        ({"balance_transaction_id": ""}, "column 'balance_transaction_id' is empty"),
    ],
)
def test_rows_that_do_not_add_up_are_told(changes: dict[str, str], words: str):
    assert words in reason(CHARGE, **changes)


def test_a_payout_without_id_is_told():
    assert (
        reason(PAYOUT, payout_id="")
        == "a payout without its id: export the report with the column payout_id or source_id"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "stripe.csv: is empty"),
        (
            "id,Type,Amount\n",
            "stripe.csv:1: is no itemised report of Stripe: there is no column balance_transaction_id; no currency",
        ),
        (",".join(c for c in CHARGE if c != "created_utc"), "there is no column one of created_utc, created"),
        (",".join([*CHARGE, "gross"]), "several columns are named gross"),
    ],
)
def test_another_file_is_refused_whole(text: str, words: str):
    with pytest.raises(FileUnreadable) as unreadable:
        list(StripeBalanceFormat().read([text.encode()], "stripe.csv"))
    assert words in str(unreadable.value)


def test_a_broken_line_in_the_middle_loses_nothing_else():
    columns = list(CHARGE)
    good = [",".join(f'"{ {**CHARGE, "balance_transaction_id": f"txn_{n}"}[c] }"' for c in columns) for n in (1, 2)]
    raw = "\n".join([",".join(columns), good[0], 'txn_x,"2026', "txn_y,short", good[1]]).encode()
    found = list(StripeBalanceFormat().read([raw], "stripe.csv"))

    assert [(row.line, isinstance(row.outcome, list)) for row in found] == [
        (2, True),
        (3, False),
        (4, False),
        (5, True),
    ]
    assert len(list(text_lines([raw], "utf-8"))) == 5
