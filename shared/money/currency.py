"""Currencies and their decimals: ISO 4217 from the `iso4217` package, tokens beside it, and what providers do differently."""

from functools import cache, lru_cache

from iso4217 import Currency

TOKEN_DECIMALS = {"USDC": 6, "USDT": 6, "EURC": 6, "PYUSD": 6, "DAI": 18, "BTC": 8, "ETH": 18, "SOL": 9}
"""Assets outside ISO 4217 that custodians and exchanges book, with the decimals of their own ledgers."""

DECIMALS_DEFAULT = 2
NO_CURRENCY = "XXX"
"""ISO 4217 for money of which no currency is known."""

_STRIPE_ZERO = ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
PROVIDER_EXPONENTS: dict[str, dict[str, int]] = {
    # docs.stripe.com/currencies: zero-decimal list; ISK and UGX are sent with two decimals for compatibility.
    "stripe": dict.fromkeys(_STRIPE_ZERO, 0) | {"ISK": 2, "UGX": 2, "HUF": 2, "TWD": 2, "MRO": 2},
    # docs.adyen.com/development-resources/currency-codes: where Adyen departs from ISO 4217.
    "adyen": {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2},
}


@cache
def decimals_of(currency: str) -> int:
    """Return how many decimals amounts of `currency` are printed with (2 where it is unknown)."""
    if currency in TOKEN_DECIMALS:
        return TOKEN_DECIMALS[currency]
    try:
        exponent = Currency(currency).exponent
    except ValueError:
        return DECIMALS_DEFAULT
    return DECIMALS_DEFAULT if exponent is None else exponent


@cache
def is_currency(code: str) -> bool:
    """Tell whether `code` is an ISO 4217 code or a token that tieout knows."""
    if code in TOKEN_DECIMALS:
        return True
    try:
        Currency(code)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1_000)
def minor_unit_exponent(provider: str, currency: str) -> int:
    """Return the power of ten between `provider`'s integer amounts and the major unit of `currency`.

    Raises:
        ValueError: the currency is unknown, so its amounts cannot be converted.
    """
    overrides = PROVIDER_EXPONENTS.get(provider, {})
    if currency in overrides:
        return overrides[currency]
    if not is_currency(currency):
        msg = f"unknown currency {currency!r}"
        raise ValueError(msg)
    return decimals_of(currency)
