"""The common case, written fast: a rule with two sides and one record each, in which most groups are two legs that agree.

A leg that waits for its other side, and a pair that is settled, are kept as the very bytes they came in: nothing is
built, packed or walked through by the garbage collector. Anything else that happens to such a cell (a correction, a
deadline, a rule change) turns it into a `Group` first. The item of a pair is its two legs, too
(`shared.contracts.matched_pair`); written out, it is what the general way would make. Property tests hold the two together.
"""

from collections.abc import Callable

from services.matcher.domain.judge import statuses_differ
from services.matcher.domain.kept_legs import LEG_AT, MARKED, ONE, due_of, keep_one, keep_two
from services.matcher.domain.state import State
from shared.contracts.leg import Leg, LegRecord, decode_leg_record, encode_leg_record
from shared.contracts.matched_pair import PairWords, encode_pair, encode_words
from shared.rules.match_rule import MatchRule

_decode: Callable[[bytes], LegRecord] = decode_leg_record


class Pairs:
    """One rule, as long as it is in force."""

    def __init__(self, rule: MatchRule, state: State) -> None:
        self.keep_ms = rule.keep_ms
        self.known_live = tuple(side.known_live for side in rule.sides)
        """By side: the statuses seen that are live, and those that are not."""
        self.compares_status = rule.compares_status
        self._is_live = tuple(side.is_live for side in rule.sides)
        self._deadlines = tuple(side.deadline for side in rule.sides)
        one, other = rule.sides
        self.words = encode_words(PairWords(rule.pack, (one.name, other.name)))
        """As msgpack: see `shared.contracts.matched_pair`."""
        self._sides = rule.sides
        self._state = state

    @property
    def deadlines_ms(self) -> tuple[int, ...] | None:
        """By side; None: a calendar has to be asked."""
        if any(deadline.business_days for deadline in self._deadlines):
            return None
        return tuple(deadline.milliseconds for deadline in self._deadlines)

    def apply(self, key: bytes, leg: Leg, offset: int, value: bytes | None) -> bool:  # noqa: PLR0911 - ways out
        """Do the common case without a verdict; False: it is not that case, and nothing was done.

        A first live leg waits: its other side is missing at the deadline. A second one, of the other side and equal to
        the letter, settles the group. `value` is the leg as it came; None: not at hand.
        """
        state, side = self._state, leg.side
        if leg.adjusts is not None or leg.supersedes is not None or leg.values is not None:
            return False
        if not self.known_live[side].get(leg.status) and not self._is_live[side](leg.status):
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
        kept = held[LEG_AT:]
        one: Leg = _decode(kept)  # type: ignore[assignment]  # nothing else is put there
        if (
            one.amount != leg.amount
            or one.currency != leg.currency
            or one.side == side
            or one.source == leg.source
            or leg.amount is None
            or leg.currency is None
            or (one.status != leg.status and self.compares_status and self._statuses_differ(one, leg))
        ):
            return False
        self._settle(key, due_of(held), one, kept, leg, value or encode_leg_record(leg), offset)
        return True

    def _settle(self, key: bytes, due_before: int, one: Leg, kept: bytes, leg: Leg, value: bytes, offset: int) -> None:
        """Publish the match of the waiting leg `one` with `leg`, and keep both for corrections, as they came."""
        state = self._state
        item = encode_pair(self.words, key, state.partition, offset, state.log_time, kept, value)
        state.changes.items.append((key, item))
        due_at = max(one.received_at, leg.received_at) + self.keep_ms
        if due_at < due_before:
            state.timers.set(due_at, key)
        packed = state.dirty[key] = state.cells[key] = keep_two(due_at, kept, value)
        state.waiting_items -= 1
        state.count(key, packed)

    def _statuses_differ(self, one: Leg, leg: Leg) -> bool:
        return statuses_differ(self._sides[one.side], one.status, self._sides[leg.side], leg.status)
