"""One partition of the matcher: puts leg records to the kinds of rules, moves log time, fires timers.

A pure function of state and record: no clock, no I/O, no randomness. The same log gives the same bytes, however it is
cut into batches and however often it is restored on the way.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from services.matcher.domain.account import ACCOUNTS
from services.matcher.domain.balance import Balance
from services.matcher.domain.candidates import CANDIDATES, Candidates
from services.matcher.domain.changes import Changes
from services.matcher.domain.compiled import make_runner, set_rules
from services.matcher.domain.feed import Said, is_feed_entry
from services.matcher.domain.frozen import FREEZING, Freezing, is_frozen
from services.matcher.domain.group import Group
from services.matcher.domain.invariant import Invariant
from services.matcher.domain.kept_legs import MARKED, TWO, is_kept, is_one
from services.matcher.domain.kinds import Kind
from services.matcher.domain.match import Match
from services.matcher.domain.moment import UNKNOWN
from services.matcher.domain.pairs import Pairs
from services.matcher.domain.state import OPEN_BYTES, WAITING_BYTES, Cell, State
from services.matcher.domain.suspicions import ALIKE, Suspicions
from services.matcher.domain.watched import WATCHED
from services.matcher.domain.zero_sum import TRANSACTIONS, ZeroSum
from shared.contracts.discrepancy import Resolution
from shared.contracts.leg import Cut, Leg, LegRecord, RuleRecord, Tick, Withdraw
from shared.ids import canonical
from shared.rules.candidate_rule import TAG as WITHOUT_KEY
from shared.rules.compiled import CompiledRule, compile_record, record_model, shape_of
from shared.rules.feed_rule import FeedRule, sources_of
from shared.rules.match_rule import MatchRule

CORE_VERSION = 4
"""Raised with every change that makes other results, or another state, of the same log: `verify` compares only what
one version made."""

CLOCK_ENTRY = b"clock"
RULE_ENTRY = b"rule "
"""State entries beside cells; group keys are JSON arrays, so they cannot meet."""

KINDS: dict[str, Callable[[State], Kind]] = {
    "match": Match,
    WITHOUT_KEY: Candidates,
    "duplicates": Suspicions,
    "zero_sum": ZeroSum,
    "balance": Balance,
    "invariant": Invariant,
}
"""What does the work of each kind of rule. Each is listed with the class of its compiled rule in `shared.rules.compiled`."""
CODECS = (TRANSACTIONS, ACCOUNTS, CANDIDATES, ALIKE, WATCHED)


Run = Callable[[list[Any], int, int], int]
"""See `services.matcher.ports.Core.run`."""


class UnknownGeneration(Exception):
    """A leg came before the rule it was made by: the log is not one that ingest wrote."""


class _Clock(msgspec.Struct, array_like=True):
    partitions: int
    times: dict[int, int]
    log_time: int = UNKNOWN
    """Kept beside the times: when an inbox partition is added, log time stands still and is not unknown again."""
    base: int = 0
    """Added to every offset: a partition that was made of others goes on behind all of their places in the log."""


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

    version: Final = CORE_VERSION

    def __init__(self, partition: int, *, compiled: bool = True, freezing: Freezing = FREEZING) -> None:
        self.partition = partition
        self._clock = _Clock(0, {})
        self._state = State(partition, CODECS, freezing)
        self._freezing = freezing
        self._kinds = {name: kind(self._state) for name, kind in KINDS.items()}
        self._kind_of_cell: dict[type, Kind] = {
            kind.codec.cell if kind.codec else Group: kind for kind in self._kinds.values()
        }
        self._rule_states: dict[tuple[str, str], _RuleState] = {}
        self._rules: dict[str, CompiledRule | None] = {}
        """The rule in force by every generation seen; None: withdrawn."""
        self._base = 0
        self._deriving: set[str] = set()
        """Generations in force whose legs are not all there yet."""
        self._pairs: dict[str, Pairs] = {}
        """By every generation seen: the rule in force, where it makes pairs."""
        self._runner = make_runner(self, self._state, CLOCK_ENTRY) if compiled else None
        self.run: Run | None = self._runner.run if self._runner is not None else None
        """Applies what is plain of some records faster than `apply`, where it is built (`native/`) and wanted."""

    @property
    def log_time(self) -> int:
        """Milliseconds: the least of the last times seen of every inbox partition; never falls."""
        return self._state.log_time

    @property
    def next_timer_at(self) -> int:
        """Milliseconds: nothing falls due before this (a lower bound)."""
        return self._state.timers.next_at

    @property
    def offset_base(self) -> int:
        """What has to be added to an offset of `legs` for its place in the log, which only rises."""
        return self._base

    @property
    def settled_items(self) -> int:
        """Cells that wait for nothing but to be forgotten."""
        return self._state.settled_items

    @property
    def open_items(self) -> int:
        """Cells that wait for something or have something raised."""
        return len(self._state.cells) - self._state.settled_items

    @property
    def discrepancies_wait(self) -> bool:
        """There are some that no batch has taken yet."""
        return bool(self._state.changes.discrepancies)

    @property
    def state_bytes(self) -> int:
        """Memory that the cells take, about."""
        waiting = self._state.waiting_items
        return self._state.settled_bytes + waiting * WAITING_BYTES + (self.open_items - waiting) * OPEN_BYTES

    # ---- the log

    def apply(self, group: bytes, record: LegRecord, offset: int, value: bytes | None = None) -> None:
        """Apply one record of the log; `group` is its Kafka key, `value` its Kafka value where that is at hand.

        Raises:
            UnknownGeneration: a leg whose rule has not been in the log.
        """
        offset += self._base
        if type(record) is Leg:
            times, inbox, received_at = self._clock.times, record.inbox_partition, record.received_at
            before = times.get(inbox, UNKNOWN)
            if received_at > before:
                times[inbox] = received_at
                state = self._state
                state.dirty[CLOCK_ENTRY] = None
                if before <= state.log_time or state.log_time == UNKNOWN:  # else another inbox partition is slower
                    self._move_log_time(offset)
            pairs = self._pairs.get(record.generation)
            if pairs is None or not pairs.apply(group, record, offset, value):
                self._apply_leg(group, record, offset)
            return
        self._apply_control(group, record, offset)

    def _apply_control(self, group: bytes, record: LegRecord, offset: int) -> None:
        match record:
            case Tick():
                if record.partitions != self._clock.partitions:
                    self._clock.partitions = record.partitions
                    self._state.dirty[CLOCK_ENTRY] = None
                self._state.feeds.count(record)
                self._advance(record.inbox_partition, record.time, offset)
                self._settle_feeds(record, offset)
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
        """Note the time of one inbox partition."""
        times = self._clock.times
        before = times.get(inbox_partition, UNKNOWN)
        state = self._state
        if time <= before and state.log_time != UNKNOWN:
            return
        times[inbox_partition] = max(time, before)
        state.dirty[CLOCK_ENTRY] = None
        if before <= state.log_time or state.log_time == UNKNOWN:
            self._move_log_time(offset)

    def _move_log_time(self, offset: int) -> None:
        """Let log time be the least of all times, and fire what is due."""
        state, times = self._state, self._clock.times
        if len(times) < self._clock.partitions or not self._clock.partitions:
            return
        log_time = min(times.values())
        if log_time <= state.log_time:
            return
        state.log_time = self._clock.log_time = log_time
        if state.timers.next_at < log_time:
            for due, group in state.timers.due(log_time):
                self._fire(group, due, offset)

    def _settle_feeds(self, tick: Tick, offset: int) -> None:
        """Say which feeds are silent, and which are back."""
        if tick.feeds is not None:
            self._say(self._state.feeds.settle(tick.partitions, lambda: self._state.position(offset)))

    def _say(self, said: Said) -> None:
        self._state.changes.discrepancies += said.discrepancies
        self._state.changes.feeds += said.statuses

    def _fire(self, key: bytes, due: int, offset: int) -> None:
        state = self._state
        held = state.cells.get(key)
        if held is None:
            if is_frozen(key):
                state.fire_block(key)
            return
        if type(held) is bytes and held[0] == MARKED and held[1] >= TWO:  # settled: nothing to judge
            if held[1] == TWO:
                state.fire_pair(key, held, due)
            return  # else frozen: its block has a timer
        due_at = state.due_at(key)
        assert due_at is not None, "there is a cell"
        if due_at > due:
            state.timers.set(due_at, key)
            return
        cell = state.get(key)
        rule = self._rules[cell.generation]
        assert rule is not None, "cells of withdrawn rules are gone"
        if rule.generation in self._deriving:
            return  # its timers are set again when the last leg is there
        self._kinds[rule.kind].fire(key, cell, rule, due, offset)

    def _apply_leg(self, key: bytes, leg: Leg, offset: int) -> None:
        try:
            rule = self._rules[leg.generation]
        except KeyError:
            msg = f"offset {offset}: leg {leg.id!r} was made by rule generation {leg.generation}, which the log never named"
            raise UnknownGeneration(msg) from None
        if rule is not None:
            self._kinds[rule.kind].apply(key, leg, rule, offset)

    # ---- control records

    def _apply_rule(self, record: RuleRecord, offset: int) -> None:
        """Put a rule generation in force; groups of the rule are judged again under it."""
        name = (record.org, record.rule)
        state = self._rule_states.get(name)
        if state is not None and record.version < state.record.version:
            self._know(state, record)
            return
        self._state.dirty[_rule_entry(name)] = None
        if state is not None and _says_the_same(state.record, record):
            state.record = record
            return
        if state is not None and state.record.deriving and not record.deriving:
            self._end_derivation(name, state.record, offset)
        old = self._rules[state.record.generation] if state is not None else None
        shape = state.shape if state is not None else ""
        rule = compile_record(record) if record.specification else None
        state = _next_state(state, record)
        self._rule_states[name] = state
        self._enforce(rule, state)
        feeds = self._state.feeds
        self._say(feeds.judge_again(record.org, self._state.position(offset), max(self._state.log_time, 0)))
        if old is None or isinstance(old, FeedRule):
            return
        if rule is None:
            self._close_rule(name, old, "rule_withdrawn", offset)
        elif state.shape != shape:
            self._close_rule(name, old, "rule_changed", offset)
        else:
            self._state.says_anew = rule.shadow != old.shadow
            self._judge_rule_again(name, rule, offset)
            self._state.says_anew = False

    def _end_derivation(self, name: tuple[str, str], record: RuleRecord, offset: int) -> None:
        """Do what fell due while legs were derived, in order, as it would have been done then: still as a shadow."""
        self._deriving.discard(record.generation)
        state = self._state
        for key in self._melted_keys_of(name):
            due_at = state.due_at(key)
            assert due_at is not None, "the key is one of a cell"
            state.timers.set(due_at, key)
        for due, key in state.timers.due(state.log_time):
            self._fire(key, due, offset)

    def _enforce(self, rule: CompiledRule | None, state: _RuleState) -> None:
        self._rules |= dict.fromkeys(state.generations, rule) | dict.fromkeys(state.retired)
        self._deriving = {one.record.generation for one in self._rule_states.values() if one.record.deriving}
        self._pairs = {
            generation: Pairs(one, self._state)
            for generation, one in self._rules.items()
            if isinstance(one, MatchRule) and one.pairs
        }
        if self._runner is not None:
            set_rules(self._runner, self._pairs)
        feeds, record = self._state.feeds, state.record
        feeds.watch(record.org, record.rule, sources_of(record_model(record)) if rule is not None else ())
        feeds.rule_feeds({one.generation: one for one in self._rules.values() if isinstance(one, FeedRule)}.values())

    def _know(self, state: _RuleState, record: RuleRecord) -> None:
        """Remember an older generation that a lagging normaliser still names."""
        generation = record.generation
        if generation in state.generations or generation in state.retired or not record.specification:
            return
        fits = shape_of(record) == state.shape
        (state.generations if fits else state.retired).append(generation)
        self._enforce(self._rules[state.record.generation], state)
        self._state.dirty[_rule_entry((state.record.org, state.record.rule))] = None

    def _judge_rule_again(self, name: tuple[str, str], rule: CompiledRule, offset: int) -> None:
        """Judge every cell of a rule under its new generation, in place."""
        kind = self._kinds[rule.kind]
        for key in self._melted_keys_of(name):
            kind.rejudge(key, self._state.get(key), rule, offset)

    def _keys_of(self, name: tuple[str, ...]) -> list[bytes]:
        return self._state.keys_under(canonical(name)[:-1] + b",")

    def _melted_keys_of(self, name: tuple[str, str]) -> list[bytes]:
        """Return the keys of a rule whose cells are all looked at next."""
        keys = self._keys_of(name)
        self._state.melt(keys)
        return keys

    def _close_rule(self, name: tuple[str, str], old: CompiledRule, cause: Resolution, offset: int) -> None:
        """Resolve and forget the cells of a rule that is gone, or whose new sides and key they do not fit."""
        kind = self._kinds[old.kind]
        for key in self._melted_keys_of(name):
            kind.close(key, self._state.get(key), old, cause, offset)
            self._state.forget(key)
            kind.restored(key, None)

    def _apply_cut(self, record: Cut, offset: int) -> None:
        """Publish the cells of an org that have said nothing yet."""
        for key in self._keys_of((record.org,)):
            held = self._state.cells[key]
            if type(held) is bytes and not is_one(held):
                continue
            cell = self._state.get(key)
            rule = self._rules[cell.generation]
            assert rule is not None
            self._kinds[rule.kind].cut(key, cell, rule, record, offset)

    def _apply_withdraw(self, key: bytes, record: Withdraw, offset: int) -> None:
        cell = self._state.get(key)
        if cell is None:
            return
        rule = self._rules[cell.generation]
        assert rule is not None
        self._kinds[rule.kind].withdraw(key, cell, rule, record, offset)

    # ---- state

    def take(self) -> Changes:
        """Return what happened since the last call, with the state entries that changed."""
        self._state.dirty.update(self._state.feeds.take_dirty())
        return self._state.take(self._entry)

    def freeze(self) -> bool:
        """Make some of what is settled small, for a moment (2 ms); False: there was nothing to do.

        It changes memory only, and is called when there is time for it.
        """
        return self._state.freeze()

    def _entry(self, key: bytes) -> bytes:
        """Return an entry that is no cell."""
        if key == CLOCK_ENTRY:
            return _encode(self._clock)
        if is_feed_entry(key):
            return self._state.feeds.entry(key)
        org, rule = _decode_names(key.removeprefix(RULE_ENTRY))
        return _encode(self._rule_states[org, rule])

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the whole state as entries, rules before cells.

        Records may be applied between two steps: each entry is as it is when it is taken.
        """
        yield CLOCK_ENTRY, self._entry(CLOCK_ENTRY)
        for name in list(self._rule_states):
            entry = _rule_entry(name)
            yield entry, self._entry(entry)
        for entry in self._state.feeds.entries():
            yield entry, self._entry(entry)
        yield from self._state.packed()

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Read state entries in the order they were written; an empty value forgets its key."""
        feeds, restore_kept = self._state.feeds, self._state.restore_kept
        for key, value in entries:
            if value and is_kept(value):  # nearly all are, and no other entry looks like one
                feeds.note(key, "", None)
                restore_kept(key, value)
            elif key == CLOCK_ENTRY:
                self._clock = _decode_clock(value)
                self._state.log_time = self._clock.log_time
                self._base = self._clock.base
            elif key.startswith(RULE_ENTRY):
                self._restore_rule(_decode_rule(value))
            elif is_feed_entry(key):
                self._state.feeds.restore(key, value)
            else:
                cell = self._state.restore(key, value, self._is_settled)
                self._index(key, cell)
        self._state.freeze_surplus(self._freezing.restored_pairs_max)

    def _is_settled(self, cell: Cell) -> bool:
        return self._kind_of_cell[type(cell)].is_settled(cell)

    def _index(self, key: bytes, cell: Cell | None) -> None:
        if cell is None:
            for kind in self._kinds.values():
                kind.restored(key, None)
        else:
            self._kind_of_cell[type(cell)].restored(key, cell)

    def _restore_rule(self, state: _RuleState) -> None:
        self._rule_states[state.record.org, state.record.rule] = state
        self._enforce(compile_record(state.record) if state.record.specification else None, state)


def _says_the_same(before: RuleRecord, record: RuleRecord) -> bool:
    return (before.specification, before.derivation, before.deriving) == (
        record.specification,
        record.derivation,
        record.deriving,
    )


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
