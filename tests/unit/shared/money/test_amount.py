"""Amounts are exact from the text that comes in to the text that goes out."""

from decimal import Decimal, Inexact

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.money import (
    EXACT,
    AmountError,
    decimals_of,
    exact_sum,
    format_amount,
    format_number,
    from_minor_units,
    is_currency,
    minor_unit_exponent,
    parse_amount,
    print_amount,
)

AMOUNTS = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places, context=EXACT),
    st.integers(-(10**20), 10**20),
    st.integers(0, 18),
)
CURRENCIES = st.sampled_from(["EUR", "JPY", "BHD", "USDC", "BTC", "ETH", "XYZ"])


@given(AMOUNTS, CURRENCIES)
@example(Decimal(10**20), "ETH")
def test_what_is_printed_is_what_is_read(amount: Decimal, currency: str) -> None:
    """No digit is lost, none added beyond the currency's decimals, and there is no exponent and no minus before zero."""
    text = format_amount(amount, currency)

    assert parse_amount(text) == amount
    assert not (amount == 0 and text.startswith("-"))
    _, _, fraction = text.partition(".")
    assert len(fraction) >= decimals_of(currency)
    assert len(fraction) == decimals_of(currency) or not fraction.endswith("0")


@given(AMOUNTS, CURRENCIES)
def test_equal_amounts_print_alike(amount: Decimal, currency: str) -> None:
    """Text is compared in revisions and bytes: 1.0 and 1.000 are one."""
    longer = amount.quantize(Decimal(1).scaleb(-18), context=EXACT)

    assert format_amount(longer, currency) == format_amount(amount, currency)


@given(
    AMOUNTS.map(lambda amount: format(amount, "f")) | st.from_regex(r"-?[0-9]{1,5}(\.[0-9]{1,4})?", fullmatch=True),
    CURRENCIES | st.none(),
)
@example("-0.00", "EUR")
@example("-0", "JPY")
@example("00.50", "EUR")
@example("0.500", "EUR")
def test_an_amount_given_as_text_prints_like_its_value(text: str, currency: str | None) -> None:
    assert print_amount(text, currency) == format_amount(Decimal(text), currency)


@given(st.lists(AMOUNTS, max_size=30))
def test_sums_are_exact_in_any_order(amounts: list[Decimal]) -> None:
    """Compared with whole numbers of the smallest unit."""
    units = sum(int(amount.scaleb(18, context=EXACT)) for amount in amounts)

    assert exact_sum(amounts) == exact_sum(reversed(amounts)) == Decimal(units).scaleb(-18, context=EXACT)


@given(st.integers(-(10**18), 10**18), st.integers(0, 18))
def test_minor_units_become_major_units_without_rounding(units: int, exponent: int) -> None:
    """And back."""
    text = from_minor_units(units, exponent)

    assert "E" not in text
    assert Decimal(text).scaleb(exponent, context=EXACT) == units


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("120.5", "EUR", "120.50"),
        ("120.500", "EUR", "120.50"),
        ("120.505", "EUR", "120.505"),
        ("1000", "JPY", "1000"),
        ("1000.5", "JPY", "1000.5"),
        ("1", "BHD", "1.000"),
        ("0.00000001", "BTC", "0.00000001"),
        ("-0", "EUR", "0.00"),
        ("-0.00", "JPY", "0"),
        ("3.10", None, "3.1"),
        ("5", "ZZZ", "5.00"),
    ],
)
def test_amounts_print_with_the_decimals_of_their_currency(amount: str, currency: str | None, text: str) -> None:
    """More only if they are not zero."""
    assert format_amount(Decimal(amount), currency) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".5",
        "5.",
        "+5",
        "1e3",
        "1,000.00",
        "0x10",
        "NaN",
        "Infinity",
        "--1",
        " 1",
        "1\n",
        "\u0661",
        "1" * 39,
        "0." + "1" * 19,
    ],
)
def test_anything_but_a_plain_decimal_is_refused(text: str) -> None:
    """With the text shortened, and an example."""
    with pytest.raises(AmountError) as caught:
        parse_amount(text)
    assert "120.50" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_more_than_38_digits_in_all_are_refused() -> None:
    """Though the parts before and after the point are each short enough."""
    assert parse_amount("1" * 20 + "." + "1" * 18)
    with pytest.raises(AmountError, match="38 digits"):
        parse_amount("1" * 21 + "." + "1" * 18)


def test_arithmetic_raises_instead_of_rounding() -> None:
    """A third has no exact decimal."""
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))


def test_numbers_print_with_at_least_the_decimals_asked_for() -> None:
    """Used where there is no currency, as for percentages."""
    assert [format_number(Decimal(text), 2) for text in ("1", "1.230", "1.239", "-0.0")] == [
        "1.00",
        "1.23",
        "1.239",
        "0.00",
    ]


def test_currencies_and_where_providers_depart_from_them() -> None:
    """ISO 4217, tokens, and the lists that providers publish."""
    assert [decimals_of(code) for code in ("EUR", "JPY", "BHD", "CLP", "USDC", "BTC", "ETH")] == [2, 0, 3, 0, 6, 8, 18]
    assert [is_currency(code) for code in ("EUR", "BTC", "EURO", "eur", "")] == [True, True, False, False, False]
    assert minor_unit_exponent("stripe", "ISK") == 2
    assert minor_unit_exponent("adyen", "CLP") == 2
    assert minor_unit_exponent("stripe", "CLP") == 0
    assert minor_unit_exponent("anyone", "BHD") == 3
    with pytest.raises(ValueError, match="'XYZW'"):
        minor_unit_exponent("stripe", "XYZW")
