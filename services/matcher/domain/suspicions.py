"""Kind `duplicates`: records that agree in what the rule names, within a time, though they stand under different keys.

A suspicion merges nothing and settles nothing. A cell holds the records that agree in everything but the amount, each
for `keep` after its last event; work per record is bounded by RECORDS_MAX.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from services.matcher.domain import explain
from services.matcher.domain.finding import Finding
from services.matcher.domain.group import Group, Raised, Record, hold, is_settled, supersede
from services.matcher.domain.match import CAUSES, id_reused
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.revise import sum_evidence
from services.matcher.domain.revision import bring_in_line, expire, is_open
from services.matcher.domain.state import Codec, State
from shared.contracts.discrepancy import Resolution, SideEvidence
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, read_group_key
from shared.money import format_amount
from shared.rules.duplicates_rule import SUSPECTED, DuplicatesRule
from shared.rules.extract.duplicates import GROUP

RECORDS_MAX: Final = 256
"""Records held under one key: more of one payer at a time are a batch, and the oldest are looked at no longer."""


class Seen(msgspec.Struct, array_like=True, gc=False):
    """A record that may be suspected: under which key it stands elsewhere, and when it was last heard of."""

    source: str
    record: str
    group: str
    at: int
    """Milliseconds."""


class Alike(Group):
    """Records that agree in everything but the amount."""

    seen: list[Seen] = []  # noqa: RUF012 - msgspec gives every cell a list of its own


ALIKE = Codec(5, Alike)


class Suspicions:
    """Cells of `duplicates` rules."""

    codec: Codec | None = ALIKE

    def __init__(self, state: State) -> None:
        self._state = state

    def apply(self, key: bytes, leg: Leg, rule: DuplicatesRule, offset: int) -> None:
        """Hold a record and look for others that agree with it."""
        state = self._state
        cell: Alike | None = state.get(key)
        if cell is None:
            cell = Alike(rule.generation, leg.id, leg.received_at, leg.received_at + rule.keep_ms, UNKNOWN, [])
        superseded_before = len(cell.superseded or ())
        effect = hold(cell, leg, rule.sides[leg.side].is_live)
        if effect == "id reused":
            state.changes.dead_letters.append(id_reused(key, leg))
            return
        if effect == "no-op":
            if len(cell.superseded or ()) == superseded_before:
                return
            effect = "older event"
        cell.touched_at = max(cell.touched_at, leg.received_at)
        _note_seen(cell, leg)
        self._judge(key, cell, rule, state.moment(leg.received_at, offset), CAUSES[effect])

    def fire(self, key: bytes, cell: Alike, rule: DuplicatesRule, due: int, offset: int) -> None:
        """Forget records that were seen long enough ago; expire what was open too long."""
        state = self._state
        moment = Moment(due + 1, due + 1, state.position(offset))
        if is_open(cell.raised) and cell.touched_at + rule.expire_ms <= due:
            subject = _Suspects(cell, rule, read_group_key(key))
            state.changes.discrepancies += expire(
                cell.raised or (), _findings(cell, rule), subject, rule.expire_ms, moment
            )
            state.forget(key)
            return
        if _drop(cell, rule, due):
            state.forget(key)
            return
        cell.due_at = _next_due(cell, rule)
        state.timers.set(cell.due_at, key)
        state.put(key, cell, settled=is_settled(cell))

    def rejudge(self, key: bytes, cell: Alike, rule: DuplicatesRule, offset: int) -> None:
        """Look at a cell under a new generation."""
        cell.generation = rule.generation
        self._judge(key, cell, rule, self._state.moment(max(self._state.log_time, 0), offset), "rule_changed")

    def close(self, key: bytes, cell: Alike, old: DuplicatesRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        state = self._state
        moment = state.moment(max(state.log_time, 0), offset)
        subject = _Suspects(cell, old, read_group_key(key))
        revisions, _ = bring_in_line(cell.raised or (), (), subject, moment, cause)
        state.changes.discrepancies += revisions

    def cut(self, key: bytes, cell: Alike, rule: DuplicatesRule, record: Cut, offset: int) -> None:
        """A suspicion is no item: there is nothing to publish at a period's end."""

    def withdraw(self, key: bytes, cell: Alike, rule: DuplicatesRule, record: Withdraw, offset: int) -> None:
        """Let a record never count again here."""
        known = len(cell.superseded or ())
        if supersede(cell, record.source, record.record):
            self._judge(key, cell, rule, self._state.moment(record.received_at, offset), "superseded")
        elif len(cell.superseded or ()) > known:  # it has not been here yet, and must not count when it comes
            self._state.put(key, cell, settled=is_settled(cell))

    def is_settled(self, cell: Alike) -> bool:
        """Tell whether a cell waits for nothing but to forget its records."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: Alike | None) -> None:
        """Suspicions need no index."""

    def _judge(self, key: bytes, cell: Alike, rule: DuplicatesRule, moment: Moment, cause: Resolution) -> None:
        if len(cell.records) > RECORDS_MAX:
            _drop_oldest(cell, rule)
        subject = _Suspects(cell, rule, read_group_key(key))
        revisions, kept = bring_in_line(cell.raised or (), _findings(cell, rule), subject, moment, cause)
        cell.raised = kept or None
        if revisions:
            cell.touched_at = max(cell.touched_at, moment.at)
        self._state.changes.discrepancies += revisions
        self._state.schedule(key, cell, _next_due(cell, rule))
        self._state.put(key, cell, settled=is_settled(cell))


class _Suspects(NamedTuple):
    """A cell as the subject of its discrepancies."""

    cell: Alike
    rule: DuplicatesRule
    name: GroupName
    account: str | None = None

    @property
    def opener(self) -> str:
        """Id of the event that opened the cell."""
        return self.cell.opener

    def side_name(self, side: int) -> str:
        """Return the name of a side."""
        return self.rule.sides[side].name

    def evidence(self, raised: Raised, finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return the two records, or what is left of them."""
        records = list(finding.records) if finding else [r for r in self.cell.records if _name(r) == raised.duplicate]
        return {
            side.name: sum_evidence(records, []) if place == raised.side and records else None
            for place, side in enumerate(self.rule.sides)
        }

    def explain(self, finding: Finding) -> str:
        """Say what agrees."""
        beside, extra = finding.records
        seconds = (extra.first_at - beside.first_at) // 1_000_000
        apart = explain.lasting(seconds * 1000) if seconds else "less than a second"
        money = (
            "" if finding.expected is None and finding.actual is None else f" of {finding.actual or finding.expected}"
        )
        return (
            f"{explain.title(extra.source)} record {extra.record}{money} {finding.currency or ''} came {apart} after "
            f"record {beside.record} and agrees with it in {', '.join(self.rule.same)}, under another key: paid twice?"
        ).replace("  ", " ")


