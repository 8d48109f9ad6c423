"""A run's report as Markdown, for a finance person in a hurry: what is wrong and how much first, then the proof."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from services.alerts.domain.figures import AGEING_CLASSES, OpenItems, Report, RuleReport, TopDiscrepancy
from services.alerts.domain.period import local_day
from services.alerts.domain.report_words import (
    AGEING_TITLES,
    CAUSES,
    count_text,
    grouped,
    items_text,
    listed,
    money,
    period_title,
    signed,
    speaks,
    time_text,
    title_of,
    what_counts,
    why_provisional,
)
from shared.contracts.discrepancy import Key
from shared.contracts.item import Total
from shared.money import EXACT, exact_sum, format_amount

PRIOR_ROWS_MAX = 50
"""Prior-period changes listed; the JSON has all of them."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown_of(report: Report) -> str:
    """Return the report as Markdown."""
    spoken = {name: figures for name, figures in report.reports.items() if speaks(figures)}
    blocks = [
        f"# Reconciliation of {_text(report.org)}: {period_title(report)}",
        _verdict(report),
        _headlines(spoken) or "Nothing was recorded and nothing was open in this period.",
    ]
    blocks.append(_checks(report))
    if spoken:
        blocks += [_by_rule(spoken), _totals(spoken)]
    for name, figures in spoken.items():
        blocks += _rule_blocks(name, figures, report.period.zone)
    blocks += [_corrections(report), _not_reconciled(report), _about(report)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _checks(report: Report) -> str:
    """Only where something judges readings: of rules that only match, the table by rule says the same."""
    if not any(one.readings or one.error for one in report.checks):
        return ""
    rows = [
        [
            _text(one.check_type),
            one.outcome,
            count_text(one.readings or one.items),
            count_text(one.failed or one.discrepant),
            ", ".join(money(amount, currency) for currency, amount in one.discrepancy.items()),
            _text(one.error or ""),
        ]
        for one in report.checks
    ]
    return "## Checks\n\n" + _table(["Check", "", "Judged", "Failed", "Discrepancy", "Why"], rows, numbers=[2, 3, 4])


def _corrections(report: Report) -> str:
    """What was tried automatically in the period, and how often it helped."""
    if not report.corrections:
        return ""
    rows = [
        [
            _text(one.action),
            count_text(one.finished),
            count_text(one.succeeded),
            count_text(one.failed),
            f"{one.success_percent} %" if one.success_percent else "",
            ", ".join(f"{outcome} {many}" for outcome, many in one.outcomes.items()),
        ]
        for one in report.corrections
    ]
    header = ["Action", "Tried", "Helped", "Did not", "Success", "Outcomes"]
    return "## Automatic corrections\n\n" + _table(header, rows, numbers=[1, 2, 3, 4])


def _verdict(report: Report) -> str:
    match report.verdict:
        case "complete":
            return "**Complete.** All of the period is stored, every gap between the totals is explained, these figures are final."
        case "provisional":
            return f"**Provisional.** {why_provisional(report)} The run completes by itself; figures may still change."
        case "incomplete":
            left = [
                f"{money(amount, currency)} ({name})"
                for name, figures in report.reports.items()
                for currency, amount in figures.residual.items()
                if Decimal(amount)
            ]
            return f"**Incomplete.** No stored discrepancy explains {listed(left)}: please report this to whoever runs tieout."


def _headlines(spoken: dict[str, RuleReport]) -> str:
    return "\n".join(f"- **{title_of(name)}:** {_headline(figures)}" for name, figures in spoken.items())


def _headline(figures: RuleReport) -> str:
    sentences = []
    if figures.items.total:
        sentences.append(
            f"{figures.matched_percent.count} % matched ({count_text(figures.items.matched)} of {items_text(figures.items.total)}"
            f"{_by_value(figures)})."
        )
    else:
        sentences.append("no items in this period.")
    sentences += [_open_sentence(figures), _gap_sentence(figures)]
    if figures.prior_period:
        changes = "1 change" if len(figures.prior_period) == 1 else f"{count_text(len(figures.prior_period))} changes"
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
        money(format_amount(exact_sum(map(Decimal, by_type.values())), currency), currency)
        for currency, by_type in figures.open_amounts.items()
    ]
    worth = f", differences of {listed(amounts)}" if amounts else ""
    return f"**{count_text(closing)} open**{worth}."


def _gap_sentence(figures: RuleReport) -> str:
    gaps = []
    for currency, causes in figures.gaps.items():
        gap = exact_sum(map(Decimal, [*causes.values(), figures.residual.get(currency, "0")]))
        if gap:
            gaps.append(money(format_amount(gap, currency), currency, sign=True))
    if not gaps:
        return "" if not figures.items.total else "Both sides' totals agree."
    sides = list(figures.totals)
    explained = "not all explained" if any(map(Decimal, figures.residual.values())) else "all explained below"
    return f"{title_of(sides[-1])} total - {sides[0]} total: {listed(gaps)}, {explained}."


