"""How far a feed has come, stored between two runs: it moves only when ingest has acknowledged."""

from pathlib import Path

import msgspec

from shared.errors import UsageError
from shared.packs.bots.tail import Position
from tieout.bots.atomic_file import write_whole

POSITION_FILE = "feed_position.json"
"""Beside the reports."""
VERSION = 1


class Said(msgspec.Struct, omit_defaults=True):
    """What ingest was last told of one bot."""

    snapshot: str = ""
    """Id of the event."""
    by_event: bool = False
    """Its snapshots come as events, so no file need be there."""
    fills: int | None = None
    input: dict[str, str] = {}


class FeedPosition(msgspec.Struct, omit_defaults=True):
    """Files by their path, bots by their name."""

    version: int = VERSION
    files: dict[str, Position] = {}
    unreadable: dict[str, dict[str, int]] = {}
    """Lines of a file that could not be read, by bot; until it is rotated."""
    lost: dict[str, int] = {}
    """How often what was not yet read of a file was gone."""
    refused: dict[str, int] = {}
    """Events that ingest refused, by bot."""
    said: dict[str, Said] = {}

    def refuse(self, bot: str) -> None:
        """Count an event that ingest refused: it is a line that could not be used."""
        self.refused[bot] = self.refused.get(bot, 0) + 1

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


def write_position(path: Path, position: FeedPosition) -> None:
    """Store it whole.

    Raises:
        UsageError: it cannot be written.
    """
    write_whole(path, msgspec.json.encode(position) + b"\n")
