"""Format `stripe-balance`: Stripe's itemised reports, one row per balance transaction.

Read by the names of their columns (docs.stripe.com/reports/report-types): the itemised balance change from activity,
the itemised payout reconciliation, and the itemised payouts. Amounts stand in the major unit, with a sign: what the row
does to the Stripe balance.

- A row becomes `movement.<reporting category>` with its gross amount, and its fee, where there is one, a
  `movement.processing_fee` of its own, so that charges, refunds and fees each add up: together they are the row's net.
- A payout row becomes `payout.*` with the amount that goes to the bank; what it pays out names it in `refs.payout_id`.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

from services.ingest.domain.formats.rows import FileUnreadable, Row, RowError
from services.ingest.domain.formats.table import Dialect, Records, wrong_width
from services.ingest.domain.formats.text_lines import text_lines
from services.ingest.domain.providers.mapping import DEFAULT_PAYMENT_ID_FIELD
from services.ingest.domain.providers.stripe import PAYOUT_RANKS, PAYOUT_STATUSES, PROVIDER, SEQUENCE_STEP, UNKNOWN_RANK
from shared.contracts.event import TEXT_LENGTH_MAX, VALUE_LENGTH_MAX, EventRefused, PostedEvent, convert_posted
from shared.money import EXACT, AmountError, format_amount, parse_amount

NEEDED = ("balance_transaction_id", "currency", "gross", "fee", "net", "reporting_category")
TIMES = ("created_utc", "created", "effective_at_utc", "effective_at")
"""When the row counts, the best first: times without `_utc` are in the zone that the report was run in, UTC by default."""

CATEGORIES = frozenset(
    {
        "advance",
        "advance_funding",
        "anticipation_repayment",
        "charge",
        "charge_failure",
        "climate_order_purchase",
        "climate_order_refund",
        "connect_collection_transfer",
        "connect_reserved_funds",
        "contribution",
        "dispute",
        "dispute_reversal",
        "fee",
        "financing_paydown",
        "financing_paydown_reversal",
        "financing_payout",
        "financing_payout_reversal",
        "issuing_authorization_hold",
        "issuing_authorization_release",
        "issuing_disbursement",
        "issuing_dispute",
        "issuing_transaction",
        "minimum_balance_hold",
        "network_cost",
        "other_adjustment",
        "partial_capture_reversal",
        "payment_network_reserved_funds",
        "payout",
        "payout_reversal",
        "platform_earning",
        "platform_earning_refund",
        "refund",
        "refund_failure",
        "risk_reserved_funds",
        "tax",
        "topup",
        "topup_reversal",
        "transfer",
        "transfer_reversal",
        "unreconciled_customer_funds",
    }
)
"""docs.stripe.com/reports/reporting-categories. One that is not here is taken all the same, as `movement.unknown`."""
PAYOUT = "payout"
REVERSALS = frozenset({"payout_reversal"})
UNKNOWN = "unknown"
OBJECT_REFS = {
    "refund": "refund_id",
    "refund_failure": "refund_id",
    "dispute": "dispute_id",
    "dispute_reversal": "dispute_id",
}
"""By category, the name under which webhooks know the object of `source_id`."""
REFS = {"charge_id": "charge_id", "invoice_id": "invoice_id", "source_id": "source_id", "trace_id": "trace_id"}
ATTRIBUTES = (
    "reporting_category",
    "gross",
    "fee",
    "net",
    "available_on_utc",
    "available_on",
    "description",
    "payment_method_type",
    "customer_facing_amount",
    "customer_facing_currency",
    "payout_expected_arrival_date",
    "payout_type",
)
NO_TRACE = frozenset({"pending", "unsupported"})
"""Values of `trace_id_status` with which a trace id says nothing."""
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2})?)?")

Cells = dict[str, str]


class _Refused(ValueError):
    """A row is no balance transaction: why."""


class _Money(NamedTuple):
    gross: Decimal
    fee: Decimal
    currency: str


class StripeBalanceFormat:
    """Stripe's itemised reports."""

    columns_vary = True

    def __init__(
        self, source: str = PROVIDER, zone: tzinfo = UTC, payment_id_field: str = DEFAULT_PAYMENT_ID_FIELD
    ) -> None:
        """Take the zone that the report was run in, for columns without `_utc`."""
        self._source = source
        self._zone = zone
        self._own_ids = [f"{of}_metadata[{payment_id_field}]" for of in ("payment", "refund")]

    def read(self, chunks: Iterable[bytes], name: str) -> Iterator[Row]:
        """See `Format`."""
        records = Records(text_lines(chunks, "utf-8"), Dialect())
        header = next(records, None)
        if header is None:
            raise FileUnreadable(f"{name}: is empty: a header with the names of the columns was expected")
        if header.problem is not None:
            raise FileUnreadable(f"{name}:{header.line}: the header cannot be read: {header.problem}")
        columns = [cell.strip() for cell in header.cells]
        _check_columns(columns, f"{name}:{header.line}")
        records.expect(len(columns))
        for record in records:
            if record.problem is not None:
                yield Row(record.line, RowError(record.problem))
            elif len(record.cells) != len(columns):
                yield Row(record.line, RowError(wrong_width(len(record.cells), len(columns))))
            else:
                cells = {column: cell.strip() for column, cell in zip(columns, record.cells, strict=True)}
                yield self._row(record.line, cells)

    def _row(self, line: int, cells: Cells) -> Row:
        category = cells["reporting_category"]
        notice = None
        if category not in CATEGORIES:
            notice = f"unknown reporting category {category!r}: taken as movement.{UNKNOWN}; is there a newer tieout?"
        try:
            events = self._payout(cells) if category == PAYOUT else self._movement(cells, category)
        except (_Refused, AmountError, EventRefused) as refused:
            return Row(line, RowError(str(refused)))
        return Row(line, events, notice)

    def _movement(self, cells: Cells, category: str) -> list[PostedEvent]:
        money = _money(cells)
        payout = cells.get("automatic_payout_id", "")
        record = _need(cells, "balance_transaction_id")
        reversed_payout = cells.get("payout_id") or cells.get("source_id", "") if category in REVERSALS else ""
        refs = {**self._refs(cells, category), "payout_id": payout, "reversed_payout_id": reversed_payout}
        kind = category if category in CATEGORIES else UNKNOWN
        return self._events(cells, record, f"movement.{kind}", money, refs, payout)

    def _events(
        self, cells: Cells, record: str, type_: str, money: _Money, refs: Cells, payout: str
    ) -> list[PostedEvent]:
        """Return the gross amount and the fee, whose records carry the payout as soon as Stripe knows it."""
        common = {
            "source": self._source,
            "occurred_at": self._time(cells),
            "currency": money.currency,
            # A report from before the payout says the same transaction without it: the later one wins.
            "sequence": 1 if payout else 0,
            "refs": _filled(refs),
            "attrs": _attributes(cells),
        }
        suffix = f"@{payout}" if payout else ""
        gross = {
            **common,
            "type": type_,
            "id": f"{record}{suffix}",
            "record": record,
            "amount": _text(money, money.gross),
        }
        if not money.fee:
            return [convert_posted(gross)]
        fee = {
            **common,
            "type": "movement.processing_fee",
            "id": f"{record}/fee{suffix}",
            "record": f"{record}/fee",
            "amount": _text(money, -money.fee),
        }
        return [convert_posted(gross), convert_posted(fee)]

    def _payout(self, cells: Cells) -> list[PostedEvent]:
        money = _money(cells)
        transaction = _need(cells, "balance_transaction_id")
        payout = cells.get("payout_id") or cells.get("source_id", "")
        if not payout:
            raise _Refused("a payout without its id: export the report with the column payout_id or source_id")
        status = cells.get("payout_status", "")
        refs = {**self._refs(cells, PAYOUT), "payout_id": payout, "source_id": ""}
        if cells.get("trace_id_status") in NO_TRACE:
            refs["trace_id"] = ""
        takes_back = money.gross > 0
        row: dict[str, Any] = {
            "source": self._source,
            # Stripe debits the bank account for a balance below zero: the type cannot say that direction.
            "type": "movement.payout_debit" if takes_back else f"payout.{status or 'paid'}",
            "id": f"{transaction}:{status}" if status else transaction,
            "record": payout,
            "occurred_at": self._time(cells, "payout_reversed_at_utc", "payout_reversed_at"),
            "sequence": PAYOUT_RANKS.get(status, UNKNOWN_RANK) * SEQUENCE_STEP if status else 0,
            "amount": _text(money, -money.gross),
            "currency": money.currency,
            "refs": _filled(refs),
            "attrs": _attributes(cells) | ({"provider_status": status} if status else {}),
        }
        if status:
            row["status"] = PAYOUT_STATUSES.get(status, status)
        events = [convert_posted(row)]
        if money.fee:
            # An instant payout's fee is taken from the balance beside it, so it is no part of what any payout pays out:
            # under a type of its own no rule about payouts waits for it.
            fee = _Money(-money.fee, Decimal(0), money.currency)
            beside = {"fee_of_payout_id": payout}
            events += self._events(cells, f"{transaction}/fee", "movement.payout_fee", fee, beside, "")
        return events

    def _time(self, cells: Cells, *first: str) -> datetime:
        for column in (*first, *TIMES):
            text = cells.get(column, "")
            if not text:
                continue
            try:
                found = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
            except ValueError:
                found = None
            if found is None:
                raise _Refused(f"column {column!r} holds {text[:60]!r}, which is no time like 2026-11-20 10:00:00")
            zone = UTC if column.endswith("_utc") else self._zone
            return found.replace(tzinfo=zone).astimezone(UTC)
        raise _Refused(f"none of {', '.join(TIMES)} says when it happened")

    def _refs(self, cells: Cells, category: str) -> Cells:
        refs = {ours: cells.get(column, "") for column, ours in REFS.items()}
        refs["balance_transaction_id"] = cells["balance_transaction_id"]
        if category in OBJECT_REFS:
            refs[OBJECT_REFS[category]] = cells.get("source_id", "")
        # As the webhooks of the same payment name it.
        provider = cells.get("payment_intent_id") or cells.get("charge_id") or ""
        refs["provider_payment_id"] = provider
        refs["payment_id"] = next(filter(None, (cells.get(column, "") for column in self._own_ids)), provider)
        return refs


