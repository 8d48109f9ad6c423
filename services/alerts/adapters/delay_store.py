"""Delays between the sides of stored items."""

from datetime import datetime

from sqlalchemy import text

from services.alerts.adapters.database import Database
from services.alerts.domain.delays import Arrival

ITEMS_MAX = 500_000
"""The newest so many items are looked at: some 100 MB, and more of them move no quantile."""

# Of the first match: a correction would count from then on. The side that came last settled the item at `at`; those between are placed by their own time.
_ARRIVALS = text("""
WITH chosen AS (
    SELECT id, at, sides FROM items
    WHERE org = :org AND rule = :rule AND status = 'matched' AND live AND revision <= 2 AND at >= :since
    ORDER BY at DESC LIMIT :limit
), seen AS (
    SELECT c.id, c.at, s.key AS side, s.place,
           coalesce(s.value ->> 'occurred_at', s.value #>> '{records,0,occurred_at}')::timestamptz AS occurred_at
    FROM chosen c CROSS JOIN LATERAL json_each(c.sides) WITH ORDINALITY AS s(key, value, place)
    WHERE json_typeof(s.value) = 'object'
), ranked AS (
    SELECT side, at, occurred_at, first_value(occurred_at) OVER by_time AS first_at,
           row_number() OVER by_time AS rank, count(*) OVER (PARTITION BY id) AS sides
    FROM seen WINDOW by_time AS (PARTITION BY id ORDER BY occurred_at, place)
)
SELECT side, (extract(epoch FROM CASE WHEN rank = sides THEN at ELSE occurred_at END - first_at) * 1000)::bigint
FROM ranked WHERE rank > 1
""")


class PostgresDelays:
    """Reads what was waited for from the items of a rule."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def arrivals(self, org: str, rule: str, since: datetime) -> list[Arrival]:
        """Return every side that was waited for in matched items since then.

        Raises:
            DependencyAway: the database does not answer.
        """
        values = {"org": org, "rule": rule, "since": since, "limit": ITEMS_MAX}
        async with self._database.transaction(org) as connection:
            return [Arrival(side, int(delay)) for side, delay in await connection.execute(_ARRIVALS, values)]
