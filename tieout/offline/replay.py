"""`tieout replay`: events from files through the same core as the services, without Kafka."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from shared.contracts.event import EventRefused, accept, milliseconds
from shared.rules.model import Rule
from tieout.offline.engine import OfflineEngine
from tieout.offline.lines import Complain, EventFiles, Line, Place

COLLECT_EVENTS = 1_000
"""Events between two looks at what the core has made."""


class Replayed(NamedTuple):
    """What a replay made of its files."""

    engine: OfflineEngine
    events: int
    complaints: int


def replay(
    paths: Sequence[Path],
    packs: Mapping[str, Sequence[Rule]],
    *,
    org: str,
    until: datetime | None,
    complain: Complain,
    step: Callable[[int, int], None] = lambda _done, _of: None,
    items: bool = True,
) -> Replayed:
    """Run the files through the core and let log time come to `until`.

    Memory holds what the rules remember, the results, a hash for each record, and few events: files are read as streams.

    Args:
        paths: JSON Lines files of events.
        packs: rules by pack; they hold for every org in the files.
        org: organisation of events that name none.
        until: log time to advance to at the end, so that deadlines fire.
        complain: told of every line that is refused or becomes a dead letter.
        step: told of progress (lines done, lines in all).
        items: keep the items of matches and pending groups as well; without them memory stays smaller.
    """
    run = _Run(OfflineEngine(packs, items=items), org, complain)
    with EventFiles(paths) as files:
        for done, line in enumerate(files.read(run.complain), start=1):
            run.feed(line)
            if done % COLLECT_EVENTS == 0:
                run.collect()
                step(done, len(files))
        run.collect()
        step(len(files), len(files))
    if until is not None:
        run.engine.advance(milliseconds(until))
    return Replayed(run.engine, run.events, run.complaints)


class _Run:
    """Lines to the engine, and what it refuses back to their places."""

    def __init__(self, engine: OfflineEngine, org: str, complain: Complain) -> None:
        self.engine = engine
        self.events = 0
        """Readable events, refused by the engine or not."""
        self.complaints = 0
        self._org = org
        self._tell = complain
        self._places: list[Place] = []
        """Of the events since the last look, by their offset."""
        self._begin = 0
        self._told = 0

    def feed(self, line: Line) -> None:
        self.events += 1
        try:
            event = accept(line.posted, org=line.posted.org or self._org, received_at=line.received_at)
        except EventRefused as error:
            self.complain(line.place, f"refused: {error}")
            return
        self.engine.feed(event)
        self._places.append(line.place)

    def collect(self) -> None:
        """Tell of the dead letters since the last look, in the order of their lines."""
        letters = self.engine.dead_letters
        for letter in sorted(letters[self._told :], key=lambda letter: letter.inbox_offset):
            place = self._places[letter.inbox_offset - self._begin]
            self.complain(place, f"dead letter: {letter.reason}: {letter.detail}")
        self._told = len(letters)
        self._begin += len(self._places)
        self._places.clear()

    def complain(self, place: Place, what: str) -> None:
        self.complaints += 1
        self._tell(place, what)
