"""Runs in PostgreSQL: made once per organisation, pack and period, and in one process's hand at a time."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, ColumnElement, Text, cast, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.run_reading import RunReading
from services.alerts.adapters.tables import checks, discrepancies, items, runs
from services.alerts.domain.period import AnyPeriod, Period, Span, local_day
from services.alerts.domain.report import PriorRun, Reading, RuleSides
from services.alerts.domain.schedule import look_due
from services.alerts.ports.runs import Known, NewRun, Outcome, Run, RunInHand, RunStatus, RunType, StoredReport

PRIOR_RUNS_MAX: Final = 400
"""Complete earlier runs whose periods are looked at for later changes: a year of days, and some."""
LOCK_CLASS: Final = 0x72756E73
"""First half of the advisory locks of runs; the second half is a hash of the run's id."""
RUNNER_LOCK: Final = 0x73636865
"""First half of the advisory locks of schedulers: the one runner (0), and making runs that go alone (a hash)."""
LATEST_WITHIN: Final = timedelta(days=3)
"""A pack that has not been run for longer has no present discrepancy amount; the query stays small."""

_SUMMARY = [column for column in runs.c if column.name not in {"report_json", "report_markdown", "expects"}]


class PostgresRuns:
    """The runs of all organisations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, new: NewRun) -> tuple[Run, bool]:
        """See `RunStore`."""
        async with self._database.transaction(new.org) as connection:
            return await _open(connection, new)

    async def open_alone(self, new: NewRun) -> tuple[Run, bool]:
        """See `RunStore`; the lock lets two that come at once find each other."""
        mine = (runs.c.org == new.org) & (runs.c.pack == new.pack)
        same = (
            (runs.c.period_start == new.period.start)
            & (runs.c.period_end == new.period.end)
            & (runs.c.run_type == new.run_type)
        )
        overlaps = (runs.c.period_start < new.period.end) & (runs.c.period_end > new.period.start)
        under_way = overlaps & (runs.c.status == "running") & runs.c.report_json.is_(None)
        found = select(*_SUMMARY).where(mine, or_(same, under_way)).order_by(same.desc(), runs.c.created_at).limit(1)
        async with self._database.transaction(new.org) as connection:
            name = f"{new.org}/{new.pack}"
            await connection.execute(select(func.pg_advisory_xact_lock(RUNNER_LOCK, func.hashtext(name))))
            row = (await connection.execute(found)).first()
            return (_run(row), False) if row is not None else await _open(connection, new)

    async def packs(self, org: str) -> Sequence[str]:
        """See `RunStore`; of large tables each pack or rule is found by one step over an index."""
        async with self._database.transaction(org) as connection:
            known = set((await connection.execute(select(runs.c.pack).where(runs.c.org == org).distinct())).scalars())
            known |= set(await _distinct(connection, items.c.org == org, items.c.pack))
            for rule in await _distinct(connection, checks.c.org == org, checks.c.rule):
                one = select(checks.c.pack).where(checks.c.org == org, checks.c.rule == rule).limit(1)
                known |= set((await connection.execute(one)).scalars())
        return sorted(known)

    async def known(self, org: str, pack: str, run_type: RunType, since: datetime) -> Known:
        """See `RunStore`."""
        mine = (runs.c.org == org) & (runs.c.pack == pack) & (runs.c.run_type == run_type)
        first = select(func.min(runs.c.period_start)).where(mine, runs.c.trigger == "schedule")
        periods = select(runs.c.period_start, runs.c.period_end).where(mine, runs.c.period_end > since)
        async with self._database.transaction(org) as connection:
            begun = (await connection.execute(first)).scalar_one()
            return Known(begun, [(row.period_start, row.period_end) for row in await connection.execute(periods)])

    @asynccontextmanager
    async def runner(self) -> AsyncIterator[bool]:
        """See `RunStore`; the lock is a transaction's, so a process that dies lets go of it."""
        async with self._database.transaction(EVERY_ORG) as connection:
            lock = select(func.pg_try_advisory_xact_lock(RUNNER_LOCK, 0))
            yield bool((await connection.execute(lock)).scalar_one())

    async def latest_checks(self) -> Sequence[Mapping[str, object]]:
        """See `RunStore`."""
        last = (
            select(runs.c.summary)
            .ext(distinct_on(runs.c.org, runs.c.pack))
            .where(runs.c.counted_at > func.now() - LATEST_WITHIN)
            .order_by(runs.c.org, runs.c.pack, runs.c.counted_at.desc())
        )
        async with self._database.transaction(EVERY_ORG) as connection:
            return [row.summary for row in await connection.execute(last) if row.summary]

    async def unresolved(self) -> Mapping[str, int]:
        """See `RunStore`."""
        one = discrepancies.c
        counts = (
            select(one.severity, func.count().label("many"))
            .where(one.status != "resolved", ~one.shadow)
            .group_by(one.severity)
        )
        async with self._database.transaction(EVERY_ORG) as connection:
            return {row.severity: row.many for row in await connection.execute(counts)}

    async def run(self, org: str, run_id: str) -> Run | None:
        """See `RunStore`."""
        if not _is_id(run_id):
            return None
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(*_SUMMARY).where(runs.c.org == org, runs.c.id == run_id))).first()
        return None if row is None else _run(row)

    async def report(self, org: str, run_id: str) -> StoredReport | None:
        """See `RunStore`."""
        if not _is_id(run_id):
            return None
        # As text: the JSON goes out as it was computed, without being read on the way.
        columns = [runs.c.report_json.cast(Text).label("json"), runs.c.report_markdown]
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(*columns).where(runs.c.org == org, runs.c.id == run_id))).first()
        if row is None or row.json is None:
            return None
        return StoredReport(json=row.json, markdown=row.report_markdown)

    async def runs(
        self, org: str, pack: str | None, limit: int, after: tuple[str, str] | None, run_type: RunType | None = None
    ) -> Sequence[Run]:
        """See `RunStore`."""
        statement = (
            select(*_SUMMARY).where(runs.c.org == org).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
        )
        if pack is not None:
            statement = statement.where(runs.c.pack == pack)
        if run_type is not None:
            statement = statement.where(runs.c.run_type == run_type)
        if after is not None:
            place = tuple_(datetime.fromisoformat(after[0]), uuid.UUID(after[1]))
            statement = statement.where(tuple_(runs.c.created_at, runs.c.id) < place)
        async with self._database.transaction(org) as connection:
            return [_run(row) for row in await connection.execute(statement)]

    async def unfinished(self, now: datetime, limit: int) -> Sequence[Run]:
        """See `RunStore`; what is not due is left out here, lest hundreds of old runs hide a young one."""
        waiting = select(runs.c.id, runs.c.created_at, runs.c.updated_at).where(runs.c.completed_at.is_(None))
        async with self._database.transaction(EVERY_ORG) as connection:
            rows = (await connection.execute(waiting.order_by(runs.c.updated_at))).all()
            due = [row.id for row in rows if look_due(row.created_at, row.updated_at, now)][:limit]
            found = select(*_SUMMARY).where(runs.c.id.in_(due)).order_by(runs.c.updated_at)
            return [_run(row) for row in await connection.execute(found)] if due else []

    async def save_cut(self, run: Run, cut_at: datetime) -> Run:
        """See `RunStore`."""
        async with self._database.transaction(run.org) as connection:
            return await _update(connection, run.id, cut_at=cut_at)

    @asynccontextmanager
    async def in_hand(self, run: Run) -> AsyncIterator[RunInHand | None]:
        """See `RunStore`; the lock is the transaction's, so a process that dies lets go of the run."""
        async with self._database.transaction(run.org) as connection:
            lock = select(func.pg_try_advisory_xact_lock(LOCK_CLASS, func.hashtext(run.id)))
            if not (await connection.execute(lock)).scalar_one():
                yield None
                return
            row = (await connection.execute(select(*_SUMMARY).where(runs.c.id == run.id))).first()
            if row is None or row.completed_at is not None:
                yield None
                return
            yield _InHand(connection, _run(row))


