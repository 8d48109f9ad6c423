"""Loose ends, near misses and clusters in PostgreSQL, and the queue of what to look at."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
from msgspec.structs import replace

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.rows import Row, discrepancy_of, read_key, read_sides
from services.alerts.domain.cluster import Member
from services.alerts.domain.near_miss import CANDIDATES_MAX, NEAR_IN_TIME_MAX, LooseEnd, Rank, other_money
from services.alerts.ports.explanations import Around, Changed, Members, StoredEnd, StoredMember
from shared.contracts.near_miss import Cluster, NearMiss
from shared.likeness import like_amounts
from shared.money import EXACT

_LOCK_CLASS = 0x6C656E64
"""First half of the advisory locks by which one explainer at a time works on an organisation."""

_json = msgspec.json.Encoder().encode
_read_rank = msgspec.json.Decoder(Rank).decode

_TAKE = """
WITH free AS MATERIALIZED (
    SELECT org FROM (SELECT DISTINCT org FROM (SELECT org FROM discrepancy_news ORDER BY id LIMIT $1) AS first) AS orgs
    WHERE pg_try_advisory_xact_lock($2, hashtext(org))
), taken AS (
    DELETE FROM discrepancy_news WHERE id IN (
        SELECT n.id FROM discrepancy_news n JOIN free USING (org) ORDER BY n.id LIMIT $1 FOR UPDATE OF n SKIP LOCKED)
    RETURNING discrepancy_id, id
)
SELECT discrepancy_id::text FROM taken GROUP BY 1 ORDER BY min(id)"""

_CHANGED = """
SELECT id::text, revision, state, status, org, rule, pack, type, severity, key::text, side, account, sides::text, duplicate,
       expected, actual, difference, currency, raised_at, resolved_at, resolution, expired, explanation, shadow,
       cause, explained, unexplained, log_partition, log_offset, log_time,
       CASE WHEN state <> 'raised' THEN (
           SELECT r.sides::text FROM discrepancy_revisions r WHERE r.id = d.id AND r.state = 'raised'
           ORDER BY r.log_offset DESC, r.revision DESC LIMIT 1) END AS raised_sides
