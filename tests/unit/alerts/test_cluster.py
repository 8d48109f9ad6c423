"""Clusters: what is one cause and what is not, when a group begins and ends, and the sentence of each kind."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import dropwhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.alerts.domain.cluster import BURST_GAP, PATTERN_GAP, Member, cause_of, clusters, groups, named_cause
from shared.contracts.discrepancy import Discrepancy
from tests.support.loose_ends import duplicate, ended, missing
from tests.support.results import START, found, uid

MINUTE = timedelta(minutes=1)


def differing(name: str, expected: str, actual: str, currency: str = "EUR", at: timedelta = MINUTE * 0) -> Discrepancy:
    """An amount of Stripe that differs from the ledger's."""
    return found(
        name, key=name, side="provider", expected=expected, actual=actual, difference="-1.00", currency=currency,
        raised_at=START + at,
    )  # fmt: skip


def of_type(name: str, type_: str, expected: str | None, actual: str | None) -> Discrepancy:
    return found(name, type=type_, key=name, side="provider", expected=expected, actual=actual, difference=None)


CAUSES = [
    ([differing(f"a{n}", f"{gross}.00", net, "USD") for n, (gross, net) in enumerate([(100, "96.80"), (200, "193.90"), (50, "48.25")])],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are 2.9 % + 0.30 USD short: fees are probably booked on one side only."),
    ([differing(f"a{n}", net, f"{gross}.00", "USD") for n, (gross, net) in enumerate([(100, "96.80"), (200, "193.90"), (50, "48.25")])],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are 2.9 % + 0.30 USD over: fees are probably booked on one side only."),
    ([differing(f"a{n}", f"{net}.00", f"{net * 119 / 100:.2f}") for n, net in enumerate([100, 200, 300])],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are 19 % tax over: one side is probably net, the other gross."),
    ([differing(f"a{n}", f"{n}.25", f"{n}25.00") for n in (7, 8, 9)],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are 100 times too large: minor and major units are probably mixed up."),
    ([differing(f"a{n}", f"-{n}25.00", f"-{n}.25") for n in (7, 8, 9)],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are 100 times too small: minor and major units are probably mixed up."),
    ([differing(f"a{n}", f"{n}.25", f"-{n}.25") for n in (7, 8, 9)],
     "3 amounts of stripe since 2026-11-20 10:00 UTC have the sign flipped: its sign is probably read wrongly."),
    ([of_type(f"a{n}", "CurrencyMismatch", "EUR", "USD") for n in range(3)],
     "3 records of stripe since 2026-11-20 10:00 UTC are in USD instead of EUR: probably one cause."),
    ([of_type(f"a{n}", "StatusMismatch", "succeeded", "settled") for n in range(3)],
     "3 records of stripe since 2026-11-20 10:00 UTC are settled instead of succeeded: probably a status that is not mapped."),
    ([missing(f"a{n}", f"order {n * 7919}", f"{n}00.13") for n in (1, 2, 3)],
     "3 records of ledger since 2026-11-20 11:00 UTC have no provider record: probably one cause, such as a late feed or a reference that is written differently."),
    ([duplicate(f"a{n}", f"pay_{n}", f"pi_{n}") for n in (1, 2, 3)],
     "3 records of stripe since 2026-11-20 10:00 UTC are there twice: probably sent again under new names."),
    ([differing(f"a{n}", "70.00", f"{n}0.13") for n in (1, 2, 3)],
     "3 amounts of stripe since 2026-11-20 10:00 UTC are each 1.00 EUR short: probably one cause."),
    ([of_type(f"a{n}", "RecordMoved", "pay_1", "pay_2") for n in range(3)],
     "3 RecordMoved at stripe since 2026-11-20 10:00 UTC: probably one cause."),
]  # fmt: skip


@pytest.mark.parametrize(("members", "sentence"), CAUSES)
def test_three_of_one_cause_and_their_sentence(members: list[Discrepancy], sentence: str):
    """All name the same cluster; two of them are none."""
    said = clusters(members)
    assert set(said) == {one.id for one in members}
    assert {one.sentence for one in said.values()} == {sentence}
    assert {(one.size, one.since) for one in said.values()} == {(3, min(one.raised_at for one in members))}
    assert clusters(members[:2]) == {}


@pytest.mark.parametrize(
    "other",
    [
        differing("x", "100.00", "96.80", "USD"),  # the fee as before
        differing("x", "100.00", "98.50", "USD"),  # another fee
        differing("x", "96.80", "100.00", "USD"),  # the other way round
        found("x", key="x", side="provider", rule="billing.refunds", expected="100.00", actual="96.80", currency="USD"),
        found("x", key="x", side="provider", org="other", expected="100.00", actual="96.80", currency="USD"),
        of_type("x", "CurrencyMismatch", "EUR", "USD"),
    ],
)
def test_only_the_same_cause_belongs_together(other: Discrepancy):
    """Pattern, direction, rule, organisation and type have to agree."""
    fees = [differing("a", "200.00", "193.90", "USD"), differing("b", "50.00", "48.25", "USD")]
    belongs = other.expected == "100.00" and (other.actual, other.rule, other.org) == (
        "96.80",
        "billing.payments",
        "acme",
    )
    assert set(clusters([*fees, other])) == ({uid("a"), uid("b"), uid("x")} if belongs else set())


def test_a_burst_ends_with_a_pause_and_a_pattern_with_a_long_one():
    """Ten minutes where only source and type agree, a week where a pattern does; both inclusive."""
    for gap, make in (
        (BURST_GAP, lambda n, at: differing(f"a{n}", "90.00", f"{n}0.13", at=at)),
        (PATTERN_GAP, lambda n, at: differing(f"a{n}", f"{n}.25", f"-{n}.25", at=at)),
    ):
        assert len(clusters([make(n, gap * n) for n in (1, 2, 3)])) == 3
        late = timedelta(microseconds=1)
        assert clusters([make(1, gap), make(2, 2 * gap), make(3, 3 * gap + late)]) == {}
        two = clusters([make(n, gap * n) for n in (1, 2, 3)] + [make(n, gap * n + late) for n in (5, 6, 7)])
        assert len({one.id for one in two.values()}) == 2


def test_a_cluster_keeps_its_name_when_its_first_member_has_ended():
    """It is named by its first raise, counted and dated by what is open."""
    members = [differing(f"a{n}", f"{n}.25", f"-{n}.25", at=MINUTE * n) for n in range(1, 6)]
    (whole,) = set(clusters(members).values())
    (left,) = set(clusters([ended(members[0]), *members[1:]]).values())
    assert (left.id, left.size, left.since) == (whole.id, 4, START + 2 * MINUTE)
    assert clusters([ended(one) for one in members[:3]] + members[3:]) == {}
    assert clusters(members[::-1]) == clusters(members)


MEMBERS = st.lists(
    st.tuples(st.integers(0, 80), st.booleans()).map(
        lambda drawn: Member(id=uid(str(drawn)), raised_at=START + MINUTE * drawn[0], open=drawn[1])
    ),
    unique_by=lambda member: member.raised_at,
)
BURST = cause_of(differing("a", "90.00", "10.13"))


def named(members: Iterable[Member], began: datetime | None = None) -> dict[str, str]:
    """Return the name of its cluster for each open member that has one; two are enough."""
    return {
        member.id: group.cluster.id
        for group in groups("acme", BURST, members, 2, began)
        for member in group.members
        if group.cluster is not None and member.open
    }


@given(MEMBERS)
def test_no_name_changes_when_something_closes(members: list[Member]):
    """Whatever is open, each names the cluster that it names where all are open."""
    whole = named(replace(member, open=True) for member in members)
    assert named(members).items() <= whole.items()


@given(MEMBERS)
def test_what_closed_before_the_first_open_one_is_not_needed(members: list[Member]):
    """Only the first raise of its group is: with it, clusters are the same."""
    members.sort(key=lambda member: member.raised_at)
    read = list(dropwhile(lambda member: not member.open, members))
    began = next(
        (group.members[0].raised_at for group in groups("acme", BURST, members) if read and read[0] in group.members),
        None,
    )
    assert named(read, began) == named(members)


def test_what_has_resolved_is_of_the_cause_that_it_was_raised_with():
    """The evidence of its end names another source: the record that came late."""
    raised = [missing(f"a{n}", f"order {n * 7919}", f"{n}00.13", after_s=60 * n) for n in range(1, 5)]
    (whole,) = set(clusters(raised).values())
    late = missing("late", "x", on="internal").sides["provider"]
    end = replace(ended(raised[0]), sides=raised[0].sides | {"provider": late})
    (left,) = set(clusters([*raised, end]).values())
    assert (left.id, left.size) == (whole.id, 3)


def test_shadows_are_no_members():
    """What a rule that only watches says is no incident."""
    members = [differing(f"a{n}", f"{n}.25", f"-{n}.25") for n in (1, 2)]
    shadow = found("s", key="s", side="provider", expected="3.25", actual="-3.25", shadow=True)
    assert clusters([*members, shadow]) == {}


def test_the_least_size_is_a_setting():
    """Two may be enough for somebody."""
    pair = [differing("a", "1.25", "-1.25"), differing("b", "2.25", "-2.25")]
    assert {one.size for one in clusters(pair, size_min=2).values()} == {2}


def test_a_cause_is_read_back_from_its_name():
    """Also with a status that somebody chose to be very long: the name stands in an index."""
    for one in (differing("a", "100.00", "96.80", "USD"), of_type("b", "StatusMismatch", "x" * 4000, "y")):
        cause = cause_of(one)
        assert named_cause(cause.name) == cause
        assert len(cause.name) < 500
