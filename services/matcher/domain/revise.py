"""From what is true now and what was said before to new revisions of discrepancies and of the item."""

from collections.abc import Iterable
from decimal import Decimal
from hashlib import blake2b

from services.matcher.domain import explain
from services.matcher.domain.group import DISCREPANT, ITEM_STATUS, MATCHED, PENDING, Group, Raised, Record
from services.matcher.domain.judge import NO_GATE, Finding, Verdict, compared, live_adjustments
from services.matcher.domain.moment import Moment
from shared.contracts.discrepancy import (
    RECORDS_SHOWN_MAX,
    Discrepancy,
    Key,
    RecordEvidence,
    Resolution,
    SideEvidence,
)
from shared.contracts.event import from_microseconds, from_milliseconds
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide, Total
from shared.contracts.leg import GroupName
from shared.ids import discrepancy_id, item_id
from shared.money import EXACT, format_amount
from shared.rules.match_rule import MatchRule


def revise(
    group: Group, rule: MatchRule, key: GroupName, verdict: Verdict, moment: Moment, cause: Resolution
) -> list[Discrepancy]:
    """Bring the raised discrepancies of `group` in line with `verdict`; return the new revisions.

    `cause` is what resolves those that are no longer true. Notes whether something waits, and since when.
    """
    said = {raised.name: raised for raised in group.raised or ()}
    since: dict[str, int] = {}
    group.waits = False
    revisions: list[Discrepancy] = []
    true_now: dict[str, Finding] = {}
    for finding in verdict.findings:
        before = said.get(finding.name)
        true_now[finding.name] = finding
        if before is not None and before.open:
            revisions += _update(group, rule, key, finding, before, moment)
            continue
        start = (group.since or {}).get(finding.name, moment.at)
        if not _is_due(finding, rule, start, moment.log_time):
            group.waits = True
            if finding.settles and rule.settle_ms:
                since[finding.name] = start
            continue
        revisions.append(_raise(group, rule, key, finding, before, moment))
    for before in group.raised or ():
        if before.open and before.name not in true_now:
            revisions.append(_resolve(group, rule, key, before, moment, cause))
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
    true_now = {finding.name: finding for finding in verdict.findings}
    revisions = []
    for raised in group.raised or ():
        if not raised.open:
            continue
        raised.revision += 1
        finding = true_now.get(raised.name)
        said = explain.explain(group, rule, finding) if finding else raised.type
        revisions.append(
            _revision(group, rule, key, raised, moment, explain.expired(said, rule.expire_ms), is_expired=True)
        )
    return revisions


def _raise(
    group: Group, rule: MatchRule, key: GroupName, finding: Finding, before: Raised | None, moment: Moment
) -> Discrepancy:
    if before is None:
        before = Raised(
            name=finding.name,
            id=_id(group, rule, key, finding),
            type=finding.type,
            side=finding.side,
            revision=0,
            open=True,
            severity="",
            expected=None,
            actual=None,
            currency=finding.currency,
            records="",
            raised_at=moment.at,
            duplicate=(finding.duplicate.source, finding.duplicate.record) if finding.duplicate else None,
        )
        if group.raised is None:
            group.raised = []
        group.raised.append(before)
    before.open = True
    return _say(group, rule, key, finding, before, moment)


def _update(
    group: Group, rule: MatchRule, key: GroupName, finding: Finding, before: Raised, moment: Moment
) -> list[Discrepancy]:
    same = (
        before.expected == finding.expected
        and before.actual == finding.actual
        and before.severity == rule.severity_of(finding.type, finding.difference, finding.currency)
        and before.currency == finding.currency
        and before.records == _digest(finding)
    )
    return [] if same else [_say(group, rule, key, finding, before, moment)]


def _say(
    group: Group, rule: MatchRule, key: GroupName, finding: Finding, raised: Raised, moment: Moment
) -> Discrepancy:
    raised.revision += 1
    raised.expected, raised.actual, raised.currency = finding.expected, finding.actual, finding.currency
    raised.severity = rule.severity_of(finding.type, finding.difference, finding.currency)
    raised.records = _digest(finding)
    return _revision(group, rule, key, raised, moment, explain.explain(group, rule, finding), finding=finding)


def _resolve(
    group: Group, rule: MatchRule, key: GroupName, raised: Raised, moment: Moment, cause: Resolution
) -> Discrepancy:
    raised.revision += 1
    raised.open = False
    said = f"{raised.type} for {_printed(key.key)}"
    if raised.expected is not None or raised.actual is not None:
        said += f" (expected {raised.expected or 'none'}, actual {raised.actual or 'none'})"
    return _revision(group, rule, key, raised, moment, explain.resolved(said, cause), resolution=cause)


