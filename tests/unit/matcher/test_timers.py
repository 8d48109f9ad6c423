"""Timers fire in order of time and group, each once it has passed, however they are set."""

from bisect import insort

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
