"""Topic `matches`, its commonest record by far: two legs that agree, as the very bytes they came in.

Nothing is written out where millions are made; whoever reads calls `read_item` and gets the same `Item` that every other
group has as JSON. Value: one version byte (JSON begins with a brace), then a msgpack array.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import msgspec

from shared.contracts.discrepancy import LogPosition, RecordEvidence
from shared.contracts.event import EPOCH
from shared.contracts.item import Item, ItemSide
from shared.contracts.leg import Leg, Milliseconds, decode_leg_record, read_group_key
from shared.ids import group_item_id, item_id
from shared.money import decimals_of, format_amount

VERSION = 1


class PairWords(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is the same for all pairs of a rule."""

    pack: str
    sides: tuple[str, str]
    """In the rule's order: a leg's `side` is a place in it."""


class MatchedPair(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first revision of an item: one live record on each of two sides, equal amounts and currencies."""

    words: PairWords
    group: bytes
    """The group key, which is the Kafka key too."""
    partition: int
    """Of `legs`, as in every result's `log`."""
    offset: int
    """The place in the log of the leg that settled it."""
    log_time: Milliseconds
    """Log time there; -1 while it is unknown."""
    opener: bytes
    """Kafka value of the leg that opened the group, from the topic `legs`."""
    settler: bytes
    """Kafka value of the leg that settled it."""


_PREFIX = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], MatchedPair] = msgspec.msgpack.Decoder(MatchedPair).decode
_decode_item: Callable[[bytes], Item] = msgspec.json.Decoder(Item).decode


def encode_words(words: PairWords) -> msgspec.Raw:
    """Return the words of a rule as `encode_pair` wants them."""
    return msgspec.Raw(_encode(words))


def encode_pair(
    words: msgspec.Raw, group: bytes, partition: int, offset: int, log_time: int, opener: bytes, settler: bytes
) -> bytes:
    """Return the Kafka value of a `MatchedPair`."""
    return _PREFIX + _encode((words, group, partition, offset, log_time, opener, settler))


def read_item(value: bytes) -> Item:
    """Read a Kafka value of the topic `matches`, in either form.

    Raises:
        msgspec.MsgspecError: it is no item, or a newer build's.
    """
    return item_of(_decode(value[1:])) if value[:1] == _PREFIX else _decode_item(value)


def item_of(pair: MatchedPair) -> Item:
    """Return the item of a pair, written out.

    Raises:
        msgspec.ValidationError: one of its legs is none.
    """
    opener, settler = _leg(pair.opener), _leg(pair.settler)
    first, second = (opener, settler) if settler.side else (settler, opener)
    name = read_group_key(pair.group)
    one, other = pair.words.sides
    evidence = _evidence(first)
    return Item(
        id=group_item_id(pair.group, opener.id)
        if not name.keyless
        else item_id(name.org, name.rule, name.key, opener.id),
        revision=1,
        status="matched",
        org=name.org,
        rule=name.rule,
        pack=pair.words.pack,
        key=name.key[0] if len(name.key) == 1 else list(name.key),
        sides={one: ItemSide(records=[evidence]), other: ItemSide(records=[_evidence(second)])},
        discrepancies=[],
        at=_time(settler.received_at * 1000),
        occurred_at=evidence.occurred_at,
        live=True,
        log=LogPosition(partition=pair.partition, offset=pair.offset, time=_log_time(max(pair.log_time, 0) * 1000)),
    )


def _time(microseconds: int) -> datetime:
    """Return a time; five of them are made per item, and names of arguments cost a third here."""
    return EPOCH + timedelta(0, 0, microseconds)


_log_time = lru_cache(maxsize=64)(_time)
"""Log time stands still while many legs are applied."""


def _leg(value: bytes) -> Leg:
    try:
        leg = decode_leg_record(value)
    except (ValueError, IndexError) as error:
        raise msgspec.ValidationError(str(error)) from error
    if not isinstance(leg, Leg):
        msg = f"a pair is made of legs, not of a {type(leg).__name__}"
        raise msgspec.ValidationError(msg)
    return leg


def _evidence(leg: Leg) -> RecordEvidence:
    amount, currency = leg.amount or "", leg.currency or ""
    return RecordEvidence(
        id=leg.id,
        source=leg.source,
        record=leg.record,
        amount=amount if is_printed(amount, currency) else format_amount(Decimal(amount), currency),
        currency=currency,
        status=leg.status,
        occurred_at=_time(leg.occurred_at),
    )


def is_printed(amount: str, currency: str) -> bool:
    """Tell whether `amount` is already written the way amounts of `currency` are printed: nearly all are."""
    decimals = decimals_of(currency)
    return (
        decimals > 0
        and len(amount) > decimals + 1
        and amount[-decimals - 1] == "."
        and amount[0] != "-"
        and (amount[0] != "0" or amount[1] == ".")
    )
