"""Items of a report as rows of a table: one row per item and currency, whose sums are the report's figures."""

from collections.abc import Sequence
from decimal import Decimal

from services.alerts.domain.gap import gap_of
from services.alerts.domain.history import ItemState, SideState, item_state
from services.alerts.domain.period import AnyPeriod, zone_of
from services.alerts.domain.report import stands_in
from shared.contracts.discrepancy import Key
from shared.contracts.item import Item, ItemDiscrepancy
from shared.money import NO_CURRENCY, format_amount

COLUMNS = (
    "rule",
    "key",
    "status",
    "occurred_at",
    "currency",
    "expected_side",
    "expected_records",
    "expected_amount",
    "actual_side",
    "actual_records",
    "actual_amount",
    "gap",
    "other_sides",
    "discrepancies",
    "discrepancy_ids",
    "item_id",
)
"""`gap` = actual - expected; an item of two currencies has two rows with one `item_id`."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet takes a cell that begins with one of them for a formula."""


def safe_cell(text: str) -> str:
    """Return text that producers wrote so that no spreadsheet runs it: an apostrophe in front makes it text."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def rows_of(item: Item, period: AnyPeriod) -> Sequence[Sequence[str]]:
    """Return the rows of an item; none where it has no figure in the period."""
    state = item_state(item)
    if not stands_in(state, period):
        return []
    currencies = sorted({c for side in state.sides.values() if side for c, total in side.totals.items() if total.count})
    shown = currencies or [_currency_of(state)]
    by_currency: dict[str, list[ItemDiscrepancy]] = {currency: [] for currency in shown}
    for one in item.discrepancies:
        by_currency[one.currency if one.currency in by_currency else shown[0]].append(one)
    return [_row(item, state, currency, raised, period) for currency, raised in by_currency.items()]


def _row(
    item: Item, state: ItemState, currency: str, raised: Sequence[ItemDiscrepancy], period: AnyPeriod
) -> list[str]:
    names = list(state.sides)
    gap = gap_of(state).get(currency)
    return [
        safe_cell(item.rule),
        safe_cell(_key_text(item.key)),
        state.status,
        state.occurred_at.astimezone(zone_of(period.zone)).isoformat(),
        safe_cell(currency),
        *_side_cells(names[0] if names else "", state.first, currency),
        *_side_cells(names[-1] if names else "", state.last, currency),
        "" if gap is None else format_amount(gap, currency),
        safe_cell("; ".join(_other_side(name, state.sides[name], currency) for name in names[1:-1])),
        safe_cell("; ".join(f"{one.type} {one.difference}" if one.difference else one.type for one in raised)),
        "; ".join(one.id for one in raised),
        item.id,
    ]


def _side_cells(name: str, side: SideState | None, currency: str) -> list[str]:
    total = side.totals.get(currency) if side else None
    if total is None or not total.count:
        return [safe_cell(name), "0", ""]
    return [safe_cell(name), str(total.count), format_amount(total.amount, currency)]


def _other_side(name: str, side: SideState | None, currency: str) -> str:
    total = side.totals.get(currency) if side else None
    return f"{name}: {format_amount(total.amount if total else Decimal(0), currency)} ({total.count if total else 0})"


def _currency_of(state: ItemState) -> str:
    return next((one.currency for one in state.raised if one.currency), NO_CURRENCY)


def _key_text(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)
