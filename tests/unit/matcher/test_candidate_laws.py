"""The laws of matching without a shared key, and the product beside an oracle that looks at every way to pair."""

from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.assignment import subsets
from services.matcher.domain.core import Core
from shared.contracts.leg import Tick
from tests.model.candidate_model import ACCEPT, tell
from tests.model.strategies import at
from tests.model.strategies_candidates import OFFSETS, RULE, lawful_scenarios, scenarios
from tests.model.stream import Stream, rearranged, repeated
from tests.support.laws import (
    a_restart_changes_nothing,
    batches_decide_nothing,
    counters,
    disturbed,
    drive,
    the_same_log_gives_the_same_bytes,
)
from tests.support.offline import LogEntry, run_offline, time_of
from tieout.offline.engine import OfflineEngine

MODERATE = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
YEARS_MS = 30 * 365 * 86_400_000
CHANGES: list[dict[str, Any]] = [
    {"deadline": "30m"},
    {"decide_after": "1m"},
    {"accept": "0.99"},
    {"margin": "0.2"},
    {"keep": "1h", "expire": "2h"},
    {"limits": {"candidates_max": 2}},
    {"sides": {**RULE["sides"], "provider": {"source": "bank", "type": ["entry.*"], "live": ["booked"]}}},
    {"partition_by": ["currency"]},
]


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    stream = draw(scenarios())
    moments = [time_of(at(offset)) for offset in OFFSETS]
    return draw(disturbed(stream.rule, stream.events, stream.until, moments, CHANGES))


def ran(stream: Stream) -> OfflineEngine:
    return run_offline([stream.rule], stream.events, stream.until)[0]


def pairs_of(engine: OfflineEngine) -> set[tuple[str, str]]:
    found = set()
    for item in engine.items.values():
        first, last = item.sides.values()
        if first and last:
            found |= {(a.record, b.record) for a in first.records for b in last.records}
    return found


def open_at_end(engine: OfflineEngine) -> list[tuple[Any, ...]]:
    standing = [one for one in engine.last_revisions() if one.state == "raised"]
    return sorted((one.type, str(one.key), one.expected or "", one.actual or "", one.reason or "") for one in standing)


@MODERATE
@given(hostile_logs())
def test_batches_decide_nothing(log: list[LogEntry]) -> None:
    batches_decide_nothing(log)


@MODERATE
@given(hostile_logs(), st.data())
def test_a_restart_anywhere_changes_nothing(log: list[LogEntry], data: st.DataObject) -> None:
    """The index is made again from the cells."""
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


@MODERATE
@given(hostile_logs())
def test_the_same_log_gives_the_same_bytes(log: list[LogEntry]) -> None:
    the_same_log_gives_the_same_bytes(log)


@MODERATE
@given(hostile_logs())
def test_nothing_stays_for_ever(log: list[LogEntry]) -> None:
    """Once `keep` and `expire` have passed, neither cells nor the index hold anything."""
    core = Core(0)
    drive(core, log)
    for inbox in range(5):
        core.apply(b"", Tick(inbox, 5, time_of(at(0)) + YEARS_MS), len(log))
    assert counters(core) == (0, 0, 0)
    index = core._kinds["match_without_key"]._index
    assert not index.entries
    assert not any(side.by_amount or side.by_sign for side in index._sides.values())
    held = [index._raised, index._named_by, index._adjusting, index._rivals, index._made_of]
    assert not any(held)


@MODERATE
@given(scenarios(forgets=False).flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_nothing(pair: tuple[Stream, Stream]) -> None:
    first, second = (ran(one) for one in pair)

    assert open_at_end(first) == open_at_end(second)
    assert pairs_of(first) == pairs_of(second)


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_any_order_of_arrival_before_the_decision_leaves_the_same(pair: tuple[Stream, Stream]) -> None:
    first, second = (ran(one) for one in pair)

    assert pairs_of(first) == pairs_of(second)
    assert open_at_end(first) == open_at_end(second)


@MODERATE
@given(scenarios(forgets=False))
def test_every_live_record_stands_in_one_item_at_most(stream: Stream) -> None:
    """And what stands together is shown together, in one item.

    As long as nothing is forgotten: a record that comes again after `keep` is a new one and gets an item of its own.
    """
    engine = ran(stream)
    shown = [
        (record.source, record.record, str(item.key[:2]))
        for item in engine.items.values()
        if item.live
        for side in item.sides.values()
        if side
        for record in side.records
    ]
    assert len(shown) == len(set(shown))


@MODERATE
@given(lawful_scenarios())
def test_the_product_pairs_what_every_way_of_pairing_says(stream: Stream) -> None:
    """Where one way is clearly the best it is taken; else nobody guesses, and who may be meant is named."""
    told = tell(*([one for one in stream.events if one["source"] == source] for source in ("erp", "bank")))
    engine = ran(stream)
    said = pairs_of(engine)

    assert all(told.scores.get(pair, 0) >= ACCEPT for pair in said)
    if told.is_clear and told.is_stable:
        assert said == set(told.best)
    taken = {record for pair in said for record in pair}
    left = [pair for pair, points in told.scores.items() if points >= ACCEPT and not taken & set(pair)]
    named = {
        record.record
        for one in engine.last_revisions()
        if one.type == "AmbiguousMatch" and one.state == "raised"
        for side in one.sides.values()
        if side
        for record in side.records or [side]
    }
    assert {record for pair in left for record in pair} <= named


@MODERATE
@given(st.lists(st.integers(1, 30), max_size=9), st.integers(1, 60), st.integers(0, 2), st.integers(2, 5))
def test_sets_that_add_up_are_found(values: list[int], target: int, tolerance: int, most: int) -> None:
    """All of them by trying every combination; of two or more, two."""
    every = {
        some
        for count in range(2, most + 1)
        for some in combinations(range(len(values)), count)
        if abs(sum(values[place] for place in some) - target) <= tolerance
    }
    found = subsets(values, target, tolerance, most, 100_000)

    assert not found.exhausted
    assert set(found.found) <= every
    assert len(found.found) == min(2, len(every))
