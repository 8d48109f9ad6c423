"""A generated month of billing items as the sink stores them, and the sums that a report of it must give.

Sums are kept in cents while generating: nothing of the report's own arithmetic is used.
"""

import random
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.tables import (
    discrepancies,
    discrepancy_revisions,
    item_revisions,
    items,
    progress,
)
from shared.contracts.discrepancy import Discrepancy, LogPosition, RecordEvidence, Severity
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide, Total

START = datetime(2026, 10, 1, tzinfo=UTC)
MONTH_S = 31 * 24 * 3600
PARTITIONS = 3
TOPICS = ("discrepancies", "matches", "checks")


def amount(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02d}"


@dataclass
class Sums:
    """What the month holds, counted while it was made."""

    items: int = 0
    matched: int = 0
    count: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    cents: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    differences: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Month:
    """Revisions to store, and per rule what they sum up to."""

    items: list[Item] = field(default_factory=list)
    discrepancies: list[Discrepancy] = field(default_factory=list)
    sums: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))


def side(currency: str, cents: list[int], at: datetime, name: str, number: int) -> ItemSide | None:
    if not cents:
        return None
    return ItemSide(
        occurred_at=at,
        totals={currency: Total(count=len(cents), amount=amount(sum(cents)))},
        records=[
            RecordEvidence(
                id=f"{name}-{number}-{place}",
                source=name,
                record=f"{name}-{number}-{place}",
                amount=amount(one),
                currency=currency,
                status="succeeded",
                occurred_at=at,
            )
            for place, one in enumerate(cents)
        ],
    )


def item(
    number: int,
    *,
    at: datetime,
    internal: list[int],
    provider: list[int],
    status: str,
    raised: list[ItemDiscrepancy] | None = None,
    rule: str = "billing.payments",
    currency: str = "EUR",
    revision: int = 1,
    made_at: datetime | None = None,
    org: str = "acme",
) -> Item:
    made = made_at or at + timedelta(seconds=1)
    return Item(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{org}/{rule}/{number}")),
        revision=revision,
        status=status,  # type: ignore[arg-type]  # tests write it as text
        org=org,
        rule=rule,
        pack="billing",
        key=f"p{number}",
        sides={
            "internal": side(currency, internal, at, "ledger", number),
            "provider": side(currency, provider, at, "stripe", number),
        },
        discrepancies=raised or [],
        at=made,
        occurred_at=at,
        live=bool(internal or provider),
        log=LogPosition(partition=number % PARTITIONS, offset=number * 10 + revision, time=made),
    )


def discrepancy(
    of: Item,
    type_: str,
    cents: int | None,
    currency: str = "EUR",
    *,
    state: str = "raised",
    revision: int = 1,
    at: datetime | None = None,
    severity: Severity = "high",
) -> Discrepancy:
    time = at or of.log.time
    return Discrepancy(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{of.id}/{type_}")),
        revision=revision,
        state=state,  # type: ignore[arg-type]  # tests write it as text
        org=of.org,
        rule=of.rule,
        pack="billing",
        type=type_,
        severity=severity,
        key=of.key,
        side="provider",
        account=None,
        sides={},
        duplicate=None,
        expected=None,
        actual=None,
        difference=None if cents is None else amount(cents),
        currency=currency,
        raised_at=of.log.time,
        resolved_at=time if state == "resolved" else None,
        resolution="late_arrival" if state == "resolved" else None,
        expired=False,
        explanation=f"{of.key}: the ledger and stripe differ by {amount(cents or 0)} {currency}.",
        log=LogPosition(partition=of.log.partition, offset=of.log.offset + revision, time=time),
    )


def on_item(one: Discrepancy) -> ItemDiscrepancy:
    return ItemDiscrepancy(id=one.id, type=one.type, side=one.side, difference=one.difference, currency=one.currency)


