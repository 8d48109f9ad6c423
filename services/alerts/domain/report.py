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
from typing import Literal, TypeVar

import msgspec

from services.alerts.domain.checks import CheckFigures, Verdicts, check_of, merged
from services.alerts.domain.history import DiscrepancyHistory, ItemState, SideState, SideTotal, state_at
from services.alerts.domain.period import AnyPeriod
from shared.contracts.discrepancy import SEVERITIES, Key
from shared.contracts.item import ItemStatus, Total
from shared.money import EXACT, NO_CURRENCY, exact_sum, format_amount, format_number

_Place = TypeVar("_Place", str, tuple[str, str])

Verdict = Literal["complete", "provisional", "incomplete"]

AGEING_CLASSES: tuple[tuple[str, int | None], ...] = (("0-1", 1), ("2-7", 7), ("8-30", 30), ("30+", None))
"""Names of the classes, and the greatest age in whole days of 24 h that still belongs to each."""
NOT_CUT_YET = datetime.max.replace(tzinfo=UTC)
"""`cut_at` of a run whose matcher has not been asked yet for what is pending: no progress is past it."""
TOP_OPEN_MAX = 10
"""Open discrepancies listed with their explanation per rule: what a person can start with; all are in the API."""

_FIRST_RULES = ("payments", "refunds")
_ZERO = Decimal(0)
_PERCENT_PLACES = 2
_REST_TYPES = ("StatusMismatch", "CurrencyMismatch")
_DUPLICATE = "DuplicateChargeSuspected"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Items of the period by status."""

    total: int
    matched: int
    discrepant: int
    pending: int


class MatchedPercent(msgspec.Struct, frozen=True, kw_only=True):
    """Matched items of all items; null where there is nothing to divide by."""

    count: str | None
    value: dict[str, str | None]


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Discrepancies of one type; `amount` is the sum of |difference|, null for types that have none."""

    count: int
    amount: str | None


class OpenItems(msgspec.Struct, frozen=True, kw_only=True):
    """Discrepancies of one type over the period: opening + new - cleared = closing."""

    opening: int
    new: int
    cleared: int
    closing: int
    ageing: dict[str, int]
    """Of the closing ones, by whole days from the first raise to the period's end."""


