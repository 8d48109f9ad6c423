"""Why two amounts that differ may be the same money: the first kind that fits, from the surest to the vaguest."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Final, Literal, NamedTuple, get_args

from shared.likeness.known import (
    FEE_PERCENTAGES,
    FEE_SHAPES,
    FEE_SHARE_MAX,
    RATES_PER_USD,
    TAX_PERCENTAGES,
)
from shared.money import EXACT, decimals_of
from shared.money.currency import DECIMALS_DEFAULT

Kind = Literal[
    "same_amount",
    "sign_flipped",
    "minor_units",
    "same_number",
    "digits_transposed",
    "rounding",
    "fee",
    "tax",
    "other_currency",
    "day_off",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""From the surest to the vaguest: the first that fits is said."""

GROSS_UNITS_MIN: Final = 500
"""Minor units from which a fee or tax can be told from a difference of any size: 5.00 EUR."""
PLAIN_GROSS_UNITS_MIN: Final = 2_000
"""The same for percentages without a fixed part, which fit nearly any small difference."""
MIDNIGHT_GAP_MAX: Final = timedelta(hours=6)
"""Two times on both sides of midnight that are further apart are two days' business."""
TRANSPOSED_DIGITS_MIN: Final = 3
"""In a number of two digits a swap is as likely as any other difference."""
RATE_DIGITS: Final = 4
"""Significant digits of an exchange rate in a sentence."""

_ONE = Decimal(1)
_HALF = Decimal("0.5")
_PERCENT = Decimal("0.01")
_ZERO = Decimal(0)
_OUT = (Decimal("1.000000001"), Decimal("0.999999999"))
"""Moves the ends of a range outwards, since they were divided; whoever looks there asks `likeness` again."""
_DAY = timedelta(days=1)


class Money(NamedTuple):
    """An amount as one side has it; without a time no day can be off."""

    amount: Decimal
    currency: str | None
    occurred_at: datetime | None = None


class Likeness(NamedTuple):
    """A likely cause of a difference."""

    kind: Kind
    pattern: str
    """What exactly it is, the same for every pair with the same cause: `2.9 % + 0.30`, `x 100`, `EUR/USD`."""
    part: str
    """A clause for the end of a sentence."""

    @property
    def order(self) -> int:
        """0 is the surest."""
        return KINDS.index(self.kind)


def likeness(expected: Money, actual: Money) -> Likeness | None:
    """Return the likely cause of the difference between two amounts, None where none is known or nothing differs."""
    one, other = expected.currency, actual.currency
    if one and other and one != other:
        return _across_currencies(expected, actual) or _day_off(expected, actual)
    currency = one or other
    a, b = expected.amount, actual.amount
    if a == b:
        return _day_off(expected, actual)
    if not a or not b:
        return None
    return _within_currency(a, b, currency) or _day_off(expected, actual)


def _within_currency(a: Decimal, b: Decimal, currency: str | None) -> Likeness | None:
    if a == b.copy_negate():
        return Likeness("sign_flipped", "sign", "the sign looks flipped")
    if a.is_signed() != b.is_signed():
        return None
    decimals = _decimals(currency)
    a, b = a.copy_abs(), b.copy_abs()
    low, high = (a, b) if a < b else (b, a)
    return (
        # Powers of ten move the first digit, and digits that change places leave it: only one of the two can be.
        (a.adjusted() != b.adjusted() and _minor_units(a, b, decimals))
        or _rounding(low, high, decimals)
        or _transposed(a, b, decimals)  # nine minor units at least, so no rounding
        or _shaped_fee(low, high, currency, decimals)
        or _tax(low, high, currency, decimals)
        or _plain_fee(low, high, decimals)
        or _whole_units(low, high, decimals)
    )


# ---- one currency


def _decimals(currency: str | None) -> int:
    return decimals_of(currency) if currency else DECIMALS_DEFAULT


@cache
def _minor_unit_powers(decimals: int) -> tuple[int, ...]:
    """Powers of ten by which an amount is off when its minor units were taken wrongly.

    Taken for major ones: as many as the currency has decimals. Taken for the usual two: JPY is off by 100, BHD by 10.
    """
    return tuple(sorted({decimals, abs(decimals - DECIMALS_DEFAULT)} - {0}, reverse=True))