def _by_rule(spoken: dict[str, RuleReport]) -> str:
    rows = [
        [
            f"{title_of(name)} (`{name}`)",
            count_text(figures.items.total),
            count_text(figures.items.matched),
            count_text(figures.items.discrepant),
            count_text(figures.items.pending),
            f"{figures.matched_percent.count} %" if figures.matched_percent.count else "-",
            count_text(sum(row.closing for types in figures.open.values() for row in types.values())),
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
                    what_counts(name),
                    currency,
                    _total_cell(first),
                    _total_cell(last),
                    signed(format_amount(gap, currency)),
                ]
            )
    if not rows:
        return ""
    named = {tuple(figures.totals) for figures in spoken.values() if figures.residual}
    only = next(iter(named)) if len(named) == 1 else ("first side", "last side")
    header = ["Records that count", "Currency", title_of(only[0]), title_of(only[-1]), "Gap"]
    return "## Totals\n\nAmounts, and how many records.\n\n" + _table(header, rows, numbers=range(2, 5))


def _total_cell(total: Total | None) -> str:
    return f"{grouped(total.amount)} ({count_text(total.count)})" if total else "-"


def _rule_blocks(name: str, figures: RuleReport, zone: str) -> list[str]:
    return [
        f"## {title_of(name)}",
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
    rows = [_total_row(f"{title_of(sides[0])} total", figures.totals[sides[0]], currencies)]
    for cause in sorted({cause for by_cause in figures.gaps.values() for cause in by_cause}):
        amounts = [figures.gaps.get(currency, {}).get(cause) for currency in currencies]
        title = f"{_text(cause)}: {CAUSES[cause]}" if cause in CAUSES else _text(cause)
        rows.append([title, *(signed(amount) if amount else "" for amount in amounts)])
    if any(Decimal(amount) for amount in figures.residual.values()):
        rows.append(["**unexplained**", *(f"**{signed(figures.residual[currency])}**" for currency in currencies)])
    rows.append(_total_row(f"{title_of(sides[-1])} total", figures.totals[sides[-1]], currencies))
    heading = f"### From the {sides[0]} to the {sides[-1]} total"
    return f"{heading}\n\n" + _table(["", *currencies], rows, numbers=range(1, len(currencies) + 1))


def _total_row(title: str, totals: dict[str, Total], currencies: Iterable[str]) -> list[str]:
    cells = [f"**{grouped(totals[currency].amount)}**" if currency in totals else "-" for currency in currencies]
    return [f"**{title}**", *cells]


def _mismatches(figures: RuleReport) -> str:
    rows = [
        [_text(type_), currency, count_text(one.count), grouped(one.amount) if one.amount else "-"]
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
    ages = [AGEING_TITLES[name] for name, _ in AGEING_CLASSES]
    header = ["Type", "Currency", "Opening", "+ new", "- cleared", "= closing", *ages, "Closing amount"]
    return "### Open discrepancies, and their age at the end\n\n" + _table(header, rows, numbers=range(2, len(header)))


def _open_cells(row: OpenItems) -> list[str]:
    figures = [row.opening, row.new, row.cleared, row.closing, *(row.ageing[name] for name, _ in AGEING_CLASSES)]
    return [count_text(figure) for figure in figures]


def _closing_amount(figures: RuleReport, currency: str, type_: str) -> str:
    amount = figures.open_amounts.get(currency, {}).get(type_)
    return grouped(amount) if amount else "-"


def _top(figures: RuleReport, zone: str) -> str:
    top = figures.top_open
    if not top:
        return ""
    closing = sum(row.closing for types in figures.open.values() for row in types.values())
    lines = [f"{place}. {_top_line(one, zone)}" for place, one in enumerate(top, start=1)]
    more = f"\n\n{count_text(closing - len(top))} more are in the list of discrepancies." if closing > len(top) else ""
    return "### Look at these first\n\n" + "\n".join(lines) + more


def _top_line(one: TopDiscrepancy, zone: str) -> str:
    amount = f" {money(one.difference, one.currency, sign=True)}" if one.difference is not None else ""
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
            ", ".join(money(amount, currency, sign=True) for currency, amount in change.gap_change.items()) or "none",
        ]
        for change in figures.prior_period[:PRIOR_ROWS_MAX]
    ]
    hidden = len(figures.prior_period) - len(rows)
    more = f"\n\n{count_text(hidden)} more are in the JSON report." if hidden else ""
    table = _table(["Period", "Item", "Was", "Is now", "Change of its gap"], rows, numbers=[4])
    intro = "Reports of these periods are final and stay as they are; what changed since is told here, and only here."
    return f"### Changes in earlier periods\n\n{intro}\n\n{table}{more}"


def _not_reconciled(report: Report) -> str:
    if not report.not_reconciled:
        return "## Not reconciled\n\nA rule selected every event of the period."
    rows = [[_text(one.source), _text(one.type), count_text(one.count)] for one in report.not_reconciled]
    intro = "No rule selected these events when they came, so nothing compares them."
    return f"## Not reconciled\n\n{intro}\n\n" + _table(["Source", "Type", "Events"], rows, numbers=[2])


def _about(report: Report) -> str:
    period = report.period
    return (
        f"---\n\nPeriod: {time_text(period.start_at, period.zone)} up to, not including, "
        f"{time_text(period.end_at, period.zone)} (days in {_text(period.zone)}). "
        f"Figures as of {time_text(report.at, period.zone)}, per rule and currency, never added across either. "
        "Amounts are exact. What each figure means: docs/reports.md."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]) -> str:
    right = set(numbers)
    rule = ["---:" if place in right else "---" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def _key(key: Key) -> str:
    return _text(key if isinstance(key, str) else " / ".join(key))


def _text(text: str) -> str:
    """Escape what producers wrote, so that it cannot break a table or become a link."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
