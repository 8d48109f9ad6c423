"""Likely causes of a difference between two amounts: each kind with its boundaries, and what is none."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.likeness import KINDS, Likeness, Money, Sizes, like_amounts, likeness, plausible_amounts, units_of
from shared.likeness.known import FEE_SHAPES, RATES_PER_USD

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def like(expected: str, actual: str, currency: str | None = "EUR", other: str | None = None) -> Likeness | None:
    return likeness(Money(Decimal(expected), currency), Money(Decimal(actual), other or currency))


def kind(expected: str, actual: str, currency: str | None = "EUR", other: str | None = None) -> str | None:
    found = like(expected, actual, currency, other)
    return found.kind if found else None


@pytest.mark.parametrize(
    ("expected", "actual", "currency", "pattern", "part"),
    [
        ("120.50", "-120.50", "EUR", "sign", "the sign looks flipped"),
        ("120.50", "12050", "EUR", "x 100", "exactly 100 times too large, so minor units look taken for major ones"),
        ("120.50", "1.205", "EUR", "x 100", "exactly 100 times too small, so major units look taken for minor ones"),
        ("12.050", "12050", "BHD", "x 1000", "exactly 1000 times too large, so minor units look taken for major ones"),
        ("12.050", "120.50", "BHD", "x 10", "exactly 10 times too large, so the decimals of the currency look misread"),
        ("12050", "120.50", "JPY", "x 100", "exactly 100 times too small, so the decimals of the currency look misread"),
        ("120.50", "12050", None, "x 100", "exactly 100 times too large, so minor units look taken for major ones"),
        ("120.50", "102.50", "EUR", "digits", "two digits look transposed (02 for 20)"),
        ("12.10", "11.20", "EUR", "digits", "two digits look transposed (12 for 21)"),
        ("-120.50", "-102.50", "EUR", "digits", "two digits look transposed (02 for 20)"),
        ("120.50", "120.49", "EUR", "minor unit", "the size of a rounding"),
        ("120.505", "120.51", "EUR", "minor unit", "the size of a rounding"),
        ("120.50", "121", "EUR", "whole unit", "one side looks rounded to whole units"),
        ("120.99", "120", "EUR", "whole unit", "one side looks rounded to whole units"),
        ("100.00", "96.80", "USD", "2.9 % + 0.30 USD", "exactly the size of a fee of 2.9 % + 0.30 USD"),
        ("96.80", "100.00", "USD", "2.9 % + 0.30 USD", "exactly the size of a fee of 2.9 % + 0.30 USD"),
        ("49.99", "49.04", "EUR", "1.4 % + 0.25 EUR", "exactly the size of a fee of 1.4 % + 0.25 EUR"),
        ("50.00", "49.65", "EUR", "0.35 EUR", "exactly the size of a fee of 0.35 EUR"),
        ("1000.00", "985.00", "SEK", "1.5 %", "exactly the size of a fee of 1.5 %"),
        ("12050", "11616", "JPY", "3.6 %", "exactly the size of a fee of 3.6 %"),
        ("100.00", "119.00", "EUR", "19 %", "exactly the size of 19 % tax, net against gross"),
        ("119.99", "100.83", "EUR", "19 %", "exactly the size of 19 % tax, net against gross"),
        ("59.99", "49.99", "GBP", "20 %", "exactly the size of 20 % tax, net against gross"),
        ("1100", "1000", "JPY", "10 %", "exactly the size of 10 % tax, net against gross"),
    ],
)  # fmt: skip
def test_each_cause_in_one_currency(expected: str, actual: str, currency: str | None, pattern: str, part: str):
    """Named by its pattern, said in a clause."""
    found = like(expected, actual, currency)
    assert found is not None
    assert (found.pattern, found.part) == (pattern, part)


@pytest.mark.parametrize(
    ("expected", "actual", "currency"),
    [
        ("120.50", "120.50", "EUR"),  # nothing differs
        ("0", "120.50", "EUR"),
        ("120.50", "-120.49", "EUR"),
        ("120.50", "-102.50", "EUR"),  # a flipped sign and transposed digits: two guesses at once
        ("120.50", "1205.00", "EUR"),  # ten times is no minor unit
        ("120.50", "12050.01", "EUR"),
        ("12050", "12050000", "JPY"),
        ("123.45", "321.45", "EUR"),  # swapped digits that are no neighbours
        ("21", "12", "JPY"),  # two digits: any difference of 9 would do
        ("120.50", "120.52", "EUR"),  # two cents are no rounding
        ("120.50", "121.50", "EUR"),
        ("120.25", "120.75", "EUR"),  # neither side is whole
        ("100.00", "96.83", "USD"),  # a cent beside 2.9 % + 0.30 and no other fee
        ("4.99", "4.55", "USD"),  # 2.9 % + 0.30, of an amount that any small difference is a fee of
        ("19.99", "19.79", "EUR"),  # 1 % of less than 20.00
        ("100.00", "96.02", "EUR"),  # the fee of another currency
        ("100.00", "118.99", "EUR"),  # a cent beside 19 %
        ("100.00", "119.00", "USD"),  # no tax of that size there
        ("4.19", "4.99", "EUR"),  # 19 % of less than 5.00
        ("100.00", "60.00", "EUR"),
    ],
)  # fmt: skip
def test_what_is_no_cause(expected: str, actual: str, currency: str):
    """A difference that only looks a little like something says nothing."""
    found = like(expected, actual, currency)
    assert found is None, found


def test_a_factor_of_a_hundred_of_three_decimals_is_none():
    """KWD has a thousand minor units; a hundred times is no way of reading them."""
    assert kind("1.000", "100.000", "KWD") is None


@pytest.mark.parametrize(
    ("expected", "one", "actual", "other", "wanted"),
    [
        ("120.50", "EUR", "120.50", "USD", "same_number"),
        ("100.00", "EUR", "116.00", "USD", "other_currency"),
        ("100.00", "USD", "88.00", "EUR", "other_currency"),
        ("100.00", "EUR", "16800", "JPY", "other_currency"),
        ("-100.00", "EUR", "-86.00", "GBP", "other_currency"),
        ("100.00", "EUR", "150.00", "USD", None),
        ("100.00", "EUR", "88.00", "USD", None),
        ("100.00", "EUR", "-116.00", "USD", None),
        ("100.00", "EUR", "116.00", "XTS", None),
        ("0", "EUR", "0", "USD", None),
    ],
)
def test_two_currencies(expected: str, one: str, actual: str, other: str, wanted: str | None):
    """The same number, or a rate within the band; anything else says nothing."""
    assert kind(expected, actual, one, other) == wanted


def test_the_band_of_a_rate_has_sharp_ends():
    """0.88 EUR for a dollar and 10 percent either way: 0.80 to 0.968, inclusive."""
    ends = [("80.00", True), ("79.99", False), ("96.80", True), ("96.81", False)]
    assert [(kind("100.00", a, "USD", "EUR") == "other_currency") for a, _ in ends] == [inside for _, inside in ends]


def test_a_rate_is_printed_from_the_dearer_to_the_cheaper_one():
    """Four significant digits, and called plausible."""
    found = like("100.00", "16812", "EUR", "JPY")
    assert found is not None
    assert found.part == "worth as much at a plausible rate of 168.1 JPY for 1 EUR"


def day(gap: timedelta, at: datetime = NOON, amounts: tuple[str, str] = ("70.00", "30.00")) -> str | None:
    a, b = (Decimal(amount) for amount in amounts)
    found = likeness(Money(a, "EUR", at), Money(b, "EUR", at + gap))
    return found.part if found else None


def test_a_day_off_is_said_only_where_no_amount_tells_more():
    """Exactly a day, or two sides of midnight within six hours."""
    late = NOON.replace(hour=23, minute=58)
    assert day(timedelta(days=1)) == "dated exactly one day apart"
    assert day(timedelta(days=-1)) == "dated exactly one day apart"
    assert day(timedelta(minutes=5), late) == "dated on two sides of midnight (23:58 and 00:03 UTC)"
    assert day(timedelta(days=1, microseconds=1)) is None
    assert day(timedelta(hours=6, seconds=1), late) is None
    assert day(timedelta(hours=6)) is None
    assert day(timedelta(days=1), amounts=("70.00", "-70.00")) == "the sign looks flipped"
    assert day(timedelta(days=1), amounts=("70.00", "70.00")) == "dated exactly one day apart"


def test_the_surest_cause_wins():
    """A cent is a rounding though it is also a fee; a fee with a fixed part goes before tax and plain percentages."""
    assert kind("1000.00", "999.99") == "rounding"
    assert [KINDS.index(name) for name in ("sign_flipped", "minor_units", "rounding", "fee", "day_off")] == sorted(
        KINDS.index(name) for name in ("sign_flipped", "minor_units", "rounding", "fee", "day_off")
    )


def test_known_shapes_and_rates_are_sound():
    """Every fee has a source and a part; every rate is positive with a band below a quarter."""
    assert all(shape.source and (shape.percent or shape.fixed) for shape in FEE_SHAPES)
    assert all(rate > 0 and 0 <= width <= 25 for rate, width in RATES_PER_USD.values())


AMOUNTS = st.decimals("0.01", "100000", places=2).flatmap(lambda a: st.sampled_from([a, -a]))
FOUND_BY_AMOUNT = {"sign_flipped", "minor_units", "digits_transposed", "fee", "tax"}


@given(AMOUNTS, st.data(), st.sampled_from(["EUR", "USD", "GBP"]))
def test_what_an_index_is_asked_for_holds_every_amount_that_is_alike(
    amount: Decimal, data: st.DataObject, currency: str
):
    """Of whatever `like_amounts` offers and of fees and taxes made by hand: what `likeness` accepts is offered."""
    offered = like_amounts(amount, currency)
    share = data.draw(st.sampled_from(["0.971", "0.986", "1.19", "1.20", "0.98", "1.07"]))
    made = (amount * Decimal(share)).quantize(Decimal("0.01"))
    for other in (made, made - Decimal("0.30"), made - Decimal("0.25"), amount * 100, amount / 100, -amount):
        found = likeness(Money(amount, currency), Money(other, currency))
        if found and found.kind in FOUND_BY_AMOUNT:
            assert other in offered


@given(AMOUNTS, st.data(), st.sampled_from(["EUR", "USD", "JPY"]))
def test_asked_among_the_amounts_there_are_none_of_them_is_lost(amount: Decimal, data: st.DataObject, currency: str):
    offered = like_amounts(amount, currency)
    there_are = data.draw(st.sets(st.sampled_from(sorted(offered))))
    units = {one for one in (units_of(amount, currency) for amount in there_are) if one is not None}
    units |= {one + step for one in units for step in data.draw(st.sets(st.integers(-3, 3), max_size=2))}
    found = like_amounts(amount, currency, Sizes(units))
    assert there_are <= found <= offered
    assert found == {one for one in offered if units_of(one, currency) in units} | like_amounts(
        amount, currency, Sizes()
    )


@given(AMOUNTS, AMOUNTS, st.sampled_from(["EUR", "JPY", "BHD"]), st.sampled_from(["EUR", "USD", "JPY"]))
def test_likeness_is_the_same_from_both_sides(a: Decimal, b: Decimal, currency: str, against: str):
    """Kind and pattern do not depend on which side is called expected."""
    one, other = likeness(Money(a, currency), Money(b, against)), likeness(Money(b, against), Money(a, currency))
    assert (one and (one.kind, one.pattern)) == (other and (other.kind, other.pattern))


@given(AMOUNTS, st.sampled_from(["USD", "GBP", "JPY"]), st.decimals("0.01", "100000", places=2))
def test_ranges_of_another_currency_hold_what_is_alike(amount: Decimal, other: str, against: Decimal):
    """An index asked for the ranges finds whatever `likeness` accepts."""
    found = likeness(Money(amount, "EUR"), Money(against, other))
    ranges = plausible_amounts(amount, "EUR", other)
    if found:
        assert any(low <= against <= high for low, high in ranges)


WIDE = st.decimals(
    allow_nan=False, allow_infinity=False, places=18, min_value=Decimal("-1e20"), max_value=Decimal("1e20")
)
ANY = st.one_of(
    WIDE, AMOUNTS, st.sampled_from([Decimal("9" * 38), Decimal("-" + "9" * 38), Decimal("1E-18"), Decimal(0)])
)
CURRENCIES = st.sampled_from([None, "EUR", "USD", "JPY", "BHD", "ETH", "BTC", "USDC", "XAU", "???"])


@given(ANY, ANY, CURRENCIES, CURRENCIES)
def test_no_amount_is_too_large_or_too_fine(a: Decimal, b: Decimal, one: str | None, other: str | None):
    """Whatever an event may hold: an answer, never an error, since the matcher asks for every mismatch."""
    likeness(Money(a, one, NOON), Money(b, other, NOON))
    flipped = likeness(Money(a, one), Money(a.copy_negate(), one))
    assert (flipped.kind if flipped else None) == ("sign_flipped" if a else None)
    assert a not in like_amounts(a, one)
    plausible_amounts(a, one or "EUR", other or "USD")
