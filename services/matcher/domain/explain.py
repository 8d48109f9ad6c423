"""One sentence for every discrepancy: what the records say, and by how much they disagree."""

from collections.abc import Sequence
from decimal import Decimal

from services.matcher.domain.finding import Finding
from services.matcher.domain.group import Group, Record
from shared.contracts.discrepancy import Resolution
from shared.contracts.event import from_microseconds
from shared.likeness import Money, likeness
from shared.money import format_amount, print_amount
from shared.rules.duration import Duration
from shared.rules.match_rule import MatchRule

RESOLVED: dict[Resolution, str] = {
    "late_arrival": "the record that was needed has arrived",
    "corrected": "a newer event corrected a record",
    "voided": "a record stopped counting (voided, failed or canceled)",
    "adjusted": "an adjustment entry settled the difference",
    "superseded": "a record was replaced by another",
    "rule_changed": "the rule was changed",
    "rule_withdrawn": "the rule was withdrawn",
    "already_settled": "the same records had already been settled",
}
READ_SINCE = "what was read or corrected since is as the rule wants it"
"""What `corrected` means for a reading."""


def explain(group: Group, rule: MatchRule, finding: Finding) -> str:  # noqa: PLR0911 - one per type
    """Say in one sentence what is wrong."""
    name = rule.sides[finding.side].name
    match finding.type:
        case "AmountMismatch":
            return _amount(group, rule, finding)
        case "CurrencyMismatch" if len(finding.records) != 2:
            return (
                f"{title(rule.sides[0].name)} has money in {finding.expected}, {name} in {finding.actual}, "
                "so their sums cannot be compared."
            )
        case "CurrencyMismatch":
            one, other = finding.records
            return (
                f"{title(_who(one))} is {_money(one)}, but {_who(other)} is {_money(other)}: the currencies differ"
                f"{_likely(one, other)}."
            )
        case "StatusMismatch":
            one, other = finding.records
            return (
                f"{title(_who(one))}{_of_money(one)} has status {finding.expected!r}, but {_who(other)}"
                f"{_of_money(other)} has status {finding.actual!r}."
            )
        case "DuplicateChargeSuspected":
            return _duplicate(finding)
        case "AmbiguousMatch":
            return _ambiguous(finding, name)
        case _:
            return _missing(rule, finding, name)


def resolved(said: str, resolution: Resolution, *, of_reading: bool = False) -> str:
    """Say that what was said is no longer true, and why; `of_reading`: it spoke of a reading and not of records."""
    is_read = of_reading and resolution == "corrected"
    return f"{said.removesuffix('.')} - resolved: {READ_SINCE if is_read else RESOLVED[resolution]}."


def expired(said: str, expire_ms: int) -> str:
    """Say that the engine no longer watches a discrepancy that is still open."""
    return f"{said.removesuffix('.')} - no longer watched after {lasting(expire_ms)} without news; it stays open for people."


def _amount(group: Group, rule: MatchRule, finding: Finding) -> str:
    assert finding.difference is not None
    more = "more" if finding.difference > 0 else "less"
    by = f"{format_amount(abs(finding.difference), finding.currency)} {finding.currency or ''}".strip()
    after = " after adjustments" if group.adjustments else ""
    if not rule.sums:
        expected, actual = finding.records
        return (
            f"{title(_who(actual))} says {finding.actual} {finding.currency or ''}, {_who(expected)} says "
            f"{finding.expected}: {by} {more} than expected{after}{_likely_amounts(finding, [expected], [actual])}."
        )
    one = [record for record in finding.records if rule.head(record.side) != finding.side]
    other = [record for record in finding.records if rule.head(record.side) == finding.side]
    reference = rule.title(rule.head(one[0].side)) if one else rule.sides[0].name
    return (
        f"{title(rule.title(finding.side))} has {records_text(other)} adding up to {finding.actual} "
        f"{finding.currency or ''}, {reference} has {records_text(one)} adding up to {finding.expected}: "
        f"{by} {more} than expected{after}{_likely_amounts(finding, one, other)}."
    )


