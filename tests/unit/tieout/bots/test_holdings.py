"""Goal: a figure comes from a whole, readable answer, or there is none."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.bitget import asset
from tieout.bots.exchange.holdings import (
    Holding,
    ProbeFailed,
    position,
    price,
    spot_holding,
    spot_share,
    swap_share,
    unified_holding,
)


@pytest.mark.parametrize(
    ("assets", "status"),
    [
        ([], "empty"),
        ([asset("BTC", "NaN")], "unreadable"),
        ([asset("BTC", "Infinity")], "unreadable"),
        ([asset("BTC", "one")], "unreadable"),
        ([asset("BTC", "")], "unreadable"),
        ([asset("BTC", "1e400")], "unreadable"),
        ([asset("BTC", "9" * 60)], "unreadable"),
        ([{"coin": "BTC", "available": "1"}], "unreadable"),
        ([{"available": "1", "frozen": "0", "locked": "0"}], "unreadable"),
        ([asset("BTC", "1"), asset("btc", "2")], "unreadable"),
        (["BTC"], "unreadable"),
        ("text", "unreadable"),
        (None, "unreadable"),
    ],
)
def test_what_is_no_holding_is_no_figure(assets: Any, status: str) -> None:
    with pytest.raises(ProbeFailed) as failed:
        spot_holding(assets, "BTC", "USDT")
    assert failed.value.status == status


def test_what_stands_in_orders_is_held_too() -> None:
    found = spot_holding([asset("BTC", "1", "0.5", "0.25"), asset("DOGE", "3"), asset("PEPE", "0")], "BTC", "USDT")
    assert found == Holding(Decimal("1.75"), Decimal(0), ("DOGE",))


def test_account_worth_nothing_has_no_share() -> None:
    """Nothing of nothing is not zero percent."""
    with pytest.raises(ProbeFailed) as failed:
        spot_share(Holding(Decimal(0), Decimal(0)), Decimal(100))
    assert failed.value.status == "empty"


def test_shares_have_twelve_decimals_and_no_zeros_behind() -> None:
    assert str(spot_share(Holding(Decimal(1), Decimal(2)), Decimal(1)).base_pct) == "0.333333333333"
    assert str(spot_share(Holding(Decimal("10.0"), Decimal(0)), Decimal("100.00")).equity_quote) == "1000"
    assert str(swap_share(Decimal("-0.02"), Decimal(50_000), Decimal(1000)).base_pct) == "-1"


def test_unified_account_without_assets() -> None:
    for data in (None, {}, {"assets": None}):
        with pytest.raises(ProbeFailed) as failed:
            unified_holding(data, "BTC", "USDT")
        assert failed.value.status == "unreadable"


def test_positions_of_both_sides_add_up_and_other_pairs_do_not_count() -> None:
    rows = [
        {"symbol": "BTCUSDT", "holdSide": "long", "total": "0.5"},
        {"symbol": "BTCUSDT", "holdSide": "short", "total": "0.2"},
        {"symbol": "ETHUSDT", "holdSide": "long", "total": "9"},
    ]
    assert position(rows, "BTC-USDT") == Decimal("0.3")
    assert position([], "BTC-USDT") == 0


@pytest.mark.parametrize("rows", [[], [{}], [{"lastPr": "0"}], [{"lastPr": "-1"}], None])
def test_no_price_is_no_figure(rows: Any) -> None:
    with pytest.raises(ProbeFailed):
        price(rows, "lastPr")
