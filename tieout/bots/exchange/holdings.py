"""From what Bitget answers to the share of the base asset: pure, exact, and an error where something is missing."""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Literal, NamedTuple

ProbeStatus = Literal[
    "ok",
    "disabled",
    "paper_only",
    "missing_credentials",
    "wrong_key",
    "no_permission",
    "clock_off",
    "timeout",
    "unavailable",
    "rate_limited",
    "refused",
    "empty",
    "stale",
    "unreadable",
]
"""What became of the look at a bot's account. Only `ok` carries a figure."""
SETTLED: frozenset[ProbeStatus] = frozenset({"ok", "disabled", "paper_only"})
"""Nobody has to do anything."""
AWAY: frozenset[ProbeStatus] = frozenset({"timeout", "unavailable", "rate_limited", "stale"})
"""Another try may help."""

SHARE = Decimal(1).scaleb(-12)
"""Twelve decimals: far finer than any threshold, and no endless fractions."""
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,30})?")


class ProbeFailed(Exception):
    """There is no figure, and why; the message is for people and holds no secret."""

    def __init__(self, status: ProbeStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Holding(NamedTuple):
    """What an account holds, in base and quote."""

    base: Decimal
    quote: Decimal
    """Of futures: the equity, which the position is part of."""
    others: tuple[str, ...] = ()
    """Assets beside the two, which are in no figure."""


class Share(NamedTuple):
    """The figure that is compared with the bot's own."""

    base_pct: Decimal
    equity_quote: Decimal


def spot_holding(assets: Any, base: str, quote: str) -> Holding:
    """Read `data` of Get Account Assets: what is free and what stands in orders."""
    return _held(assets, base, quote, ("available", "frozen", "locked"))


def unified_holding(data: Any, base: str, quote: str) -> Holding:
    """Read `data` of the unified account's assets; what was borrowed counts against it."""
    assets = data.get("assets") if isinstance(data, Mapping) else None
    held = _held(assets, base, quote, ("balance",))
    owed = _held(assets, base, quote, ("debt",))
    return held._replace(base=held.base - owed.base, quote=held.quote - owed.quote)


def _held(assets: Any, base: str, quote: str, parts: tuple[str, ...]) -> Holding:
    amounts: dict[str, Decimal] = {}
    for asset in _rows(assets, "assets"):
        coin = asset.get("coin")
        if not isinstance(coin, str) or not coin or coin.upper() in amounts:
            raise ProbeFailed("unreadable", "an asset has no name, or stands there twice")
        amounts[coin.upper()] = sum((_number(asset.get(part), f"{coin}.{part}") for part in parts), Decimal(0))
    if not amounts:
        raise ProbeFailed("empty", "Bitget names no assets at all; that is no account of zero")
    others = sorted(coin for coin, amount in amounts.items() if amount and coin not in {base, quote})
    return Holding(amounts.get(base, Decimal(0)), amounts.get(quote, Decimal(0)), tuple(others))


def position(rows: Any, pair: str) -> Decimal:
    """Read `data` of Get Single Position: long less short, in base; none where there is no position."""
    total = Decimal(0)
    for row in _rows(rows, "positions"):
        if row.get("symbol") != pair.replace("-", ""):
            continue
        side = row.get("holdSide")
        if side not in {"long", "short"}:
            raise ProbeFailed("unreadable", "a position is neither long nor short")
        size = _number(row.get("total"), "position.total")
        total += size if side == "long" else -size
    return total


def equity(data: Any) -> Decimal:
    """Read `data` of Get Single Account."""
    if not isinstance(data, Mapping):
        raise ProbeFailed("unreadable", "the account is no object")
    return _number(data.get("accountEquity"), "accountEquity")


def price(rows: Any, field: str) -> Decimal:
    """Read `data` of Get Ticker."""
    found = _rows(rows, "tickers")
    value = _number(found[0].get(field), field) if found else Decimal(0)
    if value <= 0:
        raise ProbeFailed("unreadable", "Bitget names no price for the pair")
    return value


def spot_share(holding: Holding, at: Decimal) -> Share:
    """Return the base asset's part of the account's worth."""
    worth = _EXACT.multiply(holding.base, at)
    return _share(worth, _EXACT.add(worth, holding.quote))


def swap_share(size: Decimal, at: Decimal, worth: Decimal) -> Share:
    """Return the position's worth as part of the equity: below 0 when short, above 1 with leverage."""
    return _share(_EXACT.multiply(size, at), worth)


def _share(part: Decimal, whole: Decimal) -> Share:
    if whole <= 0:
        raise ProbeFailed("empty", "the account holds nothing of the pair, so there is no share to compare")
    return Share(_plain(_EXACT.divide(part, whole).quantize(SHARE, context=_EXACT)), _plain(whole))


def _plain(number: Decimal) -> Decimal:
    """Drop zeros behind the point, and keep those before it: 1000, not 1E+3."""
    return Decimal(format(number.normalize(_EXACT), "f"))


def _rows(rows: Any, what: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ProbeFailed("unreadable", f"{what} are no list of objects")
    return rows


def _number(value: Any, what: str) -> Decimal:
    """Bitget writes amounts as text, and ccxt leaves JSON numbers as theirs."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        raise ProbeFailed("unreadable", f"{what} is no number")
    return Decimal(value)
