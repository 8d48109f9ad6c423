"""The compiled way of plain legs gives what Python gives: results, state and set-aside records, to the byte."""

import random
import warnings
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.matcher.adapters import state_format
from services.matcher.adapters.results import in_json
from services.matcher.adapters.state_format import encode_changes
from services.matcher.domain.compiled import BUILT, bytes_of, pack_entries, pair_as_json
from services.matcher.domain.core import Core
from services.matcher.domain.frozen import Freezing
from services.matcher.ports import Entry
from services.matcher.use_cases.partition import Partition, Policy
from shared.contracts.leg import Leg, Tick, decode_leg_record, encode_leg_record
from shared.contracts.matched_pair import PairWords, encode_pair, encode_words
from tests.support.offline import LogEntry
from tests.unit.matcher.test_core_laws import MODERATE, hostile_logs, plain_matches
from tieout.bench.prepared_legs import prepared_legs

if not BUILT:
    warnings.warn(
        "NOT CHECKED: the compiled core is not built here, for want of a C compiler (`make native`)", stacklevel=1
    )
pytestmark = pytest.mark.skipif(not BUILT, reason="the compiled core is not built: `make native` needs a C compiler")

POLICY = Policy(1 << 40, 1 << 20, 1.0)
FREEZING = Freezing(recent_pairs=2, block_pairs=3)


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def applied(records: list[Record], cuts: list[int], *, compiled: bool) -> tuple[Any, ...]:
    """Everything that can be seen of a partition that applied records and was collected at `cuts`."""
    core = Core(0, compiled=compiled, freezing=FREEZING)
    partition = Partition(0, core, POLICY, 0)
    batches = []
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        partition.apply(records[begin:end])
        batches.append(partition.collect(0.0))
        while core.freeze():
            pass
    return (
        msgspec.msgpack.encode([batch.changes for batch in batches if batch is not None]),
        [(batch.next_offset, batch.records, batch.kinds, batch.contexts) for batch in batches if batch is not None],
        list(core.snapshot()),
        (core.log_time, core.open_items, core.settled_items, core.state_bytes),
    )


def assert_same(records: list[Record], cuts: list[int]) -> None:
    assert applied(records, cuts, compiled=True) == applied(records, cuts, compiled=False)


def records_of(log: list[LogEntry], first: int = 0) -> list[Record]:
    return [
        Record(first + place, group or None, encode_leg_record(record)) for place, (group, record) in enumerate(log)
    ]


@st.composite
def recorded(draw: st.DrawFn) -> tuple[list[Record], list[int]]:
    records = records_of(draw(hostile_logs() | plain_matches()))
    for place in draw(st.lists(st.integers(0, len(records)), max_size=3)):
        again = records[:place] if draw(st.booleans()) else []  # read a second time, from below the position on
        records[place:place] = [one._replace(headers=(("traceparent", b"00-1-2-01"),)) for one in again[-2:]]
    return records, sorted(draw(st.lists(st.integers(0, len(records)), max_size=4)))


@MODERATE
@given(recorded())
def test_what_is_compiled_gives_the_same_bytes(drawn: tuple[list[Record], list[int]]) -> None:
    assert_same(*drawn)


@MODERATE
@given(plain_matches(), st.data())
def test_a_value_that_is_broken_or_written_otherwise_means_the_same(log: list[LogEntry], data: st.DataObject) -> None:
    """Bytes cut off, added, turned round: what is no leg is set aside, and what is one counts, in either way."""
    records = records_of(log)
    legs = [place for place, record in enumerate(records) if record.key is not None]
    place = data.draw(st.sampled_from(legs))
    value = bytearray(records[place].value or b"")
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(1, len(value) - 1))  # byte 0 is the version: another one stops the matcher
        match data.draw(st.sampled_from(["cut", "add", "turn"])):
            case "cut":
                del value[at:]
                value += b"\x01"
            case "add":
                value[at:at] = data.draw(st.binary(min_size=1, max_size=3))
            case "turn":
                value[at] = data.draw(st.integers(0, 255))
    records[place] = records[place]._replace(value=bytes(value))
    try:
        expected = applied(records, [], compiled=False)
    except Exception as error:  # noqa: BLE001 - a leg of a rule that the log never named stops either
        with pytest.raises(type(error)):
            applied(records, [], compiled=True)
    else:
        assert applied(records, [], compiled=True) == expected


