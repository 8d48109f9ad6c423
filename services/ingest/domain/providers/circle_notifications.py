"""Circle Mint's notifications (developers.circle.com, "Webhook notifications"): transfers, deposits and payouts to events.

They come as SNS messages whose `Message` is a JSON *string*. What confirms a subscription is no event. Circle writes
USD and EUR for the tokens in its wallets; here they are USDC and EURC, as the balances of wallets are.
"""

from datetime import datetime
from decimal import Decimal

import msgspec

from services.ingest.domain.providers.mapping import Mapped, MappingOptions, Unmapped
from services.ingest.domain.sns import read_envelope
from shared.contracts.event import EventRefused, PostedEvent, convert_posted
from shared.money import AmountError, parse_amount

TOKENS = {"USD": "USDC", "EUR": "EURC"}
RANKS = {"pending": 1, "running": 2, "processing": 2, "complete": 3, "paid": 3, "failed": 4, "returned": 5}
"""A notification carries the date when its object was made, so that order comes from how far it has come."""
UNKNOWN_RANK = 2
STATUSES = {"running": "processing", "returned": "voided"}
"""Words that decide whether money counts; others go through as they are."""
HINT = "Compare the body with Circle's documentation of webhook notifications; after an update replay this dead letter."


class _Money(msgspec.Struct):
    amount: Decimal
    currency: str


class _Place(msgspec.Struct):
    type: str
    id: str | None = None
    chain: str | None = None


class _Movement(msgspec.Struct, rename="camel"):
    id: str
    amount: _Money
    status: str
    create_date: datetime
    source: _Place | None = None
    destination: _Place | None = None
    transaction_hash: str | None = None
    source_wallet_id: str | None = None


class _Notification(msgspec.Struct, rename="camel"):
    notification_type: str
    transfer: _Movement | None = None
    deposit: _Movement | None = None
    payout: _Movement | None = None


_notification = msgspec.json.Decoder(_Notification).decode


def read(body: bytes, source: str, options: MappingOptions) -> Mapped:  # noqa: ARG001 - what every mapping takes
    """Return the event that a notification makes, none where it is about no money movement.

    Raises:
        Unmapped: no SNS message, or a movement without what makes it one.
    """
    try:
        envelope = read_envelope(body)
    except ValueError as error:
        raise Unmapped(str(error), HINT) from None
    if envelope.type != "Notification":
        return Mapped(envelope.type, [], [])
    try:
        told = _notification(envelope.message)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Unmapped(f"the SNS message is no notification of Circle: {error}", HINT) from None
    kind, movement = told.notification_type, told.transfer or told.deposit or told.payout
    if kind not in {"transfers", "deposits", "payouts"}:
        return Mapped(kind[:64], [], [])
    if movement is None:
        raise Unmapped(f"the notification {kind} has no {kind.removesuffix('s')}", HINT)
    try:
        return Mapped(kind, [_event(source, envelope.message_id, _direction(kind, movement), movement)], [])
    except EventRefused as refusal:
        return Mapped(kind, [], [refusal])


def _direction(kind: str, movement: _Movement) -> str:
    """Tell what a movement is to the wallets: a transfer from outside is a deposit, one to the outside a withdrawal."""
    if kind != "transfers":
        return {"deposits": "deposit", "payouts": "withdrawal"}[kind]
    came, went = (place.type if place else None for place in (movement.source, movement.destination))
    match came, went:
        case "wallet", "wallet":
            return "transfer"
        case "wallet", _:
            return "withdrawal"
        case _, "wallet":
            return "deposit"
    raise Unmapped(f"transfer {movement.id[:64]} goes from {came} to {went}: neither is a wallet", HINT)


def _event(source: str, message_id: str, direction: str, movement: _Movement) -> PostedEvent:
    try:
        amount = format(parse_amount(format(movement.amount.amount, "f")), "f")
    except AmountError as error:
        raise EventRefused(f"amount: {error}", "amount") from None
    outer = movement.destination if direction == "withdrawal" else movement.source
    inner = movement.source if direction == "withdrawal" else movement.destination
    wallet = (inner.id if inner else None) or movement.source_wallet_id
    refs = {f"{direction}_id": movement.id, "transaction_hash": movement.transaction_hash}
    attrs = {"provider_status": movement.status, "chain": outer.chain if outer else None}
    document = {
        "source": source,
        "type": f"{direction}.updated",
        "id": message_id,
        "record": movement.id,
        "occurred_at": movement.create_date,
        "sequence": RANKS.get(movement.status, UNKNOWN_RANK),
        "amount": amount,
        "currency": TOKENS.get(movement.amount.currency, movement.amount.currency),
        "status": STATUSES.get(movement.status, movement.status),
        "account": f"circle:{wallet}" if wallet else None,
        "refs": {name: value for name, value in refs.items() if value},
        "attrs": {name: value for name, value in attrs.items() if value},
    }
    return convert_posted(document)
