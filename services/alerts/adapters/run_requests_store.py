"""Who asked for a run, and why, in PostgreSQL."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import insert, select

from services.alerts.adapters.database import Database
from services.alerts.adapters.tables import run_requests
from services.alerts.ports.run_requests import RunRequest


class PostgresRunRequests:
    """`RunRequests` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, org: str, request: RunRequest) -> None:
        async with self._database.transaction(org) as connection:
            await connection.execute(insert(run_requests).values(org=org, **msgspec.structs.asdict(request)))

    async def of(self, org: str, run_id: str) -> Sequence[RunRequest]:
        c = run_requests.c
        query = select(run_requests).where(c.org == org, c.run_id == run_id).order_by(c.id)
        async with self._database.transaction(org) as connection:
            rows = (await connection.execute(query)).mappings()
            return [RunRequest(**{name: row[name] for name in RunRequest.__struct_fields__}) for row in rows]
