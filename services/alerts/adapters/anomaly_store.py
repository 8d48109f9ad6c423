"""Histories of drifts, baselines and anomalies in PostgreSQL. The history is bounded: eight weeks of hours, some accounts."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from sqlalchemy import Text, and_, cast, delete, func, insert, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import anomalies, baselines, checks, drift_hours, outbox, runs, webhook_endpoints
from services.alerts.domain.anomaly import Family, Series, Standing, compose
from services.alerts.domain.baseline import HISTORY
from services.alerts.ports.anomalies import History
from shared.contracts.anomaly import Anomaly, AnomalyKind
from shared.contracts.discrepancy import SEVERITIES

WATCHER_LOCK: Final = 0x616E6F6D
"""First half of the advisory lock of the one process that looks; the second is 0."""
ACCOUNTS_MAX: Final = 1_000
"""Accounts of one rule whose hours are taken in; where there are more, those that drift most."""
LATE: Final = timedelta(hours=3)
"""How far back hours are read again: a reading may be judged, or judged again, after its hour has ended."""
ROLL_UP_MAX: Final = timedelta(days=7)
"""Of one round: a first start does not read two months at once."""
KEPT: Final = timedelta(days=400)
"""How long closed anomalies are kept: last year's season can be looked up."""
MESSAGE_TYPE: Final = "Anomaly"
"""What an endpoint names in its `types` to hear of anomalies; one without types hears of everything."""

_read = msgspec.json.Decoder(Anomaly).decode
_FAMILY: Final[Mapping[str, Family]] = {"unusual": "level", "level_shift": "level", "trend": "trend"}
_series = (drift_hours.c.rule, drift_hours.c.account, drift_hours.c.currency)

# One row per account, currency and hour: its last reading's last verdict. A key of several fields is joined as people see it.
_ROLL_UP = text("""
WITH read AS (
    SELECT DISTINCT ON (c.key, coalesce(c.currency, ''), date_trunc('hour', c.as_of, 'UTC'))
           c.pack, coalesce(c.currency, '') AS currency, date_trunc('hour', c.as_of, 'UTC') AS hour, c.difference,
           CASE jsonb_typeof(c.key) WHEN 'string' THEN c.key #>> '{}'
                ELSE (SELECT string_agg(part, ' / ') FROM jsonb_array_elements_text(c.key) AS part) END AS account
    FROM checks c
    WHERE c.org = :org AND c.rule = :rule AND c.as_of >= :since AND c.as_of < :until AND c.difference IS NOT NULL
      AND c.result IN ('passed', 'failed') AND NOT c.shadow
    ORDER BY c.key, coalesce(c.currency, ''), date_trunc('hour', c.as_of, 'UTC'), c.as_of DESC, c.log_time DESC, c.log_offset DESC
), chosen AS (
    SELECT account, currency FROM read GROUP BY account, currency ORDER BY max(abs(difference)) DESC, account LIMIT :most
)
INSERT INTO drift_hours (org, rule, account, currency, hour, pack, value)
SELECT :org, :rule, r.account, r.currency, r.hour, r.pack, r.difference FROM read r JOIN chosen USING (account, currency)
ON CONFLICT (org, rule, account, currency, hour) DO UPDATE SET value = excluded.value
WHERE drift_hours.value <> excluded.value
""")


