"""Items and readings of a run's period in PostgreSQL, as they stood at the run's log time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Double, Select, Text, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import Database
from services.alerts.adapters.run_reading import JUDGED, ROWS_AT_ONCE, UNREADABLE, read_item, revision_columns
from services.alerts.adapters.tables import checks, item_revisions, items, runs
from services.alerts.domain.drift import LINES_MAX, POINTS_MAX, Drift, DriftLine, DriftPoint
from services.alerts.ports.report_rows import UnreadableItem
from services.alerts.ports.runs import Run
from shared.contracts.discrepancy import Key
from shared.contracts.item import Item
from shared.money import NO_CURRENCY

SERIES_KINDS = frozenset({"balance", "invariant"})
"""Kinds that judge readings of the same account again and again; others judge each transaction once."""

_decode_key = msgspec.json.Decoder(Key).decode


class PostgresReportRows:
    """`ReportRows` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def items(self, run: Run) -> AsyncIterator[AsyncIterator[Item]]:
        """See `ReportRows`; the rows of one statement are of one moment, whatever the sink stores meanwhile."""
        at = run.at
        async with self._database.transaction(run.org) as connection:
            yield _none() if at is None else _items(connection, run, at)

    async def drift(self, run: Run) -> Sequence[Drift]:
        """See `ReportRows`."""
        if run.at is None:
            return []
        async with self._database.transaction(run.org) as connection:
            rules = await _rules_of_series(connection, run)
            found = [] if not rules else await _lines(connection, run, run.at, rules)
        return [
            Drift(rule, currency, lines[0][0], [line for _, line in lines])
            for (rule, currency), group in groupby(found, key=lambda one: (one[1].rule, one[1].currency))
            if (lines := list(group))
        ]


async def _none() -> AsyncIterator[Item]:
    """What a run without figures has counted."""
    nothing: tuple[Item, ...] = ()
    for item in nothing:
        yield item


async def _items(connection: AsyncConnection, run: Run, at: datetime) -> AsyncIterator[Item]:
    result = await connection.stream(_as_of(run, at), execution_options={"yield_per": ROWS_AT_ONCE})
    try:
        async for row in result:
            try:
                yield read_item(row)
            except UNREADABLE as error:
                raise UnreadableItem(f"item {row.id} cannot be read: {type(error).__name__}: {error}") from error
    finally:
        await result.close()


def _as_of(run: Run, at: datetime) -> Select[Any]:
    """The last revision up to `at` of every item that stood in the period then.

    Most have not changed since; of those that have, the earlier revision is kept apart.
    """
    mine = (items.c.org == run.org) & (items.c.pack == run.pack)
    present = select(*revision_columns(items)).where(
        mine,
        items.c.occurred_at >= run.period.start,
        items.c.occurred_at < run.period.end,
        items.c.log_time <= at,
        ~items.c.shadow,
    )
    earlier = (
        select(*revision_columns(item_revisions))
        .ext(distinct_on(item_revisions.c.id))
        .join(items, items.c.id == item_revisions.c.id)
        .where(mine, items.c.log_time > at, item_revisions.c.log_time <= at)
        .order_by(item_revisions.c.id, item_revisions.c.log_offset.desc(), item_revisions.c.revision.desc())
        .subquery()
    )
    changed = select(earlier).where(
        earlier.c.occurred_at >= run.period.start, earlier.c.occurred_at < run.period.end, ~earlier.c.shadow
    )
    whole = union_all(present, changed).subquery()
    return select(whole).order_by(whole.c.rule, whole.c.occurred_at, whole.c.id)


async def _rules_of_series(connection: AsyncConnection, run: Run) -> list[str]:
    """Return the rules whose readings follow each other: told by their kind, else by more than one reading of a key."""
    kinds = (await connection.execute(select(runs.c.expects).where(runs.c.id == run.id))).scalar_one() or {}
    if kinds:
        return sorted(name for name, kind in kinds.items() if kind in SERIES_KINDS)
    one = checks.c
    again = (
        select(one.rule)
        .where(*_of_period(run), one.entries.is_(None))
        .group_by(one.rule, one.key, one.code, one.currency)
        .having(func.count() > 1)
    )
    return sorted(set((await connection.execute(again)).scalars()))


def _of_period(run: Run) -> list[Any]:
    one = checks.c
    return [
        one.org == run.org,
        one.pack == run.pack,
        ~one.shadow,
        one.result.in_(JUDGED),
        one.difference.is_not(None),
        one.as_of >= run.period.start,
        one.as_of < run.period.end,
    ]


async def _lines(
    connection: AsyncConnection, run: Run, at: datetime, rules: Sequence[str]
) -> list[tuple[int, DriftLine]]:
    """Return (accounts of its rule and currency, line), the furthest drift of each first."""
    one = checks.c
    mine = [*_of_period(run), one.log_time <= at, one.rule.in_(rules)]
    place = (one.rule, one.currency, one.key, one.code)
    largest = func.max(func.abs(one.difference))
    by_rule = func.coalesce(one.currency, NO_CURRENCY)
    accounts = (
        select(
            *place,
            func.count().label("readings"),
            func.count().filter(one.result == "failed").label("failed"),
            largest.label("largest"),
            func.count().over(partition_by=(one.rule, by_rule)).label("accounts"),
            func.row_number().over(partition_by=(one.rule, by_rule), order_by=(largest.desc(), one.key)).label("rank"),
        )
        .where(*mine)
        .group_by(*place)
        .subquery()
    )
    chosen = (
        select(*accounts.c, accounts.c.key.cast(Text).label("key_text"))
        .where(accounts.c.rank <= LINES_MAX)
        .order_by(accounts.c.rule, func.coalesce(accounts.c.currency, NO_CURRENCY), accounts.c.rank)
    )
    found = []
    for row in (await connection.execute(chosen)).all():
        # Null is no value: `IS NOT DISTINCT FROM` finds it.
        same = [
            column.is_not_distinct_from(literal(value, column.type))
            for column, value in zip(place, (row.rule, row.currency, row.key, row.code), strict=True)
        ]
        line = DriftLine(
            rule=row.rule,
            key=_decode_key(row.key_text),
            code=row.code,
            currency=row.currency or NO_CURRENCY,
            readings=row.readings,
            failed=row.failed,
            largest=row.largest,
            points=await _points(connection, run, [*mine, *same]),
        )
        found.append((row.accounts, line))
    return found


async def _points(connection: AsyncConnection, run: Run, mine: list[Any]) -> list[DriftPoint]:
    """Return the furthest reading of each of `POINTS_MAX` parts of the period, and the last of all."""
    one = checks.c
    # Seconds as floats: they only choose which readings are drawn.
    at_s = func.extract("epoch", one.as_of).cast(Double)
    begin_s, end_s = literal(run.period.start.timestamp(), Double), literal(run.period.end.timestamp(), Double)
    part = func.width_bucket(at_s, begin_s, end_s, POINTS_MAX)
    newest = (one.as_of.desc(), one.log_time.desc(), one.log_offset.desc())
    columns = (one.as_of, one.difference, one.result)
    furthest = (
        select(*columns).ext(distinct_on(part)).where(*mine).order_by(part, func.abs(one.difference).desc(), *newest)
    )
    last = select(*columns).where(*mine).order_by(*newest).limit(1)
    rows = [*(await connection.execute(furthest)).all(), *(await connection.execute(last)).all()]
    points = {DriftPoint(row.as_of, row.difference, row.result == "failed") for row in rows}
    return sorted(points, key=lambda point: point.at)
