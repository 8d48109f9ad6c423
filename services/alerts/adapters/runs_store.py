"""Runs in PostgreSQL, and what they read: item revisions, discrepancy revisions, progress."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import msgspec
from sqlalchemy import JSON, ColumnElement, Table, Text, cast, func, literal, or_, select, tuple_, union_all, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import (
    checks,
    discrepancies,
    discrepancy_revisions,
    item_revisions,
    items,
    not_reconciled,
    progress,
    runs,
    sink_offsets,
)
from services.alerts.domain.checks import Verdicts
from services.alerts.domain.history import DiscrepancyHistory, ItemState, item_state, transitions
from services.alerts.domain.period import AnyPeriod, Period, Span, local_day
from services.alerts.domain.report import (
    NotReconciled,
    PriorRun,
    Reading,
    RuleSides,
    rule_order,
    told_until,
)
from services.alerts.domain.schedule import look_due
from services.alerts.ports.runs import Known, NewRun, Outcome, Run, RunInHand, RunStatus, RunType, StoredReport
from shared.contracts.discrepancy import Key, LogPosition
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide
from shared.money import NO_CURRENCY

PRIOR_RUNS_MAX: Final = 400
"""Complete earlier runs whose periods are looked at for later changes: a year of days, and some."""
ROWS_AT_ONCE: Final = 2_000
"""Rows fetched at a time: a large month must not stand in memory twice."""
LOCK_CLASS: Final = 0x72756E73
"""First half of the advisory locks of runs; the second half is a hash of the run's id."""
RUNNER_LOCK: Final = 0x73636865
"""First half of the advisory locks of schedulers: the one runner (0), and making runs that go alone (a hash)."""
LATEST_WITHIN: Final = timedelta(days=3)
"""A pack that has not been run for longer has no present discrepancy amount; the query stays small."""
LOG_TIME_STEP: Final = timedelta(milliseconds=1)
"""Log time is in whole milliseconds."""
RESULT_TOPICS: Final = ("discrepancies", "matches", "checks")
"""Topics that carry progress, all with the partitions of `legs`. `not-reconciled` has other partitions and no progress:
a period does not wait for it."""

JUDGED: Final = ("passed", "failed", "error", "opening")
"""Results that say something of the reading: a stale or skipped one leaves the verdict before it."""
UNREADABLE: Final = (ArithmeticError, ValueError, LookupError, AssertionError, msgspec.MsgspecError)
"""What a fault in stored data raises."""