def _findings(cell: Alike, rule: DuplicatesRule) -> Iterator[Finding]:
    """Yield every live record that agrees with an earlier one of its side within the time, and the nearest such one."""
    groups = {(seen.source, seen.record): seen.group for seen in cell.seen}
    live = sorted(
        (record for record in cell.records if rule.sides[record.side].is_live(record.status)),
        key=lambda record: (record.first_at, record.source, record.record),
    )
    for at, record in enumerate(live):
        for before in reversed(live[:at]):
            if record.first_at - before.first_at > rule.within_us:
                break
            if before.side == record.side and _agree(before, record, rule) and _apart(before, record, groups):
                yield _finding(before, record)
                break


def _agree(one: Record, other: Record, rule: DuplicatesRule) -> bool:
    if not rule.compares_amount:
        return True
    return one.amount is not None and other.amount is not None and Decimal(one.amount) == Decimal(other.amount)


def _apart(one: Record, other: Record, groups: dict[tuple[str, str], str]) -> bool:
    """Tell whether two records stand under different keys; one without a key stands alone."""
    mine, others = groups.get(_name(one), ""), groups.get(_name(other), "")
    return not mine or mine != others


def _finding(before: Record, record: Record) -> Finding:
    text = None if record.amount is None else format_amount(Decimal(record.amount), record.currency)
    amount = None if record.amount is None else Decimal(record.amount)
    return Finding(
        name=f"{SUSPECTED}|{record.side}|{record.source}|{record.record}",
        type=SUSPECTED,
        side=record.side,
        expected=None if record.side else text,
        actual=text if record.side else None,
        difference=None if amount is None else amount if record.side else -amount,
        currency=record.currency,
        records=(before, record),
        duplicate=record,
    )


def _note_seen(cell: Alike, leg: Leg) -> None:
    group = (leg.values or {}).get(GROUP, "")
    held = {_name(record): record.id for record in cell.records}
    for seen in cell.seen:
        if (seen.source, seen.record) == (leg.source, leg.record):
            seen.at = max(seen.at, leg.received_at)
            if held.get((leg.source, leg.record)) == leg.id:
                seen.group = group
            break
    else:
        cell.seen = [*cell.seen, Seen(leg.source, leg.record, group, leg.received_at)]


def _drop(cell: Alike, rule: DuplicatesRule, due: int) -> bool:
    """Forget the records that were last heard of `keep` ago and that nothing open speaks of; True: none is left."""
    needed = {_name(one) for finding in _findings(cell, rule) for one in finding.records}
    gone = {(s.source, s.record) for s in cell.seen if s.at + rule.keep_ms <= due} - needed
    _without(cell, gone)
    return not cell.seen and not is_open(cell.raised)


def _drop_oldest(cell: Alike, rule: DuplicatesRule) -> None:
    needed = {_name(one) for finding in _findings(cell, rule) for one in finding.records}
    oldest = sorted(cell.seen, key=lambda seen: (seen.at, seen.source, seen.record))
    spare = [(seen.source, seen.record) for seen in oldest if (seen.source, seen.record) not in needed]
    _without(cell, set(spare[: max(0, len(cell.records) - RECORDS_MAX)]))


def _without(cell: Alike, gone: set[tuple[str, str]]) -> None:
    if gone:
        cell.records = [record for record in cell.records if _name(record) not in gone]
        cell.seen = [seen for seen in cell.seen if (seen.source, seen.record) not in gone]


def _next_due(cell: Alike, rule: DuplicatesRule) -> int:
    """Return when records may be forgotten, or what is open expires."""
    if is_open(cell.raised):
        return cell.touched_at + rule.expire_ms
    return min((seen.at for seen in cell.seen), default=cell.touched_at) + rule.keep_ms


def _name(record: Record) -> tuple[str, str]:
    return record.source, record.record
