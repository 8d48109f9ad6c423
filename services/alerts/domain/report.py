"""Figures of a run: what came in, what agreed, where the money of a gap went, what is open and since when.

Everything is computed from stored items and discrepancies as they stood at one log time, per rule and never added
across rules, per currency and never added across currencies. Amounts are exact; only percentages are rounded (half to
even). The executable meaning of every figure is `tests/cases/report.yaml`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from services.alerts.domain.checks import CheckFigures, Verdicts, check_of, merged
from services.alerts.domain.correction import CorrectionFigures
from services.alerts.domain.figures import (
    AGEING_CLASSES,
    Counts,
    MatchedPercent,
    Mismatch,
    NotReconciled,
    OpenItems,
    PeriodSpan,
    PriorChange,
    Report,
    RuleReport,
    TopDiscrepancy,
    Verdict,
)
from services.alerts.domain.gap import add_to, causes_of, gap_of, value_of
from services.alerts.domain.history import DiscrepancyHistory, ItemState, SideTotal, state_at
from services.alerts.domain.period import AnyPeriod
from shared.contracts.discrepancy import SEVERITIES
from shared.contracts.item import Total
from shared.money import EXACT, NO_CURRENCY, exact_sum, format_amount, format_number

NOT_CUT_YET = datetime.max.replace(tzinfo=UTC)
"""`cut_at` of a run whose matcher has not been asked yet for what is pending: no progress is past it."""
TOP_OPEN_MAX = 10
"""Open discrepancies listed with their explanation per rule: what a person can start with; all are in the API."""

_FIRST_RULES = ("payments", "refunds")
_ZERO = Decimal(0)
_PERCENT_PLACES = 2


@dataclass(frozen=True, slots=True)
class RuleSides:
    """A rule and its sides in order: the first is expected, the last compared with it."""

    name: str
    sides: tuple[str, ...]
    kind: str | None = None
    """None: the rule is no longer in force, or was not known when the run was made."""


@dataclass(frozen=True, slots=True)
class PriorRun:
    """An earlier run that is complete; its figures stand as of `at`."""

    period: AnyPeriod
    at: datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run is made of: one log time, how far results are stored, and what is stored.

    `items`: per item its revisions, oldest first; items without a revision in this or an earlier complete period add
    nothing. `cut_at`: time in the log of the cut that makes the matcher publish what is still pending; None where nothing
    pending can be unpublished.
    """

    at: datetime
    progress: datetime | None
    items: Sequence[Sequence[ItemState]]
    discrepancies: Sequence[DiscrepancyHistory]
    prior_runs: Sequence[PriorRun] = ()
    cut_at: datetime | None = None
    not_reconciled: Sequence[NotReconciled] = ()
    verdicts: Sequence[Verdicts] = ()
    """Of rules that judge readings: the last verdict of each key in the period, counted."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Rules whose stored results cannot be read, and why."""
    corrections: Sequence[CorrectionFigures] = ()
    """Of attempts that finished in the period."""


def rule_order(name: str) -> tuple[int, str]:
    """Sort key of rules in a report: payments and refunds first, since people look for those; then by name."""
    kind = name.rpartition(".")[2]
    return (_FIRST_RULES.index(kind) if kind in _FIRST_RULES else len(_FIRST_RULES), name)


def make_report(org: str, period: AnyPeriod, rules: Sequence[RuleSides], reading: Reading) -> Report:
    """Compute the report of one run."""
    closed = is_closed(period, reading.progress, reading.cut_at)
    faults = dict(reading.faults)
    reports: dict[str, RuleReport] = {}
    for rule in rules:
        if rule.name in faults:
            continue
        try:
            reports[rule.name] = _rule_report(rule, period, reading, closed)
        except (ArithmeticError, ValueError, LookupError, AssertionError) as error:
            # A fault in the data of one rule must be seen, and must not keep people from the figures of the others.
            faults[rule.name] = f"{type(error).__name__}: {error}"
    return Report(
        org=org,
        period=PeriodSpan(
            name=str(period),
            start=period.start_text,
            end=period.end_text,
            zone=period.zone,
            start_at=period.start,
            end_at=period.end,
        ),
        at=reading.at,
        progress=reading.progress,
        verdict=_verdict_of_run([one.verdict for one in reports.values()], closed),
        reports=reports,
        not_reconciled=sorted(reading.not_reconciled, key=lambda n: (n.source, n.type)),
        checks=_checks(rules, reading, reports, faults),
        corrections=list(reading.corrections),
    )


