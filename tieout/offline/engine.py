"""Extract -> core -> results in one process: what `replay` and the offline packs run on."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from services.matcher.domain.core import Core
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus
from shared.contracts.event import Event, from_milliseconds, milliseconds
from shared.contracts.item import Item
from shared.contracts.leg import FeedCount, Leg, Tick, Withdraw, keyless_group_key, read_group_key
from shared.contracts.matched_pair import read_item
from shared.ids import dead_letter_id
from shared.rules.compiled import rule_record
from shared.rules.extract import Extracted, Extractor, Problem
from shared.rules.feed_rule import FeedRuleModel
from shared.rules.model import Rule

CONTROL = b""
_Record = tuple[str, str, str, str]
"""Org, generation of the rule, source, record."""


class OfflineEngine:
    """Feeds events in order of receipt to one core, as ingest would through Kafka, with a single inbox partition."""

    def __init__(self, packs: Mapping[str, Sequence[Rule]], *, items: bool = True) -> None:
        self.not_reconciled: dict[tuple[str, str], int] = {}
        """Events that no rule selects, by source and type."""
        self._packs = packs
        self._core = Core(0)
        self._extractors: dict[str, Extractor] = {}
        self._counted = frozenset(
            source
            for rules in packs.values()
            for rule in rules
            if isinstance(rule, FeedRuleModel)
            for source in rule.source
        )
        """Sources whose events are counted: files are no feeds unless a rule says so."""
        self._keeps_items = items
        self._revisions: list[Discrepancy] = []
        self._items: dict[str, Item] = {}
        self._checks: list[Check] = []
        self._dead_letters: list[DeadLetter] = []
        self._feeds: dict[tuple[str, str], FeedStatus] = {}
        self._keyless: dict[_Record, bytes] = {}
        """Groups of records that came without a key."""
        self._keyed: set[int] = set()
        """Hashes of the records that came with one: all of them, so they are kept as short as can be."""
        self.offset = 0
        """Place of the next event."""
        self._passed_ms: int | None = None

    @property
    def revisions(self) -> list[Discrepancy]:
        """Every revision, in the order they were published."""
        self._collect()
        return self._revisions

    @property
    def items(self) -> dict[str, Item]:
        """Each item's last revision, by id; empty where items are not kept."""
        self._collect()
        return self._items

    @property
    def checks(self) -> list[Check]:
        """Every verdict on a reading, in the order they were published; a later one of the same reading replaces it."""
        self._collect()
        return self._checks

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Events, or parts of them, that could not be used."""
        self._collect()
        return self._dead_letters

    @property
    def feeds(self) -> dict[tuple[str, str], FeedStatus]:
        """How each feed stood when it was told last."""
        self._collect()
        return self._feeds

    def feed(self, event: Event) -> None:
        """Apply one event; its receipt must not be before the previous one's."""
        received_ms = milliseconds(event.received_at)
        extracted = self._extractor(event.org, received_ms).extract(event, 0, self.offset, received_ms)
        self._note(event, extracted)
        if self._counted or not extracted.legs:
            self.advance(received_ms)  # else the leg itself moves log time
        for group, leg in extracted.legs:
            self._core.apply(group, leg, self.offset)
            self._withdraw_keyless(event.org, group, leg)
        if event.source in self._counted:
            count = FeedCount(event.org, event.source, 1, received_ms, received_ms, 0, 0)
            self._core.apply(CONTROL, Tick(0, 1, received_ms, [count]), self.offset)
        self.offset += 1

    def advance(self, time_ms: int) -> None:
        """Let log time come to `time_ms` (milliseconds since 1970), so that what is due before it happens."""
        self._core.apply(CONTROL, Tick(0, 1, time_ms, [] if self._counted else None), self.offset)

    def pass_over(self, times: Sequence[int], begin: int, end: int) -> None:
        """Let events go by that were settled elsewhere, received at `times[begin:end]` (milliseconds, rising).

        They settle among themselves; what they do to others is that log time moves, and timers fire at their places. Where
        none falls due, log time moves with what comes next; after the last ones, with `catch_up`.
        """
        if self._core.next_timer_at >= times[end - 1]:
            self.offset += end - begin
            self._passed_ms = times[end - 1]
            return
        offset, last = self.offset - begin, end - 1
        while (after := max(self._core.next_timer_at, self._core.log_time)) < times[last]:
            place = bisect_right(times, after, begin, end)
            self.offset = offset + place
            self.advance(times[place])
        self.offset = offset + last
        self.advance(times[last])
        self.offset += 1

    def catch_up(self) -> None:
        """Let log time come to the last event that was passed over."""
        if self._passed_ms is not None:
            self.advance(self._passed_ms)

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """Return the core's state, for an engine that goes on where this one stopped."""
        return list(self._core.snapshot())

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Go on from a state that `snapshot` gave; other rules than it knew judge it again with the first event."""
        self._core.restore(entries)

    def last_revisions(self) -> list[Discrepancy]:
        """Return every discrepancy's last revision, in the order they were first raised."""
        last: dict[str, Discrepancy] = {}
        for revision in self.revisions:
            last[revision.id] = revision
        return list(last.values())

    def last_checks(self) -> list[Check]:
        """Return the last verdict on every reading, in the order they were first judged."""
        last: dict[tuple[object, ...], Check] = {}
        for check in self.checks:
            key = check.key if isinstance(check.key, str) else tuple(check.key)
            last[check.org, check.rule, key, check.code, check.currency, check.as_of, check.period] = check
        return list(last.values())

    def _extractor(self, org: str, received_ms: int) -> Extractor:
        extractor = self._extractors.get(org)
        if extractor is None:
            self.advance(received_ms)
            extractor = self._extractors[org] = Extractor(org, self._packs)
            for pack, model in extractor.models.values():
                self._core.apply(CONTROL, rule_record(org, pack, model, 0), self.offset)
        return extractor

    def _note(self, event: Event, extracted: Extracted) -> None:
        if not extracted.selected:
            kind = (event.source, event.type)
            self.not_reconciled[kind] = self.not_reconciled.get(kind, 0) + 1
        self._dead_letters += [self._dead_letter(event, problem) for problem in extracted.problems]

    def _dead_letter(self, event: Event, problem: Problem) -> DeadLetter:
        return DeadLetter(
            id=dead_letter_id(problem.reason, 0, self.offset, problem.rule),
            org=event.org,
            source=event.source,
            reason=problem.reason,
            detail=problem.detail,
            hint=problem.hint,
            rule=problem.rule,
            event=event.id,
            inbox_partition=0,
            inbox_offset=self.offset,
            received_at=event.received_at,
            raw=b"",
        )

    def _withdraw_keyless(self, org: str, group: bytes, leg: Leg) -> None:
        """Do what alerts does on a running system: a record seen with and without a key leaves the group without one."""
        if leg.adjusts is not None:
            return
        record = (org, leg.generation, leg.source, leg.record)
        if b",null," in group and (name := read_group_key(group)).keyless:
            self._keyless[record] = keyless_group_key(org, name.rule, leg.source, leg.record)
        else:
            self._keyed.add(hash(record))
        if record in self._keyless and hash(record) in self._keyed:
            withdraw = Withdraw(leg.source, leg.record, 0, leg.received_at)
            self._core.apply(self._keyless[record], withdraw, self.offset)

    def _collect(self) -> None:
        changes = self._core.take()
        self._revisions += changes.discrepancies
        self._checks += [check for _, check in changes.checks]
        self._dead_letters += changes.dead_letters
        self._feeds |= {(status.org, status.source): status for status in changes.feeds}
        if not self._keeps_items:
            return
        for _, made in changes.items:
            item = made if isinstance(made, Item) else read_item(made)
            self._items[item.id] = item

    @property
    def log_time(self) -> str:
        """Log time, for people."""
        return from_milliseconds(max(self._core.log_time, 0)).isoformat()
