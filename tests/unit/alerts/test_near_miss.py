"""Near misses: which pairs are one, what is none, and that the order in which they come does not matter."""

import random

import pytest

from services.alerts.domain.near_miss import KIND_SCORES, loose_end, near_misses
from shared.contracts.discrepancy import Discrepancy
from shared.likeness import KINDS
from tests.support.loose_ends import duplicate, ended, missing
from tests.support.results import found, uid

DAY_S = 86_400


def one_and_other(*more: Discrepancy, **of: object) -> tuple[str, str] | None:
    """Kind and sentence of what is said about `a` when `b` stands opposite."""
    of = {"amount": "120.50", "currency": "EUR", "key": "INV-71", "after_s": 4} | of
    key = of.pop("key")
    said = near_misses([missing("a", "INV-17"), missing("b", key, on="internal", **of), *more])  # type: ignore[arg-type]
    assert ({uid("a")} <= set(said)) == ({uid("b")} <= set(said)), "both of a pair name each other, or neither"
    mine = said.get(uid("a"))
    return None if mine is None or mine.discrepancy != uid("b") else (mine.kind, mine.sentence)


@pytest.mark.parametrize(
    ("of", "kind", "sentence"),
    [
        ({}, "same_amount", "of 120.50 EUR has the same amount under the reference INV-71 instead of INV-17, two characters transposed"),
        ({"key": "inv-17"}, "same_amount", "has the same amount under the reference inv-17 instead of INV-17, in another case"),
        ({"key": "INV-017"}, "same_amount", "under the reference INV-017 instead of INV-17, with other leading zeros"),
        ({"key": "INV-17", "rule": "billing.refunds"}, "same_amount", "has the same amount under the same reference INV-17 of billing.refunds"),
        ({"key": "pi_3Q"}, "same_amount", "has the same amount under the reference pi_3Q instead of INV-17"),
        ({"key": "record:stripe/p_b"}, "same_amount", "has the same amount and no reference, where INV-17 was expected"),
        ({"key": "record:stripe/INV-17", "record": "INV-17"}, "same_amount", "and no reference, where INV-17 was expected, which is its record"),
        ({"key": "pi_3Q", "after_s": DAY_S}, "day_off", "has the same amount one day later under the reference pi_3Q instead of INV-17"),
        ({"key": "pi_3Q", "after_s": -DAY_S}, "day_off", "has the same amount one day earlier under"),
        ({"amount": "102.50"}, "digits_transposed", "of 102.50 EUR stands against 120.50 EUR: two digits look transposed (02 for 20), under the reference INV-71"),
        ({"amount": "-120.50"}, "sign_flipped", "of -120.50 EUR has the same amount with the sign flipped under the reference INV-71 instead of INV-17"),
        ({"amount": "-120.50", "key": "pi_3Q"}, "sign_flipped", "with the sign flipped under the reference pi_3Q"),
        ({"amount": "12050.00"}, "minor_units", "stands against 120.50 EUR: exactly 100 times too large, so minor units look taken for major ones, under"),
        ({"amount": "118.56"}, "fee", "stands against 120.50 EUR: exactly the size of a fee of 1.4 % + 0.25 EUR, under"),
        ({"amount": "143.40"}, "tax", "stands against 120.50 EUR: exactly the size of 19 % tax, net against gross, under"),
        ({"amount": "120.49"}, "rounding", "stands against 120.50 EUR: the size of a rounding, under"),
        ({"amount": "139.50", "currency": "USD"}, "other_currency", "of 139.50 USD stands against 120.50 EUR: worth as much at a plausible rate of 1.158 USD for 1 EUR, under"),
        ({"currency": "USD"}, "same_number", "of 120.50 USD stands against 120.50 EUR: the number is the same, so one of the currencies looks wrong, under"),
    ],
)  # fmt: skip
def test_each_kind_and_its_sentence(of: dict[str, object], kind: str, sentence: str):
    """The other record, in what it differs, its reference, and the discrepancy that speaks of it."""
    said = one_and_other(**of)
    assert said is not None
    assert said[0] == kind
    assert sentence in said[1]
    assert said[1].startswith("Near miss: stripe record ")
    assert said[1].endswith(f"(discrepancy {uid('b')}).")


@pytest.mark.parametrize(
    "of",
    [
        {"key": "INV-71", "on": "provider"},  # both lack the same side
        {"key": "INV-71", "pack": "treasury"},
        {"key": "INV-71", "org": "other"},
        {"key": "INV-71", "after_s": 32 * DAY_S},
        {"key": "INV-17", "amount": "64.10"},  # the same reference and any amount
        {"key": "pi_3Q", "after_s": DAY_S + 1},  # no reference, and more than a day
        {"key": "pi_3Q", "amount": "102.50"},  # each of these needs a reference that is alike
        {"key": "pi_3Q", "amount": "12050.00"},
        {"key": "pi_3Q", "amount": "118.56"},
        {"key": "pi_3Q", "amount": "143.40"},
        {"key": "pi_3Q", "amount": "120.49"},
        {"key": "pi_3Q", "amount": "139.50", "currency": "USD"},
        {"key": "pi_3Q", "currency": "USD"},
        {"key": "INV-71", "amount": "300.00", "currency": "USD"},
    ],
)
def test_what_is_no_near_miss(of: dict[str, object]):
    """Another side, pack, organisation or time; or too little in common."""
    key = of.pop("key")
    said = near_misses([missing("a", "INV-17"), missing("b", key, **{"on": "internal", "after_s": 4} | of)])  # type: ignore[arg-type]
    assert said == {}


