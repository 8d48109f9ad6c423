"""The schedule: makes the runs of hours and days that have ended, each once, whoever died in between."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.alerts.domain.period import AnyPeriod, PeriodRefused
from services.alerts.domain.schedule import (
    CATCH_UP_MAX_DAILY,
    CATCH_UP_MAX_HOURLY,
    DAY_LENGTH_MAX,
    DailyTime,
    days_ended,
    hours_ended,
    last_daily,
    next_daily,
    next_hourly,
    not_covered,
)
from services.alerts.ports.directory import DirectoryStore, Org
from services.alerts.ports.runs import NewRun, RuleSets, Run, RunStore, RunType

DAILY_ONLY = frozenset({"billing"})
"""Packs whose records come by the day: an hour of them says nothing that the day does not."""
BY_SCHEDULE = "scheduler"
"""Who asked for such a run."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An organisation whose runs could not be made, and why; the others' were."""

    org: str
    error: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """When every pack of every organisation is run.

    Args:
        store: where runs are.
        directory: the organisations and their zones.
        rules: which packs they have.
        interval: of the hourly runs.
        daily: when the day before is run.
        now: the clock.
    """

    store: RunStore
    directory: DirectoryStore
    rules: RuleSets
    interval: timedelta
    daily: DailyTime
    now: Callable[[], datetime]

    def next_due(self) -> Mapping[RunType, datetime]:
        """Return when the next runs are made."""
        now = self.now()
        return {"hourly": next_hourly(self.interval, now), "daily": next_daily(self.daily, now)}

    async def make_due(self) -> tuple[Sequence[Run], Sequence[Refused]]:
        """Make the runs that are due and not made, the oldest first; return them.

        They are computed by `Runs.advance_unfinished`, now or after a crash.

        Raises:
            DependencyAway: asking again later makes what is missing then.
        """
        orgs = {one.org: one for one in await self.directory.orgs()}
        made: list[Run] = []
        refused: list[Refused] = []
        for (name, pack), rules in sorted((await self.rules.in_force()).items()):
            org = orgs.get(name)
            if org is None:
                continue
            try:
                made += await self._make(org, pack, rules)
            except PeriodRefused as error:
                refused.append(Refused(name, str(error)))
        return made, refused

    async def _make(self, org: Org, pack: str, rules: Mapping[str, str]) -> list[Run]:
        now = self.now()
        wanted = [("daily", period) for period in await self._days(org, pack, now)]
        if pack not in DAILY_ONLY:
            wanted += [("hourly", period) for period in await self._hours(org, pack, now)]
        found: list[Run] = []
        for run_type, period in sorted(wanted, key=lambda one: (one[1].end, one[0])):
            new = NewRun(org.org, pack, period, "schedule", BY_SCHEDULE, _type(run_type), now, rules)
            run, made = await self.store.open(new)
            if made:
                found.append(run)
        return found

    async def _hours(self, org: Org, pack: str, now: datetime) -> Sequence[AnyPeriod]:
        since = now - CATCH_UP_MAX_HOURLY
        known = await self.store.known(org.org, pack, "hourly", since)
        ended = hours_ended(self.interval, org.zone, known.since or now - 2 * self.interval, now)
        return _missing(ended, known.since, known.periods, since, org.created_at)

    async def _days(self, org: Org, pack: str, now: datetime) -> Sequence[AnyPeriod]:
        due, since = last_daily(self.daily, now), now - CATCH_UP_MAX_DAILY
        known = await self.store.known(org.org, pack, "daily", since)
        ended = days_ended(org.zone, known.since or due - 2 * DAY_LENGTH_MAX, due)
        return _missing(ended, known.since, known.periods, since, org.created_at)


def _missing(
    ended: Sequence[AnyPeriod],
    begun: datetime | None,
    existing: Sequence[tuple[datetime, datetime]],
    since: datetime,
    org_since: datetime,
) -> Sequence[AnyPeriod]:
    """Return the periods to make: all since the schedule began; where it begins now, the last that ended."""
    wanted = [one for one in ended if one.end > org_since and one.start >= since]
    return not_covered(wanted if begun is not None else wanted[-1:], existing)


def _type(name: str) -> RunType:
    return "daily" if name == "daily" else "hourly"
