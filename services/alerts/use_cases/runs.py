"""Runs: made once per organisation, pack and period, computed until they are complete, and never changed after that."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from services.alerts.domain.checks import CheckFigures
from services.alerts.domain.figures import Report
from services.alerts.domain.period import PeriodRefused, Span, parse_period, yesterday
from services.alerts.domain.report import NOT_CUT_YET, Reading, RuleSides, is_closed, make_report
from services.alerts.domain.report_markdown import markdown_of
from services.alerts.ports.directory import DirectoryStore
from services.alerts.ports.runs import (
    Cuts,
    NewRun,
    Outcome,
    RuleSets,
    Run,
    RunStatus,
    RunStore,
    RunTrigger,
    RunType,
    StoredReport,
)
from shared.errors import DependencyAway
from shared.telemetry.metrics import bounded, counter, histogram

PACK = "billing"
"""The pack of a run that names none; it can be run also before it has any rules."""
WAIT_S_DEFAULT = 8.0
"""How long a request waits for its run to complete; below the time-outs of common proxies and of `curl --max-time 10`."""
POLL_S = 0.5
"""Between two looks while a request waits; the matcher's progress comes every second."""
UNFINISHED_MAX = 100
"""Runs looked at in one round of the scheduler: a day's runs of a hundred organisations."""
MANUAL_SPAN = timedelta(hours=24)
"""What a manual run looks at: the day up to now, so that every account has been read in it."""
NO_PROGRESS_YET = "the sink has not stored progress of every partition yet"

InForce = Mapping[tuple[str, str], Mapping[str, str]]
"""Per organisation and pack the rules in force, by name, with their kind."""

_STATUS: dict[str, RunStatus] = {"provisional": "running", "complete": "completed", "incomplete": "incomplete"}


class OrgUnknown(LookupError):
    """There is no such organisation."""


class PackUnknown(LookupError):
    """The organisation has no rules of this pack in force."""


class RunUnderWay(Exception):
    """Another run of the organisation and pack has no report yet."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.id)
        self.run = run


@dataclass(frozen=True, slots=True)
class DailyFailure:
    """An organisation whose daily run could not be made; the others' were."""

    org: str
    error: str