_JSON_OF_ITEM: Final = frozenset({"key", "sides", "discrepancies", "reasons"})
_SUMMARY = [column for column in runs.c if column.name not in {"report_json", "report_markdown", "expects"}]
_decode_sides = msgspec.json.Decoder(dict[str, ItemSide | None]).decode
_decode_raised = msgspec.json.Decoder(list[ItemDiscrepancy]).decode
_decode_key = msgspec.json.Decoder(Key).decode


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
        async with self._database.transaction(new.org) as connection:
            name = f"{new.org}/{new.pack}"
            await connection.execute(select(func.pg_advisory_xact_lock(RUNNER_LOCK, func.hashtext(name))))
            under_way = (
                select(*_SUMMARY)
                .where(
                    runs.c.org == new.org,
                    runs.c.pack == new.pack,
                    runs.c.status == "running",
                    runs.c.report_json.is_(None),
                )
                .order_by(runs.c.created_at)
                .limit(1)
            )
            row = (await connection.execute(under_way)).first()
            return (_run(row), False) if row is not None else await _open(connection, new)

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
        stored_until = await _progress(self._connection)
        if stored_until is None:
            return None
        # Log time may stand still for several results, so only what is before it is known to be whole.
        at = stored_until - LOG_TIME_STEP
        prior = await self._prior_runs()
        faults: dict[str, str] = {}
        found = await self._items(at, min([at, *told_until(prior).values()]), faults)
        histories = await self._histories(at, faults)
        reading = Reading(
            at=at,
            progress=stored_until,
            items=found,
            discrepancies=histories,
            prior_runs=prior,
            not_reconciled=await self._not_reconciled(at),
            verdicts=await self._verdicts(at),
            faults=faults,
        )
        return await self._rules(found, histories), reading

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

    async def _items(self, at: datetime, since: datetime, faults: dict[str, str]) -> list[list[ItemState]]:
        """Revisions up to `at` of the period's items, and of every item that changed after `since`.

        What cannot be read goes to `faults`, by its rule: the figures of the others stand.
        """
        run = self.run
        mine = (items.c.org == run.org) & (items.c.pack == run.pack) & ~items.c.shadow
        chosen = (
            select(items.c.id)
            .where(mine, items.c.occurred_at >= run.period.start, items.c.occurred_at < run.period.end)
            .union(select(items.c.id).where(mine, items.c.log_time > since))
            .cte("chosen")
        )
        earlier = select(*_revision(item_revisions)).join(chosen, chosen.c.id == item_revisions.c.id)
        present = select(*_revision(items)).join(chosen, chosen.c.id == items.c.id)
        known = union_all(
            earlier.where(item_revisions.c.log_time <= at, ~item_revisions.c.shadow),
            present.where(items.c.log_time <= at),
        ).subquery()
        statement = select(known).order_by(known.c.id, known.c.log_offset, known.c.revision)
        found: list[list[ItemState]] = []
        last = None
        result = await self._connection.stream(statement, execution_options={"yield_per": ROWS_AT_ONCE})
        try:
            async for row in result:
                if row.id != last:
                    found.append([])
                    last = row.id
                try:
                    found[-1].append(item_state(_item(row)))
                except UNREADABLE as error:
                    faults.setdefault(row.rule, f"item {row.id} cannot be read: {type(error).__name__}: {error}")
        finally:
            await result.close()
        return [revisions for revisions in found if revisions]

    async def _histories(self, at: datetime, faults: dict[str, str]) -> list[DiscrepancyHistory]:
        """Discrepancies that were open at some time since the period's start, as they were known at `at`."""
        run = self.run
        one, revision = discrepancies.c, discrepancy_revisions.c
        statement = (
            select(
                one.id,
                one.rule,
                one.type,
                one.key.cast(Text).label("key"),
                one.status,
                one.sides,
                revision.state,
                revision.log_time,
                revision.severity,
                revision.currency,
                revision.difference,
                revision.explanation,
            )
            .join(discrepancy_revisions, revision.id == one.id)
            .where(
                one.org == run.org,
                one.pack == run.pack,
                or_(one.state == "raised", one.log_time >= run.period.start),
                revision.log_time <= at,
                ~one.shadow,
                ~revision.shadow,
            )
            .order_by(one.id, revision.log_offset, revision.revision)
        )
        rows = (await self._connection.execute(statement)).all()
        histories: list[DiscrepancyHistory] = []
        for id_, group in groupby(rows, key=lambda row: row.id):
            revisions = list(group)
            try:
                histories.append(_history(revisions))
            except UNREADABLE as error:
                why = f"discrepancy {id_} cannot be read: {type(error).__name__}: {error}"
                faults.setdefault(revisions[-1].rule, why)
        return [history for history in histories if history.raised]

    async def _verdicts(self, at: datetime) -> list[Verdicts]:
        """Count the last verdicts of the period per rule: of each key, code and currency the newest reading's last."""
        run, check = self.run, checks.c
        mine = [check.org == run.org, check.pack == run.pack, ~check.shadow, check.log_time <= at]
        place = (check.rule, check.key, check.code, check.currency)
        last = (
            select(check.rule, check.result, check.currency, check.difference, check.cause)
            .ext(distinct_on(*place))
            .where(*mine, check.result.in_(JUDGED), check.as_of >= run.period.start, check.as_of < run.period.end)
            .order_by(*place, check.as_of.desc(), check.log_time.desc(), check.log_offset.desc())
            .subquery()
        )
        counted = select(
            last.c.rule,
            last.c.result,
            last.c.currency,
            func.count().label("many"),
            func.sum(func.abs(last.c.difference)).label("difference"),
            func.min(last.c.cause).label("cause"),
        ).group_by(last.c.rule, last.c.result, last.c.currency)
        rows = (await self._connection.execute(counted.order_by(last.c.rule))).all()
        found = [_verdicts(rule, list(group)) for rule, group in groupby(rows, key=lambda row: row.rule)]
        silent = sorted(set(await self._expects()) - {one.rule for one in found})
        for rule in silent:
            before = select(func.max(check.as_of)).where(*mine, check.rule == rule, check.as_of < run.period.start)
            found.append(Verdicts(rule, last_before=(await self._connection.execute(before)).scalar_one()))
        return found

    async def _expects(self) -> Mapping[str, str]:
        wanted = select(runs.c.expects).where(runs.c.id == self.run.id)
        return (await self._connection.execute(wanted)).scalar_one() or {}

    async def _rules(
        self, found: Iterable[Sequence[ItemState]], histories: Iterable[DiscrepancyHistory]
    ) -> list[RuleSides]:
        """Return the rules that have a figure, with their sides in the order of the newest item."""
        newest: dict[str, ItemState] = {}
        for revisions in found:
            state = revisions[-1]
            if state.rule not in newest or newest[state.rule].at < state.at:
                newest[state.rule] = state
        sides = {rule: tuple(state.sides) for rule, state in newest.items()}
        for rule in {history.rule for history in histories} - set(sides):
            sides[rule] = await self._sides_of(rule)
        kinds = await self._expects()
        return [
            RuleSides(rule, sides.get(rule, ()), kinds.get(rule)) for rule in sorted({*sides, *kinds}, key=rule_order)
        ]

    async def _sides_of(self, rule: str) -> tuple[str, ...]:
        statement = (
            select(items.c.sides.cast(Text))
            .where(items.c.org == self.run.org, items.c.pack == self.run.pack, items.c.rule == rule)
            .order_by(items.c.log_time.desc())
            .limit(1)
        )
        sides = (await self._connection.execute(statement)).scalar_one_or_none()
        return () if sides is None else tuple(_decode_sides(sides))

    async def _not_reconciled(self, at: datetime) -> list[NotReconciled]:
        """Count the period's events that no rule selected, as they were known at `at`."""
        run, event = self.run, not_reconciled.c
        statement = (
            select(event.source, event.type, func.count().label("events"))
            .where(
                event.org == run.org,
                event.occurred_at >= run.period.start,
                event.occurred_at < run.period.end,
                event.received_at <= at,
            )
            .group_by(event.source, event.type)
        )
        return [
            NotReconciled(source=row.source, type=row.type, count=row.events)
            for row in await self._connection.execute(statement)
        ]


