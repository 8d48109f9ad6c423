"""How far a feed has come, stored between two runs: it moves only when ingest has acknowledged."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from shared.errors import UsageError
from shared.packs.bots.tail import Position

POSITION_FILE = "feed_position.json"
"""Beside the reports."""
VERSION = 1


FaultKind = Literal["unreadable", "lost"]


class Fault(msgspec.Struct):
    """Faults of one kind, counted until they are no longer told."""

    count: int
    at: datetime
    """Of the last one."""


class Said(msgspec.Struct, omit_defaults=True):
    """What ingest was last told of one bot."""

    snapshot: str = ""
    """Digest of what it said."""
    snapshot_at: datetime | None = None
    by_event: bool = False
    """Its snapshots come as events, so no file need be there."""
    fills: tuple[int, int] | None = None
    """Rows of fills.csv, and `order_filled` events that had been posted by then."""
    input: dict[str, str] = {}


class FeedPosition(msgspec.Struct, omit_defaults=True):
    """Files by their path, bots by their name."""

    version: int = VERSION
    files: dict[str, Position] = {}
    faults: dict[str, dict[str, Fault]] = {}
    """By bot: lines that could not be used (`unreadable`), and files whose rest is gone (`lost`)."""
    said: dict[str, Said] = {}

    def blame(self, bot: str, kind: FaultKind, at: datetime) -> None:
        """Count a fault."""
        kinds = self.faults.setdefault(bot, {})
        kinds[kind] = Fault(kinds.get(kind, Fault(0, at)).count + 1, at)

    def blamed(self, bot: str, kind: FaultKind, since: datetime) -> int:
        """Return how many faults there are to be told; they are, until the last one is older than `since`."""
        kinds = self.faults.get(bot, {})
        fault = kinds.get(kind)
        if fault is None:
            return 0
        if fault.at < since:
            del kinds[kind]
            return 0
        return fault.count

    def of(self, bot: str) -> Said:
        """Return what was said of a bot, to be changed."""
        return self.said.setdefault(bot, Said())


def read_position(path: Path) -> FeedPosition:
    """Return what is stored; a new one where nothing is.

    Raises:
        UsageError: the file cannot be read, or is none of ours.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return FeedPosition()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        position = msgspec.json.decode(raw, type=FeedPosition)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{path}: is no position of this feed ({error}); remove it to read everything again: repeats are harmless"
        ) from None
    if position.version != VERSION:
        raise UsageError(
            f"{path}: is of version {position.version}, this feed knows {VERSION}; remove it to begin anew"
        )
    return position


def encode_position(position: FeedPosition) -> bytes:
    """Return what is stored."""
    return msgspec.json.encode(position) + b"\n"
