"""From what is true now to the next revisions of discrepancies: the same for every kind of rule.

A kind keeps a list of `Raised` in its cell, makes `Finding`s, and tells as a `Subject` whom they concern and how they
are shown. A revision is published only when it says something new.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Protocol

from services.matcher.domain import explain
from services.matcher.domain.finding import NO_SIDE, Finding
from services.matcher.domain.group import Raised
from services.matcher.domain.moment import Moment
from shared.contracts.discrepancy import Discrepancy, Key, Resolution, Severity, SideEvidence
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import GroupName
from shared.ids import discrepancy_id
from shared.money import EXACT, format_amount
from shared.rules.compiled import CompiledRule

NO_DIFFERENCE = frozenset({"CurrencyMismatch", "StatusMismatch"})
"""Types whose expected and actual are no amounts."""


class Subject(Protocol):
    """What the discrepancies of one cell are about."""

    @property
    def rule(self) -> CompiledRule: ...
    @property
    def name(self) -> GroupName:
        """The cell's key, read."""

    @property
    def opener(self) -> str:
        """Id of the event that opened the cell: part of every id that it gives out."""

    @property
    def account(self) -> str | None: ...

    def side_name(self, side: int) -> str:
        """Return what the rule calls the side at this place; never asked for NO_SIDE."""

    def evidence(self, raised: Raised, finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return what is shown beside a revision; `finding` is None in its last revision."""

    def explain(self, finding: Finding) -> str:
        """Say in one sentence what is wrong."""


def bring_in_line(
    said: Sequence[Raised], findings: Iterable[Finding], subject: Subject, moment: Moment, cause: Resolution
) -> tuple[list[Discrepancy], list[Raised]]:
    """Raise what is true, update what changed, resolve for `cause` what is no longer true.

    Changes the `Raised` of `said` and returns the new revisions, with all that was ever raised: what the cell keeps.
    """
    kept = list(said)
    by_name = {raised.name: raised for raised in said}
    revisions: list[Discrepancy] = []
    true_now: set[str] = set()
    for finding in findings:
        true_now.add(finding.name)
        raised = by_name.get(finding.name)
        if raised is None:
            raised = _first(finding, subject, moment)
            kept.append(raised)
        elif raised.open and not moment.anew and not _says_new(raised, finding, subject.rule):
            continue
        revisions.append(_say(raised, finding, subject, moment))
    gone = [raised for raised in said if raised.open and raised.name not in true_now]
    return revisions + [_resolve(raised, subject, moment, cause) for raised in gone], kept


def expire(
    said: Iterable[Raised], findings: Iterable[Finding], subject: Subject, expire_ms: int, moment: Moment
) -> list[Discrepancy]:
    """Return the last revision of everything that is open: the engine watches it no longer."""
    true_now = {finding.name: finding for finding in findings}
    revisions = []
    for raised in said:
        if not raised.open:
            continue
        raised.revision += 1
        finding = true_now.get(raised.name)
        words = explain.expired(subject.explain(finding) if finding else raised.type, expire_ms)
        revisions.append(_revision(raised, subject, moment, words, is_expired=True))
    return revisions


def is_open(said: Iterable[Raised] | None) -> bool:
    """Tell whether anything is raised now."""
    return any(raised.open for raised in said or ())


def difference_of(raised: Raised) -> Decimal | None:
    """Return actual - expected as they were last said; an absent one counts as 0."""
    if raised.type in NO_DIFFERENCE or (raised.expected is None and raised.actual is None):
        return None
    return EXACT.subtract(Decimal(raised.actual or 0), Decimal(raised.expected or 0))


def printed_key(key: Sequence[str]) -> Key:
    """Return a key as results print it: a one-field key as text."""
    return key[0] if len(key) == 1 else list(key)


def _first(finding: Finding, subject: Subject, moment: Moment) -> Raised:
    """Return a discrepancy that nothing has been said of yet."""
    return Raised(
        name=finding.name,
        id=_id(finding, subject),
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


def _id(finding: Finding, subject: Subject) -> str:
    extra: tuple[str, ...] = ()
    if finding.duplicate:
        extra = (finding.duplicate.source, finding.duplicate.record)
    elif finding.by_currency:
        extra = (finding.currency or "",)
    name = subject.name
    return discrepancy_id(
        name.org, name.rule, name.key, subject.opener, finding.type, _side_name(subject, finding.side), *extra
    )


def _says_new(raised: Raised, finding: Finding, rule: CompiledRule) -> bool:
    return not (
        raised.expected == finding.expected
        and raised.actual == finding.actual
        and raised.severity == _severity(finding, rule)
        and raised.currency == finding.currency
        and raised.reason == finding.reason
        and raised.records == _digest(finding)
    )


def _say(raised: Raised, finding: Finding, subject: Subject, moment: Moment) -> Discrepancy:
    raised.revision += 1
    raised.open = True
    raised.expected, raised.actual, raised.currency = finding.expected, finding.actual, finding.currency
    raised.reason, raised.explained, raised.unexplained = finding.reason, finding.explained, finding.unexplained
    raised.severity = _severity(finding, subject.rule)
    raised.records = _digest(finding)
    return _revision(raised, subject, moment, subject.explain(finding), finding=finding)


def _resolve(raised: Raised, subject: Subject, moment: Moment, cause: Resolution) -> Discrepancy:
    raised.revision += 1
    raised.open = False
    words = f"{raised.type} for {printed_key(subject.name.key)}"
    if raised.expected is not None or raised.actual is not None:
        words += f" (expected {raised.expected or 'none'}, actual {raised.actual or 'none'})"
    return _revision(
        raised, subject, moment, explain.resolved(words, cause, of_reading=not raised.records), resolution=cause
    )


def _revision(
    raised: Raised,
    subject: Subject,
    moment: Moment,
    explanation: str,
    *,
    finding: Finding | None = None,
    resolution: Resolution | None = None,
    is_expired: bool = False,
) -> Discrepancy:
    rule, name = subject.rule, subject.name
    difference = finding.difference if finding else difference_of(raised)
    return Discrepancy(
        id=raised.id,
        revision=raised.revision,
        state="raised" if raised.open else "resolved",
        org=name.org,
        rule=name.rule,
        pack=rule.pack,
        type=raised.type,
        severity=raised.severity,  # type: ignore[arg-type]  # kept as text in packed state
        key=printed_key(name.key),
        side=_side_name(subject, raised.side),
        account=subject.account,
        sides=subject.evidence(raised, finding),
        duplicate=raised.duplicate[1] if raised.duplicate else None,
        expected=raised.expected,
        actual=raised.actual,
        difference=None if difference is None else format_amount(difference, raised.currency),
        currency=raised.currency,
        raised_at=from_milliseconds(raised.raised_at),
        resolved_at=None if raised.open else from_milliseconds(moment.at),
        resolution=resolution,
        expired=is_expired,
        explanation=explanation,
        log=moment.log,
        reason=raised.reason,
        explained=raised.explained,
        unexplained=raised.unexplained,
        shadow=rule.shadow,
    )


def _severity(finding: Finding, rule: CompiledRule) -> Severity:
    return finding.severity or rule.severity_of(finding.type, finding.difference, finding.currency)


def _side_name(subject: Subject, side: int) -> str | None:
    return None if side == NO_SIDE else subject.side_name(side)


def _digest(finding: Finding) -> str:
    """Name the set of records a finding speaks of; a duplicate speaks of the extra one only."""
    records = (finding.duplicate,) if finding.duplicate else finding.records
    if not records:
        return ""
    names = sorted(f"{record.side} {record.source} {record.record}" for record in records)
    return blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
