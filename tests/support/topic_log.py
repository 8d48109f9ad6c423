"""What stands on topics: read whole, from the first record, as a committed reader sees it."""

import asyncio
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from aiokafka import TopicPartition

from shared.contracts.discrepancy import Progress
from shared.contracts.inbox import RowReceived, WebhookReceived, decode_inbox
from shared.contracts.item import Item
from shared.contracts.matched_pair import read_item
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of

T = TypeVar("T")

_read_progress = msgspec.json.Decoder(Progress).decode
_read_named = msgspec.json.Decoder(dict[str, Any]).decode


def is_progress(record: Any) -> bool:
    """Tell a progress record from a result."""
    return ("kind", b"progress") in record.headers


async def all_records(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Return every record that stands on `topic` now."""
    reader = consumer(kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        count = (await partitions_of(kafka, topic))[topic]
        places = [TopicPartition(topic, number) for number in range(count)]
        reader.assign(places)
        ends = await reader.end_offsets(places)
        records: list[Any] = []
        for place in places:
            await reader.seek_to_beginning(place)
        while any([await reader.position(place) < ends[place] for place in places]):
            for found in (await reader.getmany(timeout_ms=200)).values():
                records += found
        return records
    finally:
        await reader.stop()


async def results_past(
    kafka: KafkaSettings, topic: str, read: type[T], until: datetime, timeout_s: float
) -> list[tuple[int, T]]:
    """Return (partition, result) of all results once every partition has made progress past `until` in log time."""
    decode = read_item if read is Item else msgspec.json.Decoder(read).decode
    reader = consumer(kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        count = (await partitions_of(kafka, topic))[topic]
        reader.assign([TopicPartition(topic, number) for number in range(count)])
        await reader.seek_to_beginning()
        results: list[tuple[int, T]] = []
        reached: dict[int, datetime] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while len(reached) < count or min(reached.values()) <= until:
                    for records in (await reader.getmany(timeout_ms=200)).values():
                        for record in records:
                            if is_progress(record):
                                reached[record.partition] = _read_progress(record.value).log.time
                            else:
                                results.append((record.partition, decode(record.value)))
        except TimeoutError:
            raise AssertionError(
                f"{topic}: log time reached {reached} and not {until} within {timeout_s:g} s"
            ) from None
        return results
    finally:
        await reader.stop()


async def inbox_events(kafka: KafkaSettings, topic: str) -> tuple[set[tuple[str, str]], int]:
    """Return (source, id) of every event in the inbox, and the broker's time of the last of them in milliseconds."""
    found: set[tuple[str, str]] = set()
    last = 0
    for record in await all_records(kafka, topic):
        match decode_inbox(record.value):
            case RowReceived(row=row):
                body = _read_named(row)
                found.add((body["source"], body["id"]))
            case WebhookReceived(source=source, body=raw):
                found.add((source, _read_named(raw)["id"]))
            case _:
                continue
        last = max(last, record.timestamp)
    return found, last