def _revision(
    group: Group,
    rule: MatchRule,
    key: GroupName,
    raised: Raised,
    moment: Moment,
    explanation: str,
    *,
    finding: Finding | None = None,
    resolution: Resolution | None = None,
    is_expired: bool = False,
) -> Discrepancy:
    difference = finding.difference if finding else _difference(raised)
    at = from_milliseconds(moment.at)
    return Discrepancy(
        id=raised.id,
        revision=raised.revision,
        state="raised" if raised.open else "resolved",
        org=key.org,
        rule=key.rule,
        pack=rule.pack,
        type=raised.type,
        severity=raised.severity,  # type: ignore[arg-type]  # kept as text in packed state
        key=_printed(key.key),
        side=rule.sides[raised.side].name,
        account=None,
        sides=_evidence(group, rule, finding.records if finding else ()),
        duplicate=raised.duplicate[1] if raised.duplicate else None,
        expected=raised.expected,
        actual=raised.actual,
        difference=None if difference is None else format_amount(difference, raised.currency),
        currency=raised.currency,
        raised_at=from_milliseconds(raised.raised_at),
        resolved_at=None if raised.open else at,
        resolution=resolution,
        expired=is_expired,
        explanation=explanation,
        log=moment.log,
        shadow=rule.shadow,
    )


def _difference(raised: Raised) -> Decimal | None:
    if raised.type in {"CurrencyMismatch", "StatusMismatch"} or (raised.expected is None and raised.actual is None):
        return None
    return EXACT.subtract(Decimal(raised.actual or 0), Decimal(raised.expected or 0))


def _id(group: Group, rule: MatchRule, key: GroupName, finding: Finding) -> str:
    extra: tuple[str, ...] = ()
    if finding.duplicate:
        extra = (finding.duplicate.source, finding.duplicate.record)
    elif finding.by_currency:
        extra = (finding.currency or "",)
    return discrepancy_id(key.org, key.rule, key.key, group.opener, finding.type, rule.sides[finding.side].name, *extra)


def _digest(finding: Finding) -> str:
    """Name the set of records a finding speaks of; a duplicate speaks of the extra one only."""
    records = (finding.duplicate,) if finding.duplicate else finding.records
    names = sorted(f"{record.side} {record.source} {record.record}" for record in records)
    return blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def _printed(key: tuple[str, ...]) -> Key:
    return key[0] if len(key) == 1 else list(key)


# ---- evidence and items


def evidence_of(record: Record) -> RecordEvidence:
    """Return a record as results show it."""
    return RecordEvidence(
        id=record.id,
        source=record.source,
        record=record.record,
        amount=None if record.amount is None else format_amount(Decimal(record.amount), record.currency),
        currency=record.currency,
        status=record.status,
        occurred_at=from_microseconds(record.occurred_at),
    )


def _evidence(group: Group, rule: MatchRule, shown: tuple[Record, ...]) -> dict[str, SideEvidence | None]:
    """Return both sides' evidence: the records the finding speaks of, else what the sides hold now."""
    sides: dict[str, SideEvidence | None] = {}
    for index, side in enumerate(rule.sides):
        records = [record for record in shown if record.side == index]
        if not records:
            records = [record for record in group.records if record.side == index]
        entries = [evidence_of(entry) for entry in live_adjustments(group, rule) if entry.side == index]
        if not records and not entries:
            sides[side.name] = None
        elif rule.sums or not records:
            sides[side.name] = _sum_evidence(records, entries)
        else:
            live = [record for record in records if side.is_live(record.status)]
            one = evidence_of(compared(live or records))
            sides[side.name] = SideEvidence(
                id=one.id,
                source=one.source,
                record=one.record,
                amount=one.amount,
                currency=one.currency,
                status=one.status,
                occurred_at=one.occurred_at,
                adjustments=entries or None,
            )
    return sides


def _sum_evidence(records: list[Record], entries: list[RecordEvidence]) -> SideEvidence:
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
    sides = {side.name: _item_side(group, rule, index) for index, side in enumerate(rule.sides)}
    first = next(iter(sides.values()))
    earliest = min((side.occurred_at for side in sides.values() if side), default=None)
    return Item(
        id=item_id(key.org, key.rule, key.key, group.opener),
        revision=group.item_revision,
        status=ITEM_STATUS[status],
        org=key.org,
        rule=key.rule,
        pack=rule.pack,
        key=_printed(key.key),
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
        occurred_at=first.occurred_at if first and first.records else earliest,
        live=any(rule.sides[record.side].is_live(record.status) for record in group.records),
        log=moment.log,
        shadow=rule.shadow,
    )


def _printed_difference(raised: Raised) -> str | None:
    difference = _difference(raised)
    return None if difference is None else format_amount(difference, raised.currency)


def _item_side(group: Group, rule: MatchRule, side: int) -> ItemSide | None:
    records = [record for record in group.records if record.side == side]
    entries = [entry for entry in live_adjustments(group, rule) if entry.side == side]
    if not records and not entries:
        return None
    is_live = rule.sides[side].is_live
    by_currency: dict[str, list[Record]] = {}
    for record in records:
        if record.amount is not None and record.currency and is_live(record.status):
            by_currency.setdefault(record.currency, []).append(record)
    adjusted: dict[str, list[Record]] = {}
    for entry in entries:
        adjusted.setdefault(entry.currency or "", []).append(entry)
    return ItemSide(
        occurred_at=from_microseconds(min(record.first_at for record in records or entries)),
        totals={
            currency: Total(count=len(held), amount=format_amount(_sum(held), currency))
            for currency, held in by_currency.items()
        },
        records=[evidence_of(record) for record in records[:RECORDS_SHOWN_MAX]],
        adjustments={currency: format_amount(_sum(held), currency) for currency, held in adjusted.items()},
    )
