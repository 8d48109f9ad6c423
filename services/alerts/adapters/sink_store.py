"""The sink's tables: fenced transactions, COPY into temporary tables, then INSERT … SELECT."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from weakref import WeakSet

import asyncpg
import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.binary_copy import ITEM_COLUMNS, RECORD_COLUMNS, copy_rows, item_row, record_rows
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.rows import Row, discrepancy_of, log_of, read_item_sides, read_key, standing_of
from services.alerts.domain.moved import Holder, Holding
from services.alerts.domain.names import name_id
from services.alerts.domain.settled import StoredItem
from services.alerts.domain.triage import Standing
from services.alerts.ports.sink import (
    Fenced,
    Outgoing,
    Place,
    Span,
    StoredItemRevision,
    StoredRevision,
    Subscription,
    Writes,
)
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus, LogPosition
from shared.contracts.inbox import WithdrawRequested, encode_inbox
from shared.contracts.not_reconciled import NotReconciledEvent
from shared.ids import canonical

_json = msgspec.json.Encoder().encode


def _name(column: str, of: str = "") -> str:
    """Select a column of names the way `domain.names` writes them."""
    return f"encode(uuid_send({of}{column}), 'hex') AS {column}"


_FENCE = """
UPDATE sink_offsets s SET next_offset = b.end_ FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[])
    AS b(topic, partition, start, end_)
WHERE s.topic = b.topic AND s.partition = b.partition AND s.next_offset = b.start
RETURNING s.topic, s.partition, s.live_offset"""

_STANDINGS = """
SELECT id::text, status, state, revision, log_offset, type, expected, actual, currency, resolution, status_at,
       assignee, reason, accepted::text, reopened, shadow
FROM discrepancies WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE"""

_GROUP_ITEMS = f"""
SELECT id::text, {_name("group_id")}, revision, log_offset, status, live, discrepancies = '[]' AS quiet, sides::text, reopened_offset
FROM items WHERE group_id = ANY($1::uuid[])"""  # noqa: S608 - constants

_HOLDER = f"{_name('record_id', 'r.')}, {_name('group_id', 'r.')}, r.live, i.shadow, i.org, i.rule, i.pack, i.key::text, i.log_partition, i.log_offset, i.log_time"
# In the order of the index: neighbours are looked up together, a third faster.
_HOLDERS = f"""
SELECT {_HOLDER} FROM (SELECT * FROM unnest($1::uuid[]) AS a(record_id) ORDER BY record_id) n
CROSS JOIN LATERAL (SELECT * FROM item_records r WHERE r.record_id = n.record_id ORDER BY r.item_id LIMIT $2) r
JOIN items i ON i.id = r.item_id"""  # noqa: S608 - constants
# Of the groups that are not asked for by name, two live and one not are enough. So many more rows than groups are asked
# for hold at least as many others, and rows stay in proportion to what was asked.
_HOLDERS_AMONG = f"""
WITH asked AS (SELECT DISTINCT * FROM unnest($1::uuid[], $2::uuid[]) AS a(record_id, group_id)),
names AS (SELECT record_id, count(*) AS groups FROM asked GROUP BY record_id),
found AS (
    SELECT r.* FROM asked a JOIN item_records r ON r.record_id = a.record_id AND r.group_id = a.group_id
    UNION
    SELECT l.* FROM names n CROSS JOIN LATERAL (
        SELECT * FROM item_records r WHERE r.record_id = n.record_id AND r.live ORDER BY r.item_id LIMIT n.groups + 2) l
    UNION
    SELECT q.* FROM names n CROSS JOIN LATERAL (
        SELECT * FROM item_records r WHERE r.record_id = n.record_id AND NOT r.live ORDER BY r.item_id LIMIT n.groups + 1) q
)
SELECT {_HOLDER} FROM found r JOIN items i ON i.id = r.item_id ORDER BY r.record_id, r.item_id"""  # noqa: S608 - constants

_DISCREPANCIES = """
SELECT id::text, revision, state, org, rule, pack, type, severity, key::text, side, account, sides::text, duplicate, expected, actual,
       difference, currency, raised_at, resolved_at, resolution, expired, explanation, shadow, cause,
       explained, unexplained, log_partition, log_offset, log_time