class _InHand:
    """A run under its lock, inside one transaction."""

    def __init__(self, connection: AsyncConnection, run: Run) -> None:
        self._connection = connection
        self.run = run

    async def reading(self) -> tuple[Sequence[RuleSides], Reading] | None:
        return await RunReading(self._connection, self.run, await self._prior_runs()).read()

    async def save(self, outcome: Outcome, at: datetime, duration_ms: int) -> Run:
        self.run = await _update(
            self._connection,
            self.run.id,
            status=outcome.status,
            provisional=outcome.provisional,
            summary=outcome.summary,
            # Bound as text: what was computed is stored byte for byte.
            report_json=cast(literal(outcome.report.json, Text), JSON),
            report_markdown=outcome.report.markdown,
            error=outcome.error,
            updated_at=at,
            completed_at=at if outcome.status == "completed" else None,
            duration_ms=duration_ms,
            counted_at=self.run.counted_at or (at if outcome.closed else None),
        )
        return self.run

    async def note(self, status: RunStatus, error: str, at: datetime) -> Run:
        self.run = await _update(self._connection, self.run.id, status=status, error=error, updated_at=at)
        return self.run

    async def _prior_runs(self) -> list[PriorRun]:
        """Complete runs of the same kind (hour, day, month, range) before this one: each series tells its own changes.

        Manual runs overlap the others and each other: they tell what stands in their hours and no more.
        """
        run = self.run
        if run.run_type == "manual":
            return []
        statement = (
            select(
                runs.c.period_start,
                runs.c.period_end,
                runs.c.zone,
                runs.c.run_type,
                runs.c.summary["at"].as_string().label("at"),
            )
            .where(
                runs.c.org == run.org,
                runs.c.pack == run.pack,
                runs.c.run_type == run.run_type,
                runs.c.status == "completed",
                runs.c.period_end <= run.period.start,
            )
            .order_by(runs.c.period_start.desc())
        )
        found = [
            PriorRun(_period(row), datetime.fromisoformat(row.at)) for row in await self._connection.execute(statement)
        ]
        return [one for one in found if one.period.kind == run.period.kind][:PRIOR_RUNS_MAX]


