"""A run's report as Markdown, for a finance person in a hurry: what is wrong and how much first, then the proof."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from services.alerts.domain.figures import AGEING_CLASSES, OpenItems, Report, RuleReport, TopDiscrepancy
from services.alerts.domain.period import local_day, zone_of
from shared.contracts.discrepancy import Key
from shared.contracts.item import Total
from shared.money import EXACT, exact_sum, format_amount

PRIOR_ROWS_MAX = 50
"""Prior-period changes listed; the JSON has all of them."""

_CAUSES = {
    "AmountMismatch": "amounts differ",
    "CurrencyMismatch": "currencies differ",
    "StatusMismatch": "statuses differ, one side's record does not count",
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
_AGEING_TITLES = {"0-1": "0-1 d", "2-7": "2-7 d", "8-30": "8-30 d", "30+": "over 30 d"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown_of(report: Report) -> str:
    """Return the report as Markdown."""
    spoken = {name: figures for name, figures in report.reports.items() if _speaks(figures)}
    blocks = [
        f"# Reconciliation of {_text(report.org)}: {_period_title(report)}",
        _verdict(report),
        _headlines(spoken) or "Nothing was recorded and nothing was open in this period.",
    ]
    blocks.append(_checks(report))
    if spoken:
        blocks += [_by_rule(spoken), _totals(spoken)]
    for name, figures in spoken.items():
        blocks += _rule_blocks(name, figures, report.period.zone)
    blocks += [_not_reconciled(report), _about(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _checks(report: Report) -> str:
    """Only where something judges readings: of rules that only match, the table by rule says the same."""
    if not any(one.readings or one.error for one in report.checks):
        return ""
    rows = [
        [
            _text(one.check_type),
            one.outcome,
            _count(one.readings or one.items),
            _count(one.failed or one.discrepant),
            ", ".join(_money(amount, currency) for currency, amount in one.discrepancy.items()),
            _text(one.error or ""),
        ]
        for one in report.checks
    ]
    return "## Checks\n\n" + _table(["Check", "", "Judged", "Failed", "Discrepancy", "Why"], rows, numbers=[2, 3, 4])


def _speaks(figures: RuleReport) -> bool:
    return bool(figures.items.total or figures.open or figures.prior_period)


def _period_title(report: Report) -> str:
    if "T" in report.period.start:
        zone = report.period.zone
        return f"{_time(report.period.start_at, zone)} to {_time(report.period.end_at, zone)}"
    first, after = date.fromisoformat(report.period.start), date.fromisoformat(report.period.end)
    last = after - timedelta(days=1)
    if first == last:
        return f"{first:%A} {_day(first)}"
    if first.day == 1 and after.day == 1 and last.month == first.month and last.year == first.year:
        return f"{first:%B %Y}"
    return f"{_day(first)} to {_day(last)}"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _verdict(report: Report) -> str:
    match report.verdict:
        case "complete":
            return "**Complete.** All of the period is stored, every gap between the totals is explained, these figures are final."
        case "provisional":
            return f"**Provisional.** {_why_provisional(report)} The run completes by itself; figures may still change."
        case "incomplete":
            left = [
                f"{_money(amount, currency)} ({name})"
                for name, figures in report.reports.items()
                for currency, amount in figures.residual.items()
                if Decimal(amount)
            ]
            return f"**Incomplete.** No stored discrepancy explains {_and(left)}: please report this to whoever runs tieout."


def _why_provisional(report: Report) -> str:
    zone = report.period.zone
    pending = sum(figures.items.pending for figures in report.reports.values())
    if report.at < report.period.end_at:
        until = _time(report.period.end_at, zone)
        return f"The period goes on until {until}; this is how it stood on {_time(report.at, zone)}."
    if pending:
        waiting = "1 item still waits for its" if pending == 1 else f"{_count(pending)} items still wait for their"
        return f"{waiting} other side or deadline."
    return "Results up to the period's end are still being stored."


def _headlines(spoken: dict[str, RuleReport]) -> str:
    return "\n".join(f"- **{_title(name)}:** {_headline(figures)}" for name, figures in spoken.items())


def _headline(figures: RuleReport) -> str:
    sentences = []
    if figures.items.total:
        sentences.append(
            f"{figures.matched_percent.count} % matched ({_count(figures.items.matched)} of {_items(figures.items.total)}"
            f"{_by_value(figures)})."
        )
    else:
        sentences.append("no items in this period.")
    sentences += [_open_sentence(figures), _gap_sentence(figures)]
    if figures.prior_period:
        changes = "1 change" if len(figures.prior_period) == 1 else f"{_count(len(figures.prior_period))} changes"
        sentences.append(f"{changes} in earlier periods.")
    return " ".join(sentence for sentence in sentences if sentence)


def _by_value(figures: RuleReport) -> str:
    shares = [f"{currency} {percent} %" for currency, percent in figures.matched_percent.value.items() if percent]
    return f"; by value {', '.join(shares)}" if shares else ""


def _open_sentence(figures: RuleReport) -> str:
    closing = sum(row.closing for types in figures.open.values() for row in types.values())
    if not closing:
        return "Nothing open."
    amounts = [
        _money(format_amount(exact_sum(map(Decimal, by_type.values())), currency), currency)
        for currency, by_type in figures.open_amounts.items()
    ]
    worth = f", differences of {_and(amounts)}" if amounts else ""
    return f"**{_count(closing)} open**{worth}."


def _gap_sentence(figures: RuleReport) -> str:
    gaps = []
    for currency, causes in figures.gaps.items():
        gap = exact_sum(map(Decimal, [*causes.values(), figures.residual.get(currency, "0")]))
        if gap:
            gaps.append(_money(format_amount(gap, currency), currency, sign=True))
    if not gaps:
        return "" if not figures.items.total else "Both sides' totals agree."
    sides = list(figures.totals)
    explained = "not all explained" if any(map(Decimal, figures.residual.values())) else "all explained below"
    return f"{_title(sides[-1])} total - {sides[0]} total: {_and(gaps)}, {explained}."


def _by_rule(spoken: dict[str, RuleReport]) -> str:
    rows = [
        [
            f"{_title(name)} (`{name}`)",
            _count(figures.items.total),
            _count(figures.items.matched),
            _count(figures.items.discrepant),
            _count(figures.items.pending),
            f"{figures.matched_percent.count} %" if figures.matched_percent.count else "-",
            _count(sum(row.closing for types in figures.open.values() for row in types.values())),
            figures.verdict,
        ]
        for name, figures in spoken.items()
    ]
    header = ["Rule", "Items", "Matched", "Discrepant", "Pending", "Matched %", "Open at the end", "Verdict"]
    return "## By rule\n\n" + _table(header, rows, numbers=range(1, 7))


def _totals(spoken: dict[str, RuleReport]) -> str:
    """What each side recorded: the two totals that the bridges below lead from and to."""
    rows = []
    for name, figures in spoken.items():
        sides = list(figures.totals)
        for currency in figures.residual:
            first, last = figures.totals[sides[0]].get(currency), figures.totals[sides[-1]].get(currency)
            gap = EXACT.subtract(Decimal(last.amount if last else 0), Decimal(first.amount if first else 0))
            rows.append(
                [
                    _what(name),
                    currency,
                    _total_cell(first),
                    _total_cell(last),
                    _signed(format_amount(gap, currency)),
                ]
            )
    if not rows:
        return ""
    named = {tuple(figures.totals) for figures in spoken.values() if figures.residual}
    only = next(iter(named)) if len(named) == 1 else ("first side", "last side")
    header = ["Records that count", "Currency", _title(only[0]), _title(only[-1]), "Gap"]
    return "## Totals\n\nAmounts, and how many records.\n\n" + _table(header, rows, numbers=range(2, 5))


def _what(rule: str) -> str:
    kind = rule.rpartition(".")[2]
    return {"payments": "Payments succeeded", "refunds": "Payments refunded"}.get(kind, _title(rule))


def _total_cell(total: Total | None) -> str:
    return f"{_grouped(total.amount)} ({_count(total.count)})" if total else "-"


def _rule_blocks(name: str, figures: RuleReport, zone: str) -> list[str]:
    return [
        f"## {_title(name)}",
        _bridge(figures),
        _mismatches(figures),
        _open_table(figures),
        _top(figures, zone),
        _prior(figures),
    ]


def _bridge(figures: RuleReport) -> str:
    """From the first side's total to the last's, cause by cause, one column per currency."""
    currencies = list(figures.residual)
    if not currencies:
        return ""
    sides = list(figures.totals)
    rows = [_total_row(f"{_title(sides[0])} total", figures.totals[sides[0]], currencies)]
    for cause in sorted({cause for by_cause in figures.gaps.values() for cause in by_cause}):
        amounts = [figures.gaps.get(currency, {}).get(cause) for currency in currencies]
        title = f"{_text(cause)}: {_CAUSES[cause]}" if cause in _CAUSES else _text(cause)
        rows.append([title, *(_signed(amount) if amount else "" for amount in amounts)])
    if any(Decimal(amount) for amount in figures.residual.values()):
        rows.append(["**unexplained**", *(f"**{_signed(figures.residual[currency])}**" for currency in currencies)])
    rows.append(_total_row(f"{_title(sides[-1])} total", figures.totals[sides[-1]], currencies))
    heading = f"### From the {sides[0]} to the {sides[-1]} total"
    return f"{heading}\n\n" + _table(["", *currencies], rows, numbers=range(1, len(currencies) + 1))


def _total_row(title: str, totals: dict[str, Total], currencies: Iterable[str]) -> list[str]:
    cells = [f"**{_grouped(totals[currency].amount)}**" if currency in totals else "-" for currency in currencies]
    return [f"**{title}**", *cells]


def _mismatches(figures: RuleReport) -> str:
    rows = [
        [_text(type_), currency, _count(one.count), _grouped(one.amount) if one.amount else "-"]
        for type_, by_currency in figures.mismatch.items()
        for currency, one in by_currency.items()
    ]
    if not rows:
        return ""
    table = _table(["Type", "Currency", "Count", "Sum of differences, without sign"], rows, numbers=range(2, 4))
    return f"### Found on items of the period\n\n{table}"


def _open_table(figures: RuleReport) -> str:
    rows = [
        [_text(type_), currency, *_open_cells(row), _closing_amount(figures, currency, type_)]
        for currency, types in figures.open.items()
        for type_, row in types.items()
    ]
    if not rows:
        return ""
    ages = [_AGEING_TITLES[name] for name, _ in AGEING_CLASSES]
    header = ["Type", "Currency", "Opening", "+ new", "- cleared", "= closing", *ages, "Closing amount"]
    return "### Open discrepancies, and their age at the end\n\n" + _table(header, rows, numbers=range(2, len(header)))


def _open_cells(row: OpenItems) -> list[str]:
    figures = [row.opening, row.new, row.cleared, row.closing, *(row.ageing[name] for name, _ in AGEING_CLASSES)]
    return [_count(figure) for figure in figures]


def _closing_amount(figures: RuleReport, currency: str, type_: str) -> str:
    amount = figures.open_amounts.get(currency, {}).get(type_)
    return _grouped(amount) if amount else "-"


def _top(figures: RuleReport, zone: str) -> str:
    top = figures.top_open
    if not top:
        return ""
    closing = sum(row.closing for types in figures.open.values() for row in types.values())
    lines = [f"{place}. {_top_line(one, zone)}" for place, one in enumerate(top, start=1)]
    more = f"\n\n{_count(closing - len(top))} more are in the list of discrepancies." if closing > len(top) else ""
    return "### Look at these first\n\n" + "\n".join(lines) + more


def _top_line(one: TopDiscrepancy, zone: str) -> str:
    amount = f" {_money(one.difference, one.currency, sign=True)}" if one.difference is not None else ""
    words = [one.severity, one.type, f"since {local_day(one.raised_at, zone)}"]
    if one.resolved_since:
        words.append(f"resolved by itself on {local_day(one.resolved_since, zone)}")
    elif one.status != "open":
        words.append(f"{one.status} by a person")
    told = f": {_text(one.explanation)}" if one.explanation else ""
    return f"**{_key(one.key)}**{amount} ({', '.join(_text(word) for word in words)}){told} `{one.id}`"


def _prior(figures: RuleReport) -> str:
    if not figures.prior_period:
        return ""
    rows = [
        [
            change.period,
            _key(change.key),
            change.was or "not there",
            change.now or "not there",
            ", ".join(_money(amount, currency, sign=True) for currency, amount in change.gap_change.items()) or "none",
        ]
        for change in figures.prior_period[:PRIOR_ROWS_MAX]
    ]
    hidden = len(figures.prior_period) - len(rows)
    more = f"\n\n{_count(hidden)} more are in the JSON report." if hidden else ""
    table = _table(["Period", "Item", "Was", "Is now", "Change of its gap"], rows, numbers=[4])
    intro = "Reports of these periods are final and stay as they are; what changed since is told here, and only here."
    return f"### Changes in earlier periods\n\n{intro}\n\n{table}{more}"


def _not_reconciled(report: Report) -> str:
    if not report.not_reconciled:
        return "## Not reconciled\n\nA rule selected every event of the period."
    rows = [[_text(one.source), _text(one.type), _count(one.count)] for one in report.not_reconciled]
    intro = "No rule selected these events when they came, so nothing compares them."
    return f"## Not reconciled\n\n{intro}\n\n" + _table(["Source", "Type", "Events"], rows, numbers=[2])


def _about(report: Report) -> str:
    period = report.period
    return (
        f"---\n\nPeriod: {_time(period.start_at, period.zone)} up to, not including, "
        f"{_time(period.end_at, period.zone)} (days in {_text(period.zone)}). "
        f"Figures as of {_time(report.at, period.zone)}, per rule and currency, never added across either. "
        "Amounts are exact. What each figure means: docs/reports.md."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]) -> str:
    right = set(numbers)
    rule = ["---:" if place in right else "---" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def _title(name: str) -> str:
    """`billing.payments` is Payments."""
    return name.rpartition(".")[2].replace("_", " ").capitalize()


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{_count(count)} items"


def _count(count: int) -> str:
    return f"{count:,}"


def _grouped(amount: str) -> str:
    return f"{Decimal(amount):,f}"


def _signed(amount: str) -> str:
    return ("+" if Decimal(amount) > 0 else "") + _grouped(amount)


def _money(amount: str, currency: str, *, sign: bool = False) -> str:
    return f"{currency} {_signed(amount) if sign else _grouped(amount)}"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "nothing"


def _time(instant: datetime, zone: str) -> str:
    return f"{instant.astimezone(zone_of(zone)):%Y-%m-%d %H:%M %Z}"


def _key(key: Key) -> str:
    return _text(key if isinstance(key, str) else " / ".join(key))


def _text(text: str) -> str:
    """Escape what producers wrote, so that it cannot break a table or become a link."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
