"""Exact decimal amounts: parsing, adding and printing without ever rounding."""

import re
from collections.abc import Callable, Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import cache

from shared.money.currency import decimals_of

DIGITS_MAX = 38
"""Digits of an amount in all, zeros at the end of its decimals left out: what PostgreSQL NUMERIC(38, 18) and common warehouses hold."""
FRACTION_DIGITS_MAX = 18
"""Digits after the point: the smallest unit of ether."""

EXACT = Context(prec=120, traps=[Inexact, InvalidOperation, Overflow])
"""Arithmetic that raises instead of rounding; wide enough for sums and percentages of any allowed amount."""

_PATTERN = re.compile(r"-?[0-9]{1,38}(?:\.[0-9]{1,18})?", re.ASCII)
_PLAIN = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)
_ZERO = Decimal(0)


class AmountError(ValueError):
    """The text is not an exact decimal amount."""


def parse_amount(text: str) -> Decimal:
    """Return the exact value of `text`, a decimal string in the currency's major unit such as `"120.50"`.

    Raises:
        AmountError: not a plain decimal: exponent, sign other than a leading minus, or too many digits.
    """
    if not _PATTERN.fullmatch(text):
        raise AmountError(
            f'{text[:60]!r} is not a decimal amount: write up to 38 digits, a point and up to 18 more if need be, e.g. "120.50"'
        )
    value = Decimal(text)
    # Taking a value apart costs more than reading it: a text this short cannot have too many digits.
    # Zeros that only fill up the currency's decimals say nothing: what is printed must be readable again.
    if len(text) > DIGITS_MAX and "." in text:
        value = Decimal(text.rstrip("0").rstrip("."))
    if len(text) > DIGITS_MAX and len(value.as_tuple().digits) > DIGITS_MAX:
        raise AmountError(f"{text[:60]!r} has more than {DIGITS_MAX} digits")
    return value


def is_plain_amount(text: str) -> bool:
    """Tell whether `text` is an amount without a minus and so short that it needs no closer look; most are."""
    return _PLAIN.fullmatch(text) is not None


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum."""
    total = _ZERO
    for value in values:
        total = EXACT.add(total, value)
    return total


def format_number(value: Decimal, decimals: int) -> str:
    """Print `value` with at least `decimals` decimals, more only if they are not zero; no exponent, no minus before zero."""
    if not value:
        value = _ZERO
    text = format(value, "f")
    if decimals and text[-decimals - 1 : -decimals] == ".":
        return text
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "amounts are finite"
    places = -exponent
    if places == decimals:
        return text
    while places > decimals and digits[-1] == 0 and len(digits) > 1:
        digits = digits[:-1]
        places -= 1
    return format(value.quantize(Decimal(1).scaleb(-max(places, decimals)), context=EXACT), "f")


def format_amount(value: Decimal, currency: str | None) -> str:
    """Print `value` with the decimals of `currency` (DESIGN section 8)."""
    return format_number(value, decimals_of(currency) if currency else 0)


@cache
def _is_printed(decimals: int) -> Callable[[str], re.Match[str] | None]:
    """Return what tells whether a text is an amount as `format_number` prints it, of those with just these decimals."""
    places = rf"\.[0-9]{{{decimals}}}" if decimals else ""
    return re.compile(rf"(?!-[0.]*\Z)-?(?:0|[1-9][0-9]*){places}", re.ASCII).fullmatch


def print_amount(amount: str, currency: str | None) -> str:
    """Return `format_amount` of an amount that is given as text: nearly always that is the text itself."""
    if _is_printed(decimals_of(currency) if currency else 0)(amount):
        return amount
    return format_amount(Decimal(amount), currency)


def from_minor_units(amount: int, exponent: int) -> str:
    """Return a provider's integer amount as a decimal string in the major unit: 12050 with exponent 2 is "120.50"."""
    if exponent == 0:
        return str(amount)
    digits = str(abs(amount)).rjust(exponent + 1, "0")
    return f"{'-' if amount < 0 else ''}{digits[:-exponent]}.{digits[-exponent:]}"