def _checks(
    rules: Sequence[RuleSides], reading: Reading, reports: Mapping[str, RuleReport], faults: Mapping[str, str]
) -> list[CheckFigures]:
    verdicts = {one.rule: one for one in reading.verdicts}
    kinds = {rule.name: rule.kind for rule in rules}
    names = sorted({*kinds, *verdicts, *faults}, key=rule_order)
    return merged(
        check_of(
            name,
            kinds.get(name),
            verdicts.get(name),
            items=reports[name].items.total if name in reports else 0,
            discrepant=reports[name].items.discrepant if name in reports else 0,
            differences=_differences(reports.get(name)),
            still_open=_still_open(reports.get(name)),
            fault=faults.get(name),
            unexplained=_unexplained(reports.get(name)),
        )
        for name in names
    )


def _differences(figures: RuleReport | None) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for by_currency in (figures.mismatch if figures else {}).values():
        for currency, one in by_currency.items():
            if one.amount is not None:
                add_to(sums, currency, Decimal(one.amount))
    return sums


def _still_open(figures: RuleReport | None) -> int:
    return sum(row.closing for types in (figures.open if figures else {}).values() for row in types.values())


def _unexplained(figures: RuleReport | None) -> str | None:
    left = {c: amount for c, amount in (figures.residual if figures else {}).items() if Decimal(amount)}
    if not left:
        return None
    return "no cause explains " + ", ".join(f"{amount} {currency}" for currency, amount in left.items())


def is_closed(period: AnyPeriod, progress: datetime | None, cut_at: datetime | None = None) -> bool:
    """Tell whether everything of the period is stored: every partition is past its end and past the cut."""
    if progress is None or progress <= period.end:
        return False
    return cut_at is None or progress > cut_at


def told_until(earlier: Sequence[PriorRun]) -> dict[AnyPeriod, datetime]:
    """Return per complete period the log time up to which its own run or a later one has told what changed in it."""
    return {
        run.period: max([run.at, *(later.at for later in earlier if later.period.start >= run.period.end)])
        for run in earlier
    }