@dataclass(frozen=True, slots=True)
class Runs:
    """Everything people and the scheduler do with runs.

    Args:
        store: where runs and what they read are.
        directory: the organisations and their zones.
        cuts: the way to the matcher.
        now: the clock.
        wait_s: how long `trigger` and `daily` wait for completion in all.
        rules: the rules in force; None where no run but those of the billing pack is made.
    """

    store: RunStore
    directory: DirectoryStore
    cuts: Cuts
    now: Callable[[], datetime]
    wait_s: float = WAIT_S_DEFAULT
    rules: RuleSets | None = None

    async def trigger(self, org: str, period: object, requested_by: str, pack: str = PACK) -> tuple[Run, bool]:
        """Make the run of `period` (see `parse_period`) or find it; return it and whether it was made now.

        Raises:
            PeriodRefused: not a period, or still in the future.
            OrgUnknown: there is no such organisation.
            PackUnknown: it has no rules of that pack in force, and no results.
            RunUnderWay: a run of the pack over a part of the period has no report yet.
        """
        in_force = await self._in_force()
        try:
            new = await self._wanted(org, pack, period, "manual", requested_by, in_force)
        except PackUnknown:
            if in_force is None and self.rules is not None:
                # Nobody can tell now: Kafka's own error says what to do.
                await self.rules.in_force()
            raise
        run, made = await self.store.open_alone(new)
        if not made and run.period != new.period:
            raise RunUnderWay(run)
        return (await self._settle([run]))[0], made

    async def packs(self, org: str) -> Sequence[str]:
        """Return the packs that can be run, by name: those with rules in force, and those with results or runs.

        Raises:
            DependencyAway: PostgreSQL does not answer. While Kafka is away only packs with results are known.
        """
        in_force = await self._in_force() or {}
        return sorted({PACK, *(pack for of, pack in in_force if of == org), *await self.store.packs(org)})

    async def manual(self, org: str, pack: str, requested_by: str) -> Run:
        """Run the day up to now, of any pack.

        Raises:
            OrgUnknown: there is no such organisation.
            PackUnknown: it has no rules of that pack in force.
            RunUnderWay: another run of the pack has no report yet.
            DependencyAway: Kafka or PostgreSQL does not answer.
        """
        known = await self.directory.org(org)
        if known is None:
            raise OrgUnknown(org)
        rules = {} if self.rules is None else (await self.rules.in_force()).get((org, pack), {})
        if not rules:
            raise PackUnknown(pack)
        now = self.now()
        span = Span(now - MANUAL_SPAN, now, known.zone)
        run, made = await self.store.open_alone(
            NewRun(org, pack, span, "manual", requested_by, run_type="manual", at=now, expects=rules)
        )
        if not made:
            raise RunUnderWay(run)
        return (await self._settle([run]))[0]

    async def daily(
        self, org: str | None, period: object | None, pack: str | None = None
    ) -> tuple[Sequence[Run], Sequence[DailyFailure]]:
        """Make or find the runs of `period`, or of yesterday in each zone, of every pack or of `pack`.

        For every organisation, or for `org`. A pack has runs where it has rules in force; billing always.

        Raises:
            PeriodRefused: `period` was given for one organisation and is not a period there.
            OrgUnknown: there is no such organisation.
            PackUnknown: `org` has neither rules nor results of `pack`.
            DependencyAway: Kafka does not answer, where the packs in force have to be known.
        """
        in_force = {} if self.rules is None else await self.rules.in_force()

        async def opened(of: str) -> list[Run]:
            names = sorted({PACK, *(name for one, name in in_force if one == of)}) if pack is None else [pack]
            wanted = [await self._wanted(of, name, period, "daily", "daily", in_force) for name in names]
            return [(await self.store.open(one))[0] for one in wanted]

        if org is not None:
            return await self._settle(await opened(org)), ()
        runs: list[Run] = []
        failures: list[DailyFailure] = []
        for known in await self.directory.orgs():
            try:
                runs += await opened(known.org)
            except PeriodRefused as error:
                failures.append(DailyFailure(known.org, str(error)))
            except PackUnknown:
                # One pack was asked for, which not every organisation has.
                continue
        return await self._settle(runs), failures

    async def advance_unfinished(self) -> int:
        """Look again at every unfinished run that is due; return how many completed."""
        due = await self.store.unfinished(self.now(), UNFINISHED_MAX)
        return sum([(await self._advanced(run)).completed_at is not None for run in due])

    async def _advanced(self, run: Run) -> Run:
        """`advance`; whatever stops it is noted on the run, so that it stops no other run."""
        try:
            return await self.advance(run)
        except DependencyAway:
            raise
        except Exception as error:  # noqa: BLE001 - a run that nobody can read must not end the scheduler
            fault = f"the run could not be made: {type(error).__name__}: {error}"
            async with self.store.in_hand(run) as hand:
                if hand is None:
                    return run
                noted = await hand.note("failed", fault, self.now())
            count_status(run, noted)
            return noted

    async def advance(self, run: Run) -> Run:
        """Ask for a cut where one is missing, and compute the run once more unless it is complete or in other hands."""
        if run.completed_at is not None:
            return run
        run = await self._with_cut(run)
        async with self.store.in_hand(run) as hand:
            if hand is None:
                return await self.store.run(run.org, run.id) or run
            run, begun = hand.run, time.monotonic()
            try:
                stored = await hand.reading()
                if stored is None:
                    return await hand.note("running", NO_PROGRESS_YET, self.now())
                outcome = await asyncio.to_thread(compute, hand.run, *stored)
            except (ArithmeticError, ValueError, LookupError, AssertionError, msgspec.MsgspecError) as error:
                # A fault in stored data must be seen on the run, and must not stop the runs of others.
                fault = f"the report could not be computed: {type(error).__name__}: {error}"
                noted = await hand.note("failed", fault, self.now())
                count_status(run, noted)
                return noted
            took_s = time.monotonic() - begun
            saved = await hand.save(outcome, self.now(), duration_ms=round(took_s * 1000))
        # Counted once it is stored: what was rolled back is computed, and counted, again.
        histogram("reconciliation_run_duration_seconds").observe(took_s)
        count_status(run, saved)
        if run.counted_at is None and saved.counted_at is not None:
            count_checks(outcome.checks)
        return saved

    async def _wanted(
        self,
        org: str,
        pack: str,
        period: object | None,
        trigger: RunTrigger,
        requested_by: str,
        in_force: InForce | None,
    ) -> NewRun:
        known = await self.directory.org(org)
        if known is None:
            raise OrgUnknown(org)
        now = self.now()
        wanted = yesterday(known.zone, now) if period is None else parse_period(period, known.zone, now)
        run_type: RunType = "daily" if wanted.kind == "day" else "period"
        rules = {} if in_force is None else in_force.get((org, pack), {})
        if not rules and pack != PACK and pack not in await self.store.packs(org):
            raise PackUnknown(pack)
        return NewRun(org, pack, wanted, trigger, requested_by, run_type, now, rules or None)

    async def _in_force(self) -> InForce | None:
        """Return the rules in force; None while Kafka is away: what has results can be run without knowing them."""
        try:
            return {} if self.rules is None else await self.rules.in_force()
        except DependencyAway:
            return None

    async def _settle(self, runs: Sequence[Run]) -> list[Run]:
        """Advance each run, again while time is left; the scheduler goes on with what is not complete then.

        Runs of periods that still go on are computed once: waiting would not complete them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.wait_s
        settled = {run.id: run for run in runs}
        left = list(runs)
        while left:
            for run in left:
                settled[run.id] = await self.advance(run)
            now = self.now()
            left = [run for run in settled.values() if run.status in {"running", "failed"} and run.period.end < now]
            if loop.time() + POLL_S > until:
                break
            await asyncio.sleep(POLL_S if left else 0)
        return list(settled.values())

    async def _with_cut(self, run: Run) -> Run:
        now = self.now()
        if not needs_cut(run, now):
            return run
        try:
            cut_at = await self.cuts.request(run.org, f"{run.id}/{now.isoformat()}")
        except DependencyAway:
            # The run stays provisional and says so; the scheduler asks again.
            return run
        return await self.store.save_cut(run, cut_at)


def needs_cut(run: Run, now: datetime) -> bool:
    """Tell whether the matcher has to be asked: never asked, or only before the period had ended."""
    return run.cut_at is None or run.cut_at <= run.period.end < now


def compute(run: Run, rules: Sequence[RuleSides], reading: Reading) -> Outcome:
    """Compute the run's report from what is stored."""
    cut_at = NOT_CUT_YET if run.cut_at is None or run.cut_at <= run.period.end else run.cut_at
    reading = replace(reading, cut_at=cut_at)
    report = make_report(run.org, run.period, rules, reading)
    faults = [f"{one.check_type}: {one.error}" for one in report.checks if one.unreadable]
    return Outcome(
        status="failed" if faults else _STATUS[report.verdict],
        provisional=report.verdict == "provisional",
        summary=summary_of(report),
        report=StoredReport(json=msgspec.json.encode(report).decode(), markdown=markdown_of(report)),
        checks=report.checks,
        closed=is_closed(run.period, reading.progress, cut_at),
        error=f"checks that could not be computed: {'; '.join(faults)}" if faults else None,
    )


