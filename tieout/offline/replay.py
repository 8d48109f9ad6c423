"""`tieout replay`: events from files through the same core as the services, without Kafka."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from shared.contracts.event import EventRefused, PostedEvent, accept, decode_posted, milliseconds
from shared.errors import UsageError
from shared.rules.model import Rule
from tieout.offline.engine import OfflineEngine

LINE_MAX_BYTES = 1_000_000
"""A line longer than this is no event."""


class Place(NamedTuple):
    """A line of a file, as people write it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Line(NamedTuple):
    """A readable event and where it stands."""

    received_at: datetime
    place: Place
    posted: PostedEvent


Complain = Callable[[Place, str], None]
"""Called with the place and `refused: …` or `dead letter: …`."""


class Replayed(NamedTuple):
    """What a replay made of its files."""

    engine: OfflineEngine
    events: int
    complaints: int


def read_events(paths: Sequence[Path], complain: Complain) -> list[Line]:
    """Read every event of `paths`, merged by receipt (`received_at`, else `occurred_at`).

    Ties keep the order of the arguments, then of the lines. Lines that are no events are complained about.

    Raises:
        UsageError: a file cannot be read.
    """
    lines = [line for path in paths for line in _read(path, complain)]
    lines.sort(key=lambda line: line.received_at)
    return lines


def _read(path: Path, complain: Complain) -> Iterator[Line]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                place = Place(str(path), number)
                if len(raw) > LINE_MAX_BYTES:
                    complain(place, f"refused: the line is longer than {LINE_MAX_BYTES} bytes")
                    continue
                try:
                    posted = decode_posted(raw)
                except EventRefused as error:
                    complain(place, f"refused: {error}")
                    continue
                yield Line((posted.received_at or posted.occurred_at).astimezone(UTC), place, posted)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def replay(
    paths: Sequence[Path],
    packs: Mapping[str, Sequence[Rule]],
    *,
    org: str,
    until: datetime | None,
    complain: Complain,
    step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Replayed:
    """Run the files through the core and let log time come to `until`.

    Args:
        paths: JSON Lines files of events.
        packs: rules by pack; they hold for every org in the files.
        org: organisation of events that name none.
        until: log time to advance to at the end, so that deadlines fire.
        complain: told of every line that is refused or becomes a dead letter.
        step: told of progress (events done, events in all).
    """
    complaints = 0

    def count(place: Place, what: str) -> None:
        nonlocal complaints
        complaints += 1
        complain(place, what)

    lines = read_events(paths, count)
    engine = OfflineEngine(packs)
    told = 0
    for done, line in enumerate(lines):
        try:
            engine.feed(accept(line.posted, org=line.posted.org or org, received_at=line.received_at))
        except EventRefused as error:
            count(line.place, f"refused: {error}")
            continue
        for letter in engine.dead_letters[told:]:
            count(line.place, f"dead letter: {letter.reason}: {letter.detail}")
        told = len(engine.dead_letters)
        step(done + 1, len(lines))
    if until is not None:
        engine.advance(milliseconds(until))
    return Replayed(engine, len(lines), complaints)
