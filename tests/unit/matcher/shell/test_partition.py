"""One partition's way from records to batches."""

from dataclasses import dataclass, field

import pytest

from services.matcher.use_cases.partition import CoreFailed, NewerRecord, Partition, Policy
from tests.support.matcher_shell import START_MS, CountingCore, legs_of, tick

POLICY = Policy(snapshot_threshold_bytes=1_000_000, snapshot_chunk_bytes=1_000, progress_interval_s=0.8)


@dataclass
class Record:
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list = field(default_factory=list)


def records(count: int, groups: int = 10, first: int = 0) -> list[Record]:
    return [Record(first + at, key, value) for at, (key, value) in enumerate(legs_of(count, groups, first))]


def partition(policy: Policy = POLICY, position: int = 0) -> Partition:
    return Partition(3, CountingCore(3), policy, position)


def test_nothing_read_is_nothing_to_commit():
    assert partition().collect(0.0) is None


def test_a_batch_holds_results_state_and_the_next_offset():
    one = partition()
    one.apply(records(5))
    batch = one.collect(0.0)
    assert (batch.next_offset, batch.records, len(batch.changes.items), len(batch.changes.state)) == (5, 5, 5, 5)
    assert batch.kinds == {"leg": 5}
    assert one.collect(0.0) is None


def test_records_below_the_position_were_applied_before():
    one = partition(position=3)
    one.apply(records(5))
    assert [item.id for _, item in one.collect(0.0).changes.items] == ["e3", "e4"]


def test_offsets_may_have_gaps_where_the_log_has_markers():
    one = partition()
    one.apply([records(1)[0], *records(1, first=10)])
    assert one.collect(0.0).next_offset == 11


def test_an_unreadable_record_becomes_a_dead_letter_and_the_rest_goes_on():
    one = partition()
    bad = [Record(0, b"k", b"\x01garbage"), Record(1, b"k", None), Record(2, b"k", b"")]
    one.apply([*bad, *records(1, first=3)])
    batch = one.collect(0.0)
    assert [letter.reason for letter in batch.changes.dead_letters] == ["unreadable"] * 3
    assert "partition 3 of legs, offset 0" in batch.changes.dead_letters[0].detail
    assert (batch.next_offset, len(batch.changes.items)) == (4, 1)


def test_the_same_unreadable_record_gets_the_same_dead_letter_again():
    ids = []
    for _ in range(2):
        one = partition()
        one.apply([Record(7, None, b"\x01garbage")])
        ids += [letter.id for letter in one.collect(0.0).changes.dead_letters]
    assert ids[0] == ids[1]


def test_a_record_of_a_newer_build_stops():
    with pytest.raises(NewerRecord, match=r"offset 0.*deploy the newer matcher"):
        partition().apply([Record(0, b"k", b"\x63rest")])


def test_a_core_that_fails_stops_and_names_the_record():
    class Broken(CountingCore):
        def apply(self, *_):
            raise ZeroDivisionError("no")

    with pytest.raises(CoreFailed, match=r"partition 0 of legs, offset 4.*ZeroDivisionError"):
        Partition(0, Broken(0), POLICY, 0).apply(records(1, first=4))


def test_progress_is_told_when_log_time_moved_and_not_more_often_than_its_interval():
    one = partition()
    one.apply([Record(0, None, tick(START_MS))])
    assert one.collect(10.0).progress.log.offset == 0
    one.apply([Record(1, None, tick(START_MS + 1))])
    assert one.collect(10.5).progress is None
    assert one.progress_waits
    assert one.progress_due_s == 10.8
    assert one.collect(10.8).progress.log.offset == 1
    assert not one.progress_waits


def test_no_progress_waits_before_the_first_place_in_the_log():
    """A state may know log time before a record was read, after topics were migrated: nothing is due then."""
    core = CountingCore(3)
    core.log_time = START_MS
    one = Partition(3, core, POLICY, 0)
    assert not one.progress_waits
    assert one.collect(10.0) is None


def test_no_progress_while_log_time_is_unknown():
    one = partition()
    one.apply(records(1))
    assert one.collect(0.0).progress is None


def test_a_snapshot_is_cut_into_slices_that_take_changes_made_between_them():
    """Slices and changes, put back in order, are the whole state: also of keys that changed while it was written."""
    one = partition(Policy(500, 200, 0.8))
    restored = CountingCore(3)
    slices = []
    for start in range(0, 400, 20):
        one.apply(records(20, groups=50, first=start))
        batch = one.collect(0.0)
        if batch.snapshot is not None and batch.snapshot.first:
            restored, slices = CountingCore(3), []
        else:
            restored.restore(batch.changes.state)
        if batch.snapshot is not None:
            slices.append(batch.snapshot)
            restored.restore(batch.snapshot.entries)
            if batch.snapshot.last:
                break
    assert len(slices) > 2
    assert [(piece.first, piece.last) for piece in slices] == [
        (at == 0, at == len(slices) - 1) for at in range(len(slices))
    ]
    assert restored.counts == one.core.counts


def test_a_snapshot_goes_on_without_new_records():
    one = partition(Policy(500, 200, 0.8))
    one.apply(records(100, groups=100))
    first = one.collect(0.0)
    assert first.snapshot.first
    assert one.slicing
    while one.slicing:
        batch = one.collect(0.0)
    assert batch.snapshot.last
    assert one.collect(0.0) is None


def test_the_next_snapshot_waits_until_the_changes_are_twice_the_state():
    one = partition(Policy(100, 1_000_000, 0.8))
    snapshots = 0
    for start in range(0, 2_000, 10):
        one.apply(records(10, groups=100, first=start))
        snapshots += one.collect(0.0).snapshot is not None
    written_per_snapshot = 2 * one.snapshot_bytes
    assert 2 <= snapshots <= 2 + 2_000 * 40 / written_per_snapshot


def test_trace_context_of_a_leg_goes_with_its_group():
    one = partition()
    record = records(1)[0]
    record.headers = [("traceparent", b"00-x"), ("other", b"y")]
    one.apply([record])
    assert one.collect(0.0).contexts == {record.key: [("traceparent", b"00-x")]}
    one.apply(records(1, first=1))
    assert one.collect(0.0).contexts == {}
