"""One look at everything that bots wrote: what is new since the last one, and what of it cannot be read."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from shared.contracts.event import PostedEvent
from shared.packs.bots.events import (
    Exchange,
    InputRead,
    Unreadable,
    line_event,
    read_exchange,
    read_json,
    snapshot_event,
)
from shared.packs.bots.fills import count_rows, is_row, names_columns
from shared.packs.bots.names import ORDER_FILLED
from shared.packs.bots.places import BotFiles, Found, Places
from shared.packs.bots.tail import Position, Tail
from tieout.bots.memory import Memory

EVERYBODY: Final = "*"
"""Stands for the bot where something concerns none, or all."""
PROBLEMS_SHOWN_MAX: Final = 1000
"""Lines that are listed one by one; they are counted all."""
FILE_BYTES_MAX: Final = 4_000_000
"""A snapshot, of a bot or of the exchange, that is larger than this is none."""
FRESH_SECONDS: Final = 10.0
"""A file written within this time may be in the middle of being written: it is looked at again."""


class Problem(msgspec.Struct, frozen=True):
    """Something that could not be read."""

    bot: str
    file: str
    offset: int | None
    """Of the line in the file; None: the whole file."""
    reason: str


@dataclass(slots=True)
class BotInput:
    """What was read of one bot."""

    bot: str
    snapshots: list[PostedEvent] = field(default_factory=list)
    """In the order they were read."""
    has_file: bool = False
    """Its snapshot lies there as a file."""
    snapshot_file: str = ""
    snapshot_problem: str = ""
    fills_files: int = 0
    events_files: int = 0
    rows: int = 0
    filled: int = 0
    unreadable: int = 0
    lost: int = 0

    @property
    def last_at(self) -> datetime | None:
        """Return the time of the last snapshot."""
        return max((one.occurred_at for one in self.snapshots), default=None)


@dataclass(slots=True)
class Inputs:
    """What one look found."""

    bots: dict[str, BotInput] = field(default_factory=dict)
    exchanges: dict[str, Exchange] = field(default_factory=dict)
    exchange_problem: str = ""
    problems: list[Problem] = field(default_factory=list)
    incomplete: dict[str, str] = field(default_factory=dict)
    """By path: whose file ends with a line that is not whole."""
    lines: int = 0
    unreadable: int = 0
    """Lines of shared event stores that nobody could read: whose they are is not known."""
    lost: int = 0

    def of(self, bot: str) -> BotInput:
        """Return what was read of a bot."""
        found = self.bots.get(bot)
        if found is None:
            found = self.bots[bot] = BotInput(bot)
        return found

    def read_of(self, bot: str, *, knows_by_event: bool) -> InputRead:
        """Return how well the files of a bot could be read."""
        one = self.of(bot)
        exchange = self.exchanges.get(bot)
        return InputRead(
            snapshots=int(bool(one.snapshots) or one.has_file or knows_by_event),
            snapshots_unreadable=int(bool(one.snapshot_problem)),
            fills_files=one.fills_files,
            events_files=one.events_files,
            exchange_snapshots=int(exchange is not None),
            exchange_probes_failed=int(exchange is not None and exchange.has_failed(one.last_at)),
            lines_unreadable=one.unreadable,
            lines_incomplete=sum(1 for whose in self.incomplete.values() if whose == bot),
            files_lost=one.lost,
        )


class Reader:
    """Reads on from where a memory says; moves the memory's positions."""

    def __init__(
        self,
        places: Places,
        memory: Memory,
        *,
        settle_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Look at nothing yet.

        Args:
            places: where the files lie.
            memory: of the last cycle; its positions are moved.
            settle_seconds: how long to wait before what looks half-written is looked at again.
            clock: now.
        """
        self._places = places
        self._memory = memory
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._inputs = Inputs()
        self._provisional: dict[str, dict[str, int]] = {}
        """By path: what a last line without line end says, by bot. Taken anew with every look."""

    def read(self) -> Inputs:
        """Look at every file; a second time at what looks as if it were being written."""
        found = self._places.find()
        inputs = self._inputs
        self._read_exchange()
        for files in found.bots:
            inputs.of(files.bot)
            self._read_bot(files)
        self._read_stores(found.stores)
        self._count(found)
        again = [files for files in found.bots if self._looks_unfinished(files, found.stores)]
        if again or any(str(path) in inputs.incomplete and _is_fresh(path) for path in found.stores):
            time.sleep(self._settle_seconds)
            for files in again:
                self._read_bot(files)
            self._read_stores(found.stores)
            self._count(found)
        return inputs

    # ---- files

    def _read_exchange(self) -> None:
        inputs, path = self._inputs, self._places.exchange
        try:
            raw = _bounded(path)
        except FileNotFoundError:
            if self._places.exchange_is_named:
                inputs.exchange_problem = f"{path} is not there"
            return
        except OSError as error:
            inputs.exchange_problem = f"{path} cannot be read: {error.strerror}"
            return
        except Unreadable as error:
            inputs.exchange_problem = f"{path}: {error}"
            return
        try:
            inputs.exchanges = read_exchange(raw)
        except Unreadable as error:
            inputs.exchange_problem = f"{path}: {error}"

    def _read_bot(self, files: BotFiles) -> None:
        self._read_snapshot(files)
        for path in files.fills:
            self._read_fills(files.bot, path)
        for path in files.events:
            self._read_events(files.bot, path)

    def _read_snapshot(self, files: BotFiles) -> None:
        one, path = self._inputs.of(files.bot), files.snapshot
        if path is None:
            return
        one.has_file = True
        one.snapshot_file, one.snapshot_problem = str(path), ""
        try:
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            said = read_json(_bounded(path), "the snapshot")
            event = snapshot_event(
                files.bot,
                said,
                read_at=self._clock(),
                written_at=written,
                exchange=self._inputs.exchanges.get(files.bot),
            )
        except OSError as error:
            one.snapshot_problem = f"the snapshot cannot be read: {error.strerror}"
            return
        except Unreadable as error:
            one.snapshot_problem = str(error)
            return
        one.snapshots.append(event)

    def _read_stores(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._read_events(None, path)

    def _read_fills(self, bot: str, path: Path) -> None:
        tail = Tail(path, self._memory.fills.get(str(path)))

        def complain(offset: int, reason: str) -> None:
            self._complain(bot, path, offset, reason)

        try:
            for lines in tail.batches():
                self._inputs.lines += len(lines)
                count_rows(lines, tail.position, bot, complain)
        except OSError as error:
            self._complain(bot, path, None, f"cannot be read: {error.strerror or error}")
        last, rows = tail.incomplete, 0
        is_whole = last is None
        if last is not None:
            header = tail.position.header
            is_whole = names_columns(last) if last.offset == 0 else is_row(last, header, lambda *_: None)
            rows = int(is_whole and last.offset > 0)
        self._after(tail, bot, {bot: rows}, is_whole=is_whole)
        self._memory.fills[str(path)] = tail.position

    def _read_events(self, bot: str | None, path: Path) -> None:
        tail = Tail(path, self._memory.events.get(str(path)))
        try:
            for lines in tail.batches():
                self._inputs.lines += len(lines)
                for offset, raw in lines:
                    if raw.strip():
                        self._take(raw, bot, tail, offset)
        except OSError as error:
            self._complain(bot or EVERYBODY, path, None, f"cannot be read: {error.strerror or error}")
        last = tail.incomplete
        provisional, is_whole = dict[str, int](), True
        if last is not None and last.raw.strip():
            try:
                self._put(self._line(last.raw, bot, tail.position, last.offset), provisional)
            except Unreadable:
                is_whole = False
        self._after(tail, bot, provisional, is_whole=is_whole)
        self._memory.events[str(path)] = tail.position

    def _take(self, raw: bytes, bot: str | None, tail: Tail, offset: int) -> None:
        """Count what a whole line says, or complain about it."""
        try:
            self._put(self._line(raw, bot, tail.position, offset), tail.position.here)
        except Unreadable as error:
            self._complain(bot or EVERYBODY, tail.path, offset, str(error))

    def _put(self, event: PostedEvent | None, filled: dict[str, int]) -> None:
        """Count a fill among `filled`, keep a snapshot, leave everything else."""
        if event is None:
            return
        whose = str(event.account)
        if event.type == ORDER_FILLED:
            filled[whose] = filled.get(whose, 0) + 1
        else:
            self._inputs.of(whose).snapshots.append(event)

    def _line(self, raw: bytes, bot: str | None, position: Position, offset: int) -> PostedEvent | None:
        return line_event(
            raw,
            bot=bot,
            file=position.name,
            offset=offset,
            read_at=self._clock(),
            exchanges=self._inputs.exchanges,
        )

    def _after(self, tail: Tail, bot: str | None, provisional: dict[str, int], *, is_whole: bool) -> None:
        """Note what a look at a file came to."""
        inputs, path = self._inputs, str(tail.path)
        self._provisional[path] = provisional
        inputs.incomplete.pop(path, None)
        if not is_whole:
            inputs.incomplete[path] = bot or EVERYBODY
        if tail.is_lost:
            self._note(
                Problem(bot or EVERYBODY, path, None, "another file lies there; what the old one held is unread")
            )
            if bot is None:
                inputs.lost += 1
            else:
                inputs.of(bot).lost += 1

    # ---- what it comes to

    def _count(self, found: Found) -> None:
        """Count rows and events of every bot, and the files they come from."""
        memory, inputs = self._memory, self._inputs
        rows, filled = self._totals(memory.fills), self._totals(memory.events)
        for bot in {*rows, *filled}:
            inputs.of(bot)
        with_stores = sum(1 for path in found.stores if self._has_content(path, memory.events))
        files_of = {files.bot: files for files in found.bots}
        for bot, one in inputs.bots.items():
            files = files_of.get(bot)
            one.rows, one.filled = rows.get(bot, 0), filled.get(bot, 0)
            own_fills, own_events = (files.fills, files.events) if files is not None else ((), ())
            one.fills_files = sum(1 for path in own_fills if self._has_content(path, memory.fills))
            one.events_files = with_stores + sum(1 for path in own_events if self._has_content(path, memory.events))

    def _totals(self, positions: Mapping[str, Position]) -> dict[str, int]:
        totals: dict[str, int] = {}
        for path, position in positions.items():
            provisional = self._provisional.get(path, {})
            for bot in {*position.bots, *provisional}:
                totals[bot] = totals.get(bot, 0) + position.counted(bot) + provisional.get(bot, 0)
        return totals

    def _has_content(self, path: Path, positions: Mapping[str, Position]) -> bool:
        """Tell whether a file says anything, or did before it was rotated."""
        position = positions.get(str(path))
        if position is not None and (position.offset or position.files):
            return True
        try:
            return path.stat().st_size > 0
        except OSError:
            return False

    def _looks_unfinished(self, files: BotFiles, stores: tuple[Path, ...]) -> bool:
        one = self._inputs.of(files.bot)
        paths = (*files.fills, *files.events)
        if one.snapshot_problem and files.snapshot is not None and _is_fresh(files.snapshot):
            return True
        if any(str(path) in self._inputs.incomplete and _is_fresh(path) for path in paths):
            return True
        return one.rows != one.filled and any(_is_fresh(path) for path in (*paths, *stores))

    def _complain(self, bot: str, path: Path, offset: int | None, reason: str) -> None:
        self._note(Problem(bot, str(path), offset, reason))
        if bot == EVERYBODY:
            self._inputs.unreadable += 1
        else:
            self._inputs.of(bot).unreadable += 1

    def _note(self, problem: Problem) -> None:
        if len(self._inputs.problems) < PROBLEMS_SHOWN_MAX:
            self._inputs.problems.append(problem)


def _bounded(path: Path) -> bytes:
    """Return what a file holds; a snapshot is small, whatever somebody put in its place."""
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        msg = f"it is larger than {FILE_BYTES_MAX} bytes; is it a snapshot?"
        raise Unreadable(msg)
    return raw


def _is_fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < FRESH_SECONDS
    except OSError:
        return False
