"""Timers fire in order of time and group, each once it has passed, however they are set."""

from bisect import insort
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from services.matcher.domain.timers import BUCKET_MS, NEVER, Timers

NEAR = st.integers(0, 3 * BUCKET_MS) | st.sampled_from([0, 1, BUCKET_MS - 1, BUCKET_MS, BUCKET_MS + 1, 2 * BUCKET_MS])
GROUPS = st.sampled_from([b"a", b"b", b"c"])
STEPS = st.lists(st.tuples(st.just("set"), NEAR, GROUPS) | st.tuples(st.just("due"), NEAR, st.just(b"")), max_size=40)


@given(STEPS)
def test_timers_are_a_sorted_list(steps: list[tuple[str, int, bytes]]) -> None:
    """Set and asked in any order, also for times that have passed already."""
    timers, model = Timers(), list[tuple[int, bytes]]()
    for what, time, group in steps:
        if what == "set":
            timers.set(time, group)
            insort(model, (time, group))
        else:
            assert list(timers.due(time)) == [one for one in model if one[0] < time]
            model = [one for one in model if one[0] >= time]
        assert timers.next_at <= min((one[0] for one in model), default=NEVER)


@given(st.lists(st.tuples(NEAR, GROUPS), min_size=1, max_size=10), st.integers(0, BUCKET_MS * 2))
def test_a_timer_set_while_others_fire_takes_its_place(first: list[tuple[int, bytes]], later: int) -> None:
    """One that is due in the same round fires in the same round, in order."""
    timers = Timers()
    for time, group in first:
        timers.set(time, group)
    log_time, again = 5 * BUCKET_MS + 1, min(first)[0] + later
    fired = []
    for place, one in enumerate(timers.due(log_time)):
        if place == 0:
            timers.set(again, b"z")
        fired.append(one)

    expected = sorted(first)
    assert fired[0] == expected[0]
    assert fired[1:] == sorted([*expected[1:], (again, b"z")])
    assert timers.next_at == NEVER


def test_a_timer_of_exactly_the_log_time_has_not_fired() -> None:
    """A deadline is over when log time is greater than it."""
    timers = Timers()
    timers.set(1000, b"a")

    assert list(timers.due(1000)) == []
    assert timers.next_at <= 1000
    assert list(timers.due(1001)) == [(1000, b"a")]


@given(STEPS, st.sets(GROUPS, min_size=1), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_what_is_sifted_out_belongs_to_idle_groups(
    steps: list[tuple[str, int, bytes]], idle: set[bytes], sifts: list[int]
) -> None:
    """All others fire as ever; and whoever sifts often enough has no timer of an idle group left in a bucket."""
    timers, untouched = Timers(), Timers()
    for what, time, group in steps:
        if what == "set":
            timers.set(time, group)
            untouched.set(time, group)
        else:
            assert awake(timers.due(time), idle) == awake(untouched.due(time), idle)
        for count in sifts:
            timers.sift(idle.__contains__, count)
    timers.sift(idle.__contains__, 10 * len(steps) + 10)
    assert not [group for bucket in timers._buckets.values() for group in bucket[1::2] if group in idle]
    assert awake(timers.due(NEVER), idle) == awake(untouched.due(NEVER), idle)


def awake(fired: Iterable[tuple[int, bytes]], idle: set[bytes]) -> list[tuple[int, bytes]]:
    return [(time, group) for time, group in fired if group not in idle]
