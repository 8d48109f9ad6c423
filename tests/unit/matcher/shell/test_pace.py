"""How soon a partition commits: a discrepancy first, while there are few, and never more transactions than allowed."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from services.matcher.domain.core import Core
from services.matcher.handlers import commits
from services.matcher.handlers.commits import LOADED_LAG_RECORDS, Pace, Recent, Slot
from services.matcher.use_cases.partition import Partition, Policy
from tests.support.matcher_shell import CountingCore

PACE = Pace(interval_s=0.02, loaded_interval_s=0.5, commits_per_second_max=200)
SHARED_S = 12 / 200


class Raising(CountingCore):
    """Has a discrepancy that nobody has taken."""

    discrepancies_wait = True


def slots_of(core: type[CountingCore], busy: int, lag: int = 0) -> list[Slot]:
    slots = []
    for number in range(12):
        partition = Partition(number, core(number), Policy(1, 1, 1.0), 0)
        partition.position = 1 if number < busy else 0
        slots.append(Slot(TopicPartition("legs", number), partition, lag=lag))
    return slots


def wait_s(core: type[CountingCore], busy: int, begun: int = 0, lag: int = 0) -> float:
    slots, recent = slots_of(core, busy, lag), Recent()
    for _ in range(begun):
        recent.add(commits.time.monotonic())
    return PACE.wait_s(slots[0], slots, recent)


@pytest.mark.parametrize("core", [CountingCore, Raising])
def test_where_little_is_to_do_everything_goes_soon(core: type[CountingCore]) -> None:
    assert wait_s(core, busy=4) == PACE.interval_s


def test_of_many_busy_partitions_one_with_a_discrepancy_goes_first() -> None:
    assert wait_s(Raising, busy=12) == PACE.interval_s
    assert wait_s(CountingCore, busy=12) == 2 * SHARED_S


def test_many_discrepancies_make_no_more_transactions_than_allowed() -> None:
    assert wait_s(Raising, busy=12, begun=199) == PACE.interval_s
    assert wait_s(Raising, busy=12, begun=200) == SHARED_S


@pytest.mark.parametrize("core", [CountingCore, Raising])
def test_where_a_partition_lags_throughput_goes_first(core: type[CountingCore]) -> None:
    assert wait_s(core, busy=12, lag=LOADED_LAG_RECORDS + 1) == PACE.loaded_interval_s


def test_transactions_of_a_second_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[float] = [100.0]
    monkeypatch.setattr(commits.time, "monotonic", lambda: now[0])
    recent = Recent()
    for at in (100.0, 100.5, 100.9):
        now[0] = at
        recent.add(at)
    now[0] = 101.2
    assert recent.in_last_second() == 2


def test_a_core_tells_that_a_discrepancy_waits_until_it_is_taken() -> None:
    core: Any = Core(0)
    assert not core.discrepancies_wait
    core._state.changes.discrepancies.append(object())
    assert core.discrepancies_wait
    core.take()
    assert not core.discrepancies_wait