def test_of_two_that_could_be_meant_none_is():
    """The same amount twice without a reference: a guess would be wrong half of the time."""
    assert one_and_other(key="pi_3Q") is not None
    third = missing("c", "pi_4R", on="internal", after_s=60)
    assert near_misses([missing("a", "INV-17"), missing("b", "pi_3Q", on="internal"), third]) == {}
    twin = missing("c", "INV-44", after_s=60)
    assert near_misses([missing("a", "INV-17"), missing("b", "pi_3Q", on="internal"), twin]) == {}
    far = missing("c", "pi_4R", on="internal", after_s=2 * DAY_S)
    assert one_and_other(far, key="pi_3Q") is not None


def test_a_reference_tells_which_of_many_of_one_price():
    """Ten subscriptions of 9.99 on both sides: each finds its own."""
    ends = [missing(f"a{n}", f"SUB-4{n}-17", "9.99", after_s=n) for n in range(10)]
    ends += [missing(f"b{n}", f"SUB-4{n}-71", "9.99", on="internal", after_s=20 - n) for n in range(10)]
    said = near_misses(ends)
    assert {id_: one.discrepancy for id_, one in said.items()} == {
        uid(f"{one}{n}"): uid(f"{other}{n}") for n in range(10) for one, other in ("ab", "ba")
    }


def test_the_same_account_speaks_for_a_pair_within_a_day():
    """In place of a reference; not for another currency."""
    account = {"account": "acct_1"}

    def said(**of: object) -> bool:
        other = missing("b", "pi_3Q", **{"on": "internal", "account": "acct_1"} | of)  # type: ignore[arg-type]
        return bool(near_misses([missing("a", "INV-17", **account), other]))

    assert said(amount="118.56")
    assert said(amount="102.50", after_s=DAY_S)
    assert not said(amount="118.56", after_s=DAY_S + 1)
    assert not said(amount="118.56", account="acct_2")
    assert not said(currency="USD")


def test_a_duplicate_may_be_what_is_missing_under_another_key():
    """A record too many at Stripe, one too few: the same money under the wrong key. Two duplicates are no pair."""
    said = near_misses([missing("a", "INV-17"), duplicate("b", "INV-71", "pi_extra")])
    assert said[uid("a")].record == "pi_extra"
    assert "stripe record pi_extra of 120.50 EUR, one too many there, has the same amount" in said[uid("a")].sentence
    assert said[uid("b")].discrepancy == uid("a")
    assert near_misses([duplicate("a", "INV-17", "x"), duplicate("b", "INV-71", "y")]) == {}


def test_what_has_resolved_is_no_near_miss():
    """Nor is what has two sides, or no amount."""
    assert near_misses([missing("a", "INV-17"), ended(missing("b", "INV-71", on="internal"))]) == {}
    assert loose_end(found()) is None
    assert loose_end(missing("a", "INV-17", amount=None)) is None  # type: ignore[arg-type]


def test_a_shadow_is_nobodys_near_miss():
    """A rule that only watches speaks of the same records as the one in force."""
    shadow = missing("c", "INV-71", on="internal", after_s=4, shadow=True)
    assert near_misses([missing("a", "INV-17"), shadow]) == {}
    assert one_and_other(shadow, key="pi_3Q") is not None, "it is not what else could be meant either"


def test_the_best_pair_goes_first_and_each_has_one():
    """A transposed reference beats a mistyped one, whichever comes first; the other stays without."""
    ends = [
        missing("a", "INV-1207"),
        missing("b", "INV-1907", on="internal"),
        missing("c", "INV-1270", on="internal", after_s=900),
    ]
    said = near_misses(ends)
    assert (said[uid("a")].discrepancy, said[uid("c")].discrepancy) == (uid("c"), uid("a"))
    assert uid("b") not in said


def test_ties_are_settled_by_time_and_then_by_id():
    """The nearer one; of two equally near the one whose pair occurred first; then the lesser id."""
    near, far = missing("b", "INV-71", on="internal", after_s=5), missing("c", "INV_71", on="internal", after_s=9)
    assert near_misses([missing("a", "INV-17"), far, near])[uid("a")].discrepancy == uid("b")
    before = missing("d", "INV.71", on="internal", after_s=-5)
    assert near_misses([missing("a", "INV-17"), near, before])[uid("a")].discrepancy == uid("d")
    twin = missing("e", "INV/71", on="internal", after_s=5)
    assert near_misses([missing("a", "INV-17"), near, twin])[uid("a")].discrepancy == min(uid("b"), uid("e"))


def test_the_order_in_which_they_come_does_not_matter():
    """A hundred loose ends of few amounts and references, shuffled: always the same pairs."""
    chance = random.Random(20261120)
    ends = [
        missing(
            f"d{n}",
            chance.choice(["INV-17", "INV-71", "inv-17", "INV-1007", "INV-1070", f"pi_{n}", f"record:x/{n}"]),
            chance.choice(["120.50", "102.50", "-120.50", "118.56", "64.10"]),
            on=chance.choice(["internal", "provider"]),
            after_s=chance.randrange(3 * DAY_S),
        )
        for n in range(100)
    ]
    first = near_misses(ends)
    assert len(first) > 20
    for _ in range(5):
        chance.shuffle(ends)
        assert near_misses(ends) == first


def test_every_kind_has_a_score():
    """Whatever two amounts are called like has its weight."""
    assert set(KIND_SCORES) == set(KINDS)
