"""One partition of the matcher: applies leg records to groups, moves log time, fires timers.

A pure function of state and record: no clock, no I/O, no randomness. The same log gives the same bytes, however it is
cut into batches and however often it is restored on the way.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from services.matcher.domain.changes import Changes
from services.matcher.domain.group import (
    MATCHED,
    PENDING,
    Group,
    Held,
    Record,
    hold,
    pack,
    record_of,
    supersede,
    unpack,
)
from services.matcher.domain.judge import NOT_JUDGED, judge, statuses_differ
from services.matcher.domain.revise import Moment, expire, item_status, make_item, next_due, revise
from services.matcher.domain.settled import MatchWriter, RuleWords, is_printed
from services.matcher.domain.timers import Timers
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import LogPosition, Resolution
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Cut, Leg, LegRecord, RuleRecord, Tick, Withdraw, read_group_key
from shared.ids import canonical, dead_letter_id
from shared.rules.match_rule import MatchRule, compile_record, shape_of

UNKNOWN = -1
"""Log time while an inbox partition has not been heard of."""

CAUSES: dict[Held, Resolution] = {
    "new record": "late_arrival",
    "newer event": "corrected",
    "older event": "corrected",
    "stopped being live": "voided",
    "superseding": "superseded",
    "adjusting": "adjusted",
}
"""What a leg's effect on its group calls the discrepancies that it made untrue."""

CLOCK_ENTRY = b"clock"
RULE_ENTRY = b"rule "
"""State entries beside groups; group keys are JSON arrays, so they cannot meet."""


SETTLED_OVERHEAD_BYTES = 170
"""What Python adds to a settled group: two bytes objects, its place in the dict and in the timers (measured)."""
OPEN_BYTES = 1000
"""What a group that waits takes in memory with its key, about (measured with one record; more add some 250 each)."""
KEYLESS = ord("n")
"""Where a group key has `null` instead of a key's quotation mark."""


class UnknownGeneration(Exception):
    """A leg came before the rule it was made by: the log is not one that ingest wrote."""


class _Clock(msgspec.Struct, array_like=True):
    partitions: int
    times: dict[int, int]
    log_time: int = UNKNOWN
    """Kept beside the times: when an inbox partition is added, log time stands still and is not unknown again."""


class _RuleState(msgspec.Struct, array_like=True):
    record: RuleRecord
    generations: list[str]
    """Every generation this rule has had here with these sides and this key; their legs are judged by the one in force."""
    shape: str = ""
    """Sides and key of the generations: what the places and groups of their legs mean."""
    retired: list[str] = []
    """Generations of other shapes: their legs mean nothing to the rule in force and are ignored."""