def _revision(table: Table) -> list[ColumnElement[Any]]:
    """The columns of an item's revision, JSON as text, from where earlier or from where present ones stand."""
    return [
        (cast(table.c[column.name], Text) if column.name in _JSON_OF_ITEM else table.c[column.name]).label(column.name)
        for column in item_revisions.c
    ]


async def _progress(connection: AsyncConnection) -> datetime | None:
    """Return the least log time stored over all partitions of all result topics, None while one has none yet."""
    places = select(progress.c.topic, progress.c.partition, progress.c.log_time).where(
        progress.c.topic.in_(RESULT_TOPICS)
    )
    stored: dict[tuple[str, int], datetime] = {
        (row.topic, row.partition): row.log_time for row in await connection.execute(places)
    }
    assigned = select(sink_offsets.c.partition).where(sink_offsets.c.topic.in_(RESULT_TOPICS))
    known = set((await connection.execute(assigned)).scalars())
    partitions = range(max(known.union(partition for _, partition in stored), default=-1) + 1)
    wanted = [(topic, partition) for topic in RESULT_TOPICS for partition in partitions]
    if not wanted or any(place not in stored for place in wanted):
        return None
    return min(stored[place] for place in wanted)


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


def _verdicts(rule: str, rows: Sequence[Any]) -> Verdicts:
    many = Counter[str]()
    for row in rows:
        many[row.result] += row.many
    failed = [row for row in rows if row.result == "failed" and row.difference is not None]
    return Verdicts(
        rule,
        # An opening reading is where an account begins: nothing differs from it yet.
        passed=many["passed"] + many["opening"],
        failed=many["failed"],
        errors=many["error"],
        differences={row.currency or NO_CURRENCY: row.difference for row in failed},
        why=next((row.cause for row in rows if row.result == "error" and row.cause), None),
    )


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


def _item(row: Any) -> Item:
    return Item(
        id=row.id,
        revision=row.revision,
        status=row.status,
        org=row.org,
        rule=row.rule,
        pack=row.pack,
        key=_decode_key(row.key),
        sides=_decode_sides(row.sides),
        discrepancies=_decode_raised(row.discrepancies),
        at=row.at,
        occurred_at=row.occurred_at,
        live=row.live,
        log=LogPosition(partition=row.log_partition, offset=row.log_offset, time=row.log_time),
    )


def _history(rows: Sequence[Any]) -> DiscrepancyHistory:
    """Read the revisions of one discrepancy, oldest first."""
    last = rows[-1]
    raised, resolved = transitions((row.log_time.astimezone(UTC), row.state) for row in rows)
    return DiscrepancyHistory(
        discrepancy_id=last.id,
        rule=last.rule,
        type=last.type,
        key=_decode_key(last.key),
        currency=last.currency or _currency_of(last.sides),
        difference=last.difference,
        raised=raised,
        resolved=resolved,
        severity=last.severity,
        status=last.status,
        explanation=last.explanation,
    )


def _currency_of(sides: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A discrepancy between two currencies names none; it counts under that of the side that is expected."""
    for side in sides.values():
        if side and side.get("currency"):
            return str(side["currency"])
    return NO_CURRENCY


def _is_id(text_: str) -> bool:
    try:
        return str(uuid.UUID(text_)) == text_.lower()
    except ValueError:
        return False
