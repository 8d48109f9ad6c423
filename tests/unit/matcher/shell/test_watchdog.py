"""When a process that stands still is ended."""

import pytest

from services.matcher.adapters.watchdog import Stalled, Watchdog
from services.matcher.ports import PartitionStatus, Status


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(*, steps: int = 0, lag: int = 5, restored: bool = True, joined: bool = True, halted: str | None = None):
    return Status(joined, [PartitionStatus(4, restored, lag, steps)] if joined else [], halted)


def watch(clock: Clock, dog: Watchdog, seconds: int, state) -> None:
    for second in range(seconds):
        clock.now += 1
        dog.look(state(second) if callable(state) else state)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dog(clock: Clock) -> Watchdog:
    return Watchdog(30.0, clock)


def test_lag_without_progress_ends_the_process(clock, dog):
    with pytest.raises(Stalled, match="partition 4: 5 records wait and nothing moved for 31 s"):
        watch(clock, dog, 40, status())


def test_progress_keeps_it(clock, dog):
    watch(clock, dog, 100, lambda second: status(steps=second // 20))


def test_no_lag_keeps_it(clock, dog):
    watch(clock, dog, 100, status(lag=0))


def test_a_restore_that_never_ends_ends_the_process(clock, dog):
    with pytest.raises(Stalled, match="its state is not restored"):
        watch(clock, dog, 40, status(lag=0, restored=False))


def test_no_assignment_ends_the_process(clock, dog):
    with pytest.raises(Stalled, match="no assignment from the consumer group"):
        watch(clock, dog, 40, status(joined=False))


def test_a_deliberate_halt_keeps_it(clock, dog):
    watch(clock, dog, 100, status(halted="state is full"))


def test_a_process_that_was_suspended_itself_starts_counting_anew(clock, dog):
    watch(clock, dog, 25, status())
    clock.now += 600
    watch(clock, dog, 25, status())
