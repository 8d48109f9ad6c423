"""A report as one HTML page: readable on a screen, ready to print, with nothing to load and no script.

What is said is decided here and in the template; every figure is a text of the stored report.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from services.alerts.domain.drift import Drift
from services.alerts.domain.figures import AGEING_CLASSES, Report, RuleReport, TopDiscrepancy
from services.alerts.domain.period import local_day
from services.alerts.domain.report_words import (
    AGEING_TITLES,
    CAUSES,
    amount_words,
    count_text,
    gap_of_totals,
    gap_words,
    grouped,
    items_text,
    listed,
    open_count,
    open_worth,
    period_title,
    signed,
    speaks,
    time_text,
    title_of,
    type_words,
    what_counts,
    why_provisional,
)
from services.alerts.handlers.reports import pictures
from services.alerts.ports.runs import Run
from shared.contracts.discrepancy import Key
from shared.money import format_amount

CHANGES_MAX = 50
"""Changes in earlier periods that are listed; the JSON has all of them."""
NO_AMOUNT = "-"
"""Of types without a difference, and where nothing is open: an empty cell looks like a fault."""
_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Bridge:
    """From the first side's total to the last's in one currency."""

    title: str
    currency: str
    rows: Sequence[tuple[str, str, str, str, Markup]]
    """(kind, label, what it means, amount, drawing)."""
    cut_off: bool


def page_of(run: Run, report: Report, drift: Sequence[Drift]) -> str:
    """Return the page; `drift` is of the run's period."""
    spoken = {name: figures for name, figures in report.reports.items() if speaks(figures)}
    zone = report.period.zone
    return _template().render(
        verdict_title={
            "complete": "These figures are final",
            "provisional": "Provisional",
            "incomplete": "Money is unexplained",
        }[report.verdict],
        no_amount=NO_AMOUNT,
        style=Markup(_style()),  # noqa: S704 - a file of this package, the text that the policy names by its digest
        run=run,
        report=report,
        title=period_title(report),
        verdict=_verdict(report),
        open_total=sum(open_count(figures) for figures in spoken.values()),
        failed_checks=sum(not one.passed for one in report.checks),
        headlines=[_headline(name, figures) for name, figures in spoken.items()],
        checks=[one for one in report.checks if one.readings or one.error] and report.checks,
        totals=[row for name, figures in spoken.items() for row in _totals(name, figures)],
        rules=[_rule(name, figures, zone) for name, figures in spoken.items()],
        drifts=[_drift(one, report) for one in drift],
        period_text=f"{time_text(report.period.start_at, zone)} up to, not including, {time_text(report.period.end_at, zone)}",
        as_of=time_text(report.at, zone),
        took=f"{(run.duration_ms or 0) / _MS_PER_S:.1f} s" if run.duration_ms is not None else None,
    )


def content_policy() -> str:
    """Return the Content-Security-Policy of the page: its own style, and nothing else."""
    return (
        f"default-src 'none'; style-src {style_digest()}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def style_digest() -> str:
    """Return the source expression of the page's style."""
    digest = hashlib.sha256(_style().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@cache
def _style() -> str:
    return files(__package__).joinpath("report.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "count": count_text,
        "grouped": grouped,
        "signed": signed,
        "key": _key,
        "title": title_of,
        "type": type_words,
    }
    return environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))


def _verdict(report: Report) -> str:
    match report.verdict:
        case "complete":
            return "Everything of the period is stored, and every gap between the totals is explained."
        case "provisional":
            return f"{why_provisional(report)} The run completes by itself; figures may still change."
        case "incomplete":
            left = [
                f"{grouped(amount)} {currency} ({title_of(name)})"
                for name, figures in report.reports.items()
                for currency, amount in figures.residual.items()
                if Decimal(amount)
            ]
            return f"No stored discrepancy explains {listed(left)}: please report this to whoever runs tieout."


def _headline(name: str, figures: RuleReport) -> dict[str, Any]:
    items = figures.items
    share = (
        f"{figures.matched_percent.count} % matched, {count_text(items.matched)} of {items_text(items.total)}"
        if items.total
        else "no items in this period"
    )
    closing, worth = open_count(figures), open_worth(figures)
    return {
        "id": _anchor(name),
        "title": title_of(name),
        "name": name,
        "gaps": [_sentence(gap_words(figures, c)) for c in figures.residual if gap_of_totals(figures, c)],
        "agrees": bool(items.total) and not any(gap_of_totals(figures, c) for c in figures.residual),
        "share": share,
        "open": f"{count_text(closing)} open" + (f", differences of {worth}" if worth else "") if closing else "",
        "changes": len(figures.prior_period),
    }


def _totals(name: str, figures: RuleReport) -> list[dict[str, Any]]:
    sides = list(figures.totals)
    rows = []
    for currency in figures.residual:
        first, last = figures.totals[sides[0]].get(currency), figures.totals[sides[-1]].get(currency)
        gap = gap_of_totals(figures, currency)
        rows.append(
            {
                "what": what_counts(name),
                "currency": currency,
                "sides": (sides[0], sides[-1]),
                "first": first,
                "last": last,
                "gap": signed(format_amount(gap, currency)),
                "words": _sentence(gap_words(figures, currency)),
                "differs": bool(gap),
            }
        )
    return rows


