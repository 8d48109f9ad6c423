"""Discrepancies and items for people: lists, histories, and actions with their line in the log."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.rows import Row, discrepancy_of, item_of, standing_of
from services.alerts.adapters.tables import (
    action_log,
    adjustments,
    cluster_members,
    clusters,
    discrepancies,
    discrepancy_revisions,
    items,
    loose_ends,
    topic_outbox,
)
from services.alerts.domain.adjustment import Adjustment
from services.alerts.domain.triage import LogRow, Standing
from services.alerts.ports.triage import Decide, Filter, History, ItemFilter, Revision, Stored
from shared.contracts.inbox import RowReceived, encode_inbox
from shared.contracts.item import Item
from shared.contracts.near_miss import Cluster, NearMiss
from shared.ids import canonical

_read_near_miss = msgspec.json.Decoder(NearMiss).decode
_NAMES = "$.** ? (@.record == $name || @.id == $name)"
NAMING_LOOKED_AT_MAX = 10_000
"""Discrepancies, the newest, that are looked through for a record that nothing open names: some hundred milliseconds."""
_JSON_TEXT = ("key", "sides", "accepted", "discrepancies", "event", "reasons")
"""Read as text and decoded into contracts: once, and with the order of the sides."""


def _columns(table: Table) -> list[ColumnElement[Any] | Column[Any]]:
    return [cast(column, Text).label(column.name) if column.name in _JSON_TEXT else column for column in table.c]


_SELECT = select(
    *_columns(discrepancies),
    cast(loose_ends.c.near_miss, Text).label("near_miss"),
    clusters.c.id.label("cluster_id"),
    clusters.c.sentence.label("cluster_sentence"),
    clusters.c.size.label("cluster_size"),
    clusters.c.since.label("cluster_since"),
).select_from(
    discrepancies.outerjoin(loose_ends, loose_ends.c.discrepancy_id == discrepancies.c.id)
    .outerjoin(cluster_members, cluster_members.c.discrepancy_id == discrepancies.c.id)
    .outerjoin(clusters, clusters.c.id == cluster_members.c.cluster_id)
)
"""Discrepancies with what the explainer says about them."""


class PostgresTriage:
    """`TriageStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, org: str, chosen: Filter, after: tuple[datetime, str] | None, limit: int) -> Sequence[Stored]:
        c = discrepancies.c
        query = _SELECT.where(c.org == org, *_conditions(org, chosen))
        if after is not None:
            query = query.where(tuple_(c.raised_at, c.id) < after)
        query = query.order_by(c.raised_at.desc(), c.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            return [_stored(row) for row in (await connection.execute(query)).mappings()]

    async def find(self, org: str, id_: str) -> Stored | None:
        async with self._database.transaction(org) as connection:
            return await _one(connection, _by_id(org, id_))

    async def history(self, org: str, id_: str) -> History | None:
        async with self._database.transaction(org) as connection:
            stored = await _one(connection, _by_id(org, id_))
            if stored is None:
                return None
            r, a, p = discrepancy_revisions.c, action_log.c, adjustments.c
            revisions = (
                select(discrepancy_revisions).where(r.org == org, r.id == id_).order_by(r.log_offset, r.revision)
            )
            log = select(action_log).where(a.org == org, a.discrepancy_id == id_).order_by(a.id)
            posted = select(*_columns(adjustments)).where(p.org == org, p.discrepancy_id == id_).order_by(p.created_at)
            return History(
                stored=stored,
                revisions=[_revision(row) for row in (await connection.execute(revisions)).mappings()],
                log=[_log_row(row) for row in (await connection.execute(log)).mappings()],
                adjustments=[_adjustment(row) for row in (await connection.execute(posted)).mappings()],
            )

    async def naming(self, org: str, record: str, limit: int) -> Sequence[Stored]:
        c = discrepancies.c
        named = func.jsonb_path_exists(
            cast(c.sides, JSONB), literal(_NAMES, JSONPATH), literal({"name": record}, JSONB), type_=Boolean
        )
        recent = select(c.id).where(c.org == org).order_by(c.raised_at.desc(), c.id.desc()).limit(NAMING_LOOKED_AT_MAX)
        for looked_at in (c.status != "resolved", c.id.in_(recent)):
            query = _SELECT.where(c.org == org, looked_at, named).order_by(c.raised_at.desc(), c.id.desc())
            async with self._database.transaction(org) as connection:
                found = [_stored(row) for row in (await connection.execute(query.limit(limit))).mappings()]
            if found:
                return found
        return []

    async def change(self, org: str, id_: str, decide: Decide, pack: str | None = None) -> Stored | None:
        async with self._database.transaction(org) as connection:
            stored = await _one(connection, _by_id(org, id_).with_for_update(of=discrepancies))
            if stored is None or (pack is not None and stored.found.pack != pack):
                return None
            standing, row, adjustment = decide(stored)
            await connection.execute(_set(org, id_, standing))
            await connection.execute(
                insert(action_log).values(org=org, discrepancy_id=id_, **msgspec.structs.asdict(row))
            )
            if adjustment is not None:
                await _post(connection, org, id_, adjustment)
        return msgspec.structs.replace(stored, standing=standing)

    async def count_open(self) -> dict[str, int]:
        """Count what is raised and not resolved by people, over all organisations, by severity."""
        c = discrepancies.c
        query = (
            select(c.severity, func.count())
            .where(c.state == "raised", c.status != "resolved", ~c.shadow)
            .group_by(c.severity)
        )
        async with self._database.transaction(EVERY_ORG) as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def items(
        self, org: str, chosen: ItemFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Item]:
        c = items.c
        query = select(*_columns(items)).where(c.org == org)
        for name in ("status", "rule", "pack"):
            if getattr(chosen, name) is not None:
                query = query.where(c[name] == getattr(chosen, name))
        if chosen.key is not None:
            query = query.where(_has_key(c.key, chosen.key))
        if chosen.shadow is not None:
            query = query.where(c.shadow == chosen.shadow)
        if after is not None:
            query = query.where(tuple_(c.log_time, c.id) < after)
        query = query.order_by(c.log_time.desc(), c.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            return [item_of(row) for row in (await connection.execute(query)).mappings()]


def _by_id(org: str, id_: str) -> Select[Any]:
    c = discrepancies.c
    return _SELECT.where(c.org == org, c.id == id_)


async def _one(connection: AsyncConnection, query: Select[Any]) -> Stored | None:
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else _stored(row)


def _conditions(org: str, chosen: Filter) -> list[ColumnElement[bool]]:
    c = discrepancies.c
    wanted: list[ColumnElement[bool]] = []
    for name in ("status", "state", "type", "rule", "pack", "severity", "assignee"):
        value = getattr(chosen, name)
        if value is not None:
            wanted.append(c[name] == value)
    if chosen.key is not None:
        wanted.append(_has_key(c.key, chosen.key))
    if chosen.shadow is not None:
        wanted.append(c.shadow == chosen.shadow)
    if chosen.since is not None:
        wanted.append(c.raised_at >= chosen.since)
    if chosen.cluster is not None:
        m = cluster_members.c
        wanted.append(c.id.in_(select(m.discrepancy_id).where(m.org == org, m.cluster_id == chosen.cluster)))
    return wanted


def _has_key(column: Column[Any], text: str) -> ColumnElement[bool]:
    """A key of one field as it is; of several as the JSON list that the API prints."""
    try:
        parts = json.loads(text) if text.startswith("[") else None
    except ValueError:
        parts = None
    return column == literal(parts if isinstance(parts, list) else text, JSONB)


def _set(org: str, id_: str, standing: Standing) -> Any:
    c = discrepancies.c
    return (
        update(discrepancies)
        .where(and_(c.org == org, c.id == id_))
        .values(
            status=standing.status,
            status_at=standing.status_at,
            assignee=standing.assignee,
            reason=standing.reason,
            accepted=null() if standing.accepted is None else msgspec.to_builtins(standing.accepted),
        )
    )


async def _post(connection: AsyncConnection, org: str, id_: str, adjustment: Adjustment) -> None:
    await connection.execute(
        insert(adjustments).values(
            id=adjustment.id,
            org=org,
            discrepancy_id=id_,
            source=adjustment.source,
            amount=Decimal(adjustment.amount),
            currency=adjustment.currency,
            reason=adjustment.reason,
            notes=adjustment.notes,
            posted_by=adjustment.posted_by,
            event=adjustment.event,
            created_at=adjustment.created_at,
        )
    )
    row = RowReceived(org=org, row=msgspec.json.encode(adjustment.event))
    key = canonical([org, adjustment.source, adjustment.event["id"]])
    await connection.execute(insert(topic_outbox).values(org=org, topic="inbox", key=key, value=encode_inbox(row)))


def _stored(row: Row) -> Stored:
    found, standing = discrepancy_of(row), standing_of(row)
    if found.state != "raised" or standing.status == "resolved":
        # The explainer takes back what it said a moment later.
        return Stored(found=found, standing=standing)
    near_miss = row["near_miss"]
    return Stored(
        found=found,
        standing=standing,
        near_miss=None if near_miss is None else _read_near_miss(near_miss),
        cluster=None
        if row["cluster_id"] is None
        else Cluster(
            id=row["cluster_id"],
            sentence=row["cluster_sentence"],
            size=row["cluster_size"],
            since=row["cluster_since"],
        ),
    )


def _revision(row: Row) -> Revision:
    values = {name: row[name] for name in Revision.__struct_fields__ if name != "difference"}
    return Revision(difference=None if row["difference"] is None else format(row["difference"], "f"), **values)


def _log_row(row: Row) -> LogRow:
    return LogRow(**{name: row[name] for name in LogRow.__struct_fields__})


def _adjustment(row: Row) -> Adjustment:
    names = [name for name in Adjustment.__struct_fields__ if name not in {"amount", "event"}]
    event = msgspec.json.decode(row["event"])
    return Adjustment(amount=format(row["amount"], "f"), event=event, **{name: row[name] for name in names})
