"""Results as Kafka records: what goes to `discrepancies`, `matches`, `checks` and `dead-letters`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Any, Literal

import msgspec
from aiokafka import TopicPartition

from services.matcher.domain.compiled import pair_as_json
from services.matcher.ports import Batch, Headers
from shared.contracts.discrepancy import Discrepancy, LogPosition
from shared.contracts.leg import feed_key, group_key
from shared.contracts.matched_pair import read_item
from shared.kafka.topics import Topics

PROGRESS_KEY = b"progress"
FEED_HEADERS: list[tuple[str, bytes]] = [("kind", b"feed")]
PROGRESS_HEADERS: list[tuple[str, bytes]] = [("kind", b"progress")]
_SPECVERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", b"application/json")

encode_json = msgspec.json.Encoder().encode


Result = tuple[bytes | None, bytes, list[tuple[str, bytes]]]
"""One record to write: key, value, headers."""


_NO_HEADERS: list[tuple[str, bytes]] = []


def discrepancy_results(batch: Batch) -> Iterator[Result]:
    """Every revision with its CloudEvents headers."""
    for found in batch.changes.discrepancies:
        headers = cloud_event_headers(found)
        if batch.contexts:
            headers.extend(_context(batch, found))
        yield found.id.encode(), encode_json(found), headers


def cloud_event_headers(found: Discrepancy) -> list[tuple[str, bytes]]:
    """CloudEvents in binary mode: consumers route and deduplicate without reading the value."""
    return [
        ("ce_id", f"{found.id}/{found.revision}".encode()),
        ("ce_type", f"tieout.discrepancy.{found.state}".encode()),
        ("ce_source", f"/orgs/{found.org}/rules/{found.rule}".encode()),
        _SPECVERSION,
        ("ce_time", _rfc3339(found.log.time)),
        _CONTENT_TYPE,
    ]


def _rfc3339(time: datetime) -> bytes:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


def _context(batch: Batch, found: Discrepancy) -> Headers:
    """Trace headers of the leg that moved this discrepancy's group in this batch, where one was sampled."""
    key = (found.key,) if isinstance(found.key, str) else tuple(found.key)
    return batch.contexts.get(group_key(found.org, found.rule, key), ())


def item_results(batch: Batch, *, pairs_as_json: bool = False) -> Iterator[Result]:
    """Every revision of every item, keyed by its group."""
    contexts = batch.contexts
    for group, item in batch.changes.items:
        headers = list(contexts.get(group, ())) if contexts else _NO_HEADERS
        value = item if type(item) is bytes else encode_json(item)
        if pairs_as_json and value[:1] != b"{":
            value = pair_as_json(value) or in_json(value)
        yield group, value, headers


def in_json(value: bytes) -> bytes:
    """Return a result as JSON, also where it is published as the two legs of a pair."""
    return value if value[:1] == b"{" else encode_json(read_item(value))


def check_results(batch: Batch) -> Iterator[Result]:
    """Every verdict on a reading, keyed by what was read, and how feeds stand, in the order of the legs that made them.

    However the legs are cut into batches it is the same order: `verify` compares it.
    """
    changes = batch.changes
    checks = ((check.log.offset, key, encode_json(check), _NO_HEADERS) for key, check in changes.checks)
    feeds = (
        (status.log.offset, feed_key(status.org, status.source), encode_json(status), FEED_HEADERS)
        for status in changes.feeds
    )
    for _, key, value, headers in merge(checks, feeds, key=itemgetter(0)):
        yield key, value, headers


def values_of(batch: Batch) -> Iterator[tuple[Literal["discrepancies", "matches", "checks"], bytes]]:
    """Every result that tells the offset it was made by, without keys, headers and progress: what `verify` compares."""
    for _, value, _ in discrepancy_results(batch):
        yield "discrepancies", value
    for _, value, _ in item_results(batch):
        yield "matches", value
    for _, value, _ in check_results(batch):
        yield "checks", value


class _Identity(msgspec.Struct):
    """What every result has."""

    log: LogPosition
    id: str | None = None
    revision: int | None = None
    rule: str = ""
    key: Any = None
    code: str | None = None
    currency: str | None = None
    as_of: str | None = None
    source: str | None = None
    """Of a feed."""


_identity = msgspec.json.Decoder(_Identity).decode


def identify(value: bytes) -> tuple[str, int]:
    """Return the name of a published result and the offset of the leg that made it; -1 for what is no result."""
    try:
        if value[:1] != b"{":
            item = read_item(value)
            return f"{item.id}/{item.revision}", item.log.offset
        read = _identity(value)
    except msgspec.MsgspecError:
        return f"no result: {value[:40]!r}", -1
    if read.id is not None:
        return f"{read.id}/{read.revision}", read.log.offset
    if read.source is not None:
        return f"feed {read.source} at {read.log.offset}", read.log.offset
    key = read.key if isinstance(read.key, str) else "/".join(read.key or ())
    which = read.code or read.currency or ""
    return f"{read.rule} {key} {which} as of {read.as_of} at {read.log.offset}", read.log.offset


def dead_letter_results(batch: Batch) -> Iterator[Result]:
    """What could not be understood."""
    for letter in batch.changes.dead_letters:
        yield None, encode_json(letter), _NO_HEADERS


def progress_results(batch: Batch) -> Iterator[Result]:
    """How far the partition has been applied, where that is due."""
    if batch.progress is not None:
        yield PROGRESS_KEY, encode_json(batch.progress), PROGRESS_HEADERS


class Routes:
    """Which results go to which topic and partition, in which order."""

    def __init__(self, topics: Topics, dead_letter_partitions: int, *, pairs_as_json: bool = False) -> None:
        self._topics = topics
        self._pairs_as_json = pairs_as_json
        self._dead_letter_partitions = dead_letter_partitions

    def results(self, number: int) -> list[TopicPartition]:
        """Where results of partition `number` go that tell the offset they were made by."""
        topics = self._topics
        return [TopicPartition(topic, number) for topic in (topics.discrepancies, topics.matches, topics.checks)]

    def dead_letters(self, number: int) -> TopicPartition:
        """Where dead letters of partition `number` go; other partitions' may go there too."""
        return TopicPartition(self._topics.dead_letters, number % self._dead_letter_partitions)

    def of(self, batch: Batch) -> Iterator[tuple[str, int, Iterator[Result]]]:
        """Yield topic, partition and results; progress stands behind the results it speaks of."""
        topics, number, changes = self._topics, batch.partition, batch.changes
        told = batch.progress is not None
        if changes.discrepancies or told:
            yield topics.discrepancies, number, chain(discrepancy_results(batch), progress_results(batch))
        if changes.items or told:
            yield (
                topics.matches,
                number,
                chain(item_results(batch, pairs_as_json=self._pairs_as_json), progress_results(batch)),
            )
        if changes.checks or changes.feeds or told:
            yield topics.checks, number, chain(check_results(batch), progress_results(batch))
        if changes.dead_letters:
            yield *self.dead_letters(number), dead_letter_results(batch)
