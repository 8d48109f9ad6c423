"""One look after the other at what bots write: only what is new, as events for ingest."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final

from shared.contracts.event import PostedEvent
from shared.ids import canonical
from shared.packs.bots.events import (
    Exchange,
    InputRead,
    Unreadable,
    fills_event,
    input_event,
    line_event,
    read_exchange,
    read_json,
    snapshot_event,
)
from shared.packs.bots.fills import count_rows, is_row, names_columns
from shared.packs.bots.names import ORDER_FILLED, SNAPSHOT
from shared.packs.bots.places import BotFiles, Places
from shared.packs.bots.tail import Line, Tail
from tieout.bots.feed.position import FeedPosition
from tieout.bots.reading import EVERYBODY

FIND_EVERY: Final = timedelta(seconds=2)
"""How often new bots and files are looked for; known ones are looked at every time."""
PATIENCE: Final = timedelta(seconds=3)
"""How long a half-written file or line may take before it is called so: bots do not write in one instant."""
QUIET: Final = timedelta(seconds=1)
"""How long a fills.csv has to stay as it is before its rows are told: the fill's own event may come a moment later."""
QUIET_MAX: Final = timedelta(seconds=5)
"""Of one that never is quiet."""
FILE_BYTES_MAX: Final = 4_000_000
"""A snapshot larger than this is none."""

Stat = tuple[int, int, int]
Complain = Callable[[str], None]


@dataclass(slots=True)
class _Seen:
    """A file between two looks."""

    stat: Stat | None = None
    changed_at: datetime | None = None
    incomplete_since: datetime | None = None
    """Since when its last line has had no end."""


@dataclass(slots=True)
class _Fills:
    """The rows of a bot's fills.csv that were counted and not told yet."""

    counts: tuple[int, int] = (-1, -1)
    changed_at: datetime | None = None
    waiting_since: datetime | None = None


