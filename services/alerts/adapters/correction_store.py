"""Attempts of auto-correction in PostgreSQL. Each step leaves its line in the action log, in the same transaction."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    false,
    func,
    insert,
    literal,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import publish
from services.alerts.adapters.rows import Row, discrepancy_of, read_key, standing_of
from services.alerts.adapters.tables import action_log, checks, corrections, discrepancies
from services.alerts.domain.correction import (
    ACTOR,
    ActionKind,
    Attempt,
    AttemptState,
    CorrectionFigures,
    Fresh,
    Verdict,
    figures,
)
from services.alerts.domain.triage import ActionName
from services.alerts.ports.corrections import Candidate, Place, Waiting
from shared.contracts.directory import PollEntry
from shared.money import format_amount

CORRECTOR_LOCK: Final = 0x636F7272
"""First half of the advisory lock of the one process that corrects; the second is 0."""
CLOCK_MARGIN: Final = timedelta(seconds=2)
"""How far the clock of whoever polls may be behind ours: its reading is fresh all the same."""
_JSON_TEXT: Final = frozenset({"key", "sides", "accepted"})
_FOUND = [cast(column, Text).label(column.name) if column.name in _JSON_TEXT else column for column in discrepancies.c]
_ATTEMPT = [
    cast(column, Text).label(column.name) if column.name in {"key", "body"} else column for column in corrections.c
]
_JUDGED: Final = ("passed", "failed", "error", "opening")


class PostgresCorrections:
    """See `ports.corrections.CorrectionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def corrector(self) -> AsyncIterator[bool]:
        """See `CorrectionStore`; the lock is a transaction's, so a process that dies lets go of it."""
        async with self._database.transaction(EVERY_ORG) as connection:
            lock = select(func.pg_try_advisory_xact_lock(CORRECTOR_LOCK, 0))
            yield bool((await connection.execute(lock)).scalar_one())

    async def candidates(
        self, rules: Sequence[str], raised_before: datetime, after: Place | None, limit: int
    ) -> Sequence[Candidate]:
        """See `CorrectionStore`."""
        c, o = discrepancies.c, corrections.c
        under_way = select(true()).where(o.discrepancy_id == c.id, o.finished_at.is_(None)).exists()
        query = select(*_FOUND).where(
            c.state == "raised",
            c.status == "open",
            c.severity == "low",
            c.rule.in_(rules),
            c.raised_at <= raised_before,
            c.assignee.is_(None),
            c.expired == false(),
            c.shadow == false(),
            ~under_way,
        )
        if after is not None:
            query = query.where(tuple_(c.raised_at, c.id) > after)
        query = query.order_by(c.raised_at, c.id).limit(limit)
        async with self._database.transaction(EVERY_ORG) as connection:
            found = (await connection.execute(query)).mappings().all()
            ids = [row["id"] for row in found]
            earlier: defaultdict[str, list[Attempt]] = defaultdict(list)
            if ids:
                tried = select(*_ATTEMPT).where(o.discrepancy_id.in_(ids)).order_by(o.number)
                for row in (await connection.execute(tried)).mappings():
                    earlier[row["discrepancy_id"]].append(_attempt(row))
        return [Candidate(discrepancy_of(row), standing_of(row), earlier[row["id"]]) for row in found]

    async def begin(self, attempt: Attempt) -> bool:
        """See `CorrectionStore`."""
        values = msgspec.structs.asdict(attempt)
        values["difference"] = None if attempt.difference is None else Decimal(attempt.difference)
        async with self._database.transaction(attempt.org) as connection:
            last = await _last_reading(connection, attempt)
            values["read_as_of"] = None if last is None else last.as_of
            made = await connection.execute(
                upsert(corrections).values(**values).on_conflict_do_nothing().returning(corrections.c.id)
            )
            if made.first() is None:
                return False
            if attempt.action == "refetch":
                wish = PollEntry(org=attempt.org, source=attempt.source, id=attempt.id, at=attempt.requested_at)
                await publish(connection, wish)
                await _log(connection, attempt, "refetch", attempt.requested_at, f"{attempt.source} is asked again")
            else:
                what = f"{attempt.difference} {attempt.currency} is posted to {attempt.source} under key {attempt.id}"
                await _log(connection, attempt, "post_adjustment", attempt.requested_at, what)
        return True

    async def accepted(self, attempt: Attempt, said: str, validate_by: datetime) -> None:
        """See `CorrectionStore`."""
        values = {"state": "waiting", "detail": said, "validate_by": validate_by}
        async with self._database.transaction(attempt.org) as connection:
            await connection.execute(_open(attempt).values(values))

    async def finish(self, attempt: Attempt, verdict: Verdict, at: datetime) -> None:
        """See `CorrectionStore`."""
        values = {
            "state": "succeeded" if verdict.succeeded else "failed",
            "outcome": verdict.outcome,
            "detail": verdict.detail,
            "finished_at": at,
        }
        async with self._database.transaction(attempt.org) as connection:
            changed = await connection.execute(_open(attempt).values(values))
            if changed.rowcount:
                name: ActionName = "correction_succeeded" if verdict.succeeded else "correction_failed"
                await _log(connection, attempt, name, at, verdict.detail, reason=verdict.outcome)

    async def unfinished(self, limit: int) -> Sequence[Waiting]:
        """See `CorrectionStore`."""
        o = corrections.c
        query = select(*_ATTEMPT).where(o.finished_at.is_(None)).order_by(o.requested_at).limit(limit)
        async with self._database.transaction(EVERY_ORG) as connection:
            attempts = [_attempt(row) for row in (await connection.execute(query)).mappings()]
            if not attempts:
                return []
            ids = [attempt.discrepancy_id for attempt in attempts]
            rows = await connection.execute(select(*_FOUND).where(discrepancies.c.id.in_(ids)))
            found = {row["id"]: row for row in rows.mappings()}
            return [
                Waiting(attempt, discrepancy_of(row), standing_of(row), await _fresh(connection, attempt))
                for attempt in attempts
                # A rebuild from the topics may not have come to it yet.
                if (row := found.get(attempt.discrepancy_id)) is not None
            ]

    async def posted_since(self, org: str, since: datetime) -> int:
        """See `CorrectionStore`."""
        o = corrections.c
        query = select(func.count()).where(o.org == org, o.action == "adjust", o.requested_at >= since)
        async with self._database.transaction(org) as connection:
            return int((await connection.execute(query)).scalar_one())

    async def figures(
        self, org: str | None, since: datetime, until: datetime | None = None, pack: str | None = None
    ) -> Sequence[CorrectionFigures]:
        """See `CorrectionStore`."""
        async with self._database.transaction(org or EVERY_ORG) as connection:
            return await correction_figures(connection, org, since, until, pack)

    async def attempts(
        self,
        org: str,
        *,
        after: Place | None,
        limit: int,
        discrepancy_id: str | None = None,
        action: ActionKind | None = None,
        state: AttemptState | None = None,
    ) -> Sequence[Attempt]:
        """See `CorrectionStore`."""
        o = corrections.c
        query = select(*_ATTEMPT).where(o.org == org)
        for column, value in ((o.discrepancy_id, discrepancy_id), (o.action, action), (o.state, state)):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(tuple_(o.requested_at, o.id) < after)
        query = query.order_by(o.requested_at.desc(), o.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            return [_attempt(row) for row in (await connection.execute(query)).mappings()]


async def correction_figures(
    connection: AsyncConnection, org: str | None, since: datetime, until: datetime | None, pack: str | None
) -> list[CorrectionFigures]:
    """Return how attempts that finished in [since, until) fared; a run asks in its own transaction."""
    o = corrections.c
    wanted: list[ColumnElement[bool]] = [o.finished_at >= since]
    if until is not None:
        wanted.append(o.finished_at < until)
    wanted += [column == value for column, value in ((o.org, org), (o.pack, pack)) if value is not None]
    query: Select[Any] = (
        select(o.action, o.outcome, func.count().label("many")).where(and_(*wanted)).group_by(o.action, o.outcome)
    )
    return figures({(row.action, row.outcome): row.many for row in await connection.execute(query)})


async def _fresh(connection: AsyncConnection, attempt: Attempt) -> Fresh | None:
    """Return the newest verdict on a reading that was made for the attempt."""
    if attempt.action != "refetch":
        return None
    row = await _last_reading(connection, attempt)
    if row is None or row.as_of < attempt.requested_at - CLOCK_MARGIN:
        return None
    if attempt.read_as_of is not None and row.as_of <= attempt.read_as_of:
        return None
    difference = None if row.difference is None else format_amount(row.difference, row.currency)
    return Fresh(as_of=row.as_of, result=row.result, difference=difference, cause=row.cause)


async def _last_reading(connection: AsyncConnection, attempt: Attempt) -> Any:
    """Return the newest verdict on the account of an attempt; of one in error the currency may not be known."""
    c = checks.c
    query = (
        select(c.as_of, c.result, c.difference, c.currency, c.cause)
        .where(
            c.org == attempt.org,
            c.rule == attempt.rule,
            c.key == literal(attempt.key, JSONB),
            c.result.in_(_JUDGED),
            (c.currency == attempt.currency) | c.currency.is_(None),
        )
        .order_by(c.as_of.desc(), c.log_time.desc(), c.log_offset.desc())
        .limit(1)
    )
    return (await connection.execute(query)).first()


def _open(attempt: Attempt) -> Any:
    """What is finished stays as it is."""
    return update(corrections).where(corrections.c.id == attempt.id, corrections.c.finished_at.is_(None))


async def _log(
    connection: AsyncConnection,
    attempt: Attempt,
    action: ActionName,
    at: datetime,
    notes: str,
    reason: str | None = None,
) -> None:
    d = discrepancies.c
    standing = (
        await connection.execute(
            select(d.status, d.revision).where(d.org == attempt.org, d.id == attempt.discrepancy_id)
        )
    ).one()
    await connection.execute(
        insert(action_log).values(
            org=attempt.org,
            discrepancy_id=attempt.discrepancy_id,
            at=at,
            actor=ACTOR,
            action=action,
            from_status=standing.status,
            to_status=standing.status,
            reason=reason,
            notes=notes,
            revision=standing.revision,
        )
    )


def _attempt(row: Row) -> Attempt:
    values = {name: row[name] for name in Attempt.__struct_fields__}
    values["key"] = read_key(row["key"])
    values["body"] = None if row["body"] is None else msgspec.json.decode(row["body"])
    values["difference"] = None if row["difference"] is None else format(row["difference"], "f")
    return Attempt(**values)