def generated_month(size: int, seed: int = 7) -> Month:
    """Payments and refunds of October: mostly matched, some of every other kind."""
    random_ = random.Random(seed)
    month = Month()
    for number in range(size):
        rule = "billing.refunds" if number % 9 == 0 else "billing.payments"
        currency = random_.choices(["EUR", "USD"], [8, 2])[0]
        at = START + timedelta(seconds=random_.randrange(MONTH_S))
        cents = random_.randrange(100, 500_000)
        kind = random_.choices(["match", "amount", "no provider", "no internal", "twice"], [93, 3, 2, 1, 1])[0]
        internal, provider, found = [cents], [cents], None
        if kind == "amount":
            provider = [cents + random_.choice([-250, -1, 99, 1200])]
            found = ("AmountMismatch", provider[0] - cents)
        elif kind == "no provider":
            provider, found = [], ("MissingProviderRecord", -cents)
        elif kind == "no internal":
            internal, found = [], ("MissingInternalRecord", cents)
        elif kind == "twice":
            provider, found = [cents, cents], ("DuplicateChargeSuspected", cents)
        of = item(
            number, at=at, internal=internal, provider=provider, status="discrepant" if found else "matched", rule=rule,
            currency=currency,
        )  # fmt: skip
        if found:
            raised = discrepancy(of, *found, currency=currency)
            month.discrepancies.append(raised)
            of = msgspec.structs.replace(of, discrepancies=[on_item(raised)])
        month.items.append(of)
        sums = month.sums[rule]
        sums.items += 1
        sums.matched += found is None
        for name, amounts in (("internal", internal), ("provider", provider)):
            sums.count[name, currency] += len(amounts)
            sums.cents[name, currency] += sum(amounts)
        if found:
            sums.differences[found[0], currency] += found[1]
    return month


async def store_items(connection: AsyncConnection, revisions: list[Item]) -> None:
    """Store revisions as the sink does: the last of each item as current, earlier ones as history."""
    rows = [_item_row(one) for one in revisions]
    last = {row["id"]: row for row in rows}
    earlier = [row for row in rows if last[row["id"]] is not row]
    for place in range(0, len(earlier), 1000):
        await connection.execute(insert(item_revisions), earlier[place : place + 1000])
    names = set(items.c.keys()) - {"reopened_offset"}
    from sqlalchemy.dialects.postgresql import insert as upsert

    put = upsert(items)
    put = put.on_conflict_do_update(
        index_elements=["id"], set_={name: put.excluded[name] for name in names if name != "id"}
    )
    current = [{"group_id": id_, **row} for id_, row in last.items()]
    for place in range(0, len(current), 1000):
        await connection.execute(put, current[place : place + 1000])


async def store_discrepancies(connection: AsyncConnection, revisions: list[Discrepancy]) -> None:
    from sqlalchemy.dialects.postgresql import insert as upsert

    rows = [_discrepancy_row(one) for one in revisions]
    revision_names = set(discrepancy_revisions.c.keys())
    await connection.execute(
        insert(discrepancy_revisions), [{k: v for k, v in row.items() if k in revision_names} for row in rows]
    )
    put = upsert(discrepancies)
    put = put.on_conflict_do_update(
        index_elements=["id"], set_={name: put.excluded[name] for name in rows[0] if name != "id"}
    )
    await connection.execute(put, list({row["id"]: row for row in rows}.values()))


async def store_progress(connection: AsyncConnection, at: datetime, **special: datetime) -> None:
    """Progress of every partition of every topic at `at`; `matches_1=…` is that of one."""
    from sqlalchemy.dialects.postgresql import insert as upsert

    rows = [
        {"topic": topic, "partition": number, "log_time": special.get(f"{topic}_{number}", at), "log_offset": 1}
        for topic in TOPICS
        for number in range(PARTITIONS)
    ]
    put = upsert(progress)
    await connection.execute(
        put.on_conflict_do_update(index_elements=["topic", "partition"], set_={"log_time": put.excluded.log_time}),
        rows,
    )


def _log(one: Item | Discrepancy) -> dict[str, Any]:
    return {"log_partition": one.log.partition, "log_offset": one.log.offset, "log_time": one.log.time}


def _item_row(one: Item) -> dict[str, Any]:
    plain = {
        name: getattr(one, name)
        for name in ("id", "org", "revision", "status", "rule", "pack", "key", "at", "occurred_at", "live")
    }
    return (
        plain
        | _log(one)
        | {
            "sides": msgspec.to_builtins(one.sides, str_keys=True),
            "discrepancies": msgspec.to_builtins(one.discrepancies),
        }
    )


def _discrepancy_row(one: Discrepancy) -> dict[str, Any]:
    plain = {name: getattr(one, name) for name in one.__struct_fields__ if name in discrepancies.c}
    return (
        plain
        | _log(one)
        | {
            "group_id": one.id,
            "sides": {},
            "difference": None if one.difference is None else Decimal(one.difference),
            "status": "resolved" if one.state == "resolved" else "open",
            "status_at": one.log.time,
        }
    )
