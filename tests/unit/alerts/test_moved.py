"""Where a record stands: under one key, under several, or without one."""

from datetime import UTC, datetime

import pytest

from services.alerts.domain.moved import Holder, Holding, Turn, Whereabouts, after, keyless_key
from services.alerts.domain.names import group_id
from services.alerts.domain.settled import Placed
from shared.contracts.discrepancy import Discrepancy
from tests.support.results import log_at, record

NAME = ("ledger", "pay_7")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
LIVE = Placed(side="internal", record=record("pay_7"), live=True)
QUIET = Placed(side="internal", record=record("pay_7"), live=False)
MANY = 5_000


def group(key: str, offset: int = 10) -> Holder:
    id_ = group_id("acme", "billing.payments", key)
    return Holder(group_id=id_, org="acme", rule="billing.payments", pack="billing", key=key, log=log_at(offset))


def revisions(turns: list[Turn | None]) -> list[Discrepancy]:
    """Every revision that the turns make, each knowing the one before."""
    made: list[Discrepancy] = []
    for turn in turns:
        if turn is not None:
            found = after(turn, made[-1] if made else None, len(made) + 1, 10, NOW)
            made += [found] if found is not None else []
    return made


def test_thousands_of_groups_that_share_a_record_make_one_discrepancy_of_two_revisions():
    """One for each pair would be twelve million; each step looks at two other groups and no more."""
    where = Whereabouts(NAME)
    groups = [group(f"k{n}") for n in range(MANY)]
    turns = [where.step(one, LIVE) for one in groups]
    raised = revisions(turns)
    assert len(raised) == 1
    turns += [where.step(one, None) for one in groups[::-1]]
    assert max(len(turn.others) for turn in turns if turn is not None) == 2
    assert [one.state for one in revisions(turns)] == ["raised", "resolved"]


def test_a_key_is_named_as_long_as_the_record_is_live_under_it():
    """Groups leave in the order they came: each time one of the two named ones, until one is left."""
    where = Whereabouts(NAME)
    groups = [group(f"k{n}") for n in range(4)]
    turns = [where.step(one, LIVE) for one in groups] + [where.step(one, None) for one in groups]
    assert [(one.expected, one.actual, one.state) for one in revisions(turns)] == [
        ("k0", "k1", "raised"),
        ("k1", "k2", "raised"),
        ("k2", "k3", "raised"),
        ("k2", "k3", "resolved"),
    ]


def test_what_was_stored_before_counts():
    """A second key of a record that another batch stored."""
    where = Whereabouts(NAME, [Holding(holder=group("k1"), live=True), Holding(holder=group("k0"), live=False)])
    turn = where.step(group("k2"), LIVE)
    assert turn is not None
    assert [other.key for other in turn.others] == ["k1"]


def test_a_record_that_is_not_live_has_not_moved():
    where = Whereabouts(NAME, [Holding(holder=group("k1"), live=True)])
    assert where.step(group("k2"), QUIET) is None


def test_the_same_record_in_the_same_group_again_is_no_move():
    where = Whereabouts(NAME, [Holding(holder=group("k1"), live=True), Holding(holder=group("k2"), live=True)])
    assert where.step(group("k2"), LIVE) is None


@pytest.mark.parametrize("placed", [LIVE, QUIET])
@pytest.mark.parametrize("order", [1, -1])
def test_a_record_with_and_without_a_key_stands_twice_in_either_order(order: int, placed: Placed):
    """And no more once it left either."""
    keyless, keyed = group(keyless_key(NAME)), group("k1")
    where = Whereabouts(NAME)
    for here in (keyless, keyed)[::order]:
        assert not where.is_twice
        assert where.step(here, LIVE if here is keyless else placed) is None
    assert where.is_twice
    where.step(keyless, None)
    assert not where.is_twice
    where.step(keyless, LIVE)
    assert where.is_twice
    where.step(keyed, None)
    assert not where.is_twice
