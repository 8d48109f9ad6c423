"""Why a record is open, in words: the order of what happened, and what would close each type."""

from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest

from services.alerts.domain.triage import Assign, Note, Resolve, absorb, act
from services.alerts.ports.triage import History, Revision, Stored
from services.alerts.use_cases.story import story_of, story_of_item, would_close
from shared.contracts.discrepancy import Discrepancy, MatchType, SideEvidence
from shared.contracts.item import Item
from tests.support.results import START, found, item_side, log_at, record, resolved, uid


def revision_of(one: Discrepancy) -> Revision:
    values = {name: getattr(one, name) for name in Revision.__struct_fields__ if name != "log_time"}
    return Revision(log_time=one.log.time, **values)


def history(*revisions: Discrepancy, actions: Any = ()) -> History:
    """The history of these revisions, with people's actions after the first."""
    standing, log = None, []
    for number, one in enumerate(revisions):
        absorbed = absorb(standing, one, repeats_settled=False)
        assert absorbed is not None
        standing, log = absorbed.standing, [*log, *absorbed.log]
        for action in actions if number == 0 else ():
            standing, row = act(standing, action, "ann", START + timedelta(seconds=10.5))
            log.append(row)
    stored = Stored(found=revisions[-1], standing=standing)
    return History(stored=stored, revisions=[revision_of(one) for one in revisions], log=log, adjustments=[])


def test_what_happened_is_told_in_its_order():
    """The engine's word, people's actions between, the engine's word again, and how it stands."""
    actions = [Assign("ada", "she knows"), Note("a voucher")]
    story = story_of(history(found(), found(revision=2, offset=20, explanation="Now 5.00 EUR less."), actions=actions))
    assert list(story.history) == [
        "2026-11-20 10:00:10 UTC: the engine raised it: Stripe has 10.00 EUR less than the ledger.",
        '2026-11-20 10:00:10 UTC: ann assigned it to ada: "she knows".',
        '2026-11-20 10:00:10 UTC: ann noted: "a voucher".',
        "2026-11-20 10:00:20 UTC: the engine revised it (revision 2): Now 5.00 EUR less.",
    ]
    assert story.now == "It is open: still true, and its status is open, assigned to ada."
    assert story.open
    assert list(story.seen) == [
        "internal: ledger has pay_1, 100.00 EUR, succeeded, of 2026-11-20 10:00:00 UTC.",
        "provider: stripe has pi_1, 90.00 EUR, succeeded, of 2026-11-20 10:00:00 UTC.",
    ]


def test_what_is_closed_says_by_whom():
    """By the engine, or by a person though it is still true; nothing would close it then."""
    ended = story_of(history(found(), resolved(explanation="It agrees now.")))
    assert (ended.open, ended.closes) == (False, [])
    assert ended.now.startswith("It is closed: no longer true (corrected)")
    accepted = story_of(history(found(), actions=[Resolve("accepted", "voucher 77")]))
    assert (accepted.open, accepted.closes) == (False, [])
    assert accepted.now == "It is closed by a person though still true: resolved as accepted."


@pytest.mark.parametrize(
    "type_", [*get_args(MatchType), "LedgerImbalance", "BalanceMismatch", "AmbiguousMatch", "FeedSilent", "plug_grew"]
)
def test_every_type_says_what_would_close_it(type_: str):
    """A sentence without a hole in it, of every kind of rule."""
    lone = found(type=type_, expected="80.00", duplicate=None, account=None)
    sentences = would_close(msgspec.structs.replace(lone, sides=lone.sides | {"provider": None}))
    assert sentences
    assert all("None" not in one and "  " not in one for one in sentences)


def test_a_sum_names_some_of_its_records_and_counts_the_rest():
    many = [record(f"l{n}", "1.00") for n in range(20)]
    side = SideEvidence(
        id=None, source=None, record=None, amount="60.00", currency="EUR", status=None, occurred_at=None, count=60,
        records=many,
    )  # fmt: skip
    told = story_of(history(found(sides={"internal": side, "provider": None}))).seen
    assert told[0].startswith("internal: 60 records, 60.00 EUR (ledger has l0, 1.00 EUR, succeeded")
    assert told[0].endswith("; and 55 more).")
    assert told[1] == "provider: no record."


@pytest.mark.parametrize(
    ("status", "open_", "said"), [("pending", True, "It waits for provider"), ("matched", False, "its records match")]
)
def test_an_item_without_a_discrepancy_is_told_too(status: Any, open_: bool, said: str):
    item = Item(
        id=uid("i1"), revision=1, status=status, org="acme", rule="billing.payments", pack="billing", key="pay_1",
        sides={"internal": item_side(record("pay_1")), "provider": None}, discrepancies=[], at=START,
        occurred_at=START, live=True, log=log_at(1),
    )  # fmt: skip
    story = story_of_item(item)
    assert (story.open, said in story.now) == (open_, True)
    assert bool(story.closes) == open_
