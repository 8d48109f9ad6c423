"""Files to events that ingest would accept, each with its place; what is none is complained about and left out."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.ingest.domain.formats.rows import Format, Row, RowError
from shared.contracts.event import EventRefused, PostedEvent, accept
from shared.errors import UsageError
from tieout.importing.scratch import Scratch
from tieout.offline.lines import Complain, Place

CHUNK_BYTES = 64 * 1024
"""Of a file at once."""


class Ready(NamedTuple):
    """An event, as it is sent."""

    place: Place
    event: PostedEvent
    json: bytes


@dataclass
class Tally:
    """What an import has met so far."""

    rows: int = 0
    events: int = 0
    refused: int = 0
    repeated: int = 0
    """Events that came again with the same content, e.g. of exports that overlap."""
    notices: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    """Files without a row."""


class StrictStop(UsageError):
    """With --strict the first row that is no event ends the import."""


def read_files(
    files: Sequence[Path],
    format_: Format,
    scratch: Scratch,
    tally: Tally,
    *,
    now: datetime,
    complain: Complain,
    progress: Callable[[int], None],
) -> Iterator[Ready]:
    """Yield the events of all files, in their order.

    Args:
        files: read one after the other, in bounded memory.
        format_: what the files are.
        scratch: remembers ids, so that one that comes back with other content is told instead of sent.
        tally: counted as the events are taken.
        now: taken for their receipt.
        complain: told of each row that is no event.
        progress: told how many bytes were read.

    Raises:
        UsageError: a file cannot be read, or is not of the format.
    """
    for file in files:
        before = tally.rows
        for row in format_.read(_chunks(file, progress), str(file)):
            tally.rows += 1
            if row.notice is not None:
                tally.notices[row.notice] = tally.notices.get(row.notice, 0) + 1
            place = Place(str(file), row.line)
            try:
                ready = _ready(row, place, scratch, tally, now, varies=format_.columns_vary)
            except EventRefused as refused:
                tally.refused += 1
                complain(place, f"refused: {refused}")
                continue
            tally.events += len(ready)
            yield from ready
        if tally.rows == before:
            tally.empty.append(str(file))


def _ready(row: Row, place: Place, scratch: Scratch, tally: Tally, now: datetime, *, varies: bool) -> list[Ready]:
    """Return the events of a row, all or none.

    Raises:
        EventRefused: the row is none, breaks the contract, or bears an id of another one.
    """
    if isinstance(row.outcome, RowError):
        raise EventRefused(row.outcome.reason)
    made = []
    for event in row.outcome:
        # As ingest will judge it; the org is the key's there, and no rule of the contract looks at its name.
        accept(event, org=event.org or "default", received_at=now)
        json = _encode(event)
        bare, whole = _digest(_encode(_bare(event))), _digest(json)
        first = scratch.first(f"{event.source}\n{event.id}", bare + whole, str(place))
        if first is None:
            made.append(Ready(place, event, json))
        elif first.digest.endswith(whole):
            tally.repeated += 1
        elif varies and first.digest.startswith(bare):
            # The same movement in other words: whichever of the two has what a rule needs.
            made.append(Ready(place, event, json))
        else:
            raise EventRefused(
                f"id: {event.id!r} names another event in {first.place}; an id must be unique (`id: {{hash: row}}` makes "
                "one where the rows have none)"
            )
    return made


def _digest(json: bytes) -> bytes:
    return hashlib.sha256(json).digest()


def _bare(event: PostedEvent) -> PostedEvent:
    """Return what an event says of the money, without what depends on the columns of a report."""
    return msgspec.structs.replace(event, refs={}, attrs={})


_encode = msgspec.json.Encoder().encode


def _chunks(file: Path, progress: Callable[[int], None]) -> Iterable[bytes]:
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
                progress(len(chunk))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
