"""Amounts as programs print them: exact, and refused where they might mean something else."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain.formats.amount_text import AmountForm, AmountUnreadable

GERMAN = AmountForm(",", ".")
SWISS = AmountForm(".", "'")
FRENCH = AmountForm(",", " ")
PLAIN = AmountForm()


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (PLAIN, "12.50", "12.50"),
        (PLAIN, "-0.01", "-0.01"),
        (PLAIN, ".5", "0.5"),
        (PLAIN, "+7", "7"),
        (PLAIN, "12.50-", "-12.50"),
        (PLAIN, "(12.50)", "-12.50"),
        (PLAIN, "\u221212.50", "-12.50"),
        (PLAIN, "-0.00", "0.00"),
        (GERMAN, "1.234.567,89", "1234567.89"),
        (GERMAN, "1234,5", "1234.5"),
        (GERMAN, "1.234", "1234"),
        (SWISS, "1'234.50", "1234.50"),
        (SWISS, "1\u2019234.50", "1234.50"),
        (FRENCH, "1 234,50", "1234.50"),
        (FRENCH, "1\u202f234,50", "1234.50"),
        (FRENCH, "- 1\u00a0234,50", "-1234.50"),
        (AmountForm(strip=("$", "USD")), "$1234.5 USD", "1234.5"),
        (PLAIN, "1" * 30 + "." + "1" * 18, "1" * 30 + "." + "1" * 18),
    ],
)
def test_amounts_are_read_exactly(form: AmountForm, text: str, value: str):
    assert str(form.read(text)) == value


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (PLAIN, "12,50"),
        (PLAIN, "1,234.50"),
        (GERMAN, "12.50"),
        (GERMAN, "1,234.50"),
        (GERMAN, "1.23,40"),
        (PLAIN, ""),
        (PLAIN, "-"),
        (PLAIN, "1e5"),
        (PLAIN, "NaN"),
        (PLAIN, "1.2.3"),
        (PLAIN, "--1"),
        (PLAIN, "12.50 EUR"),
        (PLAIN, "\u0661\u0662"),
        (PLAIN, "1_000"),
    ],
)
def test_what_does_not_fit_is_refused_with_an_example(form: AmountForm, text: str):
    with pytest.raises(AmountUnreadable, match=r"amount\.decimal"):
        form.read(text)


@given(
    cents=st.integers(-(10**14), 10**14),
    form=st.sampled_from([GERMAN, SWISS, FRENCH, AmountForm(".", ","), AmountForm(","), PLAIN]),
)
def test_what_is_printed_is_read_back(cents: int, form: AmountForm):
    whole = f"{abs(cents) // 100:,}".replace(",", form.thousands or "")
    text = f"{'-' if cents < 0 else ''}{whole}{form.decimal}{abs(cents) % 100:02}"
    assert form.read(text) == Decimal(cents).scaleb(-2)