class PriorChange(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a period whose run is complete, changed since: the old run is not rewritten."""

    key: Key
    was: ItemStatus | None
    """None: it did not stand in that period."""
    now: ItemStatus | None
    """None: it no longer stands in that period."""
    gap_change: dict[str, str]
    item_id: str
    period: str


class TopDiscrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """A discrepancy that was open at the period's end."""

    id: str
    type: str
    severity: str
    status: str
    key: Key
    currency: str
    difference: str | None
    raised_at: datetime
    resolved_since: datetime | None
    """When the engine resolved it after the period's end, as known when the run was made."""
    explanation: str


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one rule."""

    verdict: Verdict
    items: Counts
    matched_percent: MatchedPercent
    totals: dict[str, dict[str, Total]]
    """Live records per side and currency."""
    gaps: dict[str, dict[str, str]]
    """Per currency and cause; they add up to last side - first side, but for the residual."""
    residual: dict[str, str]
    """What no cause explains, per currency: zero, or the verdict is `incomplete`."""
    mismatch: dict[str, dict[str, Mismatch]]
    """Raised on items of the period, per type and currency."""
    open: dict[str, dict[str, OpenItems]]
    """Over all items of the rule, per currency and type."""
    open_amounts: dict[str, dict[str, str]]
    """Sum of |difference| of the closing ones, per currency and type that has differences."""
    prior_period: list[PriorChange]
    top_open: list[TopDiscrepancy]


class PeriodSpan(msgspec.Struct, frozen=True, kw_only=True):
    """The days of the run, and the instants they begin and end."""

    name: str
    start: str
    end: str
    zone: str
    start_at: datetime
    end_at: datetime


class NotReconciled(msgspec.Struct, frozen=True, kw_only=True):
    """Events that no rule selects: money that nobody compares."""

    source: str
    type: str
    count: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one run, as stored and served."""

    version: int = 1
    org: str
    period: PeriodSpan
    at: datetime
    """Log time at which every figure stands."""
    progress: datetime | None
    """Least log time that was stored when the run was made."""
    verdict: Verdict
    reports: dict[str, RuleReport]
    not_reconciled: list[NotReconciled]
    checks: list[CheckFigures] = []
    """Whether the rules held in the period. Those that could not be computed are in no other figure."""


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
                _add(sums, currency, Decimal(one.amount))
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


def gap_of(item: ItemState) -> dict[str, Decimal]:
    """Return last side's - first side's live amount per currency, zero ones included."""
    first, last = _amounts(item.first), _amounts(item.last)
    currencies = dict.fromkeys([*first, *last])
    return {c: EXACT.subtract(last.get(c, _ZERO), first.get(c, _ZERO)) for c in currencies}


def causes_of(item: ItemState) -> dict[tuple[str, str], Decimal]:
    """Return where the item's gap comes from, per (currency, cause); the cause `residual` is what nothing explains."""
    causes: dict[tuple[str, str], Decimal] = {}
    explained: dict[str, Decimal] = {}
    for one in item.raised:
        if one.difference is not None and _bears_on_gap(one.side, item):
            currency = one.currency or NO_CURRENCY
            _add(causes, (currency, one.type), one.difference)
            _add(explained, currency, one.difference)
    gap = gap_of(item)
    for currency in dict.fromkeys([*gap, *explained]):
        rest = EXACT.subtract(gap.get(currency, _ZERO), explained.get(currency, _ZERO))
        for cause, amount in _causes_of_rest(item, rest, _adjusted(item, currency)):
            _add(causes, (currency, cause), amount)
    return {place: amount for place, amount in causes.items() if amount}


def value_of(item: ItemState) -> dict[str, Decimal]:
    """Return what the item is worth per currency: its first side's live amounts, else its last side's."""
    return _amounts(item.first) or _amounts(item.last)


def _bears_on_gap(side: str | None, item: ItemState) -> bool:
    """A gap is between the first and the last side: what is said about a side between them is no part of it."""
    names = list(item.sides)
    return side is None or side not in names[1:-1]


def _adjusted(item: ItemState, currency: str) -> Decimal:
    """Return what adjustment entries contribute to the gap: they count in comparisons, and not in live amounts."""
    first = item.first.adjusted.get(currency, _ZERO) if item.first else _ZERO
    last = item.last.adjusted.get(currency, _ZERO) if item.last else _ZERO
    return EXACT.subtract(first, last)


def _causes_of_rest(item: ItemState, rest: Decimal, adjusted: Decimal) -> list[tuple[str, Decimal]]:
    """Return the causes of what no difference explains.

    Entries that were set against something that is gone by now (an extra record, another currency) explain nothing.
    """
    if not rest:
        return []
    if rest == adjusted:
        return [("adjusted", rest)]
    cause = _cause_of_rest(item)
    left = EXACT.subtract(rest, adjusted)
    if cause in {*_REST_TYPES, "pending"} or not adjusted:
        return [(cause, rest)]
    if abs(left) < abs(rest):
        return [("adjusted", adjusted), (cause, left)]
    return [("adjusted" if cause == "within_tolerance" else cause, rest)]


def _cause_of_rest(item: ItemState) -> str:
    types = {one.type for one in item.raised}
    for type_ in _REST_TYPES:
        if type_ in types:
            return type_
    match item.status:
        case "pending":
            return "pending"
        case "matched":
            return "within_tolerance"
        case "discrepant":
            return _cause_beside(types, item)


def _cause_beside(types: set[str], item: ItemState) -> str:
    """What a gap may hold beside the differences that are raised on the item; without any it is unexplained."""
    if types == {_DUPLICATE}:
        # The extra record is raised at once; the compared pair may still wait for its other side, or agree.
        return "within_tolerance" if item.first and item.last else "pending"
    if types and len(item.sides) > 2:
        # Where the first side is missing, the others are compared with each other: their differences overlap.
        return "other_sides"
    if types and any(total.count > 1 for side in (item.first, item.last) if side for total in side.totals.values()):
        # A rule may leave duplicates of a side unsuspected; they are in its total all the same.
        return "extra_records"
    return "residual"


class _Money:
    """Counts and exact sums per key."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.amounts: dict[tuple[str, str], Decimal] = {}

    def add(self, place: tuple[str, str], amount: Decimal | None, count: int = 1) -> None:
        self.counts[place] += count
        if amount is not None:
            _add(self.amounts, place, amount)


def _rule_report(rule: RuleSides, period: AnyPeriod, reading: Reading, closed: bool) -> RuleReport:
    items = []
    for revisions in reading.items:
        state = state_at(revisions, reading.at)
        if state is not None and state.rule == rule.name and _stands_in(state, period):
            items.append(state)
    histories = [one.until(reading.at) for one in reading.discrepancies if one.rule == rule.name]
    statuses = Counter(item.status for item in items)
    totals = _totals(rule, items)
    gaps, residual = _gaps(items, [currency for _, currency in totals.counts])
    open_items, open_amounts = _open(histories, period)
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


def _stands_in(state: ItemState, period: AnyPeriod) -> bool:
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
            _add(values, currency, amount)
            _add(matched, currency, amount if item.status == "matched" else _ZERO)
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
                _add(residual, currency, amount)
            else:
                _add(sums, (currency, cause), amount)
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
    histories: Iterable[DiscrepancyHistory], period: AnyPeriod
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
            ageing=_ageing(closing, end),
        )
        if not (row.opening or row.new):
            continue
        figures.setdefault(currency, {})[type_] = row
        differences = [abs(one.difference) for one in closing if one.difference is not None]
        if differences:
            amounts.setdefault(currency, {})[type_] = format_amount(exact_sum(differences), currency)
    return figures, amounts


def _ageing(closing: Iterable[DiscrepancyHistory], end: datetime) -> dict[str, int]:
    classes = {name: 0 for name, _ in AGEING_CLASSES}
    for one in closing:
        days = (end - one.raised[0]) // timedelta(days=1)
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
    before = was if was is not None and _stands_in(was, period) else None
    after = now if now is not None and _stands_in(now, period) else None
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


def _amounts(side: SideState | None) -> dict[str, Decimal]:
    return {} if side is None else {c: total.amount for c, total in side.totals.items() if total.count}


def _add(sums: dict[_Place, Decimal], place: _Place, amount: Decimal) -> None:
    sums[place] = EXACT.add(sums.get(place, _ZERO), amount)