def test_a_long_log_in_uneven_pieces_gives_the_same_bytes() -> None:
    log: dict[int, list[Record]] = {0: [], 1: []}
    for number, key, value in prepared_legs(30_000, 2):
        log[number].append(Record(len(log[number]), key, value))
    chance = random.Random(11)
    for records in log.values():
        assert_same(records, sorted(chance.sample(range(len(records)), 40)))


@pytest.mark.parametrize("inboxes", [(0, 1023), (1, 1024), (5, 2**63), (7, 3, 900, 2)])
def test_any_inbox_partition_has_its_time(inboxes: tuple[int, ...]) -> None:
    """The state keeps the order in which they came; those that are too many for an array are Python's."""
    records = []
    for place, (_, key, value) in enumerate(prepared_legs(3_000, 1)):
        record = decode_leg_record(value)
        if isinstance(record, Leg | Tick):
            inbox = inboxes[record.inbox_partition % len(inboxes)]
            record = msgspec.structs.replace(record, inbox_partition=inbox)
        if isinstance(record, Tick):
            record.partitions = len(inboxes)
        records.append(Record(place, key, encode_leg_record(record)))
    assert_same(records, [1_000, 1_001])


def test_an_item_that_is_written_in_c_is_the_one_that_python_writes() -> None:
    core = Core(0)
    partition = Partition(0, core, POLICY, 0)
    partition.apply([Record(place, key, value) for place, (_, key, value) in enumerate(prepared_legs(30_000, 1))])
    pairs = [item for _, item in core.take().items if type(item) is bytes]
    assert len(pairs) > 9_000
    assert [pair_as_json(pair) for pair in pairs] == [in_json(pair) for pair in pairs]


@given(st.integers(0, 253_402_300_799_999_999), st.integers(0, 253_402_300_799_999), st.sampled_from(["2.50", "0.07"]))
def test_every_time_is_written_as_python_writes_it(microseconds: int, milliseconds: int, amount: str) -> None:
    legs = [
        Leg("g", side, f"s{side}", "r", f"e{side}", microseconds, 0, 0, milliseconds, 0, None, amount, "EUR", "paid")
        for side in (1, 0)
    ]
    words = encode_words(PairWords("billing", ("internal", "provider")))
    pair = encode_pair(words, b'["acme","b.p","k","l"]', 3, 2**40, milliseconds, *map(encode_leg_record, legs))
    assert pair_as_json(pair) == in_json(pair)


def test_most_legs_take_the_compiled_way() -> None:
    """Else the tests above would hold Python against itself."""
    records = [Record(place, key, value) for place, (_, key, value) in enumerate(prepared_legs(2_000, 1))]
    core = Core(0)
    assert core.run is not None
    partition = Partition(0, core, POLICY, 0)
    first_leg = next(place for place, record in enumerate(records) if record.key is not None)
    partition.apply(records[:first_leg])
    taken = place = first_leg
    taken = 0
    while place < len(records):
        reached = core.run(records, place, place)
        taken += reached - place
        for record in records[reached : reached + 1]:
            partition.position = record.offset
            partition._apply([record])
        place = reached + 1
    assert taken > 0.95 * len(records)


@MODERATE
@given(
    st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=1200)), max_size=40),
    st.integers(min_value=320, max_value=9000),
)
@example([(b"%d" % place, bytes(place % 3)) for place in range(70_000)], state_format.RECORD_BYTES_MAX)
@example([(b"key", bytes(70_000))] * 3, state_format.RECORD_BYTES_MAX)
def test_state_entries_are_packed_alike(entries: list[Entry], record_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_format, "RECORD_BYTES_MAX", record_bytes)
        compiled = encode_changes(7, entries)
        patch.setattr(state_format, "pack_entries", lambda *_: None)
        assert compiled == encode_changes(7, entries)
    assert bytes_of(entries) == sum(len(key) + len(value) for key, value in entries)


@pytest.mark.parametrize(
    "entries", [((b"key", b"value"),), [[b"key", b"value"]], [(b"key",)], [(b"key", bytearray(3))]]
)
def test_what_is_no_state_entry_is_left_to_python(entries: Any) -> None:
    assert pack_entries(entries, 12, 1000) is None
    assert bytes_of(entries) == sum(len(part) for entry in entries for part in entry)