def count_status(before: Run, after: Run) -> None:
    """Count a run in the metrics where it has come to another status."""
    if after.stage not in {before.stage, "running"}:
        counter("reconciliation_runs_total").labels(after.stage).inc()


def count_checks(checks: Sequence[CheckFigures]) -> None:
    """Count the checks of a run whose period is stored; once per run."""
    passed = sum(one.passed for one in checks)
    counter("reconciliation_checks_total").inc(len(checks))
    counter("reconciliation_checks_passed_total").inc(passed)
    counter("reconciliation_checks_failed_total").inc(len(checks) - passed)


def largest_amounts(summaries: Sequence[Mapping[str, object]]) -> Mapping[str, float]:
    """Return per check type the largest discrepancy of any currency, organisation and pack in these summaries.

    Amounts of different currencies are never added. A gauge is a float: only here, where nobody counts with it.
    """
    largest: dict[str, float] = {}
    for summary in summaries:
        for one in msgspec.convert(summary.get("checks", []), list[CheckFigures]):
            name = bounded("check_type", one.check_type)
            amounts = [float(amount) for amount in one.discrepancy.values()]
            largest[name] = max([largest.get(name, 0.0), *amounts])
    return largest


def summary_of(report: Report) -> dict[str, object]:
    """Return the figures that a list of runs shows: per rule, never added across rules."""
    return {
        "verdict": report.verdict,
        "at": report.at.isoformat(),
        "checks_total": len(report.checks),
        "checks_passed": sum(one.passed for one in report.checks),
        "checks_failed": sum(not one.passed for one in report.checks),
        "checks": msgspec.to_builtins(report.checks),
        "rules": {
            name: {
                "items": msgspec.to_builtins(figures.items),
                "matched_percent": figures.matched_percent.count,
                "discrepancies": {
                    type_: sum(one.count for one in by_currency.values())
                    for type_, by_currency in figures.mismatch.items()
                },
                "mismatch_amount": {
                    currency: one.amount for currency, one in figures.mismatch.get("AmountMismatch", {}).items()
                },
                "open": sum(row.closing for types in figures.open.values() for row in types.values()),
            }
            for name, figures in report.reports.items()
        },
    }