def _check_columns(columns: list[str], where: str) -> None:
    missing = [column for column in NEEDED if column not in columns]
    if not any(column in columns for column in TIMES):
        missing.append(f"one of {', '.join(TIMES)}")
    if missing:
        raise FileUnreadable(
            f"{where}: is no itemised report of Stripe: there is no column {'; no '.join(missing)}. Export the itemised "
            "Balance change from activity, Payout reconciliation or Payouts report"
        )
    twice = sorted({column for column in columns if columns.count(column) > 1 and column in (*NEEDED, *TIMES)})
    if twice:
        raise FileUnreadable(f"{where}: several columns are named {', '.join(twice)}")


def _money(cells: Cells) -> _Money:
    gross, fee, net = (parse_amount(_need(cells, name)) for name in ("gross", "fee", "net"))
    if EXACT.subtract(gross, fee) != net:
        raise _Refused(f"gross {gross} less fee {fee} is {EXACT.subtract(gross, fee)}, but net says {net}")
    return _Money(gross, fee, _need(cells, "currency").upper())


def _text(money: _Money, amount: Decimal) -> str:
    return format_amount(amount, money.currency)


def _need(cells: Cells, column: str) -> str:
    value = cells[column]
    if not value:
        raise _Refused(f"column {column!r} is empty")
    if len(value) > TEXT_LENGTH_MAX:
        raise _Refused(f"column {column!r} holds {len(value)} characters; {TEXT_LENGTH_MAX} are allowed")
    return value


def _filled(values: Cells) -> Cells:
    return {name: value[:VALUE_LENGTH_MAX] for name, value in values.items() if value}


def _attributes(cells: Cells) -> Cells:
    return _filled({name: cells.get(name, "") for name in ATTRIBUTES})
