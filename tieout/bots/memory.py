"""What one cycle leaves to the next: how far files were read, what the engine knew, what was open and told."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from shared.contracts.discrepancy import Check, Discrepancy
from shared.errors import UsageError
from shared.packs.bots.tail import Position
from tieout.bots.atomic_file import write_whole

FILE: Final = "state.msgpack"
"""Beside the reports."""
VERSION: Final = 1


class Seen(msgspec.Struct):
    """The last snapshot of a bot."""

    at: datetime
    sequence: int
    values: dict[str, str]
    """What it said, numbers as text."""
    by_event: bool = False
    """It came as an event, not as a file: no file need be there."""


class Memory(msgspec.Struct):
    """Everything that a cycle has to know of those before it."""

    version: int = VERSION
    at: datetime | None = None
    """When the last cycle was."""
    core: list[tuple[bytes, bytes]] = []
    """State of the matcher's core: counters, last snapshots, what is open."""
    fills: dict[str, Position] = {}
    """By path: tables of fills."""
    events: dict[str, Position] = {}
    """By path: event stores."""
    open: dict[str, Discrepancy] = {}
    """By id: the last revision of what is raised."""
    checks: dict[str, Check] = {}
    """By rule, bot and code: the last verdict."""
    snapshots: dict[str, Seen] = {}
    """By bot."""
    since: dict[str, str] = {}
    """By `Finding.place`: when it was first seen."""
    told: dict[str, str] = {}
    """By `Finding.place`: under which name the webhook has been told of it."""
    report: str = ""
    """Name of the last report's file."""

    @property
    def bots(self) -> set[str]:
        """Every bot that was ever seen."""
        positions: Iterable[Position] = (*self.fills.values(), *self.events.values())
        return {*self.snapshots, *(bot for one in positions for bot in one.bots)}


class MemoryLost(UsageError):
    """The file of the state cannot be used."""


_decode = msgspec.msgpack.Decoder(Memory).decode
_encode = msgspec.msgpack.Encoder().encode


def load_memory(reports: Path) -> Memory:
    """Return what the last cycle left; a new memory where there was none.

    Raises:
        MemoryLost: the file is there, and no state that this build can read.
    """
    path = reports / FILE
    try:
        memory = _decode(path.read_bytes())
    except FileNotFoundError:
        return Memory()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MemoryLost(f"{path}: is no state of a reconciliation ({error})") from None
    if memory.version != VERSION:
        raise MemoryLost(f"{path}: has version {memory.version}, this build reads version {VERSION}")
    return memory


def save_memory(reports: Path, memory: Memory) -> None:
    """Keep it for the next cycle."""
    write_whole(reports / FILE, _encode(memory))
