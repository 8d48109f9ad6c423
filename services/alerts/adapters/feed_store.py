"""Feeds, put together from what each partition of the matcher told of them."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on

from services.alerts.adapters.database import Database
from services.alerts.adapters.tables import feeds
from services.alerts.ports.feeds import Feed


class PostgresFeeds:
    """`FeedStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feeds(self, org: str) -> Sequence[Feed]:
        c = feeds.c
        # What waits is a part in every partition; all else is the same everywhere, and best known where it was told last.
        waiting = func.sum(c.waiting).over(partition_by=c.source).label("waiting")
        newest = (c.source, c.rule, c.last_seen_at, c.usual_silence_ms, c.silent_after_ms, c.silent_since)
        query = (
            select(*newest, waiting, c.log_time.label("told_at"))
            .where(c.org == org)
            .ext(distinct_on(c.source))
            .order_by(c.source, c.log_time.desc(), c.log_partition)
        )
        async with self._database.transaction(org) as connection:
            return [Feed(**row) for row in (await connection.execute(query)).mappings()]