FROM discrepancies d WHERE id = ANY($1::uuid[])"""

_COLUMNS = (
    "discrepancy_id", "org", "pack", "rule", "has", "lacks", "seeks", "source", "record", "key", "signature", "amount",
    "currency", "account", "occurred_at", "digits", "size",
)  # fmt: skip
_END = (
    "l.discrepancy_id::text, l.org, l.pack, l.rule, l.has, l.lacks, l.seeks, l.source, l.record, l.key::text, l.amount, "
    "l.currency, l.account, l.occurred_at, l.pair_id::text, l.rank::text, l.alone"
)
_ENDS = f"SELECT {_END} FROM loose_ends l WHERE l.discrepancy_id = ANY($1::uuid[])"  # noqa: S608 - constants
_PUT_END = (
    f"INSERT INTO loose_ends ({', '.join(_COLUMNS)}) "  # noqa: S608 - constants
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
)

# Each branch reads a few rows in the order of an index, however many are open.
_ON = "l.org = $1 AND l.pack = $2 AND l.has = s.side"
_AROUND = f"""
WITH sides AS (SELECT unnest($3::text[]) AS side), found AS (
    SELECT n.*, false AS beside FROM sides s CROSS JOIN LATERAL (
        SELECT * FROM loose_ends l WHERE {_ON} AND l.currency = $5 AND l.digits = $6 AND l.occurred_at >= $7
        ORDER BY l.occurred_at LIMIT {NEAR_IN_TIME_MAX}) n
    UNION ALL
    SELECT n.*, false FROM sides s CROSS JOIN LATERAL (
        SELECT * FROM loose_ends l WHERE {_ON} AND l.currency = $5 AND l.digits = $6 AND l.occurred_at < $7
        ORDER BY l.occurred_at DESC LIMIT {NEAR_IN_TIME_MAX}) n
    UNION ALL
    SELECT n.*, false FROM sides s CROSS JOIN LATERAL (
        SELECT * FROM loose_ends l WHERE {_ON} AND l.signature = $8 AND $8 <> '' LIMIT {NEAR_IN_TIME_MAX}) n
    UNION ALL
    SELECT n.*, false FROM sides s CROSS JOIN LATERAL (
        SELECT l.* FROM unnest($9::text[]) AS m(digits) CROSS JOIN LATERAL (
            SELECT * FROM loose_ends l WHERE {_ON} AND l.currency = $5 AND l.digits = m.digits
            ORDER BY l.occurred_at LIMIT {NEAR_IN_TIME_MAX}) l
        LIMIT {CANDIDATES_MAX}) n
    UNION ALL
    SELECT n.*, false FROM sides s CROSS JOIN LATERAL (
        SELECT l.* FROM unnest($10::text[], $11::int[]) AS m(currency, size) CROSS JOIN LATERAL (
            SELECT * FROM loose_ends l WHERE {_ON} AND l.currency = m.currency AND l.size = m.size
            LIMIT {NEAR_IN_TIME_MAX}) l
        LIMIT {CANDIDATES_MAX}) n
    UNION ALL
    SELECT l.*, false FROM loose_ends l WHERE l.discrepancy_id = $12::uuid
    UNION ALL
    SELECT n.*, true FROM (
        SELECT * FROM loose_ends l WHERE l.org = $1 AND l.pack = $2 AND l.has = $4 AND l.currency = $5 AND l.digits = $6
        AND l.occurred_at >= $7 ORDER BY l.occurred_at LIMIT {NEAR_IN_TIME_MAX}) n
    UNION ALL
    SELECT n.*, true FROM (
        SELECT * FROM loose_ends l WHERE l.org = $1 AND l.pack = $2 AND l.has = $4 AND l.currency = $5 AND l.digits = $6
        AND l.occurred_at < $7 ORDER BY l.occurred_at DESC LIMIT {NEAR_IN_TIME_MAX}) n
)
SELECT {_END}, l.beside FROM found l WHERE l.discrepancy_id <> $13::uuid"""  # noqa: S608 - constants
# Read once per transaction. An index for it would tempt the planner to read it for all of the above.
_CURRENCIES = "SELECT DISTINCT currency FROM loose_ends WHERE org = $1 AND pack = $2 AND has = ANY($3::text[])"

_LINK = """
UPDATE loose_ends SET pair_id = $2, rank = $3::jsonb, alone = $4, near_miss = $5::jsonb WHERE discrepancy_id = $1"""
_UNLINK = """
UPDATE loose_ends SET pair_id = NULL, rank = NULL, alone = NULL, near_miss = NULL WHERE discrepancy_id = ANY($1::uuid[])"""

_PUT_MEMBER = """
INSERT INTO cluster_members (discrepancy_id, org, cause, raised_at, open, difference) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (discrepancy_id) DO UPDATE SET cause = EXCLUDED.cause, raised_at = EXCLUDED.raised_at, open = EXCLUDED.open,
    difference = EXCLUDED.difference, cluster_id = CASE WHEN EXCLUDED.open THEN cluster_members.cluster_id END"""
_MEMBERS = """
SELECT discrepancy_id::text, raised_at, open, difference FROM cluster_members WHERE org = $1 AND cause = $2
AND raised_at >= (SELECT min(raised_at) FROM cluster_members WHERE org = $1 AND cause = $2 AND open)
ORDER BY raised_at DESC, discrepancy_id LIMIT $3"""
# Reads back in the order of the index, and stops at the first pause.
_BEGAN = """
SELECT raised_at FROM (
    SELECT raised_at, raised_at - lead(raised_at) OVER (ORDER BY raised_at DESC) AS pause
    FROM cluster_members WHERE org = $1 AND cause = $2 AND raised_at <= $3) AS back
