"""The feed itself: look, post, and only then remember; rules follow the thresholds file."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from shared.contracts.event import PostedEvent
from shared.errors import DependencyAway
from shared.packs.bots.places import Places
from shared.packs.bots.thresholds import ThresholdsFile
from tieout.bots.atomic_file import write_whole
from tieout.bots.feed.figures import keep_figures
from tieout.bots.feed.position import POSITION_FILE, FeedPosition, encode_position, read_position
from tieout.bots.feed.reader import BotsReader
from tieout.bots.feed.rules import RulesFollower
from tieout.bots.reading import EVERYBODY
from tieout.ingest_api import IngestApi

LOCK = ".feed.lock"
"""Beside the reports: two feeds would store each other's positions."""
POST_ROWS = 1_000
"""In one request: ingest takes 5,000, and a smaller one is acknowledged sooner."""
AWAY_WAIT_S = 1.0
AWAY_WAIT_MAX_S = 15.0
"""Between two tries while ingest or Kafka is away."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Feed:
    """Follows the bots' files until it is stopped."""

    places: Places
    ingest: IngestApi
    thresholds: ThresholdsFile
    rules: RulesFollower | None
    """None: somebody else puts the rules in force."""
    tell: Tell
    told_for: timedelta = timedelta(minutes=5)
    """How long what could not be used stays a finding; `reconcile` tells of it for one cycle."""
    stop: threading.Event = field(default_factory=threading.Event)
    posted: int = 0
    refused: int = 0
    _problem: str | None = None
    _stored: bytes = b""

    @property
    def position_path(self) -> Path:
        """Return where the position is stored."""
        return self.places.reports / POSITION_FILE

    def once(self) -> None:
        """Post everything that is new now, however it is.

        Raises:
            TieoutError: ingest or Kafka is away, or something cannot be used; the position is behind what was posted.
        """
        self._look(self._reader(patient=False))

    def forever(self, poll_s: float) -> None:
        """Look every `poll_s` seconds; what is away is waited for, and nothing is lost meanwhile.

        Raises:
            TieoutError: what waiting does not mend, such as a key that ingest refuses.
        """
        reader, wait_s, told = self._reader(patient=True), AWAY_WAIT_S, ""
        while not self.stop.is_set():
            try:
                self._look(reader)
            except DependencyAway as error:
                if str(error) != told:
                    self.tell(f"waiting: {error}")
                told = str(error)
                # What was not acknowledged is read again from the stored position.
                reader = self._reader(patient=True)
                self.stop.wait(wait_s)
                wait_s = min(wait_s * 2, AWAY_WAIT_MAX_S)
                continue
            if told:
                self.tell("goes on")
            wait_s, told = AWAY_WAIT_S, ""
            self.stop.wait(poll_s)

    def _reader(self, *, patient: bool) -> BotsReader:
        position = read_position(self.position_path)
        return BotsReader(self.places, position, self._named, self.tell, patient=patient, told_for=self.told_for)

    def _named(self) -> list[str]:
        """Return the bots that the thresholds name: one without files is a finding."""
        thresholds = self.thresholds.current().thresholds
        return [bot for bot, own in thresholds.bots.items() if own.enabled]

    def _look(self, reader: BotsReader) -> None:
        reader.find()
        self._follow_thresholds(reader)
        for events in reader.look():
            if self.stop.is_set():
                return
            self._post(events, reader.position)

    def _follow_thresholds(self, reader: BotsReader) -> None:
        found = self.thresholds.current()
        if found.problem != self._problem:
            self.tell(
                f"{found.problem}\nthe thresholds before stay in force"
                if found.problem
                else "the thresholds are fine again"
            )
            self._problem = found.problem
        if self.rules is not None:
            for line in self.rules.follow(found.thresholds, reader.known, self.stop):
                self.tell(line)

    def _post(self, events: Sequence[PostedEvent], position: FeedPosition) -> None:
        for at in range(0, len(events), POST_ROWS):
            part = events[at : at + POST_ROWS]
            refused = self.ingest.post([msgspec.json.encode(event) for event in part])
            for row in refused:
                event = part[row.row]
                self.tell(f"ingest refuses {event.type} {event.id} of {event.account}: {row.error}")
                position.blame(event.account or EVERYBODY, "unreadable", datetime.now(UTC))
            self.posted += len(part) - len(refused)
            self.refused += len(refused)
        stored = encode_position(position)
        if stored != self._stored:
            write_whole(self.position_path, stored)
            self._stored = stored
        try:
            keep_figures(self.places.reports, events)
        except OSError as error:
            self.tell(f"pictures will lack some figures: cannot write into {self.places.reports}: {error.strerror}")


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on the first SIGINT or SIGTERM; the second one ends at once."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in former:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