def _minor_units(a: Decimal, b: Decimal, decimals: int) -> Likeness | None:
    for power in _minor_unit_powers(decimals):
        if b == EXACT.scaleb(a, power):
            word = "large"
        elif a == EXACT.scaleb(b, power):
            word = "small"
        else:
            continue
        taken = "minor units look taken for major ones" if word == "large" else "major units look taken for minor ones"
        cause = taken if power == decimals else "the decimals of the currency look misread"
        factor = 10**power
        return Likeness("minor_units", f"x {factor}", f"exactly {factor} times too {word}, so {cause}")
    return None


def _digits(value: Decimal, decimals: int) -> str | None:
    """Return the digits of `value` written with `decimals` decimals, None where it has more."""
    scaled = EXACT.scaleb(value, decimals)
    return str(int(scaled)) if scaled == int(scaled) else None


def _transposed(a: Decimal, b: Decimal, decimals: int) -> Likeness | None:
    """Two neighbouring digits swapped; the number of digits stays, since nobody writes a leading zero."""
    one, other = _digits(a, decimals), _digits(b, decimals)
    if one is None or other is None or len(one) != len(other) or len(one) < TRANSPOSED_DIGITS_MIN:
        return None
    places = [place for place, (x, y) in enumerate(zip(one, other, strict=True)) if x != y]
    if len(places) != 2 or places[1] != places[0] + 1:
        return None
    was, now = one[places[0] : places[1] + 1], other[places[0] : places[1] + 1]
    if was != now[::-1]:
        return None
    return Likeness("digits_transposed", "digits", f"two digits look transposed ({now} for {was})")


def _rounding(low: Decimal, high: Decimal, decimals: int) -> Likeness | None:
    """At most one minor unit."""
    if EXACT.scaleb(EXACT.subtract(high, low), decimals) > _ONE:
        return None
    return Likeness("rounding", "minor unit", "the size of a rounding")


def _whole_units(low: Decimal, high: Decimal, decimals: int) -> Likeness | None:
    """One side without its decimals: cut off or rounded."""
    if not decimals or EXACT.subtract(high, low) >= _ONE or (low == int(low)) == (high == int(high)):
        return None
    return Likeness("rounding", "whole unit", "one side looks rounded to whole units")


def _is_about(value: Decimal, wanted: Decimal, within: Decimal, decimals: int) -> bool:
    """Tell whether two amounts are the same but for at most `within` minor units."""
    return EXACT.scaleb(EXACT.subtract(value, wanted), decimals).copy_abs() <= within


@cache
def _shapes_of(currency: str | None) -> tuple[tuple[Decimal, Decimal, str], ...]:
    """Percent as a share, fixed part and name of the fee shapes of a currency, each once."""
    found: dict[str, tuple[Decimal, Decimal, str]] = {}
    for shape in FEE_SHAPES:
        if shape.currency == currency:
            name = " + ".join(([f"{shape.percent} %"] if shape.percent else []) + [f"{shape.fixed} {shape.currency}"])
            found[name] = (EXACT.multiply(shape.percent, _PERCENT), shape.fixed, name)
    return tuple(found.values())


_PLAIN_SHARES = tuple((EXACT.multiply(percent, _PERCENT), f"{percent} %") for percent in FEE_PERCENTAGES)


@cache
def _taxes_of(currency: str | None) -> tuple[tuple[Decimal, str], ...]:
    """One plus the share, and the name, of the taxes of a currency."""
    rates = TAX_PERCENTAGES.get(currency or "", ())
    return tuple((EXACT.add(_ONE, EXACT.multiply(rate, _PERCENT)), f"{rate} %") for rate in rates)


def _shaped_fee(net: Decimal, gross: Decimal, currency: str | None, decimals: int) -> Likeness | None:
    missing = EXACT.subtract(gross, net)
    if EXACT.scaleb(gross, decimals) < GROSS_UNITS_MIN or missing > EXACT.multiply(gross, FEE_SHARE_MAX):
        return None
    for share, fixed, name in _shapes_of(currency):
        if _is_about(missing, EXACT.add(EXACT.multiply(gross, share), fixed), _HALF, decimals):
            return _fee(name)
    return None


