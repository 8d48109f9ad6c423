"""Money: exact decimals, currencies and their decimals. Nothing in tieout computes with floats."""

from shared.money.amount import (
    EXACT,
    AmountError,
    exact_sum,
    format_amount,
    format_number,
    from_minor_units,
    is_plain_amount,
    parse_amount,
    print_amount,
)
from shared.money.currency import NO_CURRENCY, decimals_of, is_currency, minor_unit_exponent

__all__ = [
    "EXACT",
    "NO_CURRENCY",
    "AmountError",
    "decimals_of",
    "exact_sum",
    "format_amount",
    "format_number",
    "from_minor_units",
    "is_currency",
    "is_plain_amount",
    "minor_unit_exponent",
    "parse_amount",
    "print_amount",
]