FROM discrepancies WHERE id = ANY($1::uuid[])"""

_SUBSCRIPTIONS = """
SELECT id::text, org, types, severity_min, coalesce(hears_from, created_at) AS hears_from
FROM webhook_endpoints WHERE disabled_at IS NULL"""

_DISCREPANCY = (
    "id", "org", "group_id", "revision", "state", "status", "rule", "pack", "type", "severity", "key", "side", "account",
    "sides", "duplicate", "expected", "actual", "difference", "currency", "raised_at", "resolved_at", "resolution",
    "expired", "explanation", "shadow", "cause", "explained", "unexplained", "log_partition", "log_offset", "log_time", "assignee", "reason", "accepted",
    "reopened", "status_at",
)  # fmt: skip
_DISCREPANCY_REVISION = (
    "id", "log_offset", "revision", "log_partition", "log_time", "org", "rule", "state", "type", "severity", "expected",
    "actual", "difference", "currency", "raised_at", "resolved_at", "resolution", "expired", "explanation", "sides", "shadow",
    "cause", "explained", "unexplained",
)  # fmt: skip
_ITEM = (
    "id", "org", "group_id", "revision", "status", "rule", "pack", "key", "sides", "discrepancies", "at", "occurred_at",
    "live", "shadow", "confidence", "reasons", "log_partition", "log_offset", "log_time", "reopened_offset",
)  # fmt: skip
_ITEM_REVISION = (
    "id", "log_offset", "revision", "log_partition", "log_time", "org", "rule", "pack", "key", "status", "sides",
    "discrepancies", "at", "occurred_at", "live", "shadow", "confidence", "reasons",
)  # fmt: skip
_CHECK = (
    "id", "org", "rule", "pack", "key", "code", "result", "currency", "as_of", "expected", "actual", "difference",
    "log_partition", "log_offset", "log_time", "shadow", "cause", "explained", "unexplained", "entries", "entries_stated",
    "period", "usage", "partial",
)  # fmt: skip
_NOT_RECONCILED = ("org", "event_id", "source", "type", "occurred_at", "received_at")
_FEED = (
    "org", "source", "log_partition", "rule", "last_seen_at", "usual_silence_ms", "silent_after_ms", "silent_since",
    "waiting", "log_offset", "log_time",
)  # fmt: skip
_LOG = (
    "org", "discrepancy_id", "at", "actor", "action", "from_status", "to_status", "assignee", "reason", "notes", "revision",
)  # fmt: skip
_OUTBOX = (
    "org", "endpoint_id", "kind", "discrepancy_id", "revision", "log_offset", "message_id", "type", "severity", "payload",
    "traceparent",
)  # fmt: skip


def _list(columns: Iterable[str]) -> str:
    return ", ".join(columns)


def _move(table: str, columns: tuple[str, ...], stage: str) -> str:
    return f"INSERT INTO {table} ({_list(columns)}) SELECT {_list(columns)} FROM {stage}"  # noqa: S608 - constants


def _unless_newer(table: str, columns: tuple[str, ...]) -> str:
    sets = _list(f"{column} = EXCLUDED.{column}" for column in columns if column != "id")
    # Newer wins by place in the log first: a key that comes back after `keep` starts at revision 1 again.
    return (
        f" ON CONFLICT (id) DO UPDATE SET {sets} "
        f"WHERE ({table}.log_offset, {table}.revision) < (EXCLUDED.log_offset, EXCLUDED.revision)"
    )


_UNLESS_FEED_IS_NEWER = (
    " ON CONFLICT (org, source, log_partition) DO UPDATE SET "
    + _list(f"{column} = EXCLUDED.{column}" for column in _FEED[3:])
    + " WHERE feeds.log_offset <= EXCLUDED.log_offset"
)
_UNLESS_THERE = " ON CONFLICT DO NOTHING"
_PUT_RECORD = " ON CONFLICT (record_id, item_id) DO UPDATE SET live = EXCLUDED.live"

_STAGES = {
    "discrepancies": ", false AS last",
    "items": ", false AS last, false AS fresh",
    "item_records": "",
    "checks": "",
    "outbox": "",
}
"""Tables that are staged, and what their stage has beside their columns."""
_CREATE_STAGES = ";".join(
    f"CREATE TEMP TABLE IF NOT EXISTS stage_{table} ON COMMIT DELETE ROWS AS SELECT *{more} FROM {table} WITH NO DATA"  # noqa: S608 - constants
    for table, more in _STAGES.items()
)
_PUT_DISCREPANCIES = (
    _move("discrepancy_revisions", _DISCREPANCY_REVISION, "stage_discrepancies") + _UNLESS_THERE,
    _move("discrepancies", _DISCREPANCY, "stage_discrepancies WHERE last")
    + _unless_newer("discrepancies", _DISCREPANCY),
)
_PUT_CHECKS = _move("checks", _CHECK, "stage_checks") + _UNLESS_THERE
_PUT_OUTBOX = _move("outbox", _OUTBOX, "stage_outbox") + _UNLESS_THERE
_PUT_CHANGED_ITEMS = (
    # The revision that is overwritten goes to item_revisions by a trigger.
    _move("item_revisions", _ITEM_REVISION, "stage_items WHERE NOT last") + _UNLESS_THERE,
    _move("items", _ITEM, "stage_items WHERE last AND NOT fresh") + _unless_newer("items", _ITEM),
)
# In the order of their ids: neighbours in the index are written together, and two sinks cannot wait for each other.
_ADD_ITEMS = _move("items", _ITEM, "stage_items WHERE fresh ORDER BY id")
_ADD_RECORDS = _move("item_records", RECORD_COLUMNS, "stage_item_records ORDER BY record_id")
_COMPARED = {_ADD_ITEMS: _unless_newer("items", _ITEM), _ADD_RECORDS: _PUT_RECORD}
"""How each is ended where a row may be there already."""


class PostgresSink:
    """`SinkStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._staged: WeakSet[asyncpg.Connection[Any]] = WeakSet()
        """Connections that have their stages: these last as long as the session."""

    @asynccontextmanager
    async def transaction(self, spans: Sequence[Span]) -> AsyncIterator["PostgresSinkTransaction"]:
        try:
            async with self._database.transaction(EVERY_ORG) as connection:
                driver = await _driver(connection)
                live = await _fence(driver, spans)
                if driver not in self._staged:
                    await driver.execute(_CREATE_STAGES)
                yield PostgresSinkTransaction(driver, live)
            self._staged.add(driver)
        except asyncpg.DeadlockDetectedError as error:
            raise Fenced("another sink works on the same places") from error

    async def open_places(self, begin: Mapping[Place, int], live: Mapping[Place, int]) -> dict[Place, int]:
        rows = [(place.topic, place.partition, offset, live.get(place, 0)) for place, offset in begin.items()]
        async with self._database.transaction(EVERY_ORG) as connection:
            driver = await _driver(connection)
            await driver.executemany(
                "INSERT INTO sink_offsets (topic, partition, next_offset, live_offset) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING",
                rows,
            )
            known = await driver.fetch("SELECT topic, partition, next_offset FROM sink_offsets")
        stored = {Place(row["topic"], row["partition"]): int(row["next_offset"]) for row in known}
        return {place: stored[place] for place in begin}

    async def skip_to(self, place: Place, stored: int, begin: int) -> None:
        moved = (
            "UPDATE sink_offsets SET next_offset = :begin WHERE topic = :t AND partition = :p AND next_offset = :stored"
        )
        async with self._database.transaction(EVERY_ORG) as connection:
            values = {"begin": begin, "t": place.topic, "p": place.partition, "stored": stored}
            await connection.execute(text(moved), values)


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[Any]":
    return (await connection.get_raw_connection()).driver_connection


async def _fence(driver: "asyncpg.Connection[Any]", spans: Sequence[Span]) -> dict[Place, int]:
    rows = await driver.fetch(
        _FENCE,
        [span.place.topic for span in spans],
        [span.place.partition for span in spans],
        [span.start for span in spans],
        [span.end for span in spans],
    )
    live = {Place(row["topic"], row["partition"]): int(row["live_offset"]) for row in rows}
    taken = [span for span in spans if span.place not in live]
    if taken:
        first = taken[0]
        raise Fenced(f"{first.place.topic}[{first.place.partition}] is no longer at {first.start}: another sink has it")
    return live


class PostgresSinkTransaction:
    """`SinkTransaction` on one connection."""

    def __init__(self, driver: "asyncpg.Connection[Any]", live_offsets: Mapping[Place, int]) -> None:
        self._driver = driver
        self.live_offsets = live_offsets

    async def standings(self, ids: Collection[str]) -> dict[str, Standing]:
        rows = await self._driver.fetch(_STANDINGS, list(ids))
        return {row["id"]: standing_of(row) for row in rows}

    async def group_items(self, group_ids: Collection[str]) -> dict[str, list[StoredItem]]:
        groups: dict[str, list[StoredItem]] = {}
        for row in await self._driver.fetch(_GROUP_ITEMS, list(group_ids)):
            groups.setdefault(row["group_id"], []).append(_stored_item(row))
        return groups

    async def holders(self, record_ids: Collection[str], limit: int) -> dict[str, list[Holding]]:
        return _holdings(await self._driver.fetch(_HOLDERS, list(record_ids), limit))

    async def holders_among(self, places: Collection[tuple[str, str]]) -> dict[str, list[Holding]]:
        asked = ([record for record, _ in places], [group for _, group in places])
        return _holdings(await self._driver.fetch(_HOLDERS_AMONG, *asked))

    async def discrepancies(self, ids: Collection[str]) -> dict[str, Discrepancy]:
        return {row["id"]: discrepancy_of(row) for row in await self._driver.fetch(_DISCREPANCIES, list(ids))}

    async def subscriptions(self) -> Sequence[Subscription]:
        return [
            Subscription(
                endpoint_id=row["id"],
                org=row["org"],
                types=list(row["types"]),
                severity_min=row["severity_min"],
                hears_from=row["hears_from"],
            )
            for row in await self._driver.fetch(_SUBSCRIPTIONS)
        ]

    async def write(self, writes: Writes) -> None:
        # What is staged goes to its tables in one round trip: a batch of few rows is made of little else.
        moves: list[str] = []
        adds: Sequence[str] = ()
        if writes.revisions:
            await self._stage("discrepancies", (*_DISCREPANCY, "last"), map(_discrepancy_row, writes.revisions))
            moves += _PUT_DISCREPANCIES
        if writes.checks:
            await self._stage("checks", _CHECK, (_check_row(c.place, c.offset, c.check) for c in writes.checks))
            moves.append(_PUT_CHECKS)
        if writes.outgoing:
            await self._stage("outbox", _OUTBOX, map(_outbox_row, writes.outgoing))
            moves.append(_PUT_OUTBOX)
        if writes.items:
            await copy_rows(self._driver, "stage_items", ITEM_COLUMNS, map(_item_row, writes.items))
            fresh = [revision for revision in writes.items if revision.records is not None]
            if len(fresh) < len(writes.items):
                moves += _PUT_CHANGED_ITEMS
            if fresh:
                await copy_rows(self._driver, "stage_item_records", RECORD_COLUMNS, map(_record_rows, fresh))
                adds = (_ADD_ITEMS, _ADD_RECORDS)
        await self._move(moves, adds)
        await self._write_log(writes)
        await self._write_item_places(writes)
        await self._write_not_reconciled(writes.not_reconciled)
        await self._write_topic_outbox(writes)
        await self._write_progress(writes.progress)
        await self._write_feeds(writes.feeds)

    async def _move(self, moves: Sequence[str], adds: Sequence[str]) -> None:
        """Run `moves`, then `adds`, whose rows are believed to be new: not asking first is a third faster.

        The belief is wrong only where somebody else wrote as well, and then each row is compared with what is there.
        """
        if not adds:
            if moves:
                await self._driver.execute(";".join(moves))
            return
        try:
            await self._driver.execute(";".join([*moves, "SAVEPOINT adds", *adds, "RELEASE SAVEPOINT adds"]))
        except asyncpg.UniqueViolationError:
            compared = [add + _COMPARED[add] for add in adds]
            await self._driver.execute(";".join(["ROLLBACK TO SAVEPOINT adds", *compared, "RELEASE SAVEPOINT adds"]))

    async def _write_log(self, writes: Writes) -> None:
        if writes.log:
            rows = [
                (
                    entry.org, entry.discrepancy_id, entry.row.at, entry.row.actor, entry.row.action,
                    entry.row.from_status, entry.row.to_status, entry.row.assignee, entry.row.reason, entry.row.notes,
                    entry.row.revision,
                )
                for entry in writes.log
            ]  # fmt: skip
            await self._driver.executemany(_insert("action_log", _LOG), rows)

    async def _write_item_places(self, writes: Writes) -> None:
        if writes.repeated:
            await self._driver.executemany(
                "UPDATE items SET reopened_offset = $2 WHERE id = $1::uuid", list(writes.repeated.items())
            )
        if writes.leaves:
            await self._driver.executemany(
                "DELETE FROM item_records WHERE record_id = $1 AND item_id = $2",
                writes.leaves,
            )
        if writes.holds:
            columns = [[getattr(held, name) for held in writes.holds] for name in RECORD_COLUMNS]
            await self._driver.execute(
                f"INSERT INTO item_records ({_list(RECORD_COLUMNS)}) "  # noqa: S608 - constants
                "SELECT * FROM unnest($1::uuid[], $2::bool[], $3::uuid[], $4::uuid[], $5::text[])" + _PUT_RECORD,
                *columns,
            )

    async def _write_not_reconciled(self, events: Sequence[NotReconciledEvent]) -> None:
        if not events:
            return
        columns = [[getattr(event, name) for event in events] for name in _NOT_RECONCILED]
        await self._driver.execute(
            f"INSERT INTO not_reconciled ({_list(_NOT_RECONCILED)}) "  # noqa: S608 - constants
            "SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[]) "
            "ON CONFLICT DO NOTHING",
            *columns,
        )

    async def _write_topic_outbox(self, writes: Writes) -> None:
        rows = [_withdrawal_row(w) for w in writes.withdrawals] + [_dead_letter_row(d) for d in writes.unreadable]
        if rows:
            await self._driver.executemany(_insert("topic_outbox", ("org", "topic", "key", "value")), rows)

    async def _write_progress(self, progress: Mapping[Place, LogPosition]) -> None:
        if not progress:
            return
        await self._driver.execute(
            "INSERT INTO progress (topic, partition, log_time, log_offset) "
            "SELECT * FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::bigint[]) "
            "ON CONFLICT (topic, partition) DO UPDATE SET log_time = EXCLUDED.log_time, log_offset = EXCLUDED.log_offset "
            "WHERE progress.log_offset <= EXCLUDED.log_offset",
            [place.topic for place in progress],
            [place.partition for place in progress],
            [log.time for log in progress.values()],
            [log.offset for log in progress.values()],
        )

    async def _write_feeds(self, told: Sequence[FeedStatus]) -> None:
        if not told:
            return
        last = {(one.org, one.source, one.log.partition): one for one in told}
        rows = [
            (
                one.org, one.source, one.log.partition, one.rule, one.last_seen_at, one.usual_silence_ms,
                one.silent_after_ms, one.silent_since, one.waiting, one.log.offset, one.log.time,
            )
            for one in last.values()
        ]  # fmt: skip
        await self._driver.executemany(_insert("feeds", _FEED) + _UNLESS_FEED_IS_NEWER, rows)

    async def _stage(self, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
        """COPY `rows` into the table's stage, which is empty again after the transaction.

        They are made while PostgreSQL takes those before.
        """
        assert table in _STAGES
        await self._driver.copy_records_to_table(f"stage_{table}", records=rows, columns=list(columns))


def _insert(table: str, columns: tuple[str, ...]) -> str:
    values = _list(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({_list(columns)}) VALUES ({values})"  # noqa: S608 - constants


def _stored_item(row: Row) -> StoredItem:
    return StoredItem(
        id=row["id"],
        group_id=row["group_id"],
        revision=row["revision"],
        log_offset=row["log_offset"],
        settled=row["status"] == "matched" or (not row["live"] and row["quiet"]),
        sides=read_item_sides(row["sides"]),
        reopened_offset=row["reopened_offset"],
    )


def _holdings(rows: Iterable[Row]) -> dict[str, list[Holding]]:
    holdings: dict[str, list[Holding]] = {}
    for row in rows:
        holdings.setdefault(row["record_id"], []).append(Holding(holder=_holder(row), live=row["live"]))
    return holdings


def _holder(row: Row) -> Holder:
    return Holder(
        group_id=row["group_id"],
        org=row["org"],
        rule=row["rule"],
        pack=row["pack"],
        key=read_key(row["key"]),
        log=log_of(row),
        shadow=row["shadow"],
    )


def _number(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _discrepancy_row(revision: StoredRevision) -> tuple[Any, ...]:
    found, standing = revision.found, revision.standing
    return (
        found.id, found.org, revision.group_id, found.revision, found.state, standing.status, found.rule, found.pack,
        found.type, found.severity, _json(found.key).decode(), found.side, found.account, _json(found.sides).decode(),
        found.duplicate, found.expected, found.actual, _number(found.difference), found.currency, found.raised_at,
        found.resolved_at, found.resolution, found.expired, found.explanation, found.shadow, found.reason,
        _number(found.explained), _number(found.unexplained), found.log.partition, found.log.offset, found.log.time, standing.assignee, standing.reason,
        None if standing.accepted is None else _json(standing.accepted).decode(), standing.reopened, standing.status_at,
        revision.last,
    )  # fmt: skip


def _item_row(revision: StoredItemRevision) -> bytes:
    return item_row(revision.arrived, last=revision.last, fresh=revision.records is not None)


def _record_rows(new: StoredItemRevision) -> bytes:
    assert new.records is not None
    return record_rows(new.arrived, new.records)


def _check_row(place: Place, offset: int, check: Check) -> tuple[Any, ...]:
    return (
        name_id(place.topic, str(place.partition), str(offset)), check.org, check.rule, check.pack,
        _json(check.key).decode(), check.code, check.result, check.currency, check.as_of, check.expected, check.actual,
        _number(check.difference), check.log.partition, check.log.offset, check.log.time, check.shadow, check.reason,
        _number(check.explained), _number(check.unexplained), check.entries, check.of, check.period, _number(check.usage),
        check.partial,
    )  # fmt: skip


def _outbox_row(outgoing: Outgoing) -> tuple[Any, ...]:
    message = outgoing.message
    return (
        outgoing.org, outgoing.endpoint_id, message.kind, outgoing.discrepancy_id, outgoing.revision, outgoing.log_offset,
        message.message_id, message.type, message.severity, message.payload, outgoing.traceparent,
    )  # fmt: skip


def _withdrawal_row(request: WithdrawRequested) -> tuple[Any, ...]:
    key = canonical([request.org, request.source, request.record])
    return request.org, "inbox", key, encode_inbox(request)


def _dead_letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    return letter.org or EVERY_ORG, "dead-letters", letter.id.encode(), _json(letter)
