"""Feeds, put together from what each partition of the matcher told of them."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Integer, case, cast, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from services.alerts.adapters.database import Database
from services.alerts.adapters.tables import feeds
from services.alerts.ports.feeds import Feed

STALE_AFTER = timedelta(minutes=10)
"""A partition in which something waits says so every minute; one that does not is gone (`topics migrate`) or far behind."""


class PostgresFeeds:
    """`FeedStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feeds(self, org: str) -> Sequence[Feed]:
        # What waits is a part in every partition; all else is the same everywhere, and best known where it was told last.
        newest_at = func.max(feeds.c.log_time).over(partition_by=feeds.c.source)
        told = select(feeds, newest_at.label("newest_at")).where(feeds.c.org == org).subquery("told")
        c = told.c
        current = case((c.log_time > c.newest_at - STALE_AFTER, c.waiting), else_=0)
        waiting = cast(func.sum(current).over(partition_by=c.source), Integer).label("waiting")
        newest = (c.source, c.rule, c.last_seen_at, c.usual_silence_ms, c.silent_after_ms, c.silent_since)
        query = (
            select(*newest, waiting, c.log_time.label("told_at"))
            .ext(distinct_on(c.source))
            .order_by(c.source, c.log_time.desc(), c.log_partition)
        )
        async with self._database.transaction(org) as connection:
            return [Feed(**row) for row in (await connection.execute(query)).mappings()]