WHERE pause IS NULL OR pause > $4 ORDER BY raised_at DESC LIMIT 1"""
_PUT_CLUSTER = """
INSERT INTO clusters (id, org, cause, sentence, size, since) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET sentence = EXCLUDED.sentence, size = EXCLUDED.size, since = EXCLUDED.since"""
_JOIN_CLUSTER = """
UPDATE cluster_members c SET cluster_id = m.cluster_id FROM unnest($1::uuid[], $2::uuid[]) AS m(id, cluster_id)
WHERE c.discrepancy_id = m.id AND c.cluster_id IS DISTINCT FROM m.cluster_id"""
# A join and not `<> ALL`, which goes through the whole list for each.
_LEAVE_CLUSTER = """
UPDATE cluster_members c SET cluster_id = NULL
WHERE org = $1 AND cause = $2 AND open AND cluster_id IS NOT NULL
    AND NOT EXISTS (SELECT FROM unnest($3::uuid[]) AS m(id) WHERE m.id = c.discrepancy_id)"""


class PostgresExplanations:
    """`ExplanationStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["PostgresExplanationTransaction"]:
        async with self._database.transaction(EVERY_ORG) as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None, "the connection is open"
            # The same few queries for every loose end: planning each anew costs as much as running it.
            await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            yield PostgresExplanationTransaction(driver)


class PostgresExplanationTransaction:
    """`ExplanationTransaction` on one connection."""

    def __init__(self, driver: "asyncpg.Connection[Any]") -> None:
        self._driver = driver
        self._currencies: dict[tuple[str, str, tuple[str, ...]], frozenset[str]] = {}

    async def take(self, limit: int) -> list[str]:
        return [row["discrepancy_id"] for row in await self._driver.fetch(_TAKE, limit, _LOCK_CLASS)]

    async def put_back(self, ends: Collection[LooseEnd]) -> None:
        if ends:
            await self._driver.executemany(
                "INSERT INTO discrepancy_news (org, discrepancy_id) VALUES ($1, $2)",
                [(end.org, end.id) for end in ends],
            )

    async def changed(self, ids: Collection[str]) -> list[Changed]:
        return [_changed(row) for row in await self._driver.fetch(_CHANGED, list(ids))]

    async def ends(self, ids: Collection[str]) -> dict[str, StoredEnd]:
        return {row["discrepancy_id"]: _stored_end(row) for row in await self._driver.fetch(_ENDS, list(ids))}

    async def put_ends(self, ends: Sequence[LooseEnd]) -> None:
        if ends:
            await self._driver.executemany(_PUT_END, [_end_row(end) for end in ends])
            self._currencies.clear()

    async def drop_ends(self, ids: Collection[str]) -> None:
        if ids:
            await self._driver.execute("DELETE FROM loose_ends WHERE discrepancy_id = ANY($1::uuid[])", list(ids))

    async def around(self, end: LooseEnd, pair_id: str | None) -> Around:
        currencies = await self._currencies_of(end)
        if not currencies:
            return Around(opposite=[], beside=[])
        others = other_money(end, currencies)
        rows = await self._driver.fetch(
            _AROUND, end.org, end.pack, list(end.seeks), end.has, end.currency, _digits(end.amount), end.occurred_at,
            end.signature, [_digits(amount) for amount in sorted(like_amounts(end.amount, end.currency or None))], *_sizes(others),
            pair_id, end.id,
        )  # fmt: skip
        return Around(
            opposite=list({row["discrepancy_id"]: _stored_end(row) for row in rows if not row["beside"]}.values()),
            beside=[_stored_end(row) for row in rows if row["beside"]],
        )

    async def _currencies_of(self, end: LooseEnd) -> frozenset[str]:
        """Return the currencies that are open opposite: where there is nothing, nothing is looked for."""
        place = (end.org, end.pack, end.seeks)
        known = self._currencies.get(place)
        if known is None:
            rows = await self._driver.fetch(_CURRENCIES, end.org, end.pack, list(end.seeks))
            known = self._currencies[place] = frozenset(row["currency"] for row in rows)
        return known

    async def link(self, id_: str, pair_id: str, rank: Rank, alone: bool, said: NearMiss) -> None:
        await self._driver.execute(_LINK, id_, pair_id, _json(rank).decode(), alone, _json(said).decode())

    async def unlink(self, ids: Collection[str]) -> None:
        await self._driver.execute(_UNLINK, list(ids))

    async def members_known(self, ids: Collection[str]) -> dict[str, StoredMember]:
        query = """
            SELECT discrepancy_id::text, org, cause, raised_at, open, difference FROM cluster_members
            WHERE discrepancy_id = ANY($1::uuid[])"""
        return {
            row["discrepancy_id"]: StoredMember(org=row["org"], cause=row["cause"], member=_member(row))
            for row in await self._driver.fetch(query, list(ids))
        }

    async def put_members(self, members: Sequence[StoredMember]) -> None:
        rows = [
            (one.member.id, one.org, one.cause, one.member.raised_at, one.member.open, one.member.difference)
            for one in members
        ]
        if rows:
            await self._driver.executemany(_PUT_MEMBER, rows)

    async def drop_members(self, ids: Collection[str]) -> None:
        if ids:
            await self._driver.execute("DELETE FROM cluster_members WHERE discrepancy_id = ANY($1::uuid[])", list(ids))

    async def members(self, org: str, cause: str, gap: timedelta, limit: int) -> Members:
        members = [_member(row) for row in await self._driver.fetch(_MEMBERS, org, cause, limit)]
        if not members:
            return Members([], None)
        return Members(members, await self._driver.fetchval(_BEGAN, org, cause, members[-1].raised_at, gap))

    async def write_clusters(
        self, org: str, cause: str, clusters: Sequence[Cluster], membership: Mapping[str, str | None]
    ) -> None:
        await self._driver.execute(
            "DELETE FROM clusters WHERE org = $1 AND cause = $2 AND id <> ALL($3::uuid[])",
            org,
            cause,
            [cluster.id for cluster in clusters],
        )
        for cluster in clusters:
            await self._driver.execute(
                _PUT_CLUSTER, cluster.id, org, cause, cluster.sentence, cluster.size, cluster.since
            )
        await self._driver.execute(_JOIN_CLUSTER, list(membership), list(membership.values()))
        await self._driver.execute(_LEAVE_CLUSTER, org, cause, list(membership))


def _changed(row: Row) -> Changed:
    found = discrepancy_of(row)
    return Changed(
        found=found,
        # What only a shadow has raised is nobody's near miss.
        open=row["state"] == "raised" and row["status"] != "resolved" and not row["shadow"],
        raised=found if row["raised_sides"] is None else replace(found, sides=read_sides(row["raised_sides"])),
    )


def _stored_end(row: Row) -> StoredEnd:
    return StoredEnd(
        end=LooseEnd(
            id=row["discrepancy_id"],
            org=row["org"],
            pack=row["pack"],
            rule=row["rule"],
            has=row["has"],
            lacks=row["lacks"],
            seeks=tuple(row["seeks"]),
            source=row["source"],
            record=row["record"],
            key=read_key(row["key"]),
            amount=row["amount"],
            currency=row["currency"],
            account=row["account"],
            occurred_at=row["occurred_at"],
        ),
        pair_id=row["pair_id"],
        rank=None if row["rank"] is None else _read_rank(row["rank"]),
        alone=bool(row["alone"]),
    )


def _end_row(end: LooseEnd) -> tuple[Any, ...]:
    return (
        end.id, end.org, end.pack, end.rule, end.has, end.lacks, list(end.seeks), end.source, end.record,
        _json(end.key).decode(), end.signature, end.amount, end.currency, end.account, end.occurred_at,
        _digits(end.amount), _size(end.amount),
    )  # fmt: skip


def _digits(amount: Decimal) -> str:
    """Return the amount in its shortest form."""
    return format(amount.normalize(EXACT), "f")


def _size(amount: Decimal) -> int:
    """Return a number that grows with the amount, a hundred for each power of ten: coarse, and found by an index."""
    digits = "".join(map(str, amount.as_tuple().digits[:2])).ljust(2, "0")
    return 100 * amount.adjusted() + int(digits)


def _sizes(others: Sequence[tuple[str, Decimal, Decimal]]) -> tuple[list[str], list[int]]:
    """Return currencies, and beside each a size to look for in it."""
    found = dict.fromkeys(
        (currency, size)
        for currency, least, greatest in others
        for low, high in [sorted((_size(least), _size(greatest)))]
        for size in range(low, high + 1)
    )
    return [currency for currency, _ in found], [size for _, size in found]


def _member(row: Row) -> Member:
    return Member(id=row["discrepancy_id"], raised_at=row["raised_at"], open=row["open"], difference=row["difference"])
