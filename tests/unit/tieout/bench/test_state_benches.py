"""The benches of held state measure what they say."""

from services.matcher.adapters.state_format import StateReader
from services.matcher.domain.core import Core
from tieout.bench import memory, restore


def test_the_state_that_is_restored_holds_what_is_said() -> None:
    core, reader = Core(0), StateReader()
    records = [reader.read(offset, value) for offset, value in enumerate(restore._state_records(0, 1_001, 20_000))]
    for record in records:
        core.restore(record.entries)

    assert (core.settled_items, core.open_items) == (500, 501)
    assert [record.first for record in records] == [True] + [False] * (len(records) - 1)
    assert [record.last for record in records] == [False] * (len(records) - 1) + [True]


def test_pairs_that_are_timed_settle_beside_what_is_held() -> None:
    """Open: everything stays. Settled: what is held expires as new pairs settle."""
    partition = memory._begun()
    core, held = partition.core, partition.core.settled_items
    memory._grown(partition, memory.settled_and_waiting(0, 300))
    memory._cost(partition, memory.settled_and_waiting(200, 0, memory.START_MS + 300, first=300))
    assert (core.open_items, core.settled_items - held) == (300, 200)

    partition = memory._begun()
    core = partition.core
    memory._grown(partition, memory.settled_and_waiting(8_000, 0))
    before = core.settled_items
    memory._cost(partition, memory.settled_and_waiting(4_000, 0, memory.START_MS + memory.KEEP_MS, first=8_000))
    assert core.open_items == 0
    assert core.settled_items < before + 4_000
