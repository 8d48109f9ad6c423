"""Verdicts of checks in PostgreSQL."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, cast, literal, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, distinct_on

from services.alerts.adapters.database import Database
from services.alerts.adapters.tables import checks
from services.alerts.ports.checks import Verdict, VerdictFilter


class PostgresChecks:
    """`CheckStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def verdicts(
        self, org: str, chosen: VerdictFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Verdict]:
        found = _chosen(org, chosen).subquery("found")
        c = found.c
        query = select(found)
        if after is not None:
            query = query.where(tuple_(c.as_of, c.id) < after)
        query = query.order_by(c.as_of.desc(), c.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            rows = (await connection.execute(query)).mappings()
            return [
                Verdict(
                    **{name: row[name] for name in Verdict.__struct_fields__ if name not in {"difference", "reason"}},
                    difference=None if row["difference"] is None else format(row["difference"], "f"),
                    reason=row["cause"],
                )
                for row in rows
            ]


def _chosen(org: str, chosen: VerdictFilter) -> Select[tuple[object, ...]]:
    c = checks.c
    query = select(checks).where(c.org == org)
    for name in ("pack", "rule", "code"):
        if getattr(chosen, name) is not None:
            query = query.where(c[name] == getattr(chosen, name))
    if chosen.key is not None:
        query = query.where(c.key == cast(literal(json.loads(chosen.key), JSONB), JSONB))
    if chosen.since is not None:
        query = query.where(c.as_of >= chosen.since)
    if chosen.until is not None:
        query = query.where(c.as_of < chosen.until)
    if chosen.judged_since is not None:
        query = query.where(c.log_time >= chosen.judged_since)
    if chosen.latest:
        each = (c.rule, c.key, c.code, c.currency)
        query = query.ext(distinct_on(*each)).order_by(*each, c.log_time.desc(), c.log_offset.desc())
    return query
