"""What a run reads: stored revisions of items and the raises and resolutions of discrepancies, as exact figures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from shared.contracts.discrepancy import Key, Severity
from shared.contracts.item import Item, ItemSide, ItemStatus, totals_of
from shared.money import parse_amount


@dataclass(frozen=True, slots=True)
class SideTotal:
    """Live records of a side in one currency, and their sum with the side's sign."""

    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class SideState:
    """One side of an item: only what is live stands in `totals`; adjustment entries stand beside them."""

    totals: Mapping[str, SideTotal] = field(default_factory=dict)
    adjusted: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RaisedType:
    """A discrepancy that is raised on an item in one of its revisions."""

    type: str
    difference: Decimal | None
    currency: str | None
    side: str | None = None


@dataclass(frozen=True, slots=True)
class ItemState:
    """One revision of an item. `at` is log time: the order in which every figure of a run sees the world."""

    item_id: str
    rule: str
    key: Key
    status: ItemStatus
    at: datetime
    occurred_at: datetime
    live: bool
    sides: Mapping[str, SideState | None]
    """In the rule's order; None where the side has no record."""
    raised: tuple[RaisedType, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it stands in any figure: without live money and without a discrepancy it does not."""
        return self.live or bool(self.raised)

    @property
    def first(self) -> SideState | None:
        """The side that is expected."""
        return next(iter(self.sides.values()), None)

    @property
    def last(self) -> SideState | None:
        """The side that is compared with the first."""
        return list(self.sides.values())[-1] if self.sides else None


@dataclass(frozen=True, slots=True)
class DiscrepancyHistory:
    """When a discrepancy was raised and resolved by the engine, in log time, alternating from a raise.

    `difference` and `currency` are those of its last revision.
    """

    discrepancy_id: str
    rule: str
    type: str
    key: Key
    currency: str
    difference: Decimal | None
    raised: tuple[datetime, ...]
    resolved: tuple[datetime, ...]
    severity: Severity = "medium"
    status: str = "open"
    explanation: str = ""

    def is_open_at(self, instant: datetime) -> bool:
        """Tell whether it was raised before `instant` and not resolved before it."""
        return _before(self.raised, instant) > _before(self.resolved, instant)

    def until(self, at: datetime) -> "DiscrepancyHistory":
        """Return the history as it was known at `at`."""
        if max((*self.raised, *self.resolved), default=at) <= at:
            return self
        return replace(
            self,
            raised=tuple(time for time in self.raised if time <= at),
            resolved=tuple(time for time in self.resolved if time <= at),
        )


def transitions(states: Iterable[tuple[datetime, str]]) -> tuple[tuple[datetime, ...], tuple[datetime, ...]]:
    """Return the times of raises and of resolutions out of (log time, state) of every revision, oldest first.

    A resolution that no raise came before (`already_settled`: never alerted) is none.
    """
    raised: list[datetime] = []
    resolved: list[datetime] = []
    for time, state in states:
        is_open = len(raised) > len(resolved)
        if state == "raised" and not is_open:
            raised.append(time)
        elif state == "resolved" and is_open:
            resolved.append(time)
    return tuple(raised), tuple(resolved)


def item_state(item: Item) -> ItemState:
    """Read one revision of an item as figures."""
    return ItemState(
        item_id=item.id,
        rule=item.rule,
        key=item.key,
        status=item.status,
        at=item.log.time,
        occurred_at=item.occurred_at or item.at,
        live=item.live,
        sides={name: None if side is None else _side_state(side) for name, side in item.sides.items()},
        raised=tuple(
            RaisedType(
                type=one.type,
                difference=None if one.difference is None else parse_amount(one.difference),
                currency=one.currency or _currency_of(item),
                side=one.side,
            )
            for one in item.discrepancies
        ),
    )


def state_at(revisions: Iterable[ItemState], at: datetime) -> ItemState | None:
    """Return the last of `revisions` (oldest first) that had been made at `at`, None where there was none yet."""
    known = None
    for revision in revisions:
        if revision.at > at:
            break
        known = revision
    return known


def _side_state(side: ItemSide) -> SideState:
    return SideState(
        totals={
            currency: SideTotal(total.count, parse_amount(total.amount)) for currency, total in totals_of(side).items()
        },
        adjusted={currency: parse_amount(amount) for currency, amount in side.adjustments.items()},
    )


def _currency_of(item: Item) -> str | None:
    """The currency that a discrepancy without one is counted under: the first that a side names, in the rule's order."""
    for side in item.sides.values():
        if side is None:
            continue
        for currency in totals_of(side):
            return currency
        for record in side.records:
            if record.currency:
                return record.currency
    return None


def _before(times: tuple[datetime, ...], instant: datetime) -> int:
    return sum(time < instant for time in times)
