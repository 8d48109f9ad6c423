"""What is true of a group under its rule: findings, whether it matches, and the times that still have to pass.

Pure and whole: it looks at everything the group holds and knows nothing of what was said before.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

import msgspec

from services.matcher.domain.finding import NO_GATE, Finding
from services.matcher.domain.group import Group, Record
from shared.contracts.leg import GroupName
from shared.ids import discrepancy_id
from shared.money import EXACT, format_amount, print_amount
from shared.rules.match_rule import MatchRule, SideRule

ZERO = Decimal(0)


class Verdict(NamedTuple):
    """Findings, and whether every side is there and nothing differs."""

    findings: list[Finding]
    matched: bool


NOT_JUDGED = Verdict([], matched=False)


def compared(records: Iterable[Record]) -> Record:
    """Return the record of a side that is compared: the one that occurred first, ties by source and record."""
    return min(records, key=lambda record: (record.first_at, record.source, record.record))


def statuses_differ(one: SideRule, status: str | None, other: SideRule, other_status: str | None) -> bool:
    """Tell whether two statuses differ after each side's map; an absent one is not compared."""
    if not status or not other_status:
        return False
    return one.status_map.get(status, status) != other.status_map.get(other_status, other_status)


def judge(group: Group, rule: MatchRule, name: GroupName) -> Verdict:
    """Return what is true of the group `name`. A group without a live record is not judged."""
    if len(group.records) == 2 == len(rule.sides) and not group.adjustments and not rule.sums:
        one, other = group.records
        if one.side != other.side:
            return _judge_two(rule, one, other) if one.side < other.side else _judge_two(rule, other, one)
    sides = _Sides(group, rule)
    if not sides.any_live:
        return NOT_JUDGED
    if rule.sums:
        return _judge_sums(group, rule, sides)
    return _judge_records(group, rule, sides, name)


def live_adjustments(group: Group, rule: MatchRule) -> list[Record]:
    """Return the adjustment entries that may count: one that was voided does not."""
    if not group.adjustments:
        return []
    return [entry for entry in group.adjustments if rule.sides[entry.side].is_live(entry.status)]


def counted_adjustments(group: Group, rule: MatchRule, name: GroupName) -> list[Record]:
    """Return the adjustment entries that count now, each at the side whose amount it changes.

    Of single records one in another currency changes nothing, nor does one that names a duplicate while that is none.
    """
    entries = live_adjustments(group, rule)
    if not entries:
        return []
    sides = _Sides(group, rule)
    if not sides.any_live:
        return []
    if rule.sums:
        return [_at(entry, rule.head(entry.side)) for entry in entries]
    chosen = sides.chosen()
    own = _duplicate_ids(group, rule, name)
    counted = [
        entry
        for entry in entries
        if entry.adjusts not in own and _counts_beside(chosen[entry.side] or chosen[sides.reference], entry)
    ]
    for side, record in _extras(rule, sides):
        counted += [_at(entry, side) for entry in _set_against(group, rule, name, side, record, entries)]
    return counted


def _counts_beside(record: Record | None, entry: Record) -> bool:
    return record is not None and record.currency == entry.currency


def _at(entry: Record, side: int) -> Record:
    return entry if side == entry.side else msgspec.structs.replace(entry, side=side)


class _Sides:
    """The group's records by side."""

    def __init__(self, group: Group, rule: MatchRule) -> None:
        self.all: list[list[Record]] = [[] for _ in rule.sides]
        self.live: list[list[Record]] = [[] for _ in rule.sides]
        for record in group.records:
            side = rule.head(record.side)
            self.all[side].append(record)
            if rule.sides[record.side].is_live(record.status):
                self.live[side].append(record)
        self.any_live = any(self.live)
        self.missing = [side for side, records in enumerate(self.all) if not records and rule.head(side) == side]
        self.present = [side for side, records in enumerate(self.all) if records]
        self.reference = next((side for side, records in enumerate(self.live) if records), 0)
        """First side with a live record: what a missing side is measured by."""

    def chosen(self) -> list[Record | None]:
        """Return the record of every side that is compared where sides have one each."""
        return [compared(live or all_) if all_ else None for live, all_ in zip(self.live, self.all, strict=True)]


