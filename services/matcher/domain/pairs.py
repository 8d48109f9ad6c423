"""The common case, written fast: a rule with two sides and one record each, in which most groups are two legs that agree.

A leg that waits for its other side, and a pair that is settled, are kept as the very bytes they came in: nothing is
built, packed or walked through by the garbage collector. Anything else that happens to such a cell (a correction, a
deadline, a rule change) turns it into a `Group` first. What is written is what the general way would write; property
tests hold the two together.
"""

from collections.abc import Callable
from typing import Final

from services.matcher.domain.judge import statuses_differ
from services.matcher.domain.kept_legs import LEG_AT, MARKED, ONE, due_of, keep_one, keep_two
from services.matcher.domain.settled import MatchWriter, RuleWords, is_printed
from services.matcher.domain.state import State
from shared.contracts.leg import Leg, LegRecord, decode_leg_record, encode_leg_record
from shared.rules.match_rule import MatchRule

KEYLESS: Final = ord("n")
"""Where a group key has `null` instead of a key's quotation mark."""

_decode: Callable[[bytes], LegRecord] = decode_leg_record


class Pairs:
    """One rule, as long as it is in force."""

    def __init__(self, rule: MatchRule, state: State, writer: MatchWriter) -> None:
        self._keep_ms = rule.keep_ms
        self._is_live = tuple(side.is_live for side in rule.sides)
        self._known_live = tuple(side.known_live for side in rule.sides)
        self._deadlines = tuple(side.deadline for side in rule.sides)
        self._words = RuleWords(rule)
        self._key_at = self._words.prefix_length
        self._sides = rule.sides
        self._compares_status = rule.compares_status
        self._state = state
        self._write = writer.write

    def apply(self, key: bytes, leg: Leg, offset: int, value: bytes | None) -> bool:  # noqa: PLR0911 - ways out
        """Do the common case without a verdict; False: it is not that case, and nothing was done.

        A first live leg waits: its other side is missing at the deadline. A second one, of the other side and equal to
        the letter, settles the group. `value` is the leg as it came; None: not at hand.
        """
        state, side = self._state, leg.side
        if leg.adjusts is not None or leg.supersedes is not None or leg.values is not None:
            return False
        if not self._known_live[side].get(leg.status) and not self._is_live[side](leg.status):
            return False
        held = state.cells.get(key)
        if held is None:
            received_at = leg.received_at
            if state.log_time > received_at:
                return False
            deadline = self._deadlines[1 - side]
            due_at = deadline.after(received_at) if deadline.business_days else received_at + deadline.milliseconds
            state.dirty[key] = state.cells[key] = keep_one(due_at, value or encode_leg_record(leg))
            state.waiting_items += 1
            state.timers.set(due_at, key)
            return True
        if type(held) is not bytes or held[1] != ONE or held[0] != MARKED:
            return False
        one: Leg = _decode(held[LEG_AT:])  # type: ignore[assignment]  # nothing else is put there
        amount, currency = leg.amount, leg.currency
        if (
            one.side == side
            or one.amount != amount
            or one.currency != currency
            or one.source == leg.source
            or amount is None
            or currency is None
            or not is_printed(amount, currency)
            or (one.status != leg.status and self._compares_status and self._statuses_differ(one, leg))
            or key[self._key_at] == KEYLESS
        ):
            return False
        self._settle(key, held, one, leg, offset, value or encode_leg_record(leg))
        return True

    def _settle(self, key: bytes, held: bytes, one: Leg, leg: Leg, offset: int, value: bytes) -> None:
        """Publish the match of the waiting leg `one` with `leg`, and keep both for corrections."""
        state, received_at = self._state, leg.received_at
        first, second = (one, leg) if leg.side else (leg, one)
        state.changes.items.append(
            (key, self._write(self._words, key, one.id, first, second, received_at, offset, state.log_time))
        )
        due_at = max(one.received_at, received_at) + self._keep_ms
        if due_at < due_of(held):
            state.timers.set(due_at, key)
        packed = state.dirty[key] = state.cells[key] = keep_two(due_at, held, value)
        state.waiting_items -= 1
        state.count(key, packed)

    def _statuses_differ(self, one: Leg, leg: Leg) -> bool:
        return statuses_differ(self._sides[one.side], one.status, self._sides[leg.side], leg.status)
