"""What ingest counts of each source between two ticks."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import feed_counts
from services.ingest.domain.feed_counts import FeedCounts
from services.ingest.domain.normalise import Normaliser, Outcome
from services.ingest.domain.providers import MappingOptions
from services.ingest.domain.rule_book import RuleBook
from shared.contracts.event import milliseconds
from shared.contracts.inbox import RowReceived, encode_inbox
from shared.contracts.leg import FeedCount, Tick, decode_leg_record, encode_leg_record
from shared.contracts.rule_set import RuleSetRecord
from shared.rules.generation import specification
from shared.rules.load import parse_rules


def owner_of(_org: str, source: str) -> int:
    return len(source)


def test_a_tick_carries_what_came_since_the_last_one() -> None:
    counts = FeedCounts()
    for time_ms in (100, 300, 250, 900):
        counts.add(1, "acme", "stripe", time_ms)
    counts.add(1, "acme", "ledger", 500)
    counts.add(0, "acme", "stripe", 50)
    (tick,) = counts.ticks(1, 2, 1000, owner_of)
    stripe = FeedCount("acme", "stripe", 4, 100, 900, 600, 6)
    assert tick == Tick(1, 2, 1000, [FeedCount("acme", "ledger", 1, 500, 500, 0, 6), stripe])
    assert decode_leg_record(encode_leg_record(tick)) == tick
    counts.told(1, 1000)
    assert counts.ticks(1, 2, 1200, owner_of) == [Tick(1, 2, 1200, [])]
    assert counts.ticks(0, 2, 1200, owner_of)[0].feeds == [FeedCount("acme", "stripe", 1, 50, 50, 0, 6)]


def test_what_a_tick_did_not_tell_is_told_by_the_next() -> None:
    """A failed send: the same counts again, and what came meanwhile."""
    counts = FeedCounts()
    counts.add(0, "acme", "stripe", 100)
    counts.ticks(0, 1, 200, owner_of)
    counts.add(0, "acme", "stripe", 250)
    assert counts.ticks(0, 1, 300, owner_of)[0].feeds == [FeedCount("acme", "stripe", 2, 100, 250, 150, 6)]


def test_of_many_feeds_no_time_is_told_before_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick is bounded: only the last of several says the new time, so nobody is silent between two of them."""
    monkeypatch.setattr(feed_counts, "FEEDS_PER_TICK_MAX", 2)
    counts = FeedCounts()
    counts.told(0, 1000)
    for number in range(5):
        counts.add(0, "acme", f"source{number}", 1500 + number)
    ticks = counts.ticks(0, 1, 2000, owner_of)
    assert [tick.time for tick in ticks] == [1000, 1000, 2000]
    assert [count.source for tick in ticks for count in tick.feeds or ()] == [f"source{number}" for number in range(5)]


@given(st.lists(st.integers(0, 10_000), min_size=1), st.data())
def test_batches_add_up_to_what_one_would_have_counted(times: list[int], data: st.DataObject) -> None:
    times.sort()
    whole, parts = FeedCounts(), FeedCounts()
    cut = data.draw(st.integers(0, len(times)))
    for time_ms in times:
        whole.add(0, "acme", "stripe", time_ms)
    for part in (times[:cut], times[cut:]):
        batch = FeedCounts()
        for time_ms in part:
            batch.add(0, "acme", "stripe", time_ms)
        parts.merge(batch)
    assert parts.ticks(0, 1, 20_000, owner_of) == whole.ticks(0, 1, 20_000, owner_of)


BEGIN = milliseconds(datetime(2026, 11, 20, 10, 0, 1, tzinfo=UTC))
RULES = """
version: 1
pack: billing
rules:
  - name: billing.payments
    kind: match
    key: refs.payment_id
    sides:
      internal: {source: ledger, type: "payment.*"}
      provider: {source: stripe, type: "payment.*"}
  - {name: billing.feeds, kind: feed, source: prices, silent_after: 15m}
"""


def outcome_of(book: RuleBook, *sources: str) -> Outcome:
    outcome = Outcome()
    normaliser = Normaliser(book, lambda _org, _source: MappingOptions())
    for at, source in enumerate(sources):
        event = {
            "source": source,
            "type": "coffee.brewed",
            "id": f"e{at}",
            "occurred_at": "2026-11-20T10:00:00Z",
        }
        value = encode_inbox(RowReceived(org="acme", row=json.dumps(event).encode()))
        normaliser.add(value, (2, at, BEGIN + at), outcome)
    assert len(outcome.events) == len(sources)
    return outcome


def test_only_sources_that_rules_know_are_counted() -> None:
    """Producers choose the names of sources: what no rule selects or names costs nothing. Whatever the type: it lives."""
    book = RuleBook()
    rules = [specification(rule) for rule in parse_rules(RULES).rules]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    book.apply(
        "acme",
        "billing",
        RuleSetRecord(version=1, org="acme", pack="billing", rules=rules, applied_at=at, applied_by="me", withdrawn=[]),
        7,
    )
    outcome = outcome_of(book, "ledger", "nobody", "ledger", "prices")
    (tick,) = outcome.feeds.ticks(2, 4, BEGIN + 10, owner_of)
    assert tick.feeds == [
        FeedCount("acme", "ledger", 2, BEGIN, BEGIN + 2, 2, 6),
        FeedCount("acme", "prices", 1, BEGIN + 3, BEGIN + 3, 0, 6),
    ]


def test_without_rules_nothing_is_counted() -> None:
    assert outcome_of(RuleBook(), "ledger").feeds.ticks(2, 4, BEGIN, owner_of) == [Tick(2, 4, BEGIN, [])]
