"""The scheduler: makes the runs that are due, and completes those that were provisional when they were made."""

import asyncio
from datetime import datetime

import structlog

from services.alerts.ports.runs import RunStore
from services.alerts.use_cases.runs import Runs, largest_amounts
from services.alerts.use_cases.schedule import Schedule
from shared.contracts.discrepancy import SEVERITIES
from shared.errors import DependencyAway
from shared.telemetry.health import Health
from shared.telemetry.metrics import counter, gauge

ROUND_S = 2.0
"""Between two looks for runs that are due; how often each run is looked at is decided by its age."""
ROUND_S_MAX = 600.0
"""A round over a hundred large months; longer is stuck."""
GAUGES_S = 10.0
"""Between two looks at what the gauges show: a scrape looks every 15 s or so."""
STATUSES = ("completed", "provisional", "incomplete", "failed")

log = structlog.get_logger()


class Scheduler:
    """One of several replicas; only the one that holds the runner's lock does anything.

    Args:
        schedule: None where scheduled runs are off; those that people ask for are completed all the same.
    """

    def __init__(self, runs: Runs, schedule: Schedule | None) -> None:
        self._runs = runs
        self._schedule = schedule
        self._next: datetime | None = None
        """When something is due again; None: look now. What is due is in the database, this only saves looks."""
        self._runs_here = False

    async def round(self) -> int:
        """Look once; return how many runs completed.

        Raises:
            DependencyAway: PostgreSQL or Kafka; nothing is lost, the next round goes on.
        """
        async with self._runs.store.runner() as mine:
            self._tell(mine)
            if not mine:
                self._next = None
                return 0
            try:
                await self._make_due()
            except DependencyAway as error:
                # Without the rules nothing new can be made; what was made is completed meanwhile.
                log.warning("scheduled runs wait", reason=str(error))
            return await self._runs.advance_unfinished()

    async def _make_due(self) -> None:
        schedule = self._schedule
        if schedule is None or (self._next is not None and schedule.now() < self._next):
            return
        due = schedule.next_due()
        made, refused = await schedule.make_due()
        for run in made:
            log.info("run due", run=run.id, org=run.org, pack=run.pack, run_type=run.run_type, period=str(run.period))
        for one in refused:
            log.error("no runs can be scheduled", org=one.org, reason=one.error)
        # What became due while they were made is made in the next round.
        self._next = min(due.values())
        log.info("next runs", **{name: at.isoformat() for name, at in due.items()})

    def _tell(self, mine: bool) -> None:
        if mine != self._runs_here:
            log.info("this scheduler runs" if mine else "another scheduler runs")
        self._runs_here = mine


async def complete_runs(scheduler: Scheduler, health: Health, round_s: float = ROUND_S) -> None:
    """Go round again and again; PostgreSQL or Kafka being away only delays."""
    health.watch("scheduler", ROUND_S_MAX)
    while True:
        health.heartbeat("scheduler")
        try:
            completed = await scheduler.round()
            if completed:
                log.info("runs completed", count=completed)
        except DependencyAway as error:
            log.warning("the scheduler waits", reason=str(error))
        await asyncio.sleep(round_s)


def declare_counters() -> None:
    """Show every counter of runs at zero: an increase from nothing is none to an alert."""
    for status in STATUSES:
        counter("reconciliation_runs_total").labels(status)
    for name in ("", "_passed", "_failed"):
        counter(f"reconciliation_checks{name}_total")


async def show_gauges(store: RunStore, health: Health) -> None:
    """Keep the gauges of exceptions and discrepancy amounts; read from PostgreSQL, so that every replica says the same."""
    health.watch("reconciliation gauges", ROUND_S_MAX)
    while True:
        health.heartbeat("reconciliation gauges")
        try:
            counts = await store.unresolved()
            for severity in SEVERITIES:
                gauge("reconciliation_exceptions_unresolved").labels(severity).set(counts.get(severity, 0))
            for check_type, amount in largest_amounts(await store.latest_checks()).items():
                gauge("reconciliation_discrepancy_amount").labels(check_type).set(amount)
        except DependencyAway as error:
            log.warning("gauges wait", reason=str(error))
        await asyncio.sleep(GAUGES_S)