class _Money:
    """Counts and exact sums per key."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.amounts: dict[tuple[str, str], Decimal] = {}

    def add(self, place: tuple[str, str], amount: Decimal | None, count: int = 1) -> None:
        self.counts[place] += count
        if amount is not None:
            add_to(self.amounts, place, amount)


def _rule_report(rule: RuleSides, period: AnyPeriod, reading: Reading, closed: bool) -> RuleReport:
    items = []
    for revisions in reading.items:
        state = state_at(revisions, reading.at)
        if state is not None and state.rule == rule.name and stands_in(state, period):
            items.append(state)
    histories = [one.until(reading.at) for one in reading.discrepancies if one.rule == rule.name]
    statuses = Counter(item.status for item in items)
    totals = _totals(rule, items)
    gaps, residual = _gaps(items, [currency for _, currency in totals.counts])
    open_items, open_amounts = _open(histories, period, reading.at)
    return RuleReport(
        verdict=_verdict(closed=closed, pending=statuses["pending"], residual=residual.values()),
        items=Counts(
            total=len(items),
            matched=statuses["matched"],
            discrepant=statuses["discrepant"],
            pending=statuses["pending"],
        ),
        matched_percent=_matched_percent(items),
        totals={side: _totals_of(side, totals) for side in rule.sides},
        gaps=gaps,
        residual={currency: format_amount(amount, currency) for currency, amount in residual.items()},
        mismatch=_mismatch(items),
        open=open_items,
        open_amounts=open_amounts,
        prior_period=_prior_period(rule, period, reading),
        top_open=_top_open(histories, period),
    )


def stands_in(state: ItemState, period: AnyPeriod) -> bool:
    """Tell whether the item has a figure in the period."""
    return state.counts and period.start <= state.occurred_at < period.end


def _verdict(*, closed: bool, pending: int, residual: Iterable[Decimal]) -> Verdict:
    if not closed or pending:
        return "provisional"
    return "incomplete" if any(residual) else "complete"


def _verdict_of_run(verdicts: Sequence[Verdict], closed: bool) -> Verdict:
    """What is not final yet makes the run provisional; then what does not add up makes it incomplete."""
    if not closed or "provisional" in verdicts:
        return "provisional"
    return "incomplete" if "incomplete" in verdicts else "complete"


def _matched_percent(items: Sequence[ItemState]) -> MatchedPercent:
    values: dict[str, Decimal] = {}
    matched: dict[str, Decimal] = {}
    for item in items:
        for currency, amount in value_of(item).items():
            add_to(values, currency, amount)
            add_to(matched, currency, amount if item.status == "matched" else _ZERO)
    count = sum(item.status == "matched" for item in items)
    return MatchedPercent(
        count=_percent(Decimal(count), Decimal(len(items))),
        value={currency: _percent(matched[currency], values[currency]) for currency in sorted(values)},
    )


def _percent(part: Decimal, whole: Decimal) -> str | None:
    """Return `part` of `whole` in percent, half-even to 2 places; None where there is no whole."""
    if not whole:
        return None
    hundredths = round(Fraction(part) / Fraction(whole) * 100 * 10**_PERCENT_PLACES)
    return format_number(Decimal(hundredths).scaleb(-_PERCENT_PLACES), _PERCENT_PLACES)


def _totals(rule: RuleSides, items: Iterable[ItemState]) -> _Money:
    totals = _Money()
    for item in items:
        for name in rule.sides:
            side = item.sides.get(name)
            for currency, total in (side.totals if side else {}).items():
                totals.add((name, currency), total.amount, total.count)
    return totals


def _totals_of(side: str, totals: _Money) -> dict[str, Total]:
    return {
        currency: Total(
            count=totals.counts[side, currency], amount=format_amount(totals.amounts[side, currency], currency)
        )
        for name, currency in sorted(totals.counts)
        if name == side and totals.counts[side, currency]
    }


def _gaps(
    items: Iterable[ItemState], currencies: Iterable[str]
) -> tuple[dict[str, dict[str, str]], dict[str, Decimal]]:
    sums: dict[tuple[str, str], Decimal] = {}
    residual = dict.fromkeys(sorted(set(currencies)), _ZERO)
    for item in items:
        for (currency, cause), amount in causes_of(item).items():
            if cause == "residual":
                add_to(residual, currency, amount)
            else:
                add_to(sums, (currency, cause), amount)
                residual.setdefault(currency, _ZERO)
    gaps: dict[str, dict[str, str]] = {}
    for currency, cause in sorted(sums):
        gaps.setdefault(currency, {})[cause] = format_amount(sums[currency, cause], currency)
    return gaps, residual


def _mismatch(items: Iterable[ItemState]) -> dict[str, dict[str, Mismatch]]:
    found = _Money()
    for item in items:
        for one in item.raised:
            amount = None if one.difference is None else abs(one.difference)
            found.add((one.type, one.currency or NO_CURRENCY), amount)
    mismatch: dict[str, dict[str, Mismatch]] = {}
    for type_, currency in sorted(found.counts):
        amount = found.amounts.get((type_, currency))
        mismatch.setdefault(type_, {})[currency] = Mismatch(
            count=found.counts[type_, currency],
            amount=None if amount is None else format_amount(amount, currency),
        )
    return mismatch


def _open(
    histories: Iterable[DiscrepancyHistory], period: AnyPeriod, at: datetime
) -> tuple[dict[str, dict[str, OpenItems]], dict[str, dict[str, str]]]:
    start, end = period.start, period.end
    groups: dict[tuple[str, str], list[DiscrepancyHistory]] = defaultdict(list)
    for one in histories:
        groups[one.currency, one.type].append(one)
    figures: dict[str, dict[str, OpenItems]] = {}
    amounts: dict[str, dict[str, str]] = {}
    for currency, type_ in sorted(groups):
        group = groups[currency, type_]
        closing = [one for one in group if one.is_open_at(end)]
        row = OpenItems(
            opening=sum(one.is_open_at(start) for one in group),
            new=sum(start <= time < end for one in group for time in one.raised),
            cleared=sum(start <= time < end for one in group for time in one.resolved),
            closing=len(closing),
            ageing=_ageing(closing, min(end, at)),
        )
        if not (row.opening or row.new):
            continue
        figures.setdefault(currency, {})[type_] = row
        differences = [abs(one.difference) for one in closing if one.difference is not None]
        if differences:
            amounts.setdefault(currency, {})[type_] = format_amount(exact_sum(differences), currency)
    return figures, amounts


def _ageing(closing: Iterable[DiscrepancyHistory], as_of: datetime) -> dict[str, int]:
    """Count by age; of a period that goes on nothing is older than the report."""
    classes = {name: 0 for name, _ in AGEING_CLASSES}
    for one in closing:
        days = (as_of - one.raised[0]) // timedelta(days=1)
        classes[next(name for name, days_max in AGEING_CLASSES if days_max is None or days <= days_max)] += 1
    return classes


def _top_open(histories: Iterable[DiscrepancyHistory], period: AnyPeriod) -> list[TopDiscrepancy]:
    closing = [one for one in histories if one.is_open_at(period.end)]
    closing.sort(
        key=lambda one: (
            -SEVERITIES.index(one.severity),
            -abs(one.difference or _ZERO),
            one.raised[0],
            one.discrepancy_id,
        )
    )
    return [
        TopDiscrepancy(
            id=one.discrepancy_id,
            type=one.type,
            severity=one.severity,
            status=one.status,
            key=one.key,
            currency=one.currency,
            difference=None if one.difference is None else format_amount(one.difference, one.currency),
            raised_at=one.raised[0],
            resolved_since=one.resolved[-1] if len(one.resolved) == len(one.raised) else None,
            explanation=one.explanation,
        )
        for one in closing[:TOP_OPEN_MAX]
    ]


def _prior_period(rule: RuleSides, period: AnyPeriod, reading: Reading) -> list[PriorChange]:
    """Return what changed in complete earlier periods since the last run that told of it.

    Each change stands in one run only: a run tells what changed in the periods before its own up to its log time.
    """
    earlier = [run for run in reading.prior_runs if run.period.end <= period.start]
    if not earlier:
        return []
    told = told_until(earlier)
    past = max(run.period.end for run in earlier)
    changes: list[tuple[datetime, str, PriorChange]] = []
    for revisions in reading.items:
        if not any(state.rule == rule.name and state.occurred_at < past for state in revisions):
            continue
        now = state_at(revisions, reading.at)
        for prior, told_at in told.items():
            was = state_at(revisions, told_at)
            change = None if was is now else _change(was, now, prior)
            if change is not None:
                changes.append((revisions[-1].occurred_at, change.period, change))
    return [change for *_, change in sorted(changes, key=lambda one: (one[0], one[1], one[2].item_id))]


def _change(was: ItemState | None, now: ItemState | None, period: AnyPeriod) -> PriorChange | None:
    before = was if was is not None and stands_in(was, period) else None
    after = now if now is not None and stands_in(now, period) else None
    state = after or before
    if state is None or _figures(before) == _figures(after):
        return None
    old, new = gap_of(before) if before else {}, gap_of(after) if after else {}
    change = {c: EXACT.subtract(new.get(c, _ZERO), old.get(c, _ZERO)) for c in sorted({*old, *new})}
    return PriorChange(
        key=state.key,
        was=before.status if before else None,
        now=after.status if after else None,
        gap_change={currency: format_amount(amount, currency) for currency, amount in change.items() if amount},
        item_id=state.item_id,
        period=str(period),
    )


def _figures(state: ItemState | None) -> object:
    """What an item adds to a report: two revisions of equal figures are no change."""
    if state is None:
        return None
    totals: Mapping[str, Mapping[str, SideTotal]] = {n: s.totals if s else {} for n, s in state.sides.items()}
    return state.status, totals, causes_of(state)