def deadline(group: Group, rule: MatchRule, side: int) -> int:
    """Return when `side` is missing: `deadline` after the first live leg was received."""
    return rule.sides[side].deadline.after(group.armed_at)


# ---- one to one


def _judge_records(group: Group, rule: MatchRule, sides: _Sides, key: GroupName) -> Verdict:
    findings: list[Finding] = []
    chosen = sides.chosen()
    adjustments = live_adjustments(group, rule)
    for side, record in _extras(rule, sides):
        findings += _duplicate(group, rule, key, side, record, chosen[side], adjustments)
    if adjustments:
        own = _duplicate_ids(group, rule, key)
        adjustments = [entry for entry in adjustments if entry.adjusts not in own]
    for side in sides.missing:
        reference = chosen[sides.reference]
        assert reference is not None, "the reference side has a live record"
        missing = _missing(group, rule, side, sides.reference, [reference], reference.currency, adjustments)
        if missing:
            findings.append(missing)
    gate = max((deadline(group, rule, side) for side in sides.missing), default=NO_GATE)
    if sides.present:
        first, *others = sides.present
        for side in others:
            one, other = chosen[first], chosen[side]
            assert one is not None
            assert other is not None
            findings += _compare(rule, one, other, gate, adjustments)
    adjusted_away = bool(sides.missing) and bool(adjustments)
    return Verdict(findings, not findings and (not sides.missing or adjusted_away))


def _judge_two(rule: MatchRule, one: Record, other: Record) -> Verdict:
    """Judge a group of a record on each side, as most are that are judged at all."""
    first, second = rule.sides
    if not first.is_live(one.status) and not second.is_live(other.status):
        return NOT_JUDGED
    findings = _compare(rule, one, other, NO_GATE, [])
    return Verdict(findings, not findings)


def _extras(rule: MatchRule, sides: _Sides) -> list[tuple[int, Record]]:
    """Return the live records, each with its side, that are suspected to be duplicates of the compared one."""
    return [
        (side, record)
        for side, live in enumerate(sides.live)
        if rule.sides[side].raises_duplicates and len(live) > 1
        for record in sorted(live, key=lambda r: (r.first_at, r.source, r.record))[1:]
    ]


def _duplicate_id(group: Group, key: GroupName, side: str, source: str, record: str) -> str:
    return discrepancy_id(key.org, key.rule, key.key, group.opener, "DuplicateChargeSuspected", side, source, record)


def _duplicate_ids(group: Group, rule: MatchRule, key: GroupName) -> set[str]:
    """Return what any record of the group would be called as a duplicate, whether it is one now or not.

    What was set against a duplicate must not fall back on the side's amount once the extra record has gone.
    """
    names = {(record.source, record.record) for record in group.records} | set(group.superseded or ())
    return {_duplicate_id(group, key, side.name, *name) for side in rule.sides for name in names}


def _set_against(
    group: Group, rule: MatchRule, key: GroupName, side: int, extra: Record, adjustments: list[Record]
) -> list[Record]:
    """Return the adjustments that name a suspected duplicate, in its currency, whatever source they come from."""
    if not adjustments:
        return []
    own = _duplicate_id(group, key, rule.sides[side].name, extra.source, extra.record)
    return [entry for entry in adjustments if entry.adjusts == own and entry.currency == extra.currency]


