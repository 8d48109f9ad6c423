"""The commonest result by far, written fast: the item of a pair that agrees to the letter.

`MatchWriter` returns the very bytes that encoding `make_item` would; a property test holds the two together. It exists
because building fifteen objects per match took two thirds of the matcher's time.
"""

from hashlib import sha1
from typing import Final

import msgspec

from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Leg
from shared.ids import NAMESPACE, VARIANT, canonical
from shared.money import decimals_of
from shared.rules.match_rule import MatchRule

_encode = msgspec.json.Encoder().encode

_SEED: Final = NAMESPACE.bytes
SECONDS_KEPT: Final = 4096
"""Printed seconds remembered; records of one batch share a few of them."""
_seconds: dict[int, str] = {}


class RuleWords:
    """The parts of an item that are the same for every match of a rule."""

    def __init__(self, rule: MatchRule) -> None:
        self.prefix = canonical([rule.org, rule.name])[:-1] + b","
        self.prefix_length = len(self.prefix)
        self.head = (
            f'","revision":1,"status":"matched","org":{quote(rule.org)},"rule":{quote(rule.name)},'
            f'"pack":{quote(rule.pack)},"key":'
        )
        self.sides = tuple(quote(side.name) for side in rule.sides)
        self.many_fields = rule.key_fields > 1


def quote(text: str) -> str:
    """Return `text` as a JSON string."""
    return f'"{text}"' if text.isidentifier() else _encode(text).decode()


def is_printed(amount: str, currency: str) -> bool:
    """Tell whether `amount` is already written the way amounts of `currency` are printed."""
    decimals = decimals_of(currency)
    return (
        decimals > 0
        and len(amount) > decimals + 1
        and amount[-decimals - 1] == "."
        and amount[0] != "-"
        and (amount[0] != "0" or amount[1] == ".")
    )


def time_text(microseconds: int) -> str:
    """Return a time as msgspec prints it: RFC 3339, UTC, six decimals or none."""
    second, rest = divmod(microseconds, 1_000_000)
    start = _seconds.get(second) or start_of(second)
    return f"{start}.{rest:06d}Z" if rest else f"{start}Z"


def start_of(second: int) -> str:
    """Return a second as times begin, and remember it."""
    if len(_seconds) >= SECONDS_KEPT:
        _seconds.clear()
    start = _seconds[second] = from_milliseconds(second * 1000).strftime("%Y-%m-%dT%H:%M:%S")
    return start


class MatchWriter:
    """Writes the items of one partition; remembers what the last one printed, since many share a millisecond."""

    def __init__(self, partition: int) -> None:
        self._log_head = f'{{"partition":{partition},"offset":'
        self._log_time = -1
        self._log_tail = ""
        self._at_ms = -1
        self._at = ""

    def write(
        self,
        words: RuleWords,
        key: bytes,
        opener: str,
        one: Leg,
        other: Leg,
        at_ms: int,
        offset: int,
        log_time: int,
    ) -> bytes:
        """Return the encoded item of a group whose only records are those of `one` (first side) and `other`.

        Both are live, have the same printed amount and currency, and their item is new. `key` is the group key, with a
        match key; `log_time` in milliseconds.
        """
        if at_ms != self._at_ms:
            self._at_ms, self._at = at_ms, time_text(at_ms * 1000)
        if log_time != self._log_time or not self._log_tail:
            self._log_time = log_time
            self._log_tail = f',"time":"{time_text(max(log_time, 0) * 1000)}"}}'
        one_id, other_id, one_record, other_record = one.id, other.id, one.record, other.record
        one_source, other_source, status, other_status = one.source, other.source, one.status, other.status
        said = f"{one_id}{other_id}{one_record}{other_record}{one_source}{other_source}{status}{other_status}"
        if said.isascii() and said.isprintable() and '"' not in said and "\\" not in said:
            status = "null" if status is None else f'"{status}"'
            other_status = "null" if other_status is None else f'"{other_status}"'
            named = b'%b%b,"%b","item"]' % (_SEED, key[:-1], opener.encode())
        else:
            one_id, other_id, one_record, other_record = map(_escaped, (one_id, other_id, one_record, other_record))
            one_source, other_source = _escaped(one_source), _escaped(other_source)
            status = "null" if status is None else quote(status)
            other_status = "null" if other_status is None else quote(other_status)
            named = b'%b%b,%b,"item"]' % (_SEED, key[:-1], _encode(opener))
        parts = key[words.prefix_length : -1].decode()
        if words.many_fields:
            parts = f"[{parts}]"
        second, rest = divmod(one.occurred_at, 1_000_000)
        start = _seconds.get(second) or start_of(second)
        when = f"{start}.{rest:06d}Z" if rest else f"{start}Z"
        second, rest = divmod(other.occurred_at, 1_000_000)
        start = _seconds.get(second) or start_of(second)
        later = f"{start}.{rest:06d}Z" if rest else f"{start}Z"
        amount, currency = one.amount, one.currency
        first, last = words.sides
        h = sha1(named, usedforsecurity=False).hexdigest()
        return (
            f'{{"id":"{h[:8]}-{h[8:12]}-5{h[13:16]}-{VARIANT[h[16]]}{h[17:20]}-{h[20:32]}{words.head}{parts},"sides":'
            f'{{{first}:{{"records":[{{"id":"{one_id}","source":"{one_source}","record":"{one_record}","amount":'
            f'"{amount}","currency":"{currency}","status":{status},"occurred_at":"{when}"}}]}},{last}:{{"records":'
            f'[{{"id":"{other_id}","source":"{other_source}","record":"{other_record}","amount":"{amount}","currency":'
            f'"{currency}","status":{other_status},"occurred_at":"{later}"}}]}}}},"discrepancies":[],"at":"{self._at}",'
            f'"occurred_at":"{when}","live":true,"log":{self._log_head}{offset}{self._log_tail}}}'
        ).encode()


def _escaped(text: str) -> str:
    """Return `text` as it stands between the quotation marks of a JSON string."""
    return quote(text)[1:-1]