class Core:
    """State of one partition of `legs`."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.log_time = UNKNOWN
        """Milliseconds: the least of the last times seen of every inbox partition; never falls."""
        self.settled_items = 0
        self._settled_bytes = 0
        self._clock = _Clock(0, {})
        self._groups: dict[bytes, Group | bytes] = {}
        """Groups that wait for something as objects, settled ones packed."""
        self._timers = Timers()
        self._rule_states: dict[tuple[str, str], _RuleState] = {}
        self._rules: dict[str, MatchRule | None] = {}
        """The rule in force by every generation seen; None: withdrawn."""
        self._pairs: dict[str, _Pairs] = {}
        """By every generation seen: the rule in force, where it makes pairs."""
        self._writer = MatchWriter(partition)
        self._dirty: dict[bytes, Group | bytes | None] = {}
        """What changed since the last take: a group, packed or not; b"": forgotten; None: an entry that is no group."""
        self._changes = Changes()

    @property
    def open_items(self) -> int:
        """Groups that wait for something or have something raised."""
        return len(self._groups) - self.settled_items

    @property
    def state_bytes(self) -> int:
        """Memory that the groups take, about."""
        return self._settled_bytes + self.open_items * OPEN_BYTES

    # ---- the log

    def apply(self, group: bytes, record: LegRecord, offset: int) -> None:
        """Apply one record of the log; `group` is its Kafka key.

        Raises:
            UnknownGeneration: a leg whose rule has not been in the log.
        """
        if type(record) is Leg:
            if record.received_at > self._clock.times.get(record.inbox_partition, UNKNOWN):
                self._advance(record.inbox_partition, record.received_at, offset)
            pairs = self._pairs.get(record.generation)
            if pairs is None or not self._apply_pair(group, record, pairs, offset):
                self._apply_leg(group, record, offset)
            return
        self._apply_control(group, record, offset)

    def _apply_control(self, group: bytes, record: LegRecord, offset: int) -> None:
        match record:
            case Tick():
                if record.partitions != self._clock.partitions:
                    self._clock.partitions = record.partitions
                    self._dirty[CLOCK_ENTRY] = None
                self._advance(record.inbox_partition, record.time, offset)
            case RuleRecord():
                self._apply_rule(record, offset)
            case Cut():
                self._advance(record.inbox_partition, record.received_at, offset)
                self._apply_cut(record, offset)
            case Withdraw():
                self._advance(record.inbox_partition, record.received_at, offset)
                self._apply_withdraw(group, record, offset)
            case _:
                msg = f"{type(record).__name__} is no control record"
                raise TypeError(msg)

    def _advance(self, inbox_partition: int, time: int, offset: int) -> None:
        """Note the time of one inbox partition and fire what is due."""
        times = self._clock.times
        before = times.get(inbox_partition, UNKNOWN)
        if time <= before and self.log_time != UNKNOWN:
            return
        times[inbox_partition] = max(time, before)
        self._dirty[CLOCK_ENTRY] = None
        if len(times) < self._clock.partitions or not self._clock.partitions:
            return
        if self.log_time != UNKNOWN and before > self.log_time:
            return
        log_time = min(times.values())
        if log_time <= self.log_time:
            return
        self.log_time = self._clock.log_time = log_time
        if self._timers.next_at < log_time:
            for due, group in self._timers.due(log_time):
                self._fire(group, due, offset)

    def _fire(self, key: bytes, due: int, offset: int) -> None:
        """Do what was due at `due`: it counts as having happened one millisecond later, whenever log time got there."""
        group = self._group(key)
        if group is None:
            return
        if group.due_at > due:
            self._timers.set(group.due_at, key)
            return
        rule = self._rules[group.generation]
        assert rule is not None, "groups of withdrawn rules are gone"
        moment = Moment(due + 1, due + 1, self._position(offset))
        name = read_group_key(key)
        verdict = judge(group, rule, name)
        revisions = revise(group, rule, name, verdict, moment, "corrected")
        is_open = any(raised.open for raised in group.raised or ())
        if not revisions and is_open and group.touched_at + rule.expire_ms <= due:
            self._changes.discrepancies += expire(group, rule, name, verdict, moment)
            self._forget(key)
            return
        if not revisions and not is_open and not group.waits and group.touched_at + rule.keep_ms <= due:
            self._forget(key)
            return
        if revisions:
            self._changes.discrepancies += revisions
            self._publish(key, group, rule, item_status(group, verdict), moment)
        group.due_at = next_due(group, rule, verdict)
        self._timers.set(group.due_at, key)
        self._keep(key, group)

    def _position(self, offset: int) -> LogPosition:
        return LogPosition(partition=self.partition, offset=offset, time=from_milliseconds(max(self.log_time, 0)))

    # ---- legs

    def _apply_leg(self, key: bytes, leg: Leg, offset: int) -> None:
        try:
            rule = self._rules[leg.generation]
        except KeyError:
            msg = f"offset {offset}: leg {leg.id!r} was made by rule generation {leg.generation}, which the log never named"
            raise UnknownGeneration(msg) from None
        if rule is None:
            return
        held = self._groups.get(key)
        if held is None:
            self._open(key, leg, rule, offset)
            return
        group = unpack(held) if type(held) is bytes else held
        assert type(group) is Group
        self._change(key, group, leg, rule, offset)

    def _open(self, key: bytes, leg: Leg, rule: MatchRule, offset: int) -> None:
        """Open a group with its first leg."""
        group = Group(rule.generation, leg.id, leg.received_at, leg.received_at + rule.keep_ms, UNKNOWN, [])
        self._change(key, group, leg, rule, offset)

    def _apply_pair(self, key: bytes, leg: Leg, pairs: "_Pairs", offset: int) -> bool:  # noqa: PLR0911 - ways out
        """Do the common case without a verdict; False: it is not that case, and nothing was done.

        A first live leg waits: its other side is missing at the deadline. A second one, of the other side and equal to
        the letter, settles the group.
        """
        side, received_at = leg.side, leg.received_at
        if leg.adjusts is not None or leg.supersedes is not None or not pairs.lives[side](leg.status):
            return False
        held = self._groups.get(key)
        if held is None:
            if self.log_time > received_at:
                return False
            due_at = pairs.deadlines[1 - side](received_at)
            self._dirty[key] = self._groups[key] = Group(
                pairs.generation, leg.id, received_at, due_at, received_at, [record_of(leg)], waits=True
            )
            self._timers.set(due_at, key)
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
        if one.side == side or one.source == leg.source or not pairs.agree(one, leg):
            return False
        words = pairs.words
        if key[words.prefix_length] == KEYLESS:
            return False
        other = record_of(leg)
        records.append(other)
        first, second = (one, other) if side else (other, one)
        self._changes.items.append(
            (key, self._writer.write(words, key, group.opener, first, second, received_at, offset, self.log_time))
        )
        group.waits = False
        group.since = None
        group.touched_at = max(group.touched_at, received_at)
        group.item_revision = 1
        group.item_status = MATCHED
        due_at = group.touched_at + pairs.keep_ms
        if due_at < group.due_at:
            self._timers.set(due_at, key)
        group.due_at = due_at
        packed = self._dirty[key] = self._groups[key] = pack(group)
        self.settled_items += 1
        self._settled_bytes += len(key) + len(packed) + SETTLED_OVERHEAD_BYTES
        return True

    def _change(self, key: bytes, group: Group, leg: Leg, rule: MatchRule, offset: int) -> None:
        """Hold a leg and judge the group again when that changed something."""
        superseded_before = len(group.superseded or ())
        effect = hold(group, leg, rule.sides[leg.side].is_live)
        if effect == "id reused":
            self._changes.dead_letters.append(self._id_reused(key, leg))
            return
        if effect == "no-op":
            if len(group.superseded or ()) == superseded_before:
                return
            effect = "older event"
        if group.armed_at == UNKNOWN and _is_live(group, rule):
            group.armed_at = leg.received_at
        self._judge(key, group, rule, offset, leg.received_at, CAUSES[effect], leg.received_at)

    def _judge(
        self,
        key: bytes,
        group: Group,
        rule: MatchRule,
        offset: int,
        at: int,
        cause: Resolution,
        touched_at: int | None,
    ) -> None:
        """Judge the group, publish what changed, set its timer."""
        if touched_at is not None:
            group.touched_at = max(group.touched_at, touched_at)
        name = read_group_key(key)
        moment = Moment(self.log_time, at, self._position(offset))
        verdict = judge(group, rule, name) if group.armed_at != UNKNOWN else NOT_JUDGED
        revisions = revise(group, rule, name, verdict, moment, cause)
        self._changes.discrepancies += revisions
        status = item_status(group, verdict)
        if status != PENDING or group.item_revision:
            self._publish(key, group, rule, status, moment)
        due = next_due(group, rule, verdict)
        if due < group.due_at or key not in self._groups:
            self._timers.set(due, key)
        group.due_at = due
        self._keep(key, group)

    def _publish(self, key: bytes, group: Group, rule: MatchRule, status: int, moment: Moment) -> None:
        self._changes.items.append((key, make_item(group, rule, read_group_key(key), status, moment)))

    def _id_reused(self, key: bytes, leg: Leg) -> DeadLetter:
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

    # ---- control records

    def _apply_rule(self, record: RuleRecord, offset: int) -> None:
        """Put a rule generation in force; groups of the rule are judged again under it."""
        name = (record.org, record.rule)
        state = self._rule_states.get(name)
        if state is not None and record.version < state.record.version:
            self._know(state, record)
            return
        self._dirty[_rule_entry(name)] = None
        if state is not None and state.record.specification == record.specification:
            state.record = record
            return
        old = self._rules[state.record.generation] if state is not None else None
        shape = state.shape if state is not None else ""
        rule = compile_record(record) if record.specification else None
        state = _next_state(state, record)
        self._rule_states[name] = state
        self._enforce(rule, state)
        if old is None:
            return
        if rule is None:
            self._close_rule(name, old, "rule_withdrawn", offset)
        elif state.shape != shape:
            self._close_rule(name, old, "rule_changed", offset)
        else:
            self._judge_rule_again(name, rule, offset)

    def _enforce(self, rule: MatchRule | None, state: _RuleState) -> None:
        self._rules |= dict.fromkeys(state.generations, rule) | dict.fromkeys(state.retired)
        self._pairs = {generation: _Pairs(one) for generation, one in self._rules.items() if one and one.pairs}

    def _know(self, state: _RuleState, record: RuleRecord) -> None:
        """Remember an older generation that a lagging normaliser still names."""
        generation = record.generation
        if generation in state.generations or generation in state.retired or not record.specification:
            return
        fits = shape_of(record) == state.shape
        (state.generations if fits else state.retired).append(generation)
        self._enforce(self._rules[state.record.generation], state)
        self._dirty[_rule_entry((state.record.org, state.record.rule))] = None

    def _judge_rule_again(self, name: tuple[str, str], rule: MatchRule, offset: int) -> None:
        """Judge every group of a rule under its new generation, in place."""
        for key in self._keys_of(name):
            group = self._group(key)
            assert group is not None
            group.generation = rule.generation
            self._judge(key, group, rule, offset, max(self.log_time, 0), "rule_changed", None)

    def _keys_of(self, name: tuple[str, str]) -> list[bytes]:
        prefix = canonical(name)[:-1] + b","
        return sorted(key for key in self._groups if key.startswith(prefix))

    def _close_rule(self, name: tuple[str, str], old: MatchRule, cause: Resolution, offset: int) -> None:
        """Resolve and forget the groups of a rule that is gone, or whose new sides and key they do not fit."""
        moment = Moment(self.log_time, max(self.log_time, 0), self._position(offset))
        for key in self._keys_of(name):
            group = self._group(key)
            assert group is not None
            revisions = revise(group, old, read_group_key(key), NOT_JUDGED, moment, cause)
            if revisions:
                self._changes.discrepancies += revisions
                self._publish(key, group, old, PENDING, moment)
            self._forget(key)

    def _apply_cut(self, record: Cut, offset: int) -> None:
        """Publish the groups of an org that have said nothing yet: live money that waits for its other side."""
        prefix = canonical([record.org])[:-1] + b","
        moment = Moment(self.log_time, record.received_at, self._position(offset))
        for key in sorted(k for k, held in self._groups.items() if type(held) is Group and k.startswith(prefix)):
            group = self._groups[key]
            assert type(group) is Group
            rule = self._rules[group.generation]
            assert rule is not None
            if group.item_revision or group.armed_at == UNKNOWN:
                continue
            self._publish(key, group, rule, PENDING, moment)
            self._keep(key, group)

    def _apply_withdraw(self, key: bytes, record: Withdraw, offset: int) -> None:
        """Take a record out of its keyless group for good: it came under a key of its own."""
        group = self._group(key)
        if group is None or not supersede(group, record.source, record.record):
            return
        rule = self._rules[group.generation]
        assert rule is not None
        self._judge(key, group, rule, offset, record.received_at, "superseded", record.received_at)

    # ---- state

    def _group(self, key: bytes) -> Group | None:
        held = self._groups.get(key)
        return unpack(held) if type(held) is bytes else held  # type: ignore[return-value]  # Group or None

    def _keep(self, key: bytes, group: Group) -> None:
        """Store a group: packed once it waits for nothing but `keep`, as an object while it waits for more."""
        is_settled = not group.waits and not any(raised.open for raised in group.raised or ())
        self._put(key, self._groups.get(key), pack(group) if is_settled else group)

    def _put(self, key: bytes, before: Group | bytes | None, held: Group | bytes) -> None:
        self._uncount(key, before)
        if type(held) is bytes:
            self.settled_items += 1
            self._settled_bytes += len(key) + len(held) + SETTLED_OVERHEAD_BYTES
        self._dirty[key] = self._groups[key] = held

    def _uncount(self, key: bytes, held: Group | bytes | None) -> None:
        if type(held) is bytes:
            self.settled_items -= 1
            self._settled_bytes -= len(key) + len(held) + SETTLED_OVERHEAD_BYTES

    def _forget(self, key: bytes) -> None:
        held = self._groups.pop(key, None)
        if held is not None:
            self._uncount(key, held)
        self._dirty[key] = b""

    def take(self) -> Changes:
        """Return what happened since the last call, with the state entries that changed."""
        changes = self._changes
        if self._dirty:
            changes.state = [
                (key, held if type(held) is bytes else self._entry(key) if held is None else pack(held))  # type: ignore[arg-type]
                for key, held in self._dirty.items()
            ]
            self._dirty = {}
        self._changes = Changes()
        return changes

    def _entry(self, key: bytes) -> bytes:
        held = self._groups.get(key)
        if held is not None:
            return held if type(held) is bytes else pack(held)  # type: ignore[arg-type]  # Group
        if key == CLOCK_ENTRY:
            return _encode(self._clock)
        if key.startswith(RULE_ENTRY):
            org, rule = _decode_names(key.removeprefix(RULE_ENTRY))
            return _encode(self._rule_states[org, rule])
        return b""

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the whole state as entries, rules before groups.

        Records may be applied between two steps: each entry is as it is when it is taken.
        """
        yield CLOCK_ENTRY, self._entry(CLOCK_ENTRY)
        for name in list(self._rule_states):
            entry = _rule_entry(name)
            yield entry, self._entry(entry)
        for key in list(self._groups):
            yield key, self._entry(key)

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Read state entries in the order they were written; an empty value forgets its key."""
        for key, value in entries:
            if key == CLOCK_ENTRY:
                self._restore_clock(_decode_clock(value))
            elif key.startswith(RULE_ENTRY):
                self._restore_rule(_decode_rule(value))
            else:
                self._restore_group(key, value)

    def _restore_clock(self, clock: _Clock) -> None:
        self._clock = clock
        self.log_time = clock.log_time

    def _restore_rule(self, state: _RuleState) -> None:
        self._rule_states[state.record.org, state.record.rule] = state
        self._enforce(compile_record(state.record) if state.record.specification else None, state)

    def _restore_group(self, key: bytes, value: bytes) -> None:
        self._forget(key)
        if value:
            group = unpack(value)
            self._timers.set(group.due_at, key)
            self._keep(key, group)
        self._dirty.pop(key, None)


class _Pairs:
    """What the common case needs of a rule with two sides and one record each."""

    def __init__(self, rule: MatchRule) -> None:
        self.generation = rule.generation
        self.keep_ms = rule.keep_ms
        self.lives = tuple(side.is_live for side in rule.sides)
        self.deadlines = tuple(side.deadline.after for side in rule.sides)
        self.words = RuleWords(rule)
        self._sides = rule.sides
        self._compares_status = rule.compares_status

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


def _next_state(state: _RuleState | None, record: RuleRecord) -> _RuleState:
    """Return the state of a rule once `record` is in force."""
    if state is None:
        state = _RuleState(record, [])
    if not record.specification:
        known = [] if record.generation in state.generations else [record.generation]
        return _RuleState(record, state.generations + known, state.shape, state.retired)
    shape = shape_of(record)
    if shape == state.shape:
        known = [] if record.generation in state.generations else [record.generation]
        return _RuleState(record, state.generations + known, shape, state.retired)
    retired = [one for one in state.retired + state.generations if one != record.generation]
    return _RuleState(record, [record.generation], shape, retired)


def _rule_entry(name: tuple[str, str]) -> bytes:
    return RULE_ENTRY + canonical(name)


_encode = msgspec.msgpack.Encoder().encode
_decode_clock: Callable[[bytes], _Clock] = msgspec.msgpack.Decoder(_Clock).decode
_decode_rule: Callable[[bytes], _RuleState] = msgspec.msgpack.Decoder(_RuleState).decode
_decode_names: Callable[[bytes], tuple[str, str]] = msgspec.json.Decoder(tuple[str, str]).decode