def _rule(name: str, figures: RuleReport, zone: str) -> dict[str, Any]:
    ages = Counter[str](dict.fromkeys(AGEING_TITLES.values(), 0))
    for types in figures.open.values():
        for row in types.values():
            for key, _ in AGEING_CLASSES:
                ages[AGEING_TITLES[key]] += row.ageing[key]
    bars = pictures.ageing(ages)
    closing = open_count(figures)
    return {
        "id": _anchor(name),
        "name": name,
        "title": title_of(name),
        "figures": figures,
        "bridges": [_bridge(figures, currency) for currency in figures.residual if _has_steps(figures, currency)],
        "ages": [(title, count, bars[title]) for title, count in ages.items()] if closing else [],
        "open": [
            (
                type_,
                currency,
                row,
                [row.ageing[key] for key, _ in AGEING_CLASSES],
                _open_amount(figures, currency, type_),
            )
            for currency, types in figures.open.items()
            for type_, row in types.items()
        ],
        "age_titles": list(AGEING_TITLES.values()),
        "mismatches": [
            (type_, currency, one)
            for type_, by_currency in figures.mismatch.items()
            for currency, one in by_currency.items()
        ],
        "top": [_top(one, zone) for one in figures.top_open],
        "more_open": closing - len(figures.top_open),
        "changes": figures.prior_period[:CHANGES_MAX],
        "more_changes": max(0, len(figures.prior_period) - CHANGES_MAX),
    }


def _has_steps(figures: RuleReport, currency: str) -> bool:
    """Two equal totals with nothing between them are no picture: they stand among the totals."""
    return bool(figures.gaps.get(currency) or Decimal(figures.residual[currency]))


def _bridge(figures: RuleReport, currency: str) -> Bridge:
    sides = list(figures.totals)
    first, last = figures.totals[sides[0]].get(currency), figures.totals[sides[-1]].get(currency)
    start, end = (Decimal(total.amount if total else 0) for total in (first, last))
    causes = sorted(figures.gaps.get(currency, {}).items())
    steps = [(Decimal(amount), True) for _, amount in causes]
    residual = Decimal(figures.residual[currency])
    labels = [(type_words(cause), CAUSES.get(cause, ""), signed(amount)) for cause, amount in causes]
    if residual:
        steps.append((residual, False))
        labels.append(("Unexplained", "no stored discrepancy explains it", signed(figures.residual[currency])))
    drawn, cut_off = pictures.waterfall(start, steps, end)
    totals = [
        (f"{title_of(side)} total", _records(total.count if total else 0), grouped(format_amount(amount, currency)))
        for side, total, amount in ((sides[0], first, start), (sides[-1], last, end))
    ]
    named = [totals[0], *labels, totals[1]]
    words = gap_words(figures, currency)
    return Bridge(
        title=f"Where the {currency} difference comes from: {words}"
        if start != end
        else f"{currency}: {words}, but these differences are behind it",
        currency=currency,
        rows=[(step.kind, *name, step.drawing) for step, name in zip(drawn, named, strict=True)],
        cut_off=cut_off,
    )


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count_text(count)} records"


def _open_amount(figures: RuleReport, currency: str, type_: str) -> str:
    amount = figures.open_amounts.get(currency, {}).get(type_)
    return grouped(amount) if amount else NO_AMOUNT


def _top(one: TopDiscrepancy, zone: str) -> dict[str, Any]:
    state = f"since {local_day(one.raised_at, zone)}"
    if one.resolved_since:
        state += f", resolved by itself on {local_day(one.resolved_since, zone)}"
    elif one.status != "open":
        state += f", {one.status} by a person"
    words = "" if one.difference is None else amount_words(Decimal(one.difference), one.currency)
    return {"one": one, "state": state, "words": words if one.difference and Decimal(one.difference) else ""}


def _drift(one: Drift, report: Report) -> dict[str, Any]:
    period = report.period
    lines = [
        {
            "key": _key(line.key) + (f" ({line.code})" if line.code else ""),
            "line": line,
            "sample": pictures.sample(place),
            "largest": grouped(format_amount(line.largest, one.currency)),
            "last": signed(format_amount(line.last, one.currency)),
            "words": f"reads {amount_words(line.last, one.currency)} than expected" if line.last else "as expected",
        }
        for place, line in enumerate(one.lines)
    ]
    return {
        "rule": one.rule,
        "currency": one.currency,
        "picture": pictures.drift(one.lines, period.start_at, period.end_at, period.zone),
        "lines": lines,
        "hidden": one.accounts - len(one.lines),
    }


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _anchor(name: str) -> str:
    return "rule-" + "".join(character if character.isalnum() else "-" for character in name)


def _key(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)
