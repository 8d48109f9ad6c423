"""Kind `match` with a key: one group is one money movement, its sides are compared."""

from typing import Final

from services.matcher.domain.group import (
    MATCHED,
    PENDING,
    Group,
    Held,
    Record,
    hold,
    is_settled,
    pack,
    record_of,
    supersede,
)
from services.matcher.domain.judge import NOT_JUDGED, judge, statuses_differ
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.revise import expire, item_status, make_item, next_due, revise
from services.matcher.domain.settled import MatchWriter, RuleWords, is_printed
from services.matcher.domain.state import Codec, State
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Resolution
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Cut, Leg, Withdraw, read_group_key
from shared.ids import dead_letter_id
from shared.rules.match_rule import MatchRule

CAUSES: Final[dict[Held, Resolution]] = {
    "new record": "late_arrival",
    "newer event": "corrected",
    "older event": "corrected",
    "stopped being live": "voided",
    "superseding": "superseded",
    "adjusting": "adjusted",
}
"""What a leg's effect on its group calls the discrepancies that it made untrue."""
KEYLESS = ord("n")
"""Where a group key has `null` instead of a key's quotation mark."""


class Match:
    """Groups of `match` rules."""

    codec: Codec | None = None

    def __init__(self, state: State) -> None:
        self._state = state

    def apply(self, key: bytes, leg: Leg, rule: MatchRule, offset: int) -> None:
        """Hold a leg in its group and judge the group again when that changed something."""
        state = self._state
        group: Group | None = state.get(key)
        if group is None:
            group = Group(rule.generation, leg.id, leg.received_at, leg.received_at + rule.keep_ms, UNKNOWN, [])
        superseded_before = len(group.superseded or ())
        effect = hold(group, leg, rule.sides[leg.side].is_live)
        if effect == "id reused":
            state.changes.dead_letters.append(id_reused(key, leg))
            return
        if effect == "no-op":
            if len(group.superseded or ()) == superseded_before:
                return
            effect = "older event"
        if group.armed_at == UNKNOWN and _is_live(group, rule):
            group.armed_at = leg.received_at
        group.touched_at = max(group.touched_at, leg.received_at)
        self._judge(key, group, rule, state.moment(leg.received_at, offset), CAUSES[effect])

    def fire(self, key: bytes, cell: Group, rule: MatchRule, due: int, offset: int) -> None:
        """Judge at a deadline; expire what was open too long; forget what was settled long enough."""
        state, group = self._state, cell
        moment = Moment(due + 1, due + 1, state.position(offset))
        name = read_group_key(key)
        verdict = judge(group, rule, name)
        revisions = revise(group, rule, name, verdict, moment, "corrected")
        is_open = any(raised.open for raised in group.raised or ())
        if not revisions and is_open and group.touched_at + rule.expire_ms <= due:
            state.changes.discrepancies += expire(group, rule, name, verdict, moment)
            state.forget(key)
            return
        if not revisions and not is_open and not group.waits and group.touched_at + rule.keep_ms <= due:
            state.forget(key)
            return
        if revisions:
            state.changes.discrepancies += revisions
            self._publish(key, group, rule, item_status(group, verdict), moment)
        group.due_at = next_due(group, rule, verdict)
        state.timers.set(group.due_at, key)
        state.put(key, group, settled=is_settled(group))

    def rejudge(self, key: bytes, cell: Group, rule: MatchRule, offset: int) -> None:
        """Judge a group under a new generation, in place; what it waits for is counted from where it was."""
        cell.generation = rule.generation
        at = max(self._state.log_time, 0)
        self._judge(key, cell, rule, self._state.moment(at, offset), "rule_changed")

    def close(self, key: bytes, cell: Group, old: MatchRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        state = self._state
        moment = state.moment(max(state.log_time, 0), offset)
        revisions = revise(cell, old, read_group_key(key), NOT_JUDGED, moment, cause)
        if revisions:
            state.changes.discrepancies += revisions
            self._publish(key, cell, old, PENDING, moment)

    def cut(self, key: bytes, cell: Group, rule: MatchRule, record: Cut, offset: int) -> None:
        """Publish live money that waits for its other side and has not been published yet."""
        if cell.item_revision or cell.armed_at == UNKNOWN:
            return
        self._publish(key, cell, rule, PENDING, self._state.moment(record.received_at, offset))
        self._state.put(key, cell, settled=is_settled(cell))

    def withdraw(self, key: bytes, cell: Group, rule: MatchRule, record: Withdraw, offset: int) -> None:
        """Let a record never count again here."""
        if not supersede(cell, record.source, record.record):
            return
        cell.touched_at = max(cell.touched_at, record.received_at)
        self._judge(key, cell, rule, self._state.moment(record.received_at, offset), "superseded")

    def is_settled(self, cell: Group) -> bool:
        """Tell whether a group waits for nothing but `keep`."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: Group | None) -> None:
        """Groups need no index."""

    def _judge(self, key: bytes, group: Group, rule: MatchRule, moment: Moment, cause: Resolution) -> None:
        """Judge the group, publish what changed, set its timer."""
        state = self._state
        name = read_group_key(key)
        verdict = judge(group, rule, name) if group.armed_at != UNKNOWN else NOT_JUDGED
        state.changes.discrepancies += revise(group, rule, name, verdict, moment, cause)
        status = item_status(group, verdict)
        if status != PENDING or group.item_revision:
            self._publish(key, group, rule, status, moment)
        state.schedule(key, group, next_due(group, rule, verdict))
        state.put(key, group, settled=is_settled(group))

    def _publish(self, key: bytes, group: Group, rule: MatchRule, status: int, moment: Moment) -> None:
        self._state.changes.items.append((key, make_item(group, rule, read_group_key(key), status, moment)))


def id_reused(key: bytes, leg: Leg) -> DeadLetter:
    """Return the dead letter of an event whose id the cell holds with other content."""
    name = read_group_key(key)
    return DeadLetter(
        id=dead_letter_id("id reused", leg.inbox_partition, leg.inbox_offset, name.rule),
        org=name.org,
        source=leg.source,
        reason="id reused",
        detail=f"{leg.source} event {leg.id} came again with other content for key {', '.join(name.key)}; the first one counts",
        hint="Give every notification an id of its own and send the correction again under a new id.",
        rule=name.rule,
        event=leg.id,
        inbox_partition=leg.inbox_partition,
        inbox_offset=leg.inbox_offset,
        received_at=from_milliseconds(leg.received_at),
        raw=b"",
    )


class Pairs:
    """The common case of a rule with two sides and one record each, done without a verdict."""

    def __init__(self, rule: MatchRule, state: State, writer: MatchWriter) -> None:
        self.generation = rule.generation
        self.keep_ms = rule.keep_ms
        self.lives = tuple(side.is_live for side in rule.sides)
        self.deadlines = tuple(side.deadline.after for side in rule.sides)
        self.words = RuleWords(rule)
        self._sides = rule.sides
        self._compares_status = rule.compares_status
        self._state = state
        self._write = writer.write

    def apply(self, key: bytes, leg: Leg, offset: int) -> bool:  # noqa: PLR0911 - ways out
        """Do the common case without a verdict; False: it is not that case, and nothing was done.

        A first live leg waits: its other side is missing at the deadline. A second one, of the other side and equal to
        the letter, settles the group.
        """
        state = self._state
        cells = state.cells
        side, received_at = leg.side, leg.received_at
        if leg.adjusts is not None or leg.supersedes is not None or not self.lives[side](leg.status):
            return False
        held = cells.get(key)
        if held is None:
            if state.log_time > received_at:
                return False
            due_at = self.deadlines[1 - side](received_at)
            state.dirty[key] = cells[key] = Group(
                self.generation, leg.id, received_at, due_at, received_at, [record_of(leg)], waits=True
            )
            state.timers.set(due_at, key)
            return True
        if type(held) is bytes:
            return False
        group: Group = held  # type: ignore[assignment]  # bytes were sent away above
        records = group.records
        if (
            len(records) != 1
            or group.raised is not None
            or group.item_revision
            or group.adjustments is not None
            or group.superseded is not None
        ):
            return False
        one = records[0]
        if one.side == side or one.source == leg.source or not self.agree(one, leg):
            return False
        words = self.words
        if key[words.prefix_length] == KEYLESS:
            return False
        other = record_of(leg)
        records.append(other)
        first, second = (one, other) if side else (other, one)
        state.changes.items.append(
            (key, self._write(words, key, group.opener, first, second, received_at, offset, state.log_time))
        )
        group.waits = False
        group.since = None
        group.touched_at = max(group.touched_at, received_at)
        group.item_revision = 1
        group.item_status = MATCHED
        due_at = group.touched_at + self.keep_ms
        if due_at < group.due_at:
            state.timers.set(due_at, key)
        group.due_at = due_at
        packed = state.dirty[key] = cells[key] = pack(group)
        state.count(key, packed)
        return True

    def agree(self, one: Record, leg: Leg) -> bool:
        """Tell at a glance whether a record and a live leg of the other side agree to the letter; False means: judge."""
        return (
            one.amount == leg.amount
            and one.currency == leg.currency
            and one.amount is not None
            and one.currency is not None
            and self.lives[one.side](one.status)
            and is_printed(one.amount, one.currency)
            and (
                one.status == leg.status
                or not self._compares_status
                or not statuses_differ(self._sides[one.side], one.status, self._sides[leg.side], leg.status)
            )
        )


def _is_live(group: Group, rule: MatchRule) -> bool:
    return any(rule.sides[record.side].is_live(record.status) for record in group.records)
