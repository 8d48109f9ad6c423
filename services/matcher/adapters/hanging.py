"""Finds what a broker left without an end: transactions that it logs as complete though a partition has no marker.

A broker that is killed and comes back may skip the markers of partitions that have no leader at that moment (decision
9). Two things go wrong then if nobody looks: readers of committed records wait before that place, and the end of the
partition's next transaction counts for the hanging records as well, whatever became of their own.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest

from services.matcher.adapters.reader import opened
from services.matcher.adapters.results import PROGRESS_HEADERS
from services.matcher.adapters.state_format import next_place_of
from shared.kafka.settings import KafkaSettings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

POLL_MS = 200
RETRY_S = 0.1
# Of the request for offsets:
CLIENT, LATEST, NO_LEADER = -1, -1, -1
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
TAIL_OFFSETS = (100, 10_000)
"""Looked through for the last record, from the end: the nearest first, markers take offsets too."""


@dataclass(frozen=True, slots=True)
class Hanging:
    """Partitions whose last transaction has no end, and how the coordinator ended it."""

    places: list[TopicPartition]
    committed: bool


class _Log(msgspec.Struct):
    offset: int


class _Result(msgspec.Struct):
    log: _Log


_decode_result = msgspec.json.Decoder(_Result).decode


async def find_hanging(
    kafka: KafkaSettings,
    producer: "AIOKafkaProducer",
    state: TopicPartition,
    results: Sequence[TopicPartition],
    others: Sequence[TopicPartition],
) -> Hanging | None:
    """Look at one partition of the matcher while nobody writes to it; None when everything has its end.

    Asks over the connections of `producer`: a look takes two requests, and every start takes a look.

    Every transaction writes the next input offset to `state`, and each of `results` tells the input offset it was made
    by. So a transaction was committed when a hanging result lies below the offset that readers see in `state`, or a
    result that they see lies above. Without such a proof nobody has seen anything of it: then it counts as aborted,
    since it may be incomplete, and is done again. `others` hold no offsets; what hangs only there counts as committed.
    """
    places = [state, *results, *others]
    stable, ends = await _ends(producer, READ_COMMITTED, places), await _ends(producer, READ_UNCOMMITTED, places)
    hanging = [place for place in places if stable[place] < ends[place]]
    if not hanging:
        return None
    if not {state, *results}.intersection(hanging):
        return Hanging(hanging, committed=True)
    next_offset = _next_offset(await last_seen(kafka, state, stable[state]))
    for place in results:
        if place in hanging:
            made_by = _made_by(await _first_hidden(kafka, place, stable[place], ends[place]))
            proof = made_by is not None and made_by < next_offset
        else:
            made_by = _made_by(await last_seen(kafka, place, stable[place]))
            proof = made_by is not None and made_by >= next_offset
        if proof:
            return Hanging(hanging, committed=True)
    return Hanging(hanging, committed=False)


async def _ends(
    producer: "AIOKafkaProducer", isolation: int, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """The end of each of `places`, or how far readers of committed records see.

    Waits for leaders that are away; the caller sets the limit.
    """
    while True:
        try:
            return await _ask_ends(producer, isolation, places)
        except KafkaError as error:
            if not error.retriable:
                raise
            await producer.client.force_metadata_update()
            await asyncio.sleep(RETRY_S)


async def _ask_ends(
    producer: "AIOKafkaProducer", isolation: int, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    # Together: the client asks once for all that it does not know.
    await asyncio.gather(*[producer.partitions_for(topic) for topic, _ in places])
    by_leader: dict[int, list[tuple[str, list[tuple[int, int]]]]] = {}
    for topic, number in places:
        leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, number))
        if leader is None or leader == NO_LEADER:
            raise LeaderNotAvailableError(f"{topic}, partition {number}")
        by_leader.setdefault(leader, []).append((topic, [(number, LATEST)]))
    ends = {}
    for leader, topics in by_leader.items():
        response = await producer.client.send(leader, OffsetRequest(CLIENT, isolation, topics))
        for topic, partitions in response.topics:
            for number, error, _, offset in partitions:
                if error:
                    raise for_code(error)(f"{topic}, partition {number}")
                ends[TopicPartition(topic, number)] = offset
    return ends


def _next_offset(record: Any | None) -> int:
    return 0 if record is None else next_place_of(record.value)


def _made_by(record: Any | None) -> int | None:
    if record is None:
        return None
    try:
        return _decode_result(record.value).log.offset
    except msgspec.MsgspecError:
        return None  # not ours: it proves nothing


async def last_seen(kafka: KafkaSettings, place: TopicPartition, end: int) -> Any | None:
    """Return the last committed record before `end`; None where there is none."""
    async with opened(kafka, isolation="read_committed") as reader:
        begin = (await reader.beginning_offsets([place]))[place]
        reader.assign([place])
        for tail in (*TAIL_OFFSETS, end - begin):
            last = None
            reader.seek(place, max(end - tail, begin))
            while await reader.position(place) < end:
                for record in await _poll(reader, place):
                    last = record
            if last is not None:
                return last
    return None


async def _first_hidden(kafka: KafkaSettings, place: TopicPartition, start: int, end: int) -> Any | None:
    """Progress is passed over: it may tell again of an offset that was committed before."""
    async with opened(kafka, isolation="read_uncommitted") as reader:
        reader.assign([place])
        reader.seek(place, start)
        while await reader.position(place) < end:
            for record in await _poll(reader, place):
                if PROGRESS_HEADERS[0] not in record.headers:
                    return record
    return None


async def _poll(reader: AIOKafkaConsumer, place: TopicPartition) -> list[Any]:
    found: list[Any] = (await reader.getmany(place, timeout_ms=POLL_MS)).get(place, [])
    return found
