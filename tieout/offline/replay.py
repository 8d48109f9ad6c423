"""`tieout replay`: events from files through the same core as the services, without Kafka."""

import errno
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from shared.contracts.event import EventRefused, accept, milliseconds
from shared.errors import TieoutError, UsageError
from shared.rules.model import Rule
from tieout.offline.engine import OfflineEngine
from tieout.offline.lines import LINE_MAX_BYTES, Complain, EventFiles, Line, Place, read_line

COLLECT_EVENTS = 1_000
"""Events between two looks at what the core has made."""
AHEAD_BYTES_MIN = 8_000_000
"""Files that are smaller together are not read ahead: the core is done with them as soon."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Step = Callable[[int, int], None]


class NoRoom(TieoutError):
    """Scratch files cannot be written."""


class Replayed(NamedTuple):
    """What a replay made of its files."""

    engine: OfflineEngine
    events: int
    complaints: int
    settled_ahead: int | None = None
    """Events of plain pairs that agreed, so that the core never saw them; None: it saw every event."""


def replay(
    paths: Sequence[Path],
    packs: Mapping[str, Sequence[Rule]],
    *,
    org: str,
    until: datetime | None,
    complain: Complain,
    step: Step = lambda _done, _of: None,
    items: bool = True,
    ahead_bytes_min: int = AHEAD_BYTES_MIN,
    compiled: bool = True,
) -> Replayed:
    """Run the files through the core and let log time come to `until`.

    Without items, pairs that agree are settled ahead of the core where rules and files permit it (`ahead`); results are
    the same. Memory then holds what is left, the results, and pieces of the files. Else it holds what the rules
    remember, the results, a hash for each record, and few events: files are read as streams.

    Args:
        paths: JSON Lines files of events.
        packs: rules by pack; they hold for every org in the files.
        org: organisation of events that name none.
        until: log time to advance to at the end, so that deadlines fire.
        complain: told of every line that is refused or becomes a dead letter.
        step: told of progress (done, in all; lines, or bytes where files are read ahead).
        items: keep the items of matches and pending groups as well; without them memory stays smaller.
        ahead_bytes_min: size of the files together from which they are read ahead.
        compiled: let C read what is plain, where it is built; results are the same.

    Raises:
        UsageError: a file cannot be read, or changed meanwhile.
        NoRoom: for scratch files.
        ReaderLost: see `readers`.
    """
    run = _Run(OfflineEngine(packs, items=items), org, complain)
    settled = None
    try:
        if not items and _may_be_read_ahead(paths, packs, ahead_bytes_min):
            settled = _run_ahead(run, paths, packs, org, step, compiled=compiled)
        else:
            _run_all(run, paths, step)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoRoom(
            f"scratch files in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a folder with room, up to as "
            "much as the files take"
        ) from None
    if until is not None:
        run.engine.advance(milliseconds(until))
    return Replayed(run.engine, run.events, run.complaints, settled)


def _run_all(run: "_Run", paths: Sequence[Path], step: Step) -> None:
    with EventFiles(paths) as files:
        for done, line in enumerate(files.read(run.complain), start=1):
            run.feed(line)
            if done % COLLECT_EVENTS == 0:
                run.collect()
                step(done, len(files))
        run.collect()
        step(len(files), len(files))


def _may_be_read_ahead(paths: Sequence[Path], packs: Mapping[str, Sequence[Rule]], bytes_min: int) -> bool:
    """Tell whether files can be read twice and are worth it, and a rule has plain pairs. NumPy comes with `tieout[replay]`."""
    if (
        find_spec("numpy") is None
        or not all(path.is_file() for path in paths)
        or sum(path.stat().st_size for path in paths) < bytes_min
    ):
        return False
    from tieout.offline.columns import may_be_plain

    return may_be_plain(packs)


def _run_ahead(
    run: "_Run", paths: Sequence[Path], packs: Mapping[str, Sequence[Rule]], org: str, step: Step, *, compiled: bool
) -> int:
    from tieout.offline.ahead import NO_EVENT, SETTLED, Ahead

    with ExitStack() as stack:
        ahead = stack.enter_context(Ahead(paths))
        ahead.read(packs, org, step, compiled=compiled)
        files, names = [stack.enter_context(path.open("rb")) for path in paths], list(map(str, paths))
        for lines, fate in ahead.passages():
            times = (lines["at"] // 1000).tolist()
            left = (fate != SETTLED).nonzero()[0]
            rows = zip(
                left.tolist(), fate[left] != NO_EVENT, lines[["file", "offset", "number"]][left].tolist(), strict=True
            )
            begin = 0
            for end, is_event, (file, offset, number) in rows:
                run.pass_over(times, begin, end)
                begin = end + 1
                run.collect_due()
                files[file].seek(offset)
                raw = files[file].readline(LINE_MAX_BYTES + 1)
                line = read_line(raw, place := Place(names[file], number + 1), run.complain)
                if (line is not None) != is_event:
                    raise UsageError(f"{place}: the file has changed since it was read first; let nothing write to it")
                if line is not None:
                    run.feed(line)
            run.pass_over(times, begin, len(times))
        run.engine.catch_up()
        run.collect()
        return ahead.settled


class _Run:
    """Lines to the engine, and what it refuses back to their places."""

    def __init__(self, engine: OfflineEngine, org: str, complain: Complain) -> None:
        self.engine = engine
        self.events = 0
        """Readable events, refused by the engine or not."""
        self.complaints = 0
        self._org = org
        self._tell = complain
        self._places: dict[int, Place] = {}
        """Of the events since the last look, by their offset."""
        self._told = 0
        self._looked = 0

    def feed(self, line: Line) -> None:
        self.events += 1
        try:
            event = accept(line.posted, org=line.posted.org or self._org, received_at=line.received_at)
        except EventRefused as error:
            self.complain(line.place, f"refused: {error}")
            return
        self._places[self.engine.offset] = line.place
        self.engine.feed(event)

    def pass_over(self, times: Sequence[int], begin: int, end: int) -> None:
        if begin < end:
            self.events += end - begin
            self.engine.pass_over(times, begin, end)

    def collect_due(self) -> None:
        """Tell of dead letters where it was time for it since the last look."""
        if self.events // COLLECT_EVENTS > self._looked:
            self._looked = self.events // COLLECT_EVENTS
            self.collect()

    def collect(self) -> None:
        """Tell of the dead letters since the last look, in the order of their lines."""
        letters = self.engine.dead_letters
        for letter in sorted(letters[self._told :], key=lambda letter: letter.inbox_offset):
            self.complain(self._places[letter.inbox_offset], f"dead letter: {letter.reason}: {letter.detail}")
        self._told = len(letters)
        self._places.clear()

    def complain(self, place: Place, what: str) -> None:
        self.complaints += 1
        self._tell(place, what)
