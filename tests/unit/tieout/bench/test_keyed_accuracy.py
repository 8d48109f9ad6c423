"""The labelled stream of payments: everything planted is found, nothing else, and wrong settings cost what they must."""

from decimal import Decimal

import pytest

from shared.errors import UsageError
from tieout.bench.keyed_accuracy import KeyedAccuracy, bench
from tieout.bench.labelled_payments import RATES, generate


@pytest.fixture(scope="module")
def outcome() -> KeyedAccuracy:
    return bench(1_500, 3, RATES, curves=True)


def test_with_a_key_everything_planted_is_found_and_nothing_else(outcome: KeyedAccuracy) -> None:
    """The goal is 1.0: a key leaves nothing to guess."""
    assert (outcome.precision, outcome.recall) == (1.0, 1.0)
    assert (outcome.taken_back_right, outcome.taken_back_more) == (outcome.taken_back_expected, 0)


def test_every_kind_of_fault_was_planted_and_harmless_ones_stay_silent(outcome: KeyedAccuracy) -> None:
    assert set(outcome.confusion) == {*RATES, "clean", "alive"}
    harmless = {"late", "status_lag", "declined_then_paid", "duplicate_notification", "refunded_in_parts", "refunded"}
    harmless |= {"reversed", "payout", "skewed_clock", "silent_feed", "clean", "alive"}
    for label, counts in outcome.confusion.items():
        assert set(counts) == {"nothing"} if label in harmless else "nothing" not in counts


def test_a_deadline_that_is_too_short_alarms_falsely_and_one_too_long_tells_late(outcome: KeyedAccuracy) -> None:
    by_deadline = {cost.setting: cost for cost in outcome.deadlines}
    assert by_deadline["5m"].false_alarms > by_deadline["30m"].false_alarms > by_deadline["1h"].false_alarms == 0
    assert by_deadline["2h"].late_untold > by_deadline["1h"].late_untold == 0
    assert by_deadline["2h"].detected_s_p50 == 7200


def test_a_tolerance_that_is_too_wide_hides_money(outcome: KeyedAccuracy) -> None:
    exact, cent, _, wide = outcome.tolerances
    assert (exact.missed, exact.hidden) == (0, "0")
    assert cent.missed == outcome.confusion["rounding"]["AmountMismatch"]
    assert Decimal(cent.hidden) == cent.missed * Decimal("0.01")
    assert Decimal(wide.hidden) > Decimal(cent.hidden)


def test_the_same_seed_makes_the_same_stream() -> None:
    assert generate(200, 5).events == generate(200, 5).events != generate(200, 6).events


@pytest.mark.parametrize(
    ("rates", "words"), [({"lat": 0.1}, "no rate is called lat"), ({"late": 1.1}, "add up to 1.1")]
)
def test_wrong_rates_are_said(rates: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        generate(100, 1, rates)