def _plain_fee(net: Decimal, gross: Decimal, decimals: int) -> Likeness | None:
    missing = EXACT.subtract(gross, net)
    if EXACT.scaleb(gross, decimals) < PLAIN_GROSS_UNITS_MIN or missing > EXACT.multiply(gross, FEE_SHARE_MAX):
        return None
    for share, name in _PLAIN_SHARES:
        if _is_about(missing, EXACT.multiply(gross, share), _HALF, decimals):
            return _fee(name)
    return None


def _fee(name: str) -> Likeness:
    return Likeness("fee", name, f"exactly the size of a fee of {name}")


def _tax(net: Decimal, gross: Decimal, currency: str | None, decimals: int) -> Likeness | None:
    """Gross is the net amount plus tax, whichever of the two was computed from the other and rounded."""
    if EXACT.scaleb(gross, decimals) < GROSS_UNITS_MIN:
        return None
    for factor, name in _taxes_of(currency):
        if _is_about(gross, EXACT.multiply(net, factor), EXACT.multiply(_HALF, factor), decimals):
            return Likeness("tax", name, f"exactly the size of {name} tax, net against gross")
    return None


# ---- two currencies


def _across_currencies(expected: Money, actual: Money) -> Likeness | None:
    one, other = expected.currency, actual.currency
    assert one is not None
    assert other is not None
    a, b = expected.amount, actual.amount
    if not a or not b or (a < 0) != (b < 0):
        return None
    pattern = "/".join(sorted((one, other)))
    if a == b:
        return Likeness("same_number", pattern, "the number is the same, so one of the currencies looks wrong")
    band = _band(one, other)
    if band is None:
        return None
    per_one, per_other, width = band
    worth, is_worth = sorted((EXACT.multiply(a.copy_abs(), per_other), EXACT.multiply(b.copy_abs(), per_one)))
    if is_worth > EXACT.multiply(worth, width):
        return None
    return Likeness("other_currency", pattern, f"worth as much at a plausible rate of {_rate(a, b, one, other)}")


@cache
def _band(one: str, other: str) -> tuple[Decimal, Decimal, Decimal] | None:
    """Return both currencies' units per dollar, and the factor by which their worths may differ either way."""
    if one not in RATES_PER_USD or other not in RATES_PER_USD:
        return None
    (per_one, width_one), (per_other, width_other) = RATES_PER_USD[one], RATES_PER_USD[other]
    return per_one, per_other, EXACT.add(_ONE, EXACT.multiply(Decimal(width_one + width_other), _PERCENT))


def _rate(a: Decimal, b: Decimal, one: str, other: str) -> str:
    """Print b/a for people, rounded; never computed with."""
    if b.copy_abs() < a.copy_abs():
        a, b, one, other = b, a, other, one
    rate = b / a
    places = max(RATE_DIGITS - 1 - rate.adjusted(), 0)
    text = format(rate.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN), "f")
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {other} for 1 {one}"


# ---- days


def _day_off(expected: Money, actual: Money) -> Likeness | None:
    one, other = expected.occurred_at, actual.occurred_at
    if one is None or other is None:
        return None
    gap = abs(other - one)
    if gap == _DAY:
        return Likeness("day_off", "24 hours", "dated exactly one day apart")
    if one.date() != other.date() and gap <= MIDNIGHT_GAP_MAX:
        return Likeness("day_off", "midnight", f"dated on two sides of midnight ({one:%H:%M} and {other:%H:%M} UTC)")
    return None


# ---- the other way round: what an amount may stand beside


class Sizes:
    """The sizes in minor units that there are of a currency."""

    def __init__(self, sizes: Iterable[int] = ()) -> None:
        self.exact: set[int] = set()
        self.near: set[int] = set()
        """And those around them: of what is not even near, nothing more is computed."""
        for size in sizes:
            self.add(size)

    def add(self, size: int) -> None:
        self.exact.add(size)
        self.near.update((size - 1, size, size + 1, size + 2))