def _likely(one: Record, other: Record) -> str:
    """A clause about the likely cause where two records' money tells one."""
    if one.amount is None or other.amount is None:
        return ""
    return likely_clause(
        Money(Decimal(one.amount), one.currency, from_microseconds(one.occurred_at)),
        Money(Decimal(other.amount), other.currency, from_microseconds(other.occurred_at)),
    )


def _likely_amounts(finding: Finding, one: Sequence[Record], other: Sequence[Record]) -> str:
    """The same for two amounts as they were compared: with adjustments, or sums; only single records have a day."""
    assert finding.expected is not None
    assert finding.actual is not None
    times = [from_microseconds(records[0].occurred_at) if len(records) == 1 else None for records in (one, other)]
    return likely_clause(
        Money(Decimal(finding.expected), finding.currency, times[0]),
        Money(Decimal(finding.actual), finding.currency, times[1]),
    )


def likely_clause(expected: Money, actual: Money) -> str:
    """Return a clause about the likely cause of the difference, empty where none is likely."""
    likely = likeness(expected, actual)
    return f"; {likely.part}" if likely else ""


def _missing(rule: MatchRule, finding: Finding, name: str) -> str:
    time = waited(rule.sides[finding.side].deadline)
    if len(finding.records) == 1:
        record = finding.records[0]
        what = f"{_who(record)} of {_money(record)} from {from_microseconds(record.occurred_at):%Y-%m-%d %H:%M} UTC"
        return f"{title(what)} has no {name} record after {time}{_why(finding)}."
    assert finding.difference is not None
    amount = format_amount(abs(finding.difference), finding.currency)
    return f"{records_text(finding.records)} adding up to {amount} {finding.currency or ''} have no {name} record after {time}."


def waited(deadline: Duration) -> str:
    """Return a deadline as people say it."""
    if not deadline.business_days:
        return lasting(deadline.milliseconds)
    return "1 business day" if deadline.business_days == 1 else f"{deadline.business_days} business days"


def _ambiguous(finding: Finding, name: str) -> str:
    record = finding.records[0]
    what = f"{_who(record)} of {_money(record)} from {from_microseconds(record.occurred_at):%Y-%m-%d %H:%M} UTC"
    return f"{title(what)} has several {name} records that fit about as well: {finding.reason}. A person has to choose."


def _why(finding: Finding) -> str:
    return f"; {finding.reason}" if finding.reason else ""


def _duplicate(finding: Finding) -> str:
    extra = finding.duplicate
    assert extra is not None
    first = finding.records[0]
    beside = f" beside {first.record} of {_money(first)}" if first is not extra else ""
    return f"{title(_who(extra))} of {_money(extra)} is a second live record for the same key{beside}: counted twice?"


def _who(record: Record) -> str:
    return f"{record.source} record {record.record}"


def _money(record: Record) -> str:
    if record.amount is None:
        return "no amount"
    return f"{print_amount(record.amount, record.currency)} {record.currency or ''}".strip()


def _of_money(record: Record) -> str:
    return "" if record.amount is None else f" of {_money(record)}"


def records_text(records: Sequence[Record]) -> str:
    """Return how many records there are."""
    return "1 record" if len(records) == 1 else f"{len(records)} records"


def title(text: str) -> str:
    """Return a sentence's beginning with a capital."""
    return text[:1].upper() + text[1:]


def lasting(milliseconds: int) -> str:
    """Return a length of time as people say it."""
    for unit, length in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000)):
        if milliseconds >= length and milliseconds % length == 0:
            count = milliseconds // length
            if unit == "days" and count == 1:
                return "24 hours"
            return f"{count} {unit.removesuffix('s') if count == 1 else unit}"
    return f"{milliseconds} ms"
