"""Topic `matches`, its commonest record by far: two legs that agree, as the very bytes they came in.

Nothing is written out where millions are made; whoever reads calls `read_item` and gets the same `Item` that every other
group has as JSON. Value: one version byte (JSON begins with a brace), then a msgpack array.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import msgspec

from shared.contracts.discrepancy import Key, LogPosition, RecordEvidence
from shared.contracts.event import EPOCH
from shared.contracts.item import Item, ItemSide
from shared.contracts.leg import Leg, Microseconds, Milliseconds, decode_leg_record, read_group_key
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
    told = read_told(value)
    return told if isinstance(told, Item) else told.item()


def read_told(value: bytes) -> "Item | PlainMatch":
    """Read a Kafka value of the topic `matches` as it was written.

    Raises:
        msgspec.MsgspecError: it is no item, or a newer build's.
    """
    return _plain_match(_decode(value[1:])) if value[:1] == _PREFIX else _decode_item(value)


class PlainMatch(msgspec.Struct, frozen=True, gc=False):
    """A `MatchedPair`, read: what its item says, for who stores millions and needs few of them as an `Item`."""

    id: str
    org: str
    rule: str
    pack: str
    key: Key
    sides: dict[str, ItemSide | None]
    at: Microseconds
    occurred_at: Microseconds
    log_partition: int
    log_offset: int
    log_time: Microseconds

    def item(self) -> Item:
        """Write the item out."""
        return Item(
            id=self.id,
            revision=1,
            status="matched",
            org=self.org,
            rule=self.rule,
            pack=self.pack,
            key=self.key,
            sides=self.sides,
            discrepancies=[],
            at=_time(self.at),
            occurred_at=_time(self.occurred_at),
            live=True,
            log=LogPosition(partition=self.log_partition, offset=self.log_offset, time=_log_time(self.log_time)),
        )


def _plain_match(pair: MatchedPair) -> PlainMatch:
    """Read the legs of a pair.

    Raises:
        msgspec.ValidationError: one of them is none.
    """
    opener, settler = _leg(pair.opener), _leg(pair.settler)
    first, second = (opener, settler) if settler.side else (settler, opener)
    name = read_group_key(pair.group)
    org, rule, key = name.org, name.rule, name.key
    words = pair.words
    one, other = words.sides
    return PlainMatch(
        item_id(org, rule, key, opener.id) if name.keyless else group_item_id(pair.group, opener.id),
        org,
        rule,
        words.pack,
        key[0] if len(key) == 1 else list(key),
        {one: ItemSide(records=[_evidence(first)]), other: ItemSide(records=[_evidence(second)])},
        settler.received_at * 1000,
        first.occurred_at,
        pair.partition,
        pair.offset,
        max(pair.log_time, 0) * 1000,
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
