"""Budgets in PostgreSQL: one transaction per call, under the lock of the budget's row, with its events for the engine."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import RowMapping, Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import (
    budget_calls,
    budget_reconciliation,
    budget_usage,
    budgets,
    odometer_readings,
    orgs,
    topic_outbox,
)
from services.alerts.domain import budget_events
from services.alerts.domain.budget import Budget, CallConflict, Entry, State, after, follow
from services.alerts.domain.budget_health import Recorded
from services.alerts.domain.odometer import Reading
from services.alerts.ports.budgets import Call, Moved, Odometer, Usage
from shared.contracts.inbox import RowReceived, encode_inbox
from shared.ids import canonical

_TICK = timedelta(microseconds=1)
# One statement, so one moment: a row that is added meanwhile must not stand in one sum only.
_STATES = text("""
    SELECT b.budget, b.provider, b.currency, b.total, b.opening, b.plug_warn, b.plug_critical, b.created_at,
           last.id AS last_id, last.budget_after, last.created_at AS last_at,
           (SELECT coalesce(sum(u.amount), 0) FROM budget_usage u
            WHERE u.org = b.org AND u.budget = b.budget AND u.since = coalesce(last.id, 0)) AS untaken,
           coalesce(sums.tracked, 0) AS tracked, coalesce(sums.plugged, 0) AS plugged
    FROM budgets b
    CROSS JOIN LATERAL (SELECT sum(api_usage_tracked) AS tracked, sum(manual_plug_amount) AS plugged, max(id) AS id
                        FROM budget_reconciliation r WHERE r.org = b.org AND r.budget = b.budget) AS sums
    LEFT JOIN budget_reconciliation last ON last.id = sums.id
    WHERE b.org = :org AND (CAST(:budget AS text) IS NULL OR b.budget = :budget)
    ORDER BY b.created_at, b.budget""")
_ODOMETER_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('odometer ' || :org || ' ' || :provider, 0))")


class PostgresBudgets:
    """`BudgetStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, org: str, budget: Budget) -> bool:
        row = insert(budgets).values(org=org, **msgspec.structs.asdict(budget)).on_conflict_do_nothing()
        async with self._database.transaction(org) as connection:
            return bool((await connection.execute(row.returning(budgets.c.budget))).first())

    async def set_thresholds(self, org: str, budget: str, warn: Decimal | None, critical: Decimal | None) -> bool:
        c = budgets.c
        change = update(budgets).where(c.org == org, c.budget == budget).values(plug_warn=warn, plug_critical=critical)
        async with self._database.transaction(org) as connection:
            return bool((await connection.execute(change.returning(c.budget))).first())

    async def has_budgets(self) -> bool:
        async with self._database.transaction(EVERY_ORG) as connection:
            return bool((await connection.execute(select(budgets.c.budget).limit(1))).first())

    async def states(self, org: str, budget: str | None = None) -> Sequence[State]:
        async with self._database.transaction(org) as connection:
            found = await connection.execute(_STATES, {"org": org, "budget": budget})
            return [_state(row) for row in found.mappings()]

    async def move(
        self, org: str, budget: str | None, call: Call, decide: Callable[[State], Sequence[Entry]]
    ) -> Moved | None:
        async with self._database.transaction(org) as connection:
            held = await _lock(connection, org, budget)
            if held is None:
                return None
            state, _, last_at = held
            name = state.budget.budget
            before = await _repeated(connection, org, name, call)
            if before is not None:
                return Moved(state=state, rows=before, repeated=True)
            # Rows of one budget have the order of their times, whichever clock wrote them.
            at = call.at if last_at is None else max(call.at, last_at + _TICK)
            rows: list[Recorded] = []
            for entry in decide(state):
                rows.append(await _add(connection, org, state.budget, entry, call, at))
                await _tell(connection, org, budget_events.of_entry(state.budget, rows[-1].id, entry, at))
                state = after(state, entry)
                at += _TICK
            await connection.execute(
                insert(budget_calls).values(
                    org=org,
                    budget=name,
                    idempotency_key=call.idempotency_key,
                    request=call.request,
                    first_id=rows[0].id if rows else None,
                    last_id=rows[-1].id if rows else None,
                    actor=call.actor,
                    at=call.at,
                )
            )
        return Moved(state=state, rows=rows, repeated=False)

    async def track(
        self, org: str, budget: str | None, usages: Sequence[Usage], at: datetime
    ) -> tuple[State, int] | None:
        async with self._database.transaction(org) as connection:
            held = await _lock(connection, org, budget)
            if held is None:
                return None
            state, last_id, last_at = held
            # Later than the last row, as for the sums: rules hold the movement's time against the console's reading.
            at = at if last_at is None else max(at, last_at + _TICK)
            new = 0
            for usage in usages:
                after_it = follow(state, usage.amount)
                if not await _first_time(connection, org, state.budget.budget, usage, at, last_id):
                    continue
                state = after_it
                new += 1
                await _tell(connection, org, [budget_events.of_usage(state.budget, usage.id, usage.amount, at)])
        return state, new

    async def history(
        self, org: str, budget: str | None, since: datetime | None, before_id: int | None, limit: int
    ) -> Sequence[Recorded]:
        c = budget_reconciliation.c
        query = _rows(org)
        if budget is not None:
            query = query.where(c.budget == budget)
        if since is not None:
            query = query.where(c.created_at >= since)
        if before_id is not None:
            query = query.where(c.id < before_id)
        async with self._database.transaction(org) as connection:
            found = await connection.execute(query.order_by(c.id.desc()).limit(limit))
            return [_recorded(row) for row in found.mappings()]

    async def zone(self, org: str) -> str:
        async with self._database.transaction(org) as connection:
            return await _zone(connection, org)

    async def odometers(self, org: str) -> Mapping[str, Odometer]:
        async with self._database.transaction(org) as connection:
            return await _odometers(connection, org)

    async def read_odometer(
        self, org: str, provider: str, currency: str, decide: Callable[[Sequence[Reading]], Reading]
    ) -> Odometer:
        async with self._database.transaction(org) as connection:
            await connection.execute(_ODOMETER_LOCK, {"org": org, "provider": provider})
            known = (await _odometers(connection, org, provider)).get(provider)
            if known is not None and known.currency != currency:
                raise CallConflict(f"currency: the odometer of {provider} counts {known.currency}, not {currency}")
            before = [] if known is None else list(known.readings)
            reading = decide(before)
            values = {name: value for name, value in msgspec.structs.asdict(reading).items() if name != "id"}
            added = insert(odometer_readings).values(org=org, provider=provider, currency=currency, **values)
            id_ = (await connection.execute(added.returning(odometer_readings.c.id))).scalar_one()
            reading = msgspec.structs.replace(reading, id=id_)
            await _tell(connection, org, [budget_events.of_reading(provider, currency, reading)])
        return Odometer(provider=provider, currency=currency, readings=[*before, reading])


async def _lock(connection: AsyncConnection, org: str, budget: str | None) -> tuple[State, int, datetime | None] | None:
    """The state with the id and the time of its last row; looked at once the lock is held, after everybody before."""
    c = budgets.c
    query = select(c.budget).where(c.org == org).order_by(c.created_at, c.budget).limit(1)
    if budget is not None:
        query = query.where(c.budget == budget)
    name = (await connection.execute(query.with_for_update())).scalar_one_or_none()
    if name is None:
        return None
    row = (await connection.execute(_STATES, {"org": org, "budget": name})).mappings().one()
    return _state(row), row["last_id"] or 0, row["last_at"]


async def _repeated(connection: AsyncConnection, org: str, budget: str, call: Call) -> Sequence[Recorded] | None:
    if call.idempotency_key is None:
        return None
    c = budget_calls.c
    query = select(budget_calls).where(c.org == org, c.budget == budget, c.idempotency_key == call.idempotency_key)
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        return None
    if row["request"] != call.request:
        raise CallConflict(
            f"idempotency_key: {call.idempotency_key!r} was used for another call of {budget} at {row['at']:%Y-%m-%d %H:%M} "
            "UTC; take a new key for a new call"
        )
    if row["first_id"] is None:
        return []
    ids = budget_reconciliation.c.id
    made = _rows(org).where(budget_reconciliation.c.budget == budget, ids.between(row["first_id"], row["last_id"]))
    return [_recorded(found) for found in (await connection.execute(made.order_by(ids))).mappings()]


async def _add(
    connection: AsyncConnection, org: str, budget: Budget, entry: Entry, call: Call, at: datetime
) -> Recorded:
    if entry.total != budget.total:
        c = budgets.c
        await connection.execute(
            update(budgets).where(c.org == org, c.budget == budget.budget).values(total=entry.total)
        )
    values = {name: value for name, value in msgspec.structs.asdict(entry).items() if name != "total"}
    day = at.astimezone(ZoneInfo(await _zone(connection, org))).date()
    row = insert(budget_reconciliation).values(
        reconciliation_date=day,
        reconciled_by=call.reconciled_by,
        created_at=at,
        org=org,
        budget=budget.budget,
        provider=budget.provider,
        currency=budget.currency,
        **values,
    )
    id_ = (await connection.execute(row.returning(budget_reconciliation.c.id))).scalar_one()
    return Recorded(
        id=id_,
        reconciliation_date=day.isoformat(),
        reconciled_by=call.reconciled_by,
        created_at=at,
        budget=budget.budget,
        provider=budget.provider,
        currency=budget.currency,
        actor=call.actor,
        **values,
    )


async def _first_time(
    connection: AsyncConnection, org: str, budget: str, usage: Usage, at: datetime, since: int
) -> bool:
    values = {"org": org, "budget": budget, "tracked_at": at, "since": since, **msgspec.structs.asdict(usage)}
    row = insert(budget_usage).values(values).on_conflict_do_nothing().returning(budget_usage.c.id)
    if (await connection.execute(row)).first() is not None:
        return True
    c = budget_usage.c
    known = select(c.amount, c.occurred_at).where(c.org == org, c.budget == budget, c.id == usage.id)
    amount, occurred_at = (await connection.execute(known)).one()
    if (amount, occurred_at) != (usage.amount, usage.occurred_at):
        raise CallConflict(
            f"id: usage {usage.id!r} of {budget} is known as {amount:f}{_when(occurred_at)}; usage is never "
            "changed, reconcile the difference with its reason"
        )
    return False


def _when(at: datetime | None) -> str:
    return "" if at is None else f" at {at.isoformat()}"


async def _tell(connection: AsyncConnection, org: str, events: Sequence[budget_events.Event]) -> None:
    for event in events:
        row = RowReceived(org=org, row=msgspec.json.encode(event))
        key = canonical([org, event["source"], event["id"]])
        await connection.execute(insert(topic_outbox).values(org=org, topic="inbox", key=key, value=encode_inbox(row)))


async def _zone(connection: AsyncConnection, org: str) -> str:
    zone = (await connection.execute(select(orgs.c.zone).where(orgs.c.org == org))).scalar_one_or_none()
    return zone or "UTC"


async def _odometers(connection: AsyncConnection, org: str, provider: str | None = None) -> dict[str, Odometer]:
    c = odometer_readings.c
    query = select(odometer_readings).where(c.org == org).order_by(c.provider, c.id)
    if provider is not None:
        query = query.where(c.provider == provider)
    by_provider: dict[str, tuple[str, list[Reading]]] = {}
    for row in (await connection.execute(query)).mappings():
        reading = Reading(**{name: row[name] for name in Reading.__struct_fields__})
        by_provider.setdefault(row["provider"], (row["currency"], []))[1].append(reading)
    return {
        name: Odometer(provider=name, currency=currency, readings=readings)
        for name, (currency, readings) in by_provider.items()
    }


def _rows(org: str) -> Select[tuple[object, ...]]:
    c, calls = budget_reconciliation.c, budget_calls.c
    actor = (
        select(func.max(calls.actor))
        .where(calls.org == c.org, calls.budget == c.budget, calls.first_id <= c.id, calls.last_id >= c.id)
        .scalar_subquery()
    )
    return select(*c, actor.label("actor")).where(c.org == org)


def _recorded(row: RowMapping) -> Recorded:
    values = {name: row[name] for name in Recorded.__struct_fields__}
    return Recorded(
        **values
        | {"reconciliation_date": row["reconciliation_date"].isoformat(), "actor": row["actor"] or row["reconciled_by"]}
    )


def _state(row: RowMapping) -> State:
    budget = Budget(**{name: row[name] for name in Budget.__struct_fields__})
    return State(
        budget=budget,
        recorded=budget.opening if row["last_id"] is None else row["budget_after"],
        untaken=row["untaken"],
        tracked=row["tracked"],
        plugged=row["plugged"],
    )
