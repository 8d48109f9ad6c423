"""Where the money of an item's gap went: one cause after the other, which add up to last side - first side."""

from decimal import Decimal
from typing import TypeVar

from services.alerts.domain.history import ItemState, SideState
from shared.money import EXACT, NO_CURRENCY, exact_sum

_Place = TypeVar("_Place", str, tuple[str, str])

_ZERO = Decimal(0)
_REST_TYPES = ("StatusMismatch", "CurrencyMismatch")
_DUPLICATE = "DuplicateChargeSuspected"
_AMOUNT = "AmountMismatch"


def gap_of(item: ItemState) -> dict[str, Decimal]:
    """Return last side's - first side's live amount per currency, zero ones included."""
    first, last = _amounts(item.first), _amounts(item.last)
    currencies = dict.fromkeys([*first, *last])
    return {c: EXACT.subtract(last.get(c, _ZERO), first.get(c, _ZERO)) for c in currencies}


def causes_of(item: ItemState) -> dict[tuple[str, str], Decimal]:
    """Return where the item's gap comes from, per (currency, cause); the cause `residual` is what nothing explains."""
    causes: dict[tuple[str, str], Decimal] = {}
    explained: dict[str, Decimal] = {}
    for one in item.raised:
        if one.difference is not None and _bears_on_gap(one.side, item):
            currency = one.currency or NO_CURRENCY
            add_to(causes, (currency, one.type), one.difference)
            add_to(explained, currency, one.difference)
    gap = gap_of(item)
    rests = {
        currency: EXACT.subtract(gap.get(currency, _ZERO), explained.get(currency, _ZERO))
        for currency in dict.fromkeys([*gap, *explained])
    }
    found = [((c, cause), amount) for c, rest in rests.items() for cause, amount in _causes_of_rest(item, c, rest)]
    if any(cause == "residual" for (_, cause), _ in found):
        found = _whatever_currency(item, rests) or found
    for place, amount in found:
        add_to(causes, place, amount)
    return {place: amount for place, amount in causes.items() if amount}


def _whatever_currency(item: ItemState, rests: dict[str, Decimal]) -> list[tuple[tuple[str, str], Decimal]]:
    """Return what a rule explains that compares amounts whatever their currency; nothing where it does not.

    Such a rule says one difference of all of them: what is left in one currency is gone from another.
    """
    adjusted = {currency: _adjusted(item, currency) for currency in rests}
    left = {currency: EXACT.subtract(rest, adjusted[currency]) for currency, rest in rests.items()}
    if not any(left.values()) or exact_sum(left.values()):
        return []
    return [
        *(((currency, "adjusted"), amount) for currency, amount in adjusted.items()),
        *(((currency, "other_currencies"), amount) for currency, amount in left.items()),
    ]


def value_of(item: ItemState) -> dict[str, Decimal]:
    """Return what the item is worth per currency: its first side's live amounts, else its last side's."""
    return _amounts(item.first) or _amounts(item.last)


def _bears_on_gap(side: str | None, item: ItemState) -> bool:
    """A gap is between the first and the last side: what is said about a side between them is no part of it."""
    names = list(item.sides)
    return side is None or side not in names[1:-1]


def _adjusted(item: ItemState, currency: str) -> Decimal:
    """Return what adjustment entries contribute to the gap: they count in comparisons, and not in live amounts."""
    first = item.first.adjusted.get(currency, _ZERO) if item.first else _ZERO
    last = item.last.adjusted.get(currency, _ZERO) if item.last else _ZERO
    return EXACT.subtract(first, last)


def _causes_of_rest(item: ItemState, currency: str, rest: Decimal) -> list[tuple[str, Decimal]]:
    """Return the causes of what no difference explains in a currency.

    Items of older releases hold entries, too, that count for nothing (an extra record that is gone, another currency).
    """
    if not rest:
        return []
    adjusted = _adjusted(item, currency)
    if rest == adjusted:
        return [("adjusted", rest)]
    cause = _cause_of_rest(item, currency)
    left = EXACT.subtract(rest, adjusted)
    if cause in {*_REST_TYPES, "pending"} or not adjusted:
        return [(cause, rest)]
    if abs(left) < abs(rest):
        return [("adjusted", adjusted), (cause, left)]
    return [("adjusted" if cause == "within_tolerance" else cause, rest)]


def _cause_of_rest(item: ItemState, currency: str) -> str:
    types = {one.type for one in item.raised}
    for type_ in _REST_TYPES:
        if type_ in types:
            return type_
    match item.status:
        case "pending":
            return "pending"
        case "matched":
            return "within_tolerance"
        case "discrepant":
            return _cause_beside(types, item, currency)


def _cause_beside(types: set[str], item: ItemState, currency: str) -> str:
    """What a gap may hold beside the differences that are raised on the item; without any it is unexplained."""
    if types == {_DUPLICATE}:
        # The extra record is raised at once; the compared pair may still wait for its other side, or agree.
        return "within_tolerance" if item.first and item.last else "pending"
    if types and len(item.sides) > 2:
        # Where the first side is missing, the others are compared with each other: their differences overlap.
        return "other_sides"
    if types and any(total.count > 1 for side in (item.first, item.last) if side for total in side.totals.values()):
        # A rule may leave duplicates of a side unsuspected; they are in its total all the same.
        return "extra_records"
    raised = {one.currency for one in item.raised if one.type == _AMOUNT}
    first, last = _amounts(item.first), _amounts(item.last)
    both = first.keys() & last.keys()
    if raised and currency in both - raised:
        # Amounts are compared currency by currency, and about this one nothing is raised.
        return "within_tolerance"
    if types and raised <= both and any(_live_records(side) > 1 for side in (item.first, item.last)):
        # So compared, what stands on one side alone is a further record, too.
        return "extra_records"
    return "residual"


def _live_records(side: SideState | None) -> int:
    return sum(total.count for total in side.totals.values()) if side else 0


def _amounts(side: SideState | None) -> dict[str, Decimal]:
    return {} if side is None else {c: total.amount for c, total in side.totals.items() if total.count}


def add_to(sums: dict[_Place, Decimal], place: _Place, amount: Decimal) -> None:
    """Add `amount` to what stands at `place`, exactly."""
    sums[place] = EXACT.add(sums.get(place, _ZERO), amount)
