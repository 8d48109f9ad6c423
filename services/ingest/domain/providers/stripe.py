"""Stripe: payment intents, charges, refunds, disputes, payouts and invoices to events.

A payment is its payment intent (the charge where there is none), so that the charges of an intent are the same record
and the newest event of either says how it stands. What Stripe calls by its own words is translated only where the
word decides whether money counts; every other word goes through, and Stripe's own stands in `attrs.provider_status`.

Shapes follow the API reference (docs.stripe.com/api) and are read leniently: an API version may leave out or add.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from services.ingest.domain.providers.mapping import Mapped, MappingOptions, Unmapped
from shared.contracts.event import VALUE_LENGTH_MAX, EventRefused, PostedEvent, checked
from shared.money import from_minor_units, minor_unit_exponent

PROVIDER = "stripe"
T = TypeVar("T")

Reference = str | dict[str, Any] | None
"""An id, or the object itself where the account expands it."""

FAMILIES_REMEMBERED_MAX = 1_000
"""Types of events that were looked at; Stripe has some 250."""
SEQUENCE_STEP = 10
"""Between two ranks: leaves room for which object speaks."""

PAYMENT_RANKS = {
    "created": 0,
    "requires_payment_method": 1,
    "requires_confirmation": 2,
    "requires_action": 3,
    "pending": 4,
    "processing": 4,
    "failed": 5,
    "authorized": 6,
    "expired": 7,
    "voided": 7,
    "canceled": 7,
    "succeeded": 9,
}
"""How far a payment has come: `created` has whole seconds, so a decline and the retry that succeeds may share one."""
REFUND_RANKS = {"pending": 1, "requires_action": 2, "succeeded": 3, "canceled": 4, "failed": 4}
"""A refund may fail after it succeeded (the customer's bank sends it back), never the other way round."""
DISPUTE_RANKS = {
    "warning_needs_response": 1,
    "warning_under_review": 2,
    "warning_closed": 3,
    "prevented": 3,
    "needs_response": 4,
    "under_review": 5,
    "lost": 6,
    "appeal_needs_response": 7,
    "appeal_under_review": 8,
    "won": 9,
}
PAYOUT_RANKS = {"pending": 1, "in_transit": 2, "paid": 3, "canceled": 4, "failed": 4}
"""A payout may fail after it was paid: the bank returns it."""
INVOICE_RANKS = {"draft": 1, "open": 2, "uncollectible": 3, "paid": 4, "void": 5}
UNKNOWN_RANK = 3

DISPUTE_STATUSES = {
    # An inquiry has moved no money yet.
    "warning_needs_response": "pending",
    "warning_under_review": "pending",
    "warning_closed": "canceled",
    "prevented": "canceled",
}
PAYOUT_STATUSES = {"in_transit": "processing"}
INVOICE_STATUSES = {"draft": "created", "void": "voided"}


class _Object(msgspec.Struct, gc=False):
    """The fields that any of the objects has and a mapping needs."""

    object: str
    id: str | None = None
    amount: int | None = None
    amount_received: int | None = None
    amount_captured: int | None = None
    total: int | None = None
    currency: str | None = None
    status: str | None = None
    captured: bool | None = None
    refunded: bool | None = None
    payment_intent: Reference = None
    charge: Reference = None
    customer: Reference = None
    invoice: Reference = None
    metadata: dict[str, str] | None = None
    number: str | None = None


class _Data(msgspec.Struct, gc=False):
    object: _Object


class _Envelope(msgspec.Struct, gc=False):
    object: str
    id: str
    type: str
    created: int
    data: _Data
    account: str | None = None
    livemode: bool = True


class _Kind(msgspec.Struct, gc=False):
    type: str
    object: str = "event"


class _Meaning(msgspec.Struct, gc=False):
    """What one object says about one record of money."""

    record: str
    amount: int | None
    status: str
    sequence: int
    refs: dict[str, str | None]


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode


def read(body: bytes, source: str, options: MappingOptions) -> Mapped:
    """Return the event that a webhook body makes, none where it is about no money movement.

    Raises:
        Unmapped: no Stripe event, or one of these objects without what makes it one.
    """
    try:
        envelope = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _unread(body, error)
    type_ = envelope.type
    family = _family_of(envelope)
    if family is None:
        return Mapped(type_, [], [])
    our_type, meaning_of = family
    thing = envelope.data.object
    meaning = meaning_of(envelope, thing, options)
    if meaning is None:
        return Mapped(type_, [], [])
    amount, currency = _money(type_, meaning.amount, thing.currency)
    customer = _id(thing.customer)
    try:
        posted = checked(
            PostedEvent(
                source=source,
                type=our_type,
                id=envelope.id,
                record=meaning.record,
                occurred_at=_time(envelope),
                sequence=meaning.sequence,
                status=meaning.status,
                amount=amount,
                currency=currency,
                account=f"customer:{customer}" if customer else None,
                refs={name: value for name, value in meaning.refs.items() if value},
                attrs=_attributes(envelope, thing),
            )
        )
    except EventRefused as refusal:
        return Mapped(type_, [], [refusal])
    return Mapped(type_, [posted], [])


def _unread(body: bytes, shape_error: Exception) -> Mapped:
    """Return what a body is that has not the shape of the objects that are read: it matters only where one was due."""
    try:
        kind = _decode_kind(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unmapped(f"the body is no Stripe event: {error}", _CHECK_ENDPOINT) from None
    if _family_of(kind) is None:
        return Mapped(kind.type, [], [])
    raise Unmapped(f"{kind.type}: {shape_error}", _REPORT) from None


def _family_of(kind: "_Envelope | _Kind") -> "tuple[str, _MeaningOf] | None":
    if kind.object != "event":
        raise Unmapped(
            f"the body is a {kind.object!r}, which carries no object",
            "Choose snapshot payloads for this endpoint in Stripe; thin payloads carry no amounts.",
        )
    return _family(kind.type)


_CHECK_ENDPOINT = "Check that this endpoint's address is given to Stripe only, then replay this dead letter."
_REPORT = "Stripe's object has another shape than this build knows: update tieout, then replay this dead letter."

_MeaningOf = Callable[[_Envelope, _Object, MappingOptions], _Meaning | None]


@lru_cache(maxsize=FAMILIES_REMEMBERED_MAX)
def _family(type_: str) -> tuple[str, _MeaningOf] | None:
    """Return our type of event and what reads it."""
    if type_ == "charge.refunded":
        return None  # the refunds speak for themselves, each with its own amount
    for prefix, word, meaning_of in _FAMILIES:
        if type_.startswith(prefix):
            return f"{word}.{type_.rpartition('.')[2]}", meaning_of
    return None


def _intent(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning:
    status = _intent_status(envelope.type, thing)
    record = _need(thing.id, envelope, "id")
    return _Meaning(
        record=record,
        amount=_moved(_need(thing.amount_received, envelope, "amount_received"), status),
        status=status,
        # An intent outranks its charges: its metadata may be newer than the copy that they got when they were made.
        sequence=_sequence(PAYMENT_RANKS, status) + 1,
        refs={
            "payment_id": _own_id(thing, options) or record,
            "provider_payment_id": record,
            "invoice_id": _id(thing.invoice),
        },
    )


def _moved(amount: int, status: str) -> int | None:
    """Return what was received; a payment that did not succeed and moved nothing states no amount.

    Stated as 0 it would be compared with what was booked, and every decline would also be a wrong amount.
    """
    return amount if amount or status == "succeeded" else None


def _intent_status(type_: str, thing: _Object) -> str:
    if type_ == "payment_intent.payment_failed":
        return "failed"  # the object already says that it waits for another attempt
    if thing.status == "requires_capture":
        # Several captures are possible: what has been received counts while more may come.
        return "succeeded" if thing.amount_received else "authorized"
    return thing.status or "created"


def _charge(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning | None:
    intent = _id(thing.payment_intent)
    if intent and envelope.type == "charge.updated":
        # It tells of bookkeeping (balance transaction, description) or of an attempt that another one has replaced:
        # as the newest event of the intent it would undo what the intent says.
        return None
    status = _charge_status(envelope.type, thing)
    record = intent or _need(thing.id, envelope, "id")
    return _Meaning(
        record=record,
        amount=_moved(_need(thing.amount_captured, envelope, "amount_captured"), status),
        status=status,
        sequence=_sequence(PAYMENT_RANKS, status),
        refs={
            "payment_id": _own_id(thing, options) or record,
            "provider_payment_id": record,
            "charge_id": thing.id,
            "invoice_id": _id(thing.invoice),
        },
    )


def _charge_status(type_: str, thing: _Object) -> str:
    if type_ == "charge.expired":
        return "expired"
    if thing.status != "succeeded" or thing.captured is not False:
        return thing.status or "created"
    return "voided" if thing.refunded else "authorized"


def _refund(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning:
    status = thing.status or "succeeded"  # the API's oldest versions leave it out: then it is done
    payment = _payment_of(thing)
    return _Meaning(
        record=_need(thing.id, envelope, "id"),
        amount=_need(thing.amount, envelope, "amount"),
        status=status,
        sequence=_sequence(REFUND_RANKS, status),
        refs={
            "provider_payment_id": payment,
            "payment_id": _own_id(thing, options) or payment,
            "refund_id": thing.id,
            "charge_id": _id(thing.charge),
        },
    )


def _dispute(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning:
    status = _need(thing.status, envelope, "status")
    payment = _payment_of(thing)
    record = _need(thing.id, envelope, "id")
    return _Meaning(
        record=record,
        amount=_need(thing.amount, envelope, "amount"),
        status=DISPUTE_STATUSES.get(status, status),
        sequence=_sequence(DISPUTE_RANKS, status),
        refs={
            "dispute_id": record,
            "provider_payment_id": payment,
            "payment_id": _own_id(thing, options) or payment,
            "charge_id": _id(thing.charge),
        },
    )


def _payout(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning:  # noqa: ARG001 - as its siblings
    status = _need(thing.status, envelope, "status")
    record = _need(thing.id, envelope, "id")
    return _Meaning(
        record=record,
        amount=_need(thing.amount, envelope, "amount"),
        status=PAYOUT_STATUSES.get(status, status),
        sequence=_sequence(PAYOUT_RANKS, status),
        refs={"payout_id": record},
    )


def _invoice(envelope: _Envelope, thing: _Object, options: MappingOptions) -> _Meaning | None:  # noqa: ARG001 - as its siblings
    if thing.id is None:
        return None  # `invoice.upcoming` is a forecast
    status = thing.status or "draft"
    return _Meaning(
        record=thing.id,
        amount=_need(thing.total, envelope, "total"),
        status=INVOICE_STATUSES.get(status, status),
        sequence=_sequence(INVOICE_RANKS, status),
        refs={"invoice_id": thing.id, "invoice": thing.number, "provider_payment_id": _id(thing.payment_intent)},
    )


_FAMILIES: tuple[tuple[str, str, _MeaningOf], ...] = (
    ("payment_intent.", "payment", _intent),
    ("charge.dispute.", "dispute", _dispute),
    ("charge.refund.", "refund", _refund),
    ("charge.", "payment", _charge),
    ("refund.", "refund", _refund),
    ("payout.", "payout", _payout),
    ("invoice.", "invoice", _invoice),
)
"""In this order: the longer prefix first."""


def _money(type_: str, amount: int | None, currency: str | None) -> tuple[str | None, str]:
    """Return amount and currency as events have them."""
    if not currency:
        raise Unmapped(f"{type_}: the object has no currency", _REPORT)
    code = currency.upper()
    try:
        exponent = minor_unit_exponent(PROVIDER, code)
    except ValueError as error:
        raise Unmapped(f"{type_}: {error}, so its amount cannot be read", _REPORT) from None
    return None if amount is None else from_minor_units(amount, exponent), code


def _time(envelope: _Envelope) -> datetime:
    try:
        return datetime.fromtimestamp(envelope.created, UTC)
    except (ValueError, OverflowError, OSError):
        raise Unmapped(f"{envelope.type}: {envelope.created} is no time", _REPORT) from None


def _attributes(envelope: _Envelope, thing: _Object) -> dict[str, str]:
    attributes = {"stripe_type": envelope.type}
    if thing.status:
        attributes["provider_status"] = thing.status
    if envelope.account:
        attributes["connect_account"] = envelope.account
    if not envelope.livemode:
        attributes["test_mode"] = "true"
    return attributes


def _payment_of(thing: _Object) -> str | None:
    return _id(thing.payment_intent) or _id(thing.charge)


def _own_id(thing: _Object, options: MappingOptions) -> str | None:
    value = (thing.metadata or {}).get(options.payment_id_field, "").strip()
    return value[:VALUE_LENGTH_MAX] or None


def _id(reference: Reference) -> str | None:
    if isinstance(reference, dict):
        inner = reference.get("id")
        return inner if isinstance(inner, str) else None
    return reference or None


def _need(value: T | None, envelope: _Envelope, field: str) -> T:
    if value is None:
        raise Unmapped(f"{envelope.type}: the object has no {field}", _REPORT)
    return value


def _sequence(ranks: Mapping[str, int], status: str) -> int:
    return ranks.get(status, UNKNOWN_RANK) * SEQUENCE_STEP
