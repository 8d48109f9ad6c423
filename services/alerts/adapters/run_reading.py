"""What a run reads of PostgreSQL: item revisions, discrepancy revisions, verdicts and progress, as of one log time."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Table, Text, cast, func, or_, select, union_all
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.correction_store import correction_figures
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
from services.alerts.domain.figures import NotReconciled
from services.alerts.domain.history import DiscrepancyHistory, ItemState, item_state, transitions
from services.alerts.domain.report import PriorRun, Reading, RuleSides, rule_order, told_until
from services.alerts.ports.runs import Run
from shared.contracts.discrepancy import Key, LogPosition
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide
from shared.money import NO_CURRENCY

ROWS_AT_ONCE: Final = 2_000
"""Rows fetched at a time: a large month must not stand in memory twice."""
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
_decode_sides = msgspec.json.Decoder(dict[str, ItemSide | None]).decode
_decode_raised = msgspec.json.Decoder(list[ItemDiscrepancy]).decode
_decode_key = msgspec.json.Decoder(Key).decode


class RunReading:
    """Everything that a run is made of, read in one transaction."""

    def __init__(self, connection: AsyncConnection, run: Run, prior: Sequence[PriorRun]) -> None:
        self._connection = connection
        self.run = run
        self._prior = prior

    async def read(self) -> tuple[Sequence[RuleSides], Reading] | None:
        """See `ports.runs.RunInHand.reading`."""
        stored_until = await _progress(self._connection)
        if stored_until is None:
            return None
        # Log time may stand still for several results, so only what is before it is known to be whole.
        at = stored_until - LOG_TIME_STEP
        faults: dict[str, str] = {}
        found = await self._items(at, min([at, *told_until(self._prior).values()]), faults)
        histories = await self._histories(at, faults)
        reading = Reading(
            at=at,
            progress=stored_until,
            items=found,
            discrepancies=histories,
            prior_runs=self._prior,
            not_reconciled=await self._not_reconciled(at),
            verdicts=await self._verdicts(at),
            faults=faults,
            corrections=await correction_figures(
                self._connection, self.run.org, self.run.period.start, self.run.period.end, self.run.pack
            ),
        )
        return await self._rules(found, histories), reading

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
        earlier = select(*revision_columns(item_revisions)).join(chosen, chosen.c.id == item_revisions.c.id)
        present = select(*revision_columns(items)).join(chosen, chosen.c.id == items.c.id)
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
                    found[-1].append(item_state(read_item(row)))
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


def revision_columns(table: Table) -> list[ColumnElement[Any]]:
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


def read_item(row: Any) -> Item:
    """Read a row of `revision_columns`; raises one of `UNREADABLE`."""
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
