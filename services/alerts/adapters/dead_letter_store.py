"""Dead letters in PostgreSQL: one row per letter however often it arrives, and a line for each thing a person did."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import LargeBinary, Select, func, insert, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.rows import Row
from services.alerts.adapters.tables import dead_letter_changes, dead_letters, topic_outbox
from services.alerts.domain.dead_letter import Change, KeptLetter
from services.alerts.ports.dead_letters import Decide, InboxRecord, LetterCount, LetterFilter, LetterHistory
from shared.contracts.dead_letter import DeadLetter

_NO_RAW = literal(b"", LargeBinary).label("raw")
_OWN = ("raw_bytes", "first_seen_at", "state", "state_by", "state_reason", "state_at")
"""Columns beside those of the contract."""


class PostgresDeadLetters:
    """`DeadLetterStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, letters: Sequence[KeptLetter]) -> None:
        rows = [_values(kept) for kept in letters]
        async with self._database.transaction(EVERY_ORG) as connection:
            await connection.execute(upsert(dead_letters).on_conflict_do_nothing(index_elements=["id"]), rows)

    async def list(
        self, org: str, chosen: LetterFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[KeptLetter]:
        c = dead_letters.c
        columns = [_NO_RAW if column.name == "raw" else column for column in c]
        query = select(*columns).where(c.org == org)
        for name in LetterFilter.__struct_fields__:
            if getattr(chosen, name) is not None:
                query = query.where(c[name] == getattr(chosen, name))
        if after is not None:
            query = query.where(tuple_(c.received_at, c.id) < after)
        query = query.order_by(c.received_at.desc(), c.id.desc()).limit(limit)
        async with self._database.transaction(org) as connection:
            return [_kept(row) for row in (await connection.execute(query)).mappings()]

    async def history(self, org: str, id_: str) -> LetterHistory | None:
        c = dead_letter_changes.c
        log = select(dead_letter_changes).where(c.org == org, c.dead_letter_id == id_).order_by(c.id)
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(_by_id(org, id_))).mappings().first()
            if row is None:
                return None
            changes = [_change(line) for line in (await connection.execute(log)).mappings()]
        return LetterHistory(kept=_kept(row), changes=changes)

    async def change(self, org: str, id_: str, decide: Decide, again: InboxRecord | None = None) -> KeptLetter | None:
        c = dead_letters.c
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(_by_id(org, id_).with_for_update())).mappings().first()
            if row is None:
                return None
            kept = _kept(row)
            change = decide(kept)
            stands = {
                "state": change.to_state,
                "state_by": change.actor,
                "state_reason": change.reason,
                "state_at": change.at,
            }
            await connection.execute(update(dead_letters).where(c.org == org, c.id == id_).values(stands))
            line = {"org": org, "dead_letter_id": id_, **msgspec.structs.asdict(change)}
            await connection.execute(insert(dead_letter_changes).values(line))
            if again is not None:
                record = {"org": org, "topic": "inbox", "key": again.key, "value": again.value}
                await connection.execute(insert(topic_outbox).values(record))
        return msgspec.structs.replace(kept, **stands)

    async def counts(self, org: str) -> Sequence[LetterCount]:
        c = dead_letters.c
        kinds = (c.state, c.reason, c.source, c.rule)
        query = select(*kinds, func.count().label("count")).where(c.org == org).group_by(*kinds).order_by(*kinds)
        async with self._database.transaction(org) as connection:
            return [LetterCount(**row) for row in (await connection.execute(query)).mappings()]

    async def count_open(self) -> dict[str, int]:
        c = dead_letters.c
        query = select(c.reason, func.count()).where(c.state == "open").group_by(c.reason)
        async with self._database.transaction(EVERY_ORG) as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}


def _by_id(org: str, id_: str) -> Select[Any]:
    c = dead_letters.c
    return select(dead_letters).where(c.org == org, c.id == id_)


def _values(kept: KeptLetter) -> dict[str, Any]:
    return {**msgspec.structs.asdict(kept.letter), **{name: getattr(kept, name) for name in _OWN}}


def _kept(row: Row) -> KeptLetter:
    letter = DeadLetter(**{name: row[name] for name in DeadLetter.__struct_fields__})
    return KeptLetter(letter=letter, **{name: row[name] for name in _OWN})


def _change(row: Row) -> Change:
    return Change(**{name: row[name] for name in Change.__struct_fields__})
