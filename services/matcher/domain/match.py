"""Kind `match` with a key: one group is one money movement, its sides are compared."""

from typing import Final

from services.matcher.domain.group import (
    PENDING,
    Group,
    Held,
    hold,
    is_settled,
    supersede,
)
from services.matcher.domain.held import hold_back, note_holder, restore_holder
from services.matcher.domain.judge import NOT_JUDGED, judge
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.revise import expire, item_status, make_item, next_due, revise
from services.matcher.domain.set_aside import set_aside
from services.matcher.domain.state import Codec, State
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Resolution
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, read_group_key
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
        verdict, holder = hold_back(state.feeds, key, group, rule, name, verdict, moment)
        revisions = revise(group, rule, name, verdict, moment, "corrected")
        note_holder(state.feeds, key, group, name, holder)
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
            self._publish(key, group, rule, name, item_status(group, verdict), moment)
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
        moment, name = state.moment(max(state.log_time, 0), offset), read_group_key(key)
        revisions = revise(cell, old, name, NOT_JUDGED, moment, cause)
        state.changes.discrepancies += revisions
        if cause == "rule_changed" and cell.item_revision:
            # Its records stand elsewhere from now on, and nowhere twice.
            cell.records, cell.adjustments = [], None
            self._publish(key, cell, old, name, PENDING, moment)
        elif revisions:
            self._publish(key, cell, old, name, PENDING, moment)

    def cut(self, key: bytes, cell: Group, rule: MatchRule, record: Cut, offset: int) -> None:
        """Publish live money that waits for its other side and has not been published yet."""
        if cell.item_revision or cell.armed_at == UNKNOWN:
            return
        moment = self._state.moment(record.received_at, offset)
        self._publish(key, cell, rule, read_group_key(key), PENDING, moment)
        self._state.put(key, cell, settled=is_settled(cell))

    def withdraw(self, key: bytes, cell: Group, rule: MatchRule, record: Withdraw, offset: int) -> None:
        """Let a record never count again here."""
        known = len(cell.superseded or ())
        if not supersede(cell, record.source, record.record):
            if len(cell.superseded or ()) > known:  # it has not been here yet, and must not count when it comes
                self._state.put(key, cell, settled=is_settled(cell))
            return
        cell.touched_at = max(cell.touched_at, record.received_at)
        self._judge(key, cell, rule, self._state.moment(record.received_at, offset), "superseded")

    def is_settled(self, cell: Group) -> bool:
        """Tell whether a group waits for nothing but `keep`."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: Group | None) -> None:
        """Count what a feed holds back."""
        restore_holder(self._state.feeds, key, cell)

    def _judge(self, key: bytes, group: Group, rule: MatchRule, moment: Moment, cause: Resolution) -> None:
        """Judge the group, publish what changed, set its timer."""
        state = self._state
        name = read_group_key(key)
        verdict = judge(group, rule, name) if group.armed_at != UNKNOWN else NOT_JUDGED
        verdict, holder = hold_back(state.feeds, key, group, rule, name, verdict, moment)
        state.changes.discrepancies += revise(group, rule, name, verdict, moment, cause)
        note_holder(state.feeds, key, group, name, holder)
        status = item_status(group, verdict)
        if status != PENDING or group.item_revision:
            self._publish(key, group, rule, name, status, moment)
        state.schedule(key, group, next_due(group, rule, verdict))
        state.put(key, group, settled=is_settled(group))

    def _publish(self, key: bytes, group: Group, rule: MatchRule, name: GroupName, status: int, moment: Moment) -> None:
        self._state.changes.items.append((key, make_item(group, rule, name, status, moment)))


def id_reused(key: bytes, leg: Leg) -> DeadLetter:
    """Return the dead letter of an event whose id the cell holds with other content."""
    return set_aside(
        key,
        leg,
        "id reused",
        f"{leg.source} event {leg.id} came again with other content for key {', '.join(read_group_key(key).key)}; "
        "the first one counts",
        "Give every notification an id of its own and send the correction again under a new id.",
    )


def _is_live(group: Group, rule: MatchRule) -> bool:
    return any(rule.sides[record.side].is_live(record.status) for record in group.records)