def _duplicate(
    group: Group,
    rule: MatchRule,
    key: GroupName,
    side: int,
    record: Record,
    beside: Record | None,
    adjustments: list[Record],
) -> list[Finding]:
    """An extra live record. An adjustment that names this very discrepancy is set against its amount."""
    amount = Decimal(record.amount or 0)
    entries = _set_against(group, rule, key, side, record, adjustments)
    for entry in entries:
        amount = EXACT.add(amount, Decimal(entry.amount or 0))
    if entries and not amount:
        return []
    is_known = record.amount is not None or bool(entries)
    text = format_amount(amount, record.currency) if is_known else None
    return [
        Finding(
            name=f"DuplicateChargeSuspected|{side}|{record.source}|{record.record}",
            type="DuplicateChargeSuspected",
            side=side,
            expected=text if side == 0 else None,
            actual=None if side == 0 else text,
            difference=None if text is None else -amount if side == 0 else amount,
            currency=record.currency,
            records=(record,) if beside is None else (beside, record),
            duplicate=record,
        )
    ]


def _missing(
    group: Group,
    rule: MatchRule,
    side: int,
    reference: int,
    records: list[Record],
    currency: str | None,
    adjustments: list[Record],
    by_currency: bool = False,
) -> Finding | None:
    """A side without any record; adjustments may stand in for it."""
    there = _total(records, adjustments, reference, currency)
    here = _total([], adjustments, side, currency)
    here_text = format_amount(here, currency) if _adjusted(adjustments, (side,), currency) else None
    # A rule that compares no amounts takes records without one: what is missing is then known, but not its worth.
    is_known = rule.sums or records[0].amount is not None
    there_text = format_amount(there, currency) if is_known else None
    first, last = (here, there) if side < reference else (there, here)
    is_adjusted = _adjusted(adjustments, (side, reference), currency)
    if is_adjusted and abs(EXACT.subtract(last, first)) <= rule.allowance(first):
        return None
    type_ = rule.sides[side].missing_type
    return Finding(
        name=f"{type_}|{side}|{currency}" if by_currency else f"{type_}|{side}",
        type=type_,
        side=side,
        expected=here_text if side < reference else there_text,
        actual=there_text if side < reference else here_text,
        difference=EXACT.subtract(last, first) if here_text or there_text else None,
        currency=currency,
        records=tuple(records),
        gate=deadline(group, rule, side),
        by_currency=by_currency,
    )


def _total(records: Iterable[Record], adjustments: Iterable[Record], side: int, currency: str | None) -> Decimal:
    total = ZERO
    for record in records:
        total = EXACT.add(total, Decimal(record.amount or 0))
    for entry in adjustments:
        if entry.side == side and entry.currency == currency:
            total = EXACT.add(total, Decimal(entry.amount or 0))
    return total


def _print_total(total: Decimal, record: Record, adjustments: list[Record], currency: str | None) -> str:
    """Print the total of one record: without adjustments that is its amount."""
    return format_amount(total, currency) if adjustments or not record.amount else print_amount(record.amount, currency)


def _adjusted(adjustments: Iterable[Record], sides: tuple[int, ...], currency: str | None) -> bool:
    return any(entry.side in sides and entry.currency == currency for entry in adjustments)


def _compare(rule: MatchRule, one: Record, other: Record, gate: int, adjustments: list[Record]) -> list[Finding]:
    """Compare a further side's record with the first side's."""
    findings: list[Finding] = []
    side, pair = other.side, (one, other)
    if rule.compares_currency and one.currency and other.currency and one.currency != other.currency:
        findings.append(
            Finding(
                f"CurrencyMismatch|{side}",
                "CurrencyMismatch",
                side,
                one.currency,
                other.currency,
                None,
                one.currency,
                pair,
                gate,
                settles=True,
            )
        )
    elif _amounts_compare(rule, one, other):
        expected = _total([one], adjustments, one.side, one.currency)
        actual = _total([other], adjustments, side, other.currency)
        difference = EXACT.subtract(actual, expected)
        if abs(difference) > rule.allowance(expected):
            currency = one.currency or other.currency
            findings.append(
                Finding(
                    f"AmountMismatch|{side}",
                    "AmountMismatch",
                    side,
                    _print_total(expected, one, adjustments, currency),
                    _print_total(actual, other, adjustments, currency),
                    difference,
                    currency,
                    pair,
                    gate,
                    settles=True,
                )
            )
    if _status_tells(rule, one, other):
        findings.append(
            Finding(
                f"StatusMismatch|{side}",
                "StatusMismatch",
                side,
                one.status,
                other.status,
                None,
                one.currency or other.currency,
                pair,
                gate,
                settles=True,
            )
        )
    return findings


