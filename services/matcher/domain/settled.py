"""The commonest result by far, written fast: the item of a pair that agrees to the letter.

`MatchWriter` returns the very bytes that encoding `make_item` would; a property test holds the two together. It exists
because building fifteen objects per match took two thirds of the matcher's time.
"""

from hashlib import sha1
from typing import Final

import msgspec

from services.matcher.domain.group import Record
from shared.contracts.event import from_milliseconds
from shared.ids import NAMESPACE, canonical, uuid_of
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
    start = _seconds.get(second)
    if start is None:
        if len(_seconds) >= SECONDS_KEPT:
            _seconds.clear()
        start = _seconds[second] = from_milliseconds(second * 1000).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{start}.{rest:06d}Z" if rest else f"{start}Z"


def is_plain(text: str) -> bool:
    """Tell whether `text` needs no escapes in JSON."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


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
        one: Record,
        other: Record,
        at_ms: int,
        offset: int,
        log_time: int,
    ) -> bytes:
        """Return the encoded item of a group whose only records are `one` (first side) and `other`.

        Both are live, have the same printed amount and currency, and their item is new. `key` is the group key, with a
        match key; `log_time` in milliseconds.
        """
        if at_ms != self._at_ms:
            self._at_ms, self._at = at_ms, time_text(at_ms * 1000)
        if log_time != self._log_time or not self._log_tail:
            self._log_time = log_time
            self._log_tail = f',"time":"{time_text(max(log_time, 0) * 1000)}"}}'
        one_id, other_id, one_record, other_record = one.id, other.id, one.record, other.record
        one_source, other_source = one.source, other.source
        status, other_status = one.status, other.status
        quoted_opener = f'"{opener}"'
        if is_plain(
            f"{one_id}{other_id}{one_record}{other_record}{one_source}{other_source}{status}{other_status}{opener}"
        ):
            one_id, other_id, one_record, other_record = (
                f'"{one_id}"',
                f'"{other_id}"',
                f'"{one_record}"',
                f'"{other_record}"',
            )
            one_source, other_source = f'"{one_source}"', f'"{other_source}"'
            status = "null" if status is None else f'"{status}"'
            other_status = "null" if other_status is None else f'"{other_status}"'
        else:
            one_id, other_id, one_record, other_record = map(quote, (one_id, other_id, one_record, other_record))
            one_source, other_source, quoted_opener = quote(one_source), quote(other_source), quote(opener)
            status = "null" if status is None else quote(status)
            other_status = "null" if other_status is None else quote(other_status)
        named = b'%b%b,%b,"item"]' % (_SEED, key[:-1], quoted_opener.encode())
        parts = key[words.prefix_length : -1].decode()
        if words.many_fields:
            parts = f"[{parts}]"
        when, later = time_text(one.occurred_at), time_text(other.occurred_at)
        earliest = when if one.first_at == one.occurred_at else time_text(one.first_at)
        first_later = later if other.first_at == other.occurred_at else time_text(other.first_at)
        first, second = words.sides
        money = f'"amount":"{one.amount}","currency":"{one.currency}","status":'
        total = f'","totals":{{"{one.currency}":{{"count":1,"amount":"{one.amount}"}}}},"records":[{{"id":'
        h = sha1(named, usedforsecurity=False).hexdigest()
        return (
            f'{{"id":"{uuid_of(h)}{words.head}{parts},"sides":{{{first}:{{"occurred_at":"{earliest}{total}{one_id},'
            f'"source":{one_source},"record":{one_record},{money}{status},"occurred_at":"{when}"}}]}},'
            f'{second}:{{"occurred_at":"{first_later}{total}{other_id},"source":{other_source},'
            f'"record":{other_record},{money}{other_status},"occurred_at":"{later}"}}]}}}},"discrepancies":[],'
            f'"at":"{self._at}","occurred_at":"{earliest}","live":true,"log":{self._log_head}{offset}{self._log_tail}}}'
        ).encode()
