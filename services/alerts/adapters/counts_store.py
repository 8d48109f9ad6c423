"""Counts of stored discrepancies by kind."""

from collections.abc import Sequence

from sqlalchemy import func, select

from services.alerts.adapters.database import Database
from services.alerts.adapters.tables import discrepancies
from services.alerts.ports.counts import Count


class PostgresCounts:
    """`CountsStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self, org: str) -> Sequence[Count]:
        c = discrepancies.c
        kinds = (c.pack, c.rule, c.type, c.severity, c.state, c.status, c.shadow)
        query = select(*kinds, func.count().label("count")).where(c.org == org).group_by(*kinds).order_by(*kinds)
        async with self._database.transaction(org) as connection:
            return [Count(**row) for row in (await connection.execute(query)).mappings()]
