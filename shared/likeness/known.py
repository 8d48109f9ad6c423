"""What payments usually cost, how they are usually taxed and about what currencies are worth: data with its sources.

Nothing here decides anything. It only lets a sentence say "the size of a fee", so a stale row makes a hint weaker and
never a verdict wrong. Fees and rates as of 2025-10.
"""

from decimal import Decimal
from typing import NamedTuple


class FeeShape(NamedTuple):
    """A fee of `percent` of the gross amount plus `fixed` in `currency`."""

    percent: Decimal
    fixed: Decimal
    currency: str
    source: str


def _shapes(source: str, *rows: tuple[str, str, str]) -> tuple[FeeShape, ...]:
    return tuple(FeeShape(Decimal(percent), Decimal(fixed), currency, source) for percent, fixed, currency in rows)


FEE_SHAPES: tuple[FeeShape, ...] = (
    *_shapes(
        "stripe.com/pricing",
        ("2.9", "0.30", "USD"), ("4.4", "0.30", "USD"), ("3.9", "0.30", "USD"), ("2.9", "0.30", "CAD"),
        ("1.4", "0.25", "EUR"), ("1.5", "0.25", "EUR"), ("2.5", "0.25", "EUR"), ("2.9", "0.25", "EUR"),
        ("2.9", "0.30", "EUR"), ("3.25", "0.25", "EUR"), ("1.4", "0.20", "GBP"), ("1.5", "0.20", "GBP"),
        ("2.5", "0.20", "GBP"), ("3.25", "0.20", "GBP"), ("1.7", "0.30", "AUD"), ("3.5", "0.30", "AUD"),
        ("1.75", "0.30", "AUD"), ("2.9", "0.30", "CHF"), ("3.25", "0.30", "CHF"), ("0", "0.35", "EUR"),
    ),
    *_shapes(
        "paypal.com: merchant fees",
        ("2.99", "0.49", "USD"), ("3.49", "0.49", "USD"), ("2.49", "0.35", "EUR"), ("2.99", "0.35", "EUR"),
        ("2.99", "0.39", "EUR"), ("2.9", "0.35", "EUR"), ("3.4", "0.35", "EUR"), ("2.9", "0.30", "GBP"),
    ),
    *_shapes("squareup.com/pricing", ("2.6", "0.10", "USD"), ("2.6", "0.15", "USD"), ("3.3", "0.30", "USD"),
             ("3.5", "0.15", "USD")),
    *_shapes("mollie.com/pricing", ("1.8", "0.25", "EUR"), ("2.9", "0.25", "EUR"), ("0", "0.29", "EUR"),
             ("0", "0.32", "EUR")),
    *_shapes("braintreepayments.com/pricing", ("2.59", "0.49", "USD"), ("2.89", "0.29", "USD")),
    *_shapes("shopify.com/pricing", ("2.7", "0.30", "USD"), ("2.5", "0.30", "USD"), ("2.4", "0.30", "USD")),
)  # fmt: skip
"""Fees of card and account payments as providers publish them. A shape holds for amounts of its own currency only."""

FEE_PERCENTAGES: tuple[Decimal, ...] = tuple(
    Decimal(percent)
    for percent in ("0.5", "1", "1.4", "1.5", "1.75", "2", "2.5", "2.75", "2.9", "3", "3.25", "3.5", "3.6", "4", "5")
)
"""Percentages without a fixed part, such as acquirers, marketplaces and exchanges take; 3.6 is Stripe in Japan."""

FEE_SHARE_MAX = Decimal("0.10")
"""No fee shape above takes a larger share of an amount from `GROSS_UNITS_MIN` on."""

_EURO_AREA = (
    "5 5.5 6 7 8 9 9.5 10 12 13 13.5 14 17 18 19 20 21 22 23 24 25 25.5"  # standard and reduced, euro area and Monaco
)
TAX_PERCENTAGES: dict[str, tuple[Decimal, ...]] = {
    # taxation-customs.ec.europa.eu: VAT rates in the member states; the others: their revenue offices.
    currency: tuple(Decimal(percent) for percent in percentages.split())
    for currency, percentages in {
        "EUR": _EURO_AREA,
        "GBP": "5 20",
        "CHF": "2.6 3.8 7.7 8.1",
        "SEK": "6 12 25",
        "NOK": "12 15 25",
        "DKK": "25",
        "PLN": "5 8 23",
        "CZK": "12 21",
        "HUF": "5 18 27",
        "RON": "9 11 19 21",
        "BGN": "9 20",
        "ISK": "11 24",
        "JPY": "8 10",
        "AUD": "10",
        "NZD": "15",
        "SGD": "8 9",
        "CAD": "5 13 14 15",
        "INR": "5 12 18 28",
        "ZAR": "15",
        "MXN": "8 16",
        "TRY": "1 10 20",
        "ILS": "17 18",
        "KRW": "10",
        "THB": "7",
        "AED": "5",
        "SAR": "15",
        "BHD": "10",
    }.items()
}
"""Percentages by which a gross amount of the currency exceeds the net one. United States: thousands, so none."""

RATES_DATE = "2025-10"
RATES_PER_USD: dict[str, tuple[Decimal, int]] = {
    # ECB euro foreign exchange reference rates, monthly means, rounded; pegs as their central banks say.
    currency: (Decimal(rate), width)
    for currency, (rate, width) in {
        "USD": ("1", 0), "EUR": ("0.88", 10), "GBP": ("0.76", 8), "CHF": ("0.83", 10), "JPY": ("148", 12),
        "CNY": ("7.15", 5), "AUD": ("1.53", 8), "CAD": ("1.38", 5), "NZD": ("1.70", 8), "SEK": ("9.8", 12),
        "NOK": ("10.3", 10), "DKK": ("6.55", 10), "ISK": ("125", 10), "PLN": ("3.75", 12), "CZK": ("21.8", 12),
        "HUF": ("350", 12), "RON": ("4.4", 10), "BGN": ("1.72", 10), "INR": ("87", 6), "BRL": ("5.5", 12),
        "MXN": ("18.9", 12), "ZAR": ("17.8", 10), "SGD": ("1.30", 5), "HKD": ("7.8", 1), "KRW": ("1400", 8),
        "TWD": ("31", 8), "THB": ("33", 8), "ILS": ("3.5", 12), "TRY": ("40", 20), "AED": ("3.6725", 1),
        "SAR": ("3.75", 1), "KWD": ("0.306", 3), "BHD": ("0.376", 1), "USDC": ("1", 1), "USDT": ("1", 1),
        "EURC": ("0.88", 10), "PYUSD": ("1", 1), "DAI": ("1", 2),
    }.items()
}  # fmt: skip
"""Units of a currency for one dollar, and by how many percent either way it is still called plausible."""
