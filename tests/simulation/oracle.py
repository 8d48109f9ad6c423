"""Judges a run by what stands on the topics and in the database at its end."""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import msgspec

from services.matcher.adapters.state_format import StateReader
from services.matcher.domain.core import Core
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.matched_pair import read_item
from tests.simulation.stream import PARTITIONS, Stream, expected
from tests.support.planted import Open

if TYPE_CHECKING:
    from tests.simulation.world import World

_discrepancy = msgspec.json.Decoder(Discrepancy).decode


def complaints(world: "World", made: Stream) -> list[str]:
    """Return a sentence for everything that is not as it has to be."""
    wanted, cores = expected(world.entries)
    told = _of_topics(world, wanted)
    told += _of_outcome(world, made)
    told += _of_state(world, cores)
    told += _of_database(world)
    return told


def _of_topics(world: "World", wanted: dict[tuple[str, int], list[bytes]]) -> list[str]:
    told = []
    for (name, number), values in wanted.items():
        found = [bytes(record.value) for record in world.seen("s." + name, number)]
        lost, doubled = Counter(values) - Counter(found), Counter(found) - Counter(values)
        if lost or doubled:
            told.append(f"{name} {number}: {lost.total()} of {len(values)} lost, {doubled.total()} doubled or wrong")
        elif found != values:
            told.append(f"{name} {number}: the results are right and their order is not")
    return told


def _of_outcome(world: "World", made: Stream) -> list[str]:
    """The stories know how they end, whatever the product's code says."""
    revisions: dict[str, list[Discrepancy]] = defaultdict(list)
    told = []
    for number in range(PARTITIONS):
        for record in world.seen("s.discrepancies", number):
            one = _discrepancy(record.value)
            revisions[one.id].append(one)
    for id_, some in revisions.items():
        numbers = [one.revision for one in some]
        if numbers != list(range(1, len(numbers) + 1)):
            told.append(f"discrepancy {id_} has revisions {numbers}")
    last = [max(some, key=lambda one: one.revision) for some in revisions.values()]
    left = frozenset(
        Open(d.rule, str(d.key), d.type, str(d.side), d.duplicate, d.expected, d.actual, d.difference, d.currency)
        for d in last
        if d.state == "raised"
    )
    if left != made.open:
        told.append(f"left open: {len(left - made.open)} that should not be, {len(made.open - left)} are missing")
    return told


def _of_state(world: "World", cores: list[Core]) -> list[str]:
    told = []
    for number, core in enumerate(cores):
        restored, reader = Core(number), StateReader()
        for record in world.seen("s.matcher-state", number):
            if record.offset >= world.broker.logs[record.topic, number].begin:
                restored.restore(reader.read(record.offset, record.value).entries)
        if sorted(restored.snapshot()) != sorted(core.snapshot()):
            told.append(f"the state of partition {number} is another one than that of an undisturbed run")
    return told


def _of_database(world: "World") -> list[str]:
    published = Counter()
    for number in range(PARTITIONS):
        for record in world.seen("s.discrepancies", number):
            one = _discrepancy(record.value)
            published["discrepancies", one.id, one.revision] += 1
        for record in world.seen("s.matches", number):
            item = read_item(record.value)
            published["matches", item.id, item.revision] += 1
    stored = Counter(world.database.rows)
    lost, doubled = published - stored, stored - published
    return [f"database: {lost.total()} lost, {doubled.total()} doubled"] if lost or doubled else []
