"""Rows of PostgreSQL read into the contracts; JSON columns come as text (`column::text`)."""

from decimal import Decimal
from typing import Any, Protocol

import msgspec

from services.alerts.domain.triage import Facts, Standing
from shared.contracts.discrepancy import Discrepancy, Key, LogPosition, SideEvidence
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide, in_full
from shared.money import format_amount


class Row(Protocol):
    """A row by column name, whichever library read it."""

    def __getitem__(self, key: str, /) -> Any: ...


read_key = msgspec.json.Decoder(Key).decode
read_item_sides = msgspec.json.Decoder(dict[str, ItemSide | None]).decode
_read_facts = msgspec.json.Decoder(Facts).decode
read_sides = msgspec.json.Decoder(dict[str, SideEvidence | None]).decode
_read_reasons = msgspec.json.Decoder(list[str]).decode
_read_raised = msgspec.json.Decoder(list[ItemDiscrepancy]).decode


def log_of(row: Row) -> LogPosition:
    """Read the place in the log."""
    return LogPosition(partition=row["log_partition"], offset=row["log_offset"], time=row["log_time"])


def standing_of(row: Row) -> Standing:
    """Read the triage columns of a discrepancy."""
    accepted = row["accepted"]
    return Standing(
        status=row["status"],
        state=row["state"],
        revision=row["revision"],
        log_offset=row["log_offset"],
        facts=Facts(row["type"], row["expected"], row["actual"], row["currency"]),
        resolution=row["resolution"],
        status_at=row["status_at"],
        assignee=row["assignee"],
        reason=row["reason"],
        accepted=_read_facts(accepted) if accepted else None,
        reopened=row["reopened"],
        shadow=row["shadow"],
    )


def discrepancy_of(row: Row) -> Discrepancy:
    """Read the last revision as it was published."""
    return Discrepancy(
        id=row["id"],
        revision=row["revision"],
        state=row["state"],
        org=row["org"],
        rule=row["rule"],
        pack=row["pack"],
        type=row["type"],
        severity=row["severity"],
        key=read_key(row["key"]),
        side=row["side"],
        account=row["account"],
        sides=read_sides(row["sides"]),
        duplicate=row["duplicate"],
        expected=row["expected"],
        actual=row["actual"],
        difference=None if row["difference"] is None else format(row["difference"], "f"),
        currency=row["currency"],
        raised_at=row["raised_at"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
        expired=row["expired"],
        explanation=row["explanation"],
        log=log_of(row),
        reason=row["cause"],
        explained=_printed(row["explained"], row["currency"]),
        unexplained=_printed(row["unexplained"], row["currency"]),
        shadow=row["shadow"],
    )


def _printed(amount: Decimal | None, currency: str | None) -> str | None:
    return None if amount is None else format_amount(amount, currency)


def item_of(row: Row) -> Item:
    """Read an item as it was published."""
    return Item(
        id=row["id"],
        revision=row["revision"],
        status=row["status"],
        org=row["org"],
        rule=row["rule"],
        pack=row["pack"],
        key=read_key(row["key"]),
        sides={name: side and in_full(side) for name, side in read_item_sides(row["sides"]).items()},
        discrepancies=_read_raised(row["discrepancies"]),
        at=row["at"],
        occurred_at=row["occurred_at"],
        live=row["live"],
        log=log_of(row),
        shadow=row["shadow"],
        confidence=row["confidence"],
        reasons=_read_reasons(row["reasons"]) if row["reasons"] else [],
    )