async def _update(connection: AsyncConnection, run_id: str, **values: Any) -> Run:
    """Change a run that is not complete; a complete one is never rewritten."""
    statement = (
        update(runs).where(runs.c.id == run_id, runs.c.completed_at.is_(None)).values(**values).returning(*_SUMMARY)
    )
    row = (await connection.execute(statement)).first()
    if row is None:
        row = (await connection.execute(select(*_SUMMARY).where(runs.c.id == run_id))).one()
    return _run(row)


async def _open(connection: AsyncConnection, new: NewRun) -> tuple[Run, bool]:
    period = new.period
    statement = (
        upsert(runs)
        .values(
            id=str(uuid.uuid4()),
            org=new.org,
            pack=new.pack,
            period_start=period.start,
            period_end=period.end,
            zone=period.zone,
            run_type=new.run_type,
            trigger=new.trigger,
            requested_by=new.requested_by,
            status="running",
            provisional=True,
            updated_at=new.at,
            expects=None if new.expects is None else dict(new.expects),
        )
        .on_conflict_do_nothing(index_elements=["org", "pack", "period_start", "period_end", "run_type"])
        .returning(*_SUMMARY)
    )
    made = (await connection.execute(statement)).first()
    if made is not None:
        return _run(made), True
    found = await connection.execute(
        select(*_SUMMARY).where(
            runs.c.org == new.org,
            runs.c.pack == new.pack,
            runs.c.period_start == period.start,
            runs.c.period_end == period.end,
            runs.c.run_type == new.run_type,
        )
    )
    return _run(found.one()), False


async def _distinct(connection: AsyncConnection, mine: ColumnElement[bool], column: ColumnElement[str]) -> list[str]:
    """Return the values of an indexed column that has few of them in very many rows."""
    found: list[str] = []
    while True:
        behind = [column > found[-1]] if found else []
        value = (await connection.execute(select(func.min(column)).where(mine, *behind))).scalar_one()
        if value is None:
            return found
        found.append(value)


def _run(row: Any) -> Run:
    return Run(
        id=row.id,
        org=row.org,
        pack=row.pack,
        period=_period(row),
        trigger=row.trigger,
        requested_by=row.requested_by,
        status=row.status,
        provisional=row.provisional,
        summary=row.summary,
        error=row.error,
        cut_at=row.cut_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        completed_at=row.completed_at,
        run_type=row.run_type,
        duration_ms=row.duration_ms,
        counted_at=row.counted_at,
    )


def _period(row: Any) -> AnyPeriod:
    if row.run_type in {"hourly", "manual"}:
        return Span(row.period_start.astimezone(UTC), row.period_end.astimezone(UTC), row.zone)
    return Period(local_day(row.period_start, row.zone), local_day(row.period_end, row.zone), row.zone)


def _is_id(text_: str) -> bool:
    try:
        return str(uuid.UUID(text_)) == text_.lower()
    except ValueError:
        return False
