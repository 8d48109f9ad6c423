"""A scheduler whose clock a test drives: `python -m tests.support.simulated_scheduler URL FROM UNTIL STEP_MINUTES [HANG_AT]`.

It goes round once per step of simulated time on a real PostgreSQL, with the matcher's progress always up to date, and
prints each time. At HANG_AT it prints `computing RUN` in the middle of the first run it computes, and waits to be killed.
"""

import asyncio
import sys
from collections.abc import Mapping
from datetime import datetime, time, timedelta

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.domain.schedule import DailyTime
from services.alerts.handlers.scheduler import Scheduler
from services.alerts.use_cases import runs as runs_module
from services.alerts.use_cases.runs import Runs
from services.alerts.use_cases.schedule import Schedule
from tests.integration.alerts.stored_month import store_progress

DAILY = DailyTime(time(2, 30), "Europe/Berlin")
RULES = {"stack.deposits": "match"}


class Clock:
    """Simulated time; its cuts are taken at once."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    async def request(self, _org: str, _cut_id: str) -> datetime:
        return self.now

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        return {("acme", "stack"): RULES}


def simulated(database: Database, clock: Clock, interval: timedelta = timedelta(hours=1)) -> Scheduler:
    """Return a scheduler of one pack at the times of `clock`."""
    store, directory = PostgresRuns(database), PostgresDirectory(database)
    runs = Runs(store, directory, clock, lambda: clock.now, wait_s=0.0, rules=clock)
    return Scheduler(runs, Schedule(store, directory, clock, interval, DAILY, lambda: clock.now))


async def go(database: Database, clock: Clock, until: datetime, step: timedelta, scheduler: Scheduler) -> None:
    """Go round at each step up to `until`."""
    while clock.now < until:
        clock.now += step
        async with database.transaction(EVERY_ORG) as connection:
            await store_progress(connection, clock.now + timedelta(seconds=2))
        await scheduler.round()
        sys.stdout.write(f"{clock.now.isoformat()}\n")
        sys.stdout.flush()


def hang_at(instant: datetime, clock: Clock) -> None:
    """Have the first run computed at or after `instant` never come to its end."""
    compute = runs_module.compute

    def hanging(run, *read):  # type: ignore[no-untyped-def]
        if clock.now >= instant:
            sys.stdout.write(f"computing {run.id}\n")
            sys.stdout.flush()
            import time as clock_of_the_machine

            clock_of_the_machine.sleep(120)
        return compute(run, *read)

    runs_module.compute = hanging


async def main(url: str, begin: str, until: str, step_minutes: str, hang: str | None = None) -> None:
    """Run until the end, or until killed."""
    clock, database = Clock(datetime.fromisoformat(begin)), Database(url)
    if hang is not None:
        hang_at(datetime.fromisoformat(hang), clock)
    step = timedelta(minutes=int(step_minutes))
    await go(database, clock, datetime.fromisoformat(until), step, simulated(database, clock))
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