class PostgresAnomalies:
    """See `ports.anomalies.AnomalyStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def watcher(self) -> AsyncIterator[bool]:
        """See `AnomalyStore`; the lock is a transaction's, so a process that dies lets go of it."""
        async with self._database.transaction(EVERY_ORG) as connection:
            lock = select(func.pg_try_advisory_xact_lock(WATCHER_LOCK, 0))
            yield bool((await connection.execute(lock)).scalar_one())

    async def roll_up(self, org: str, rule: str, now: datetime) -> None:
        """See `AnomalyStore`."""
        oldest = now - HISTORY
        async with self._database.transaction(org) as connection:
            last = await self._rolled_up(connection, org, rule)
            # From the first reading that was not taken in: before it there may be weeks without any.
            c, new = checks.c, oldest if last is None else max(oldest, last + timedelta(hours=1))
            first = select(func.min(c.as_of)).where(c.org == org, c.rule == rule, c.as_of >= new)
            begun = (await connection.execute(first)).scalar_one() or new
            values = {"org": org, "rule": rule, "since": new - LATE, "until": begun + ROLL_UP_MAX, "most": ACCOUNTS_MAX}
            await connection.execute(_ROLL_UP, values)
            await connection.execute(delete(drift_hours).where(drift_hours.c.org == org, drift_hours.c.hour < oldest))

    async def _rolled_up(self, connection: AsyncConnection, org: str, rule: str) -> datetime | None:
        last = select(func.max(drift_hours.c.hour)).where(drift_hours.c.org == org, drift_hours.c.rule == rule)
        hour: datetime | None = (await connection.execute(last)).scalar_one()
        return hour

    async def roll_up_checks(self, org: str, now: datetime) -> None:
        """See `AnomalyStore`; a check in error says nothing about how much differs."""
        r, oldest = runs.c, now - HISTORY
        query = (
            select(r.pack, r.period_start, r.summary)
            .where(r.org == org, r.run_type == "hourly", r.counted_at.is_not(None), r.period_start >= now - ROLL_UP_MAX)
            .order_by(r.period_start)
        )
        async with self._database.transaction(org) as connection:
            known = await self._known_checks(connection, org)
            rows: dict[tuple[str, ...], dict[str, Any]] = {}
            for run in await connection.execute(query):
                for check in (run.summary or {}).get("checks", []):
                    if check["outcome"] == "error":
                        continue
                    rule = f"{run.pack}.{check['check_type']}"
                    known[rule] |= set(check["discrepancy"])
                    for currency in known[rule]:
                        hour = run.period_start.replace(minute=0, second=0, microsecond=0)
                        value = Decimal(check["discrepancy"].get(currency, "0"))
                        rows[rule, currency, str(hour)] = {
                            "org": org, "rule": rule, "account": "", "currency": currency, "hour": hour, "pack": run.pack,
                            "value": value,
                        }  # fmt: skip
            if rows:
                statement = upsert(drift_hours)
                statement = statement.on_conflict_do_update(
                    constraint=drift_hours.primary_key,
                    set_={"value": statement.excluded.value},
                    where=drift_hours.c.value != statement.excluded.value,
                )
                await connection.execute(statement, list(rows.values()))
            await connection.execute(delete(drift_hours).where(drift_hours.c.org == org, drift_hours.c.hour < oldest))

    async def _known_checks(self, connection: AsyncConnection, org: str) -> defaultdict[str, set[str]]:
        """Currencies in which a check has ever differed: from then on an hour without a difference is a zero."""
        query = select(drift_hours.c.rule, drift_hours.c.currency).distinct()
        known: defaultdict[str, set[str]] = defaultdict(set)
        for row in await connection.execute(query.where(drift_hours.c.org == org, drift_hours.c.account == "")):
            known[row.rule].add(row.currency)
        return known

    async def changed(self, org: str, now: datetime, limit: int) -> Sequence[Series]:
        """See `AnomalyStore`."""
        d, b = drift_hours.c, baselines.c
        newest = (
            select(*_series, func.max(d.pack).label("pack"), func.max(d.hour).label("hour"))
            .where(d.org == org)
            .group_by(*_series)
            .subquery()
        )
        query = (
            select(newest, b.looked_at)
            .outerjoin(
                baselines,
                and_(
                    b.org == org,
                    b.rule == newest.c.rule,
                    b.account == newest.c.account,
                    b.currency == newest.c.currency,
                ),
            )
            # The hours that go on are looked at again: their last reading may be another one by now.
            .where(or_(b.last_at.is_(None), newest.c.hour > b.last_at, newest.c.hour >= now - LATE))
            .order_by(b.looked_at.asc().nulls_first(), newest.c.rule, newest.c.account, newest.c.currency)
            .limit(limit)
        )
        async with self._database.transaction(org) as connection:
            return [
                Series(org=org, pack=row.pack, rule=row.rule, account=row.account, currency=row.currency)
                for row in await connection.execute(query)
            ]

    async def history(self, series: Sequence[Series]) -> Sequence[History]:
        """See `AnomalyStore`."""
        if not series:
            return []
        org = series[0].org
        names = [(one.rule, one.account, one.currency) for one in series]
        d, a = drift_hours.c, anomalies.c
        hour = func.extract("epoch", d.hour) / 3_600
        points = (
            select(*_series, func.array_agg(hour).label("hours"), func.array_agg(d.value).label("drifts"))
            .where(d.org == org, tuple_(*_series).in_(names))
            .group_by(*_series)
        )
        standing = select(a.rule, a.account, a.currency, a.family, cast(a.body, Text).label("body")).where(
            a.org == org, a.state == "open", tuple_(a.rule, a.account, a.currency).in_(names)
        )
        async with self._database.transaction(org) as connection:
            opened: defaultdict[tuple[str, str, str], dict[Family, Anomaly]] = defaultdict(dict)
            for row in await connection.execute(standing):
                opened[row.rule, row.account, row.currency][row.family] = _read(row.body)
            read = {(row.rule, row.account, row.currency): row for row in await connection.execute(points)}
        found: list[History] = []
        for one, name in zip(series, names, strict=True):
            point = read.get(name)
            if point is None:
                continue
            ordered = sorted(zip(map(int, point.hours), map(float, point.drifts), strict=True))
            found.append(History(one, [hour for hour, _ in ordered], [value for _, value in ordered], opened[name]))
        return found

    async def save(
        self, standings: Sequence[Standing], anomalies: Sequence[Anomaly], news: Sequence[Anomaly], now: datetime
    ) -> None:
        """See `AnomalyStore`."""
        if not standings:
            return
        org = standings[0].series.org
        async with self._database.transaction(org) as connection:
            await connection.execute(_put_baselines(), [_baseline_row(one, now) for one in standings])
            for one in anomalies:
                await _put_anomaly(connection, one)
            await _forget(connection, org, now)
            if news:
                await _tell(connection, org, news, now)

    async def anomalies(
        self,
        org: str,
        *,
        state: str | None,
        kind: AnomalyKind | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> Sequence[Anomaly]:
        """See `AnomalyStore`."""
        a = anomalies.c
        query = select(cast(a.body, Text)).where(a.org == org)
        if state is not None:
            query = query.where(a.state == state)
        if kind is not None:
            query = query.where(a.kind == kind)
        if after is not None:
            query = query.where(tuple_(a.raised_at, a.id) < after)
        query = query.order_by(a.raised_at.desc(), a.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            return [_read(body) for body in (await connection.execute(query)).scalars()]

    async def standings(
        self, org: str, *, state: str | None, after: Sequence[str] | None, limit: int
    ) -> Sequence[Standing]:
        """See `AnomalyStore`."""
        b = baselines.c
        query = select(baselines).where(b.org == org)
        if state is not None:
            query = query.where(b.state == state)
        if after is not None:
            query = query.where(tuple_(b.rule, b.account, b.currency) > tuple(after))
        query = query.order_by(b.rule, b.account, b.currency).limit(limit)
        async with self._database.transaction(org) as connection:
            return [_standing(row) for row in await connection.execute(query)]

    async def counts(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """See `AnomalyStore`."""
        a, b = anomalies.c, baselines.c
        opened = select(a.kind, func.count().label("many")).where(a.state == "open").group_by(a.kind)
        watched = select(b.state, func.count().label("many")).group_by(b.state)
        async with self._database.transaction(EVERY_ORG) as connection:
            return (
                {row.kind: row.many for row in await connection.execute(opened)},
                {row.state: row.many for row in await connection.execute(watched)},
            )


def _put_baselines() -> Any:
    statement = upsert(baselines)
    names = [column.name for column in baselines.c if not column.primary_key]
    return statement.on_conflict_do_update(
        constraint=baselines.primary_key, set_={name: statement.excluded[name] for name in names}
    )


def _baseline_row(one: Standing, now: datetime) -> dict[str, Any]:
    return {
        "org": one.series.org,
        "rule": one.series.rule,
        "account": one.series.account,
        "currency": one.series.currency,
        "pack": one.series.pack,
        "state": one.state,
        "points": one.points,
        "last_at": one.last_at,
        "expected": one.expected,
        "seen": one.seen,
        "usual_width": one.usual_width,
        "tolerance": one.tolerance,
        "critical": one.critical,
        "sentence": one.sentence,
        "looked_at": now,
    }


async def _put_anomaly(connection: AsyncConnection, one: Anomaly) -> None:
    values = {
        "org": one.org,
        "rule": one.rule,
        "account": one.account or "",
        "currency": one.currency,
        "family": _FAMILY[one.kind],
        "kind": one.kind,
        "state": one.state,
        "raised_at": one.raised_at,
        "closed_at": one.closed_at,
        "body": msgspec.to_builtins(one),
    }
    changing = {name: values[name] for name in ("kind", "state", "closed_at", "body")}
    statement = upsert(anomalies).values(id=one.id, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changing))


async def _forget(connection: AsyncConnection, org: str, now: datetime) -> None:
    """Forget accounts whose history has ended, with what was open about them, and anomalies of long ago."""
    b, a = baselines.c, anomalies.c
    gone = b.last_at < now - HISTORY
    ended = select(b.rule, b.account, b.currency).where(b.org == org, gone)
    await connection.execute(
        delete(anomalies).where(
            a.org == org,
            or_(a.closed_at < now - KEPT, tuple_(a.rule, a.account, a.currency).in_(ended) & (a.state == "open")),
        )
    )
    await connection.execute(delete(baselines).where(b.org == org, gone))


async def _tell(connection: AsyncConnection, org: str, news: Sequence[Anomaly], now: datetime) -> None:
    """Leave a message for every endpoint that wants it; the dispatcher sends it as every other."""
    e = webhook_endpoints.c
    query = select(e.id, e.types, e.severity_min).where(e.org == org, e.disabled_at.is_(None))
    endpoints = (await connection.execute(query)).all()
    for one in news:
        for endpoint in endpoints:
            if endpoint.types and MESSAGE_TYPE not in endpoint.types:
                continue
            if SEVERITIES.index(one.severity) < SEVERITIES.index(endpoint.severity_min):
                continue
            message = compose(endpoint.id, one, now)
            await connection.execute(
                insert(outbox).values(org=org, endpoint_id=endpoint.id, **msgspec.structs.asdict(message))
            )


def _standing(row: Any) -> Standing:
    return Standing(
        series=Series(org=row.org, pack=row.pack, rule=row.rule, account=row.account, currency=row.currency),
        state=row.state,
        points=row.points,
        last_at=row.last_at.astimezone(UTC),
        expected=row.expected,
        seen=row.seen,
        usual_width=row.usual_width,
        tolerance=row.tolerance,
        critical=row.critical,
        sentence=row.sentence,
    )