@dataclass(slots=True)
class BotsReader:
    """Reads on from `position`, which is behind every batch that was handed out.

    Args:
        places: where the files lie.
        position: changed in place; store it when a batch is acknowledged.
        named: bots that must be there, whether they have files or not.
        complain: told of lines that cannot be used, with their place.
        clock: the time.
    """

    places: Places
    position: FeedPosition
    named: Callable[[], Iterable[str]]
    complain: Complain
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    patient: bool = True
    """False: everything is told as it is found, for a single look."""
    told_for: timedelta = timedelta(minutes=5)
    """How long a line that could not be used, or a file that was lost, stays a finding."""
    bots: dict[str, BotFiles] = field(default_factory=dict)
    _stores: tuple[Path, ...] = ()
    _found_at: datetime | None = None
    _files: dict[Path, _Seen] = field(default_factory=dict)
    _fills: dict[str, _Fills] = field(default_factory=dict)
    _without_end: dict[Path, int] = field(default_factory=dict)
    """By fills.csv: 1 where its last row is whole and only lacks its line end."""
    _exchanges: dict[str, Exchange] = field(default_factory=dict)
    _exchange_problem: str = ""
    _unreadable_snapshots: set[str] = field(default_factory=set)

    def look(self) -> Iterator[list[PostedEvent]]:
        """Yield what is new, in the order in which ingest should have it: movements before the counts of them."""
        now = self.clock()
        self.find()
        has_exchange_changed = self._look_at_exchange(now)
        for bot, path in self._event_files():
            yield from self._lines(bot, path, now)
        # Together: many bots with a little news each are one request.
        yield [event for event in self._news(now, has_exchange_changed=has_exchange_changed) if event is not None]

    def _news(self, now: datetime, *, has_exchange_changed: bool) -> Iterator[PostedEvent | None]:
        """Tell what bots say now, then how well their files can be read."""
        for bot in sorted(self.bots):
            yield self._snapshot(bot, now, has_exchange_changed)
            yield self._fill_count(bot, now)
        has_shared = self._stores or self._exchange_problem or EVERYBODY in self.position.said
        shared = {EVERYBODY} if has_shared else set[str]()
        for bot in sorted({*self.known, *self.named(), *shared}):
            yield self._input(bot, now)

    def find(self) -> None:
        """Learn which bots and files there are, where that was not asked just now."""
        now = self.clock()
        if self._found_at is not None and timedelta(0) <= now - self._found_at < FIND_EVERY:
            return
        found = self.places.find()
        self.bots, self._stores, self._found_at = {one.bot: one for one in found.bots}, found.stores, now

    def _event_files(self) -> Iterator[tuple[str | None, Path]]:
        for bot in sorted(self.bots):
            for path in self.bots[bot].events:
                yield bot, path
        for path in self._stores:
            yield None, path

    def _has_changed(self, path: Path, now: datetime) -> bool:
        """Tell whether a file is another than at the last look."""
        seen = self._files.setdefault(path, _Seen())
        stat = _stat(path)
        if stat is not None and stat == seen.stat:
            return False
        seen.stat, seen.changed_at = stat, now
        return True

    def _lines(self, bot: str | None, path: Path, now: datetime) -> Iterator[list[PostedEvent]]:
        if not self._has_changed(path, now):
            return
        tail = self._tail(path)
        for lines in tail.batches():
            self.position.files[str(path)] = tail.position
            yield [event for line in lines if (event := self._line(bot, path, tail, line, now)) is not None]
        last = tail.incomplete
        is_whole = last is None or not last.raw.strip()
        if last is not None and not is_whole:
            # An object that can be read is whole, though its line end is still to come; then it comes again, as it was.
            with suppress(Unreadable):
                event = self._event(bot, tail, last, now)
                is_whole = True
                yield [] if event is None else [event]
        self._end(bot, path, tail, now, is_whole=is_whole)

    def _line(self, bot: str | None, path: Path, tail: Tail, line: Line, now: datetime) -> PostedEvent | None:
        if not line.raw.strip():
            return None
        try:
            event = self._event(bot, tail, line, now)
        except Unreadable as problem:
            self._unreadable(path, bot or EVERYBODY, line.offset, str(problem), now)
            return None
        if event is not None and event.type == ORDER_FILLED:
            here, whose = tail.position.here, str(event.account)
            here[whose] = here.get(whose, 0) + 1
        return event

    def _event(self, bot: str | None, tail: Tail, line: Line, now: datetime) -> PostedEvent | None:
        event = line_event(
            line.raw, bot=bot, file=tail.position.name, offset=line.offset, read_at=now, exchanges=self._exchanges
        )
        if event is not None and event.type == SNAPSHOT:
            said = self.position.of(str(event.account))
            said.by_event, said.snapshot_at = True, event.occurred_at
        return event

    def _fill_count(self, bot: str, now: datetime) -> PostedEvent | None:
        """Count on, and tell the count once it is quiet."""
        paths = self.bots[bot].fills
        for path in paths:
            if self._has_changed(path, now):
                self._count_rows(bot, path, now)
        if not paths:
            return None
        # The rows are told again when more events were posted: only a newer count is held against those.
        counts = (sum(self._rows(bot, path) for path in paths), self._filled(bot))
        fills = self._fills.setdefault(bot, _Fills())
        if counts != fills.counts:
            fills.counts, fills.changed_at = counts, now
            fills.waiting_since = fills.waiting_since or now
        said = self.position.of(bot)
        if counts == said.fills or not self._is_quiet(fills, now):
            return None
        said.fills, fills.waiting_since = counts, None
        return fills_event(bot, counts[0], read_at=now)

    def _filled(self, bot: str) -> int:
        """Return how many fills the event stores told of."""
        paths = (*self.bots[bot].events, *self._stores)
        known = (self.position.files.get(str(path)) for path in paths)
        return sum(one.counted(bot) for one in known if one is not None)

    def _rows(self, bot: str, path: Path) -> int:
        position = self.position.files.get(str(path))
        return (position.counted(bot) if position is not None else 0) + self._without_end.get(path, 0)

    def _count_rows(self, bot: str, path: Path, now: datetime) -> None:
        tail = self._tail(path)

        def complain(offset: int, why: str) -> None:
            self._unreadable(path, bot, offset, why, now)

        for lines in tail.batches():
            count_rows(lines, tail.position, bot, complain)
            self.position.files[str(path)] = tail.position
        last, is_whole, self._without_end[path] = tail.incomplete, True, 0
        if last is not None and last.raw.strip():
            is_first = last.offset == 0
            is_whole = names_columns(last) if is_first else is_row(last, tail.position.header, lambda *_: None)
            self._without_end[path] = int(is_whole and not is_first)
        self._end(bot, path, tail, now, is_whole=is_whole)

    def _is_quiet(self, fills: _Fills, now: datetime) -> bool:
        if not self.patient or fills.changed_at is None:
            return True
        since = fills.waiting_since or now
        return now - fills.changed_at >= QUIET or now - since >= QUIET_MAX

    def _snapshot(self, bot: str, now: datetime, has_exchange_changed: bool) -> PostedEvent | None:
        path = self.bots[bot].snapshot
        if path is None or not (self._has_changed(path, now) or has_exchange_changed or self._is_waited_for(path)):
            return None
        exchange = self._exchanges.get(bot)
        try:
            raw = _bytes(path)
            event = snapshot_event(
                bot, read_json(raw, "the snapshot"), read_at=now, written_at=_written_at(path), exchange=exchange
            )
        except (Unreadable, OSError) as problem:
            if self._is_patient_with(path, now):
                return None
            if bot not in self._unreadable_snapshots:
                self.complain(f"{path}: {problem}")
            self._unreadable_snapshots.add(bot)
            return None
        self._files[path].incomplete_since = None
        self._unreadable_snapshots.discard(bot)
        said = self.position.of(bot)
        content = _content(event)
        if said.snapshot == content:
            return None
        said.snapshot, said.snapshot_at = content, event.occurred_at
        return event

    def _is_waited_for(self, path: Path) -> bool:
        return self._files[path].incomplete_since is not None

    def _is_patient_with(self, path: Path, now: datetime) -> bool:
        """Tell whether a file may still be being written."""
        seen = self._files[path]
        seen.incomplete_since = seen.incomplete_since or now
        return self.patient and now - seen.incomplete_since < PATIENCE

    def _look_at_exchange(self, now: datetime) -> bool:
        path = self.places.exchange
        changed = self._has_changed(path, now)
        if not changed:
            return False
        before = self._exchanges
        try:
            self._exchanges, self._exchange_problem = read_exchange(_bytes(path)), ""
        except FileNotFoundError:
            self._exchanges = {}
            self._exchange_is_wrong("is not there" if self.places.exchange_is_named else "")
        except (Unreadable, OSError) as problem:
            self._exchanges = {}
            self._exchange_is_wrong(str(problem))
        return self._exchanges != before

    def _exchange_is_wrong(self, problem: str) -> None:
        if problem and problem != self._exchange_problem:
            self.complain(f"{self.places.exchange}: {problem}")
        self._exchange_problem = problem

    @property
    def known(self) -> set[str]:
        """Return every bot that was ever heard of."""
        return {*self.bots, *self.position.said} - {EVERYBODY}

    def _input(self, bot: str, now: datetime) -> PostedEvent | None:
        """Tell how well the bot's files can be read, when that changed."""
        read = self._read_of_all(now) if bot == EVERYBODY else self._read_of(bot, now)
        fields = {name: str(value) for name, value in read._asdict().items()}
        said = self.position.of(bot)
        if said.input == fields:
            return None
        said.input = fields
        return input_event(bot, read, read_at=now)

    def _read_of(self, bot: str, now: datetime) -> InputRead:
        files, exchange = self.bots.get(bot, BotFiles(bot, None, (), ())), self._exchanges.get(bot)
        paths = (*files.events, *files.fills)
        return InputRead(
            snapshots=int(files.snapshot is not None or self.position.of(bot).by_event),
            snapshots_unreadable=int(bot in self._unreadable_snapshots),
            fills_files=sum(map(self._has_content, files.fills)),
            events_files=sum(map(self._has_content, (*files.events, *self._stores))),
            exchange_snapshots=int(exchange is not None),
            exchange_probes_failed=int(exchange is not None and exchange.has_failed(self.position.of(bot).snapshot_at)),
            lines_unreadable=self.position.blamed(bot, "unreadable", now - self.told_for),
            lines_incomplete=sum(self._is_incomplete(path, now) for path in paths),
            files_lost=self.position.blamed(bot, "lost", now - self.told_for),
        )

    def _read_of_all(self, now: datetime) -> InputRead:
        """Return what is wrong with files that are about all bots, or where nobody can tell about which."""
        return InputRead(
            exchange_snapshots=int(not self._exchange_problem),
            lines_unreadable=self.position.blamed(EVERYBODY, "unreadable", now - self.told_for),
            lines_incomplete=sum(self._is_incomplete(path, now) for path in self._stores),
            files_lost=self.position.blamed(EVERYBODY, "lost", now - self.told_for),
        )

    def _has_content(self, path: Path) -> bool:
        """Tell whether a file says anything, or did before it was rotated."""
        position = self.position.files.get(str(path))
        if position is not None and (position.offset or position.files):
            return True
        stat = self._files.get(path, _Seen()).stat
        return stat is not None and stat[1] > 0

    def _is_incomplete(self, path: Path, now: datetime) -> bool:
        since = self._files.get(path, _Seen()).incomplete_since
        return since is not None and (not self.patient or now - since >= PATIENCE)

    def _tail(self, path: Path) -> Tail:
        return Tail(path, self.position.files.get(str(path)))

    def _end(self, bot: str | None, path: Path, tail: Tail, now: datetime, *, is_whole: bool) -> None:
        """Note what a look at a file came to."""
        if tail.is_missing:
            return
        seen = self._files[path]
        self.position.files[str(path)] = tail.position
        if tail.is_lost:
            self.position.blame(bot or EVERYBODY, "lost", now)
            self.complain(f"{path}: another file lies there, and what was not yet read of the old one is gone")
        seen.incomplete_since = None if is_whole else seen.incomplete_since or now

    def _unreadable(self, path: Path, bot: str, offset: int, why: str, now: datetime) -> None:
        self.position.blame(bot, "unreadable", now)
        self.complain(f"{path}, byte {offset}: {why}")


def _content(event: PostedEvent) -> str:
    """Return what a snapshot says, in short: read again it is no news."""
    parts = [event.occurred_at.isoformat(), *(part for pair in sorted(event.attrs.items()) for part in pair)]
    return blake2b(canonical(parts), digest_size=12).hexdigest()


def _stat(path: Path) -> Stat | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        msg = f"is larger than {FILE_BYTES_MAX} bytes; is it the right file?"
        raise Unreadable(msg)
    return raw


def _written_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