def like_amounts(amount: Decimal, currency: str | None, among: Sizes | None = None) -> frozenset[Decimal]:
    """Return the other amounts of the same currency that `likeness` may call like `amount`.

    Few and exact, so that an index finds them. Amounts rounded to whole units are left out: too many round to one.
    `among`: of fees and taxes, which are most of them, only these sizes.
    """
    if not amount:
        return frozenset()
    decimals = _decimals(currency)
    size = amount.copy_abs()
    same_sign = {*_scaled(size, decimals), *_swapped(size, decimals), *_beside(size, decimals)}
    units = EXACT.scaleb(size, decimals)
    if units == int(units):
        same_sign |= {EXACT.scaleb(Decimal(one), -decimals) for one in _with_fee_or_tax(int(units), currency, among)}
    found = {value if amount > 0 else value.copy_negate() for value in same_sign if value > 0 and value != size}
    return frozenset(found | {amount.copy_negate()})


def units_of(amount: Decimal, currency: str | None) -> int | None:
    """Return the size of an amount in minor units; None: it is no whole number of them."""
    units = EXACT.scaleb(amount.copy_abs(), _decimals(currency))
    return int(units) if units == int(units) else None


def _scaled(size: Decimal, decimals: int) -> Iterator[Decimal]:
    for power in _minor_unit_powers(decimals):
        yield EXACT.scaleb(size, power)
        yield EXACT.scaleb(size, -power)


def _swapped(size: Decimal, decimals: int) -> Iterator[Decimal]:
    digits = _digits(size, decimals)
    for place in range(len(digits) - 1 if digits else 0):
        assert digits is not None
        swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
        if swapped[0] != "0":
            yield EXACT.scaleb(Decimal(swapped), -decimals)


def _beside(size: Decimal, decimals: int) -> Iterator[Decimal]:
    unit = EXACT.scaleb(_ONE, -decimals)
    yield EXACT.add(size, unit)
    yield EXACT.subtract(size, unit)


def _with_fee_or_tax(units: int, currency: str | None, among: Sizes | None) -> set[int]:
    """Return sizes in minor units, and those beside them: rounding may have gone either way."""
    found: set[int] = set()
    for factor, fixed, divisor in _fees_and_taxes(currency):
        middle = (units * factor + fixed) // divisor
        if among is not None and middle not in among.near:
            continue
        if middle % 2 and not (units * factor + fixed) % divisor:  # a half goes to the even side
            middle -= 1
        found.update((middle - 1, middle, middle + 1))
    return found if among is None else found & among.exact


@cache
def _fees_and_taxes(currency: str | None) -> tuple[tuple[int, int, int], ...]:
    """What fees and taxes do to a size in minor units, there and back: times a factor, plus a fixed part, by a divisor.

    All doubled, and half the divisor added to the fixed part, so that a division gives the size nearest to it.
    """
    unit = 10 ** _decimals(currency)
    shapes = [(1 - Fraction(share), Fraction(fixed) * unit) for share, fixed, _ in _shapes_of(currency)]
    shapes += [(1 - Fraction(share), Fraction(0)) for share, _ in _PLAIN_SHARES]
    shapes += [(Fraction(factor), Fraction(0)) for factor, _ in _taxes_of(currency)]
    both_ways = [way for rest, fixed in shapes for way in ((rest, -fixed), (1 / rest, fixed / rest))]
    divisors = [lcm(factor.denominator, fixed.denominator) for factor, fixed in both_ways]
    return tuple(
        dict.fromkeys(
            (int(2 * factor * divisor), int(2 * fixed * divisor) + divisor, 2 * divisor)
            for (factor, fixed), divisor in zip(both_ways, divisors, strict=True)
        )
    )


def plausible_amounts(amount: Decimal, currency: str, other: str) -> tuple[tuple[Decimal, Decimal], ...]:
    """Return the ranges (least, greatest) of amounts of `other` that `likeness` may call like `amount`."""
    if currency == other or not amount:
        return ()
    band = _band(currency, other)
    if band is None:
        return ((amount, amount),)
    per_one, per_other, width = band
    worth = amount * per_other / per_one
    least, greatest = sorted((worth / width, worth * width))
    return (least * _OUT[least > 0], greatest * _OUT[greatest < 0]), (amount, amount)
