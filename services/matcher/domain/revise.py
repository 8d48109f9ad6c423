"""From what is true now and what was said before to new revisions of discrepancies and of the item."""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from services.matcher.domain import explain
from services.matcher.domain.finding import NO_GATE, Finding
from services.matcher.domain.group import DISCREPANT, ITEM_STATUS, MATCHED, PENDING, Group, Raised, Record
from services.matcher.domain.judge import Verdict, compared, counted_adjustments, live_adjustments
from services.matcher.domain.moment import Moment
from services.matcher.domain.revision import bring_in_line, difference_of, printed_key
from services.matcher.domain.revision import expire as expire_open
from shared.contracts.discrepancy import (
    RECORDS_SHOWN_MAX,
    Discrepancy,
    RecordEvidence,
    Resolution,
    SideEvidence,
)
from shared.contracts.event import from_microseconds, from_milliseconds
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide, Total, occurred_at_of
from shared.contracts.leg import GroupName
from shared.ids import item_id
from shared.money import EXACT, NO_CURRENCY, format_amount, print_amount
from shared.rules.match_rule import MatchRule


class Compared(NamedTuple):
    """A group as the subject of its discrepancies: money compared side by side."""

    group: Group
    rule: MatchRule
    name: GroupName
    account: str | None = None

    @property
    def opener(self) -> str:
        """Id of the event that opened the group."""
        return self.group.opener

    def side_name(self, side: int) -> str:
        """Return the name of a side."""
        return self.rule.sides[side].name

    def evidence(self, _raised: Raised, finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return the records it speaks of; of one that is no longer true, what the sides hold now."""
        return _evidence(self.group, self.rule, finding.records if finding else ())

    def explain(self, finding: Finding) -> str:
        """Say what is wrong."""
        return explain.explain(self.group, self.rule, finding)


def revise(
    group: Group, rule: MatchRule, key: GroupName, verdict: Verdict, moment: Moment, cause: Resolution
) -> list[Discrepancy]:
    """Bring the raised discrepancies of `group` in line with `verdict`; return the new revisions.

    `cause` is what resolves those that are no longer true. Notes whether something waits, and since when.
    """
    before = group.raised or []
    is_open = {raised.name for raised in before if raised.open}
    since: dict[str, int] = {}
    group.waits = False
    due: list[Finding] = []
    for finding in verdict.findings:
        start = (group.since or {}).get(finding.name, moment.at)
        if finding.name in is_open or _is_due(finding, rule, start, moment.log_time):
            due.append(finding)
            continue
        group.waits = True
        if finding.settles and rule.settle_ms:
            since[finding.name] = start
    revisions, kept = bring_in_line(before, due, Compared(group, rule, key), moment, cause)
    group.raised = kept or None
    group.since = since or None
    if revisions:
        group.touched_at = max(group.touched_at, moment.at)
    return revisions


def next_due(group: Group, rule: MatchRule, verdict: Verdict) -> int:
    """Return when this group has to be looked at again, milliseconds: a raise, else `expire`, else `keep`.

    What waits to be raised is never cut off by `expire`.
    """
    if group.waits:
        since, is_open = group.since or {}, {raised.name for raised in group.raised or () if raised.open}
        return min(
            max(finding.gate, since[finding.name] + rule.settle_ms if finding.name in since else NO_GATE)
            for finding in verdict.findings
            if finding.name not in is_open
        )
    if any(raised.open for raised in group.raised or ()):
        return group.touched_at + rule.expire_ms
    return group.touched_at + rule.keep_ms


def _is_due(finding: Finding, rule: MatchRule, since: int, log_time: int) -> bool:
    if log_time <= finding.gate:
        return False
    return not (finding.settles and rule.settle_ms) or log_time > since + rule.settle_ms


def expire(group: Group, rule: MatchRule, key: GroupName, verdict: Verdict, moment: Moment) -> list[Discrepancy]:
    """Return the last revision of everything that is still open."""
    subject = Compared(group, rule, key)
    return expire_open(group.raised or (), verdict.findings, subject, rule.expire_ms, moment)


# ---- evidence and items


def evidence_of(record: Record) -> RecordEvidence:
    """Return a record as results show it."""
    return RecordEvidence(
        id=record.id,
        source=record.source,
        record=record.record,
        amount=_printed_amount(record),
        currency=record.currency,
        status=record.status,
        occurred_at=from_microseconds(record.occurred_at),
    )


def _printed_amount(record: Record) -> str | None:
    return None if record.amount is None else print_amount(record.amount, record.currency)


def _evidence(group: Group, rule: MatchRule, shown: tuple[Record, ...]) -> dict[str, SideEvidence | None]:
    """Return both sides' evidence: the records the finding speaks of, else what the sides hold now."""
    sides: dict[str, SideEvidence | None] = {}
    adjustments = live_adjustments(group, rule)
    for index, side in enumerate(rule.sides):
        records = [record for record in shown if record.side == index]
        if not records:
            records = [record for record in group.records if record.side == index]
        entries = [evidence_of(entry) for entry in adjustments if entry.side == index]
        if not records and not entries:
            sides[side.name] = None
        elif rule.sums or not records:
            sides[side.name] = sum_evidence(records, entries)
        else:
            one = records[0]
            if len(records) > 1:
                one = compared([record for record in records if side.is_live(record.status)] or records)
            sides[side.name] = SideEvidence(
                id=one.id,
                source=one.source,
                record=one.record,
                amount=_printed_amount(one),
                currency=one.currency,
                status=one.status,
                occurred_at=from_microseconds(one.occurred_at),
                adjustments=entries or None,
            )
    return sides


def sum_evidence(records: list[Record], entries: list[RecordEvidence]) -> SideEvidence:
    """Return the total of some records, with up to RECORDS_SHOWN_MAX of them; `entries` are adjustments."""
    currencies = {record.currency for record in records}
    total = None
    if len(currencies) == 1:
        (currency,) = currencies
        total = format_amount(_sum(records), currency)
    first = min((record.occurred_at for record in records), default=None)
    return SideEvidence(
        id=None,
        source=records[0].source if records else None,
        record=None,
        amount=total,
        currency=next(iter(currencies)) if len(currencies) == 1 else None,
        status=None,
        occurred_at=None if first is None else from_microseconds(first),
        count=len(records),
        records=[evidence_of(record) for record in records[:RECORDS_SHOWN_MAX]],
        adjustments=entries or None,
    )


def _sum(records: Iterable[Record]) -> Decimal:
    total = Decimal(0)
    for record in records:
        if record.amount is not None:
            total = EXACT.add(total, Decimal(record.amount))
    return total


def item_status(group: Group, verdict: Verdict) -> int:
    """Return where the item stands."""
    if any(raised.open for raised in group.raised or ()):
        return DISCREPANT
    return MATCHED if verdict.matched else PENDING


def make_item(group: Group, rule: MatchRule, key: GroupName, status: int, moment: Moment) -> Item:
    """Return the next revision of the group's item."""
    group.item_revision += 1
    group.item_status = status
    counted = counted_adjustments(group, rule, key)
    # Sides that are added up before they are compared stand as one, or figures would compare a part with the whole.
    sides = {
        side.name: _item_side(group, rule, index, counted)
        for index, side in enumerate(rule.sides)
        if rule.head(index) == index
    }
    first = next(iter(sides.values()))
    opened_by = (first,) if first and first.records else sides.values()
    return Item(
        id=item_id(key.org, key.rule, key.key, group.opener),
        revision=group.item_revision,
        status=ITEM_STATUS[status],
        org=key.org,
        rule=key.rule,
        pack=rule.pack,
        key=printed_key(key.key),
        sides=sides,
        discrepancies=[
            ItemDiscrepancy(
                id=raised.id,
                type=raised.type,
                side=rule.sides[raised.side].name,
                difference=_printed_difference(raised),
                currency=raised.currency,
            )
            for raised in group.raised or ()
            if raised.open
        ],
        at=from_milliseconds(moment.at),
        occurred_at=min((occurred_at_of(side) for side in opened_by if side), default=None),
        live=any(rule.sides[record.side].is_live(record.status) for record in group.records),
        log=moment.log,
        shadow=rule.shadow,
    )


def _printed_difference(raised: Raised) -> str | None:
    difference = difference_of(raised)
    return None if difference is None else format_amount(difference, raised.currency)


def _item_side(group: Group, rule: MatchRule, side: int, counted: list[Record]) -> ItemSide | None:
    records = [record for record in group.records if rule.head(record.side) == side]
    if len(records) == 1 and not group.adjustments and _says_itself(records[0], rule):
        return ItemSide(records=[evidence_of(records[0])])
    entries = [entry for entry in live_adjustments(group, rule) if rule.head(entry.side) == side]
    if not records and not entries:
        return None
    # A record without a currency, which only rules that compare none take, is in the group's one currency.
    known = {record.currency for record in group.records if record.currency}
    unnamed = next(iter(known)) if len(known) == 1 else NO_CURRENCY
    by_currency: dict[str, list[Record]] = {}
    for record in records:
        if record.amount is not None and rule.sides[record.side].is_live(record.status):
            by_currency.setdefault(record.currency or unnamed, []).append(record)
    adjusted: dict[str, list[Record]] = {}
    for entry in counted:
        if entry.side == side:
            adjusted.setdefault(entry.currency or "", []).append(entry)
    first_at = min(record.first_at for record in records or entries)
    is_alone = len(records) == 1
    says_it_once = is_alone and bool(by_currency) and records[0].currency is not None
    return ItemSide(
        occurred_at=None if is_alone and first_at == records[0].occurred_at else from_microseconds(first_at),
        totals=None
        if says_it_once
        else {
            currency: Total(count=len(held), amount=format_amount(_sum(held), currency))
            for currency, held in by_currency.items()
        },
        records=[evidence_of(record) for record in records[:RECORDS_SHOWN_MAX]],
        adjustments={currency: format_amount(_sum(held), currency) for currency, held in adjusted.items()},
    )


def _says_itself(record: Record, rule: MatchRule) -> bool:
    """Tell whether a side with this record alone has nothing to say beside it: see `ItemSide`."""
    return (
        record.amount is not None
        and record.currency is not None
        and record.first_at == record.occurred_at
        and rule.sides[record.side].is_live(record.status)
    )
