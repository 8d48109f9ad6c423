"""News of feeds stand among verdicts in the order of the legs, however these are cut into batches."""

import msgspec
import pytest

from services.matcher.adapters.results import FEED_HEADERS, check_results
from services.matcher.domain.changes import Changes
from services.matcher.ports import Batch
from shared.contracts.discrepancy import Check, FeedStatus
from tests.support.results import START, log_at

CHECKS = [
    (
        b"key",
        Check(
            org="acme", rule="billing.balance", pack="billing", key="a", code=None, result="passed", currency="EUR",
            as_of=START, expected="1.00", actual="1.00", difference="0.00", log=log_at(offset),
        ),
    )
    for offset in (2, 5, 5, 9)
]  # fmt: skip
FEEDS = [
    FeedStatus(
        org="acme", source="stripe", rule="feed.builtin", last_seen_at=START, usual_silence_ms=None, silent_after_ms=None,
        silent_since=None, waiting=0, log=log_at(offset),
    )
    for offset in (1, 5, 7)
]  # fmt: skip


def written(first: int, end: int) -> list[tuple[int, bool]]:
    """What legs from `first` on, before `end`, wrote: the leg, and whether it is news of a feed."""
    changes = Changes(
        checks=[one for one in CHECKS if first <= one[1].log.offset < end],
        feeds=[one for one in FEEDS if first <= one.log.offset < end],
    )
    batch = Batch(partition=0, next_offset=end, records=end - first, changes=changes)
    return [
        (msgspec.json.decode(value)["log"]["offset"], headers == FEED_HEADERS)
        for _, value, headers in check_results(batch)
    ]


@pytest.mark.parametrize("cut", range(11))
def test_the_order_is_that_of_the_legs(cut: int) -> None:
    expected = [(1, True), (2, False), (5, False), (5, False), (5, True), (7, True), (9, False)]
    assert written(0, cut) + written(cut, 10) == expected