def _amounts_compare(rule: MatchRule, one: Record, other: Record) -> bool:
    """Tell whether both amounts are known, and in what, where that matters."""
    if not rule.compares_amount or one.amount is None or other.amount is None:
        return False
    return not rule.compares_currency or (one.currency is not None and other.currency is not None)


def _status_tells(rule: MatchRule, one: Record, other: Record) -> bool:
    """Tell whether the statuses disagree.

    Different words do; where words are not compared or absent, so does money that counts on one side only: a failed
    charge never matches a booked payment.
    """
    first, second = rule.sides[one.side], rule.sides[other.side]
    if rule.compares_status and one.status and other.status:
        return statuses_differ(first, one.status, second, other.status)
    return first.is_live(one.status) != second.is_live(other.status)


# ---- one to many, many to many


def _judge_sums(group: Group, rule: MatchRule, sides: _Sides) -> Verdict:
    findings: list[Finding] = []
    adjustments = [_at(entry, rule.head(entry.side)) for entry in live_adjustments(group, rule)]
    by_currency = [_by_currency(live) for live in sides.live]
    for side in sides.missing:
        for currency, records in sorted(by_currency[sides.reference].items()):
            finding = _missing(
                group, rule, side, sides.reference, records, currency or None, adjustments, by_currency=True
            )
            if finding:
                findings.append(finding)
    gate = max(deadline(group, rule, side) for side in range(len(rule.sides)))
    if sides.present:
        first, *others = sides.present
        for side in others:
            findings += _compare_sums(rule, first, side, by_currency, gate, adjustments)
    adjusted_away = bool(sides.missing) and bool(adjustments)
    return Verdict(findings, not findings and (not sides.missing or adjusted_away))


def _by_currency(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.currency or "", []).append(record)
    return found


def _compare_sums(
    rule: MatchRule,
    first: int,
    side: int,
    by_currency: list[dict[str, list[Record]]],
    gate: int,
    adjustments: list[Record],
) -> list[Finding]:
    """Compare the sums of a further side with the first side's, per currency."""
    expected_in, actual_in = by_currency[first], by_currency[side]
    if rule.compares_currency and expected_in and actual_in and set(expected_in) != set(actual_in):
        expected, actual = sorted(expected_in), sorted(actual_in)
        records = [r for held in (expected_in, actual_in) for group in held.values() for r in group]
        return [
            Finding(
                f"CurrencyMismatch|{side}",
                "CurrencyMismatch",
                side,
                ", ".join(expected),
                ", ".join(actual),
                None,
                expected[0] or None,
                tuple(records),
                gate,
                settles=True,
            )
        ]
    if not rule.compares_amount:
        return []
    findings = []
    adjusted = {entry.currency or "" for entry in adjustments if entry.side in (first, side)}
    for currency in sorted(set(expected_in) | set(actual_in) | adjusted):
        one, other = expected_in.get(currency, []), actual_in.get(currency, [])
        total = _total(one, adjustments, first, currency or None)
        against = _total(other, adjustments, side, currency or None)
        difference = EXACT.subtract(against, total)
        if abs(difference) <= rule.allowance(total):
            continue
        findings.append(
            Finding(
                f"AmountMismatch|{side}|{currency}",
                "AmountMismatch",
                side,
                format_amount(total, currency),
                format_amount(against, currency),
                difference,
                currency or None,
                (*one, *other),
                gate,
                settles=True,
                by_currency=True,
            )
        )
    return findings
