"""The words and numbers of a report for people, whatever it is written in: titles, causes, amounts, sentences."""

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from services.alerts.domain.figures import Report, RuleReport
from services.alerts.domain.period import zone_of
from shared.money import EXACT, exact_sum, format_amount

_CAPITALS = re.compile(r"([A-Z])")

CAUSES = {
    "AmountMismatch": "amounts differ",
    "CurrencyMismatch": "currencies differ",
    "StatusMismatch": "statuses differ, so one side does not count",
    "MissingInternalRecord": "not in the internal records",
    "MissingProviderRecord": "not at the provider",
    "MissingRecord": "a side has no record",
    "DuplicateChargeSuspected": "one record too many, probably booked twice",
    "AmbiguousMatch": "several records fit about as well: a person has to choose",
    "adjusted": "settled by adjustment entries",
    "pending": "the other side may still come",
    "within_tolerance": "within the rule's tolerance",
    "extra_records": "further records that the rule does not suspect",
    "other_currencies": "the same amount in another currency: the rule compares none",
    "other_sides": "differences that also show on a side between",
}
AGEING_TITLES = {"0-1": "0-1 d", "2-7": "2-7 d", "8-30": "8-30 d", "30+": "over 30 d"}


def speaks(figures: RuleReport) -> bool:
    """Tell whether the rule has anything to say of the period."""
    return bool(figures.items.total or figures.open or figures.prior_period)


def period_title(report: Report) -> str:
    """Return the period as people name it: a day, a month, or from when to when."""
    if "T" in report.period.start:
        zone = report.period.zone
        return f"{time_text(report.period.start_at, zone)} to {time_text(report.period.end_at, zone)}"
    first, after = date.fromisoformat(report.period.start), date.fromisoformat(report.period.end)
    last = after - timedelta(days=1)
    if first == last:
        return f"{first:%A} {day_text(first)}"
    if first.day == 1 and after.day == 1 and last.month == first.month and last.year == first.year:
        return f"{first:%B %Y}"
    return f"{day_text(first)} to {day_text(last)}"


def day_text(day: date) -> str:
    """Return `21 November 2026`."""
    return f"{day.day} {day:%B %Y}"


def why_provisional(report: Report) -> str:
    """Return why the figures may still change."""
    zone = report.period.zone
    pending = sum(figures.items.pending for figures in report.reports.values())
    if report.at < report.period.end_at:
        until = time_text(report.period.end_at, zone)
        return f"The period goes on until {until}; this is how it stood on {time_text(report.at, zone)}."
    if pending:
        waiting = "1 item still waits for its" if pending == 1 else f"{count_text(pending)} items still wait for their"
        return f"{waiting} other side or deadline."
    return "Results up to the period's end are still being stored."


def what_counts(rule: str) -> str:
    """Return what the records of the rule are: `Payments succeeded`."""
    kind = rule.rpartition(".")[2]
    return {"payments": "Payments succeeded", "refunds": "Payments refunded"}.get(kind, title_of(rule))


def title_of(name: str) -> str:
    """`billing.payments` is Payments."""
    return name.rpartition(".")[2].replace("_", " ").capitalize()


def type_words(type_: str) -> str:
    """`MissingProviderRecord` is Missing provider record; other words stay, with spaces."""
    return _CAPITALS.sub(r" \1", type_).replace("_", " ").strip().capitalize()


def items_text(count: int) -> str:
    """Return `1 item`, `1,200 items`."""
    return "1 item" if count == 1 else f"{count_text(count)} items"


def count_text(count: int) -> str:
    """Return a count with commas."""
    return f"{count:,}"


def grouped(amount: str) -> str:
    """Return an exact amount with commas."""
    return f"{Decimal(amount):,f}"


def signed(amount: str) -> str:
    """Return an exact amount with commas and its sign."""
    return ("+" if Decimal(amount) > 0 else "") + grouped(amount)


def money(amount: str, currency: str, *, sign: bool = False) -> str:
    """Return an amount with its currency in front."""
    return f"{currency} {signed(amount) if sign else grouped(amount)}"


def listed(parts: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "nothing"


def time_text(instant: datetime, zone: str) -> str:
    """Return a moment on the clock of `zone`, to the minute."""
    return f"{instant.astimezone(zone_of(zone)):%Y-%m-%d %H:%M %Z}"


def gap_of_totals(figures: RuleReport, currency: str) -> Decimal:
    """Return last side's total - first side's total."""
    sides = list(figures.totals)
    first, last = (figures.totals[name].get(currency) for name in (sides[0], sides[-1]))
    return EXACT.subtract(Decimal(last.amount if last else 0), Decimal(first.amount if first else 0))


def gap_words(figures: RuleReport, currency: str) -> str:
    """Return who has how much more or less: `provider has 9.00 EUR less than ledger`."""
    gap, sides = gap_of_totals(figures, currency), list(figures.totals)
    if not gap:
        return f"{sides[-1]} and {sides[0]} have the same total"
    return f"{sides[-1]} has {amount_words(gap, currency)} than {sides[0]}"


def amount_words(difference: Decimal, currency: str) -> str:
    """Return `9.00 EUR less`, `0.50 EUR more`."""
    direction = "less" if difference < 0 else "more"
    return f"{grouped(format_amount(abs(difference), currency))} {currency} {direction}"


def open_count(figures: RuleReport) -> int:
    """Return how many discrepancies of the rule were open at the period's end."""
    return sum(row.closing for types in figures.open.values() for row in types.values())


def open_worth(figures: RuleReport) -> str:
    """Return the sum of their differences without sign, per currency; empty where none has one."""
    amounts = [
        f"{grouped(format_amount(exact_sum(map(Decimal, by_type.values())), currency))} {currency}"
        for currency, by_type in figures.open_amounts.items()
    ]
    return listed(amounts) if amounts else ""
