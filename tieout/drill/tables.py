"""What a recovery brings back: which tables come from the topics, which only from a backup, and how two states differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import create_async_engine

from services.alerts.adapters.tables import metadata

TOPIC_TABLES = (
    "discrepancies",
    "discrepancy_revisions",
    "items",
    "item_revisions",
    "item_records",
    "checks",
    "feeds",
    "not_reconciled",
    "dead_letters",
    "progress",
    "sink_offsets",
)
"""Stored by the sink from the topics of results: rebuilt from them, row for row."""
DERIVED_TABLES = ("loose_ends", "clusters", "cluster_members")
"""Made by the explainer out of `discrepancies`: made again."""
PASSING_TABLES = ("topic_outbox", "discrepancy_news")
"""Work that is waiting for seconds; empty when all is quiet."""
DELIVERY_TABLES = ("outbox", "delivery_attempts")
"""Messages to webhooks: what was stored after the backup is sent again, under the same `webhook-id`."""

OWN_TIMES: Mapping[str, frozenset[str]] = {
    "discrepancies": frozenset({"stored_at"}),
    "dead_letters": frozenset({"first_seen_at"}),
    "sink_offsets": frozenset({"live_offset"}),
}
"""Columns that say when this database got a row, or whom it told: another one has its own."""
PEOPLES_COLUMNS: Mapping[str, frozenset[str]] = {
    "discrepancies": frozenset({"status", "assignee", "reason", "accepted", "reopened", "status_at"}),
    "dead_letters": frozenset({"state", "state_by", "state_reason", "state_at"}),
}
"""What people did with a row that a topic made: no topic has it."""
ONLY_ROWS: Mapping[str, str] = {
    # A run that is not complete is computed again by itself.
    "runs": "completed_at IS NOT NULL",
}
"""Which rows of a table are compared."""
NUMBERED = frozenset({"action_log"})
"""Append-only tables whose number says in which order this database got the rows: the engine's rows may come in another."""

Rows = Mapping[str, str]
"""Key to digest of one table's rows."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one table differs after a recovery."""

    table: str
    before: int
    """Rows before the loss."""
    missing: int
    extra: int
    altered: int
    examples: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Nothing differs."""
        return not (self.missing or self.extra or self.altered)


def backup_only() -> tuple[str, ...]:
    """Return the tables that no topic holds: what people and schedules did, and who may call."""
    known = {*TOPIC_TABLES, *DERIVED_TABLES, *PASSING_TABLES, *DELIVERY_TABLES}
    return tuple(sorted({table.name for table in metadata.sorted_tables} - known))


async def fingerprints(url: str, tables: Iterable[str], *, without_people: bool) -> dict[str, Rows]:
    """Return per table its rows, each as its key and a digest of what is compared.

    Args:
        url: a login that sees every row (the owner, a superuser).
        tables: to read.
        without_people: leave out what people did with rows that a topic made.
    """
    engine = create_async_engine(url)
    found: dict[str, Rows] = {}
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SET tieout.org = '*'"))
            for name in tables:
                statement = text(_statement(metadata.tables[name], without_people=without_people))
                found[name] = {row.key: row.digest for row in await connection.execute(statement)}
    finally:
        await engine.dispose()
    return found


def _statement(table: Table, *, without_people: bool) -> str:
    """Names come from the tables' own definitions, never from outside."""
    left_out = OWN_TIMES.get(table.name, frozenset()) | (
        PEOPLES_COLUMNS.get(table.name, frozenset()) if without_people else frozenset()
    )
    keys = [column.name for column in table.primary_key]
    if table.name in NUMBERED:
        left_out |= set(keys)
        keys = [column.name for column in table.columns if column.name not in left_out]
    compared = [column.name for column in table.columns if column.name not in left_out]
    key, row = (", ".join(f'"{name}"' for name in names) for names in (keys, compared))
    where = ONLY_ROWS.get(table.name, "true")
    return f'SELECT ROW({key})::text AS key, md5(ROW({row})::text) AS digest FROM "{table.name}" WHERE {where}'  # noqa: S608 - see above


def compare(before: Mapping[str, Rows], after: Mapping[str, Rows], examples_max: int = 3) -> list[Difference]:
    """Return per table how `after` differs."""
    found = []
    for name, rows in before.items():
        now = after[name]
        missing, extra = rows.keys() - now.keys(), now.keys() - rows.keys()
        altered = {key for key in rows.keys() & now.keys() if rows[key] != now[key]}
        examples = [
            f"{what} {key}"
            for what, keys in (("missing", missing), ("extra", extra), ("altered", altered))
            for key in sorted(keys)[:examples_max]
        ]
        found.append(Difference(name, len(rows), len(missing), len(extra), len(altered), tuple(examples)))
    return found
