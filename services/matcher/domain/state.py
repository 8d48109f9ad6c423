"""What one partition holds: a cell per key, their timers, and what changed since the last transaction."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from services.matcher.domain.changes import Changes
from services.matcher.domain.feed import Feeds
from services.matcher.domain.frozen import (
    FREEZING,
    Freezing,
    bytes_of_one,
    is_frozen,
    pack_block,
    unpack_block,
)
from services.matcher.domain.group import Group, pack, unpack
from services.matcher.domain.kept_legs import BLOCK, MARKED, PAIR, due_of, is_kept, is_one, unpack_kept
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.timers import Timers
from shared.contracts.discrepancy import LogPosition
from shared.contracts.event import from_milliseconds

SETTLED_OVERHEAD_BYTES = 250
"""What Python adds to a settled cell: three bytes objects, its places in the dict, the timers and among the recent
ones (measured)."""
FROZEN_OVERHEAD_BYTES = 110
"""The same of a pair in a block: its key and the key's place in the dict, and what is left in the timers (measured)."""
SIFTED_PER_PAIR = 1
"""Timers looked at per pair that is frozen and needs its own no more: so those of frozen pairs stay the fewer."""
EXPIRING_MS = 60_000
"""What is due in a block stays at hand where the next pair is due within this time."""
OPEN_BYTES = 1000
"""What a group that waits takes in memory with its key, about (measured with one record; more add some 250 each)."""
WAITING_BYTES = 420
"""The same of a leg that is kept as it came."""


class Cell(Protocol):
    """What a kind of rule keeps under one key. A group is one; other kinds have structures of their own."""

    generation: str
    """Generation of the rule that judges it."""
    due_at: int
    """Milliseconds: when it has to be looked at next; a timer that fires before that is ignored."""


Packed = Cell | bytes
"""A cell that waits for something, or one that is settled, packed."""


class Codec:
    """Packs the cells of one kind. `number` (below 250) stands in the state: it is never given to another kind."""

    def __init__(self, number: int, cell: type[Any]) -> None:
        self.number = number
        self.cell = cell
        self._mark = bytes([MARKED, number])
        self._encode: Callable[[Cell], bytes] = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], Cell] = msgspec.msgpack.Decoder(cell).decode

    def pack(self, cell: Cell) -> bytes:
        """Return the cell as bytes."""
        return self._mark + self._encode(cell)

    def unpack(self, packed: bytes) -> Cell:
        """Read what `pack` wrote."""
        return self._decode(packed[2:])


class State:
    """The cells of one partition of `legs`. `cells`, `dirty` and `timers` are open to the hot path; others use the methods."""

    def __init__(self, partition: int, codecs: tuple[Codec, ...] = (), freezing: Freezing = FREEZING) -> None:
        self.partition = partition
        self.log_time = UNKNOWN
        """Milliseconds: the least of the last times seen of every inbox partition; never falls."""
        self.settled_items = 0
        self.settled_bytes = 0
        self.waiting_items = 0
        """Cells that are kept as the one leg they wait with."""
        self.cells: dict[bytes, Packed] = {}
        self.timers = Timers()
        self.dirty: dict[bytes, Packed | None] = {}
        """What changed since the last take: a cell, packed or not; b"": forgotten; None: an entry that is no cell."""
        self.says_anew = False
        """While a rule becomes a shadow, or is none any more: see `Moment.anew`."""
        self.changes = Changes()
        self.feeds = Feeds(partition)
        self._freezing = freezing
        self._recent: deque[bytes] = deque()
        """Keys of pairs that were settled, restored or asked for, the next to be frozen first."""
        self._expiring: dict[int, list[tuple[int, bytes]]] = {}
        """By block: when its pairs are due, the last one first."""
        self._by_type = {codec.cell: codec for codec in codecs}
        self._by_number = {codec.number: codec for codec in codecs}
        assert len(self._by_number) == len(codecs), "two kinds of cells have one number"

    def moment(self, at: int, offset: int) -> Moment:
        """Return now, in the log: a result is dated `at` (milliseconds) and was made by the record at `offset`."""
        return Moment(self.log_time, at, self.position(offset), self.says_anew)

    def position(self, offset: int) -> LogPosition:
        """Return the place in the log, as results carry it."""
        return LogPosition(partition=self.partition, offset=offset, time=from_milliseconds(max(self.log_time, 0)))

    def get(self, key: bytes) -> Any:
        """Return the cell under `key`, unpacked; None where there is none. Its kind knows its type."""
        held = self.cells.get(key)
        if type(held) is not bytes:
            return held
        if is_frozen(held):
            block, held = held, unpack_block(held)[key]
            self._put_back(block, {key: held})
        return self.unpack(held)

    def put(self, key: bytes, cell: Cell, *, settled: bool) -> None:
        """Store a cell: packed when it is `settled` (waits for nothing but to be forgotten), else as it is."""
        self._uncount(key, self.cells.get(key))
        held: Packed = cell
        if settled:
            held = self.pack(cell)
            self.count(key, held)
        self.dirty[key] = self.cells[key] = held

    def schedule(self, key: bytes, cell: Cell, due_at: int) -> None:
        """Let the cell under `key` be due at `due_at` (milliseconds), instead of what was set before."""
        if due_at < cell.due_at or key not in self.cells:
            self.timers.set(due_at, key)
        cell.due_at = due_at

    def forget(self, key: bytes) -> None:
        """Drop the cell under `key`."""
        self._uncount(key, self.cells.pop(key, None))
        self.dirty[key] = b""

    def keys_under(self, prefix: bytes) -> list[bytes]:
        """Return the keys of all cells that begin with `prefix`, in order."""
        return sorted(key for key in self.cells if key.startswith(prefix))

    def restore(self, key: bytes, packed: bytes, is_settled: Callable[[Cell], bool]) -> Cell | None:
        """Put back what `take` gave (empty: forgotten); return the cell."""
        self.forget(key)
        del self.dirty[key]
        if not packed:
            return None
        cell = self.unpack(packed)
        self.timers.set(cell.due_at, key)
        if is_settled(cell):
            self.count(key, packed)
            self.cells[key] = packed
        else:
            self.cells[key] = cell
        return cell

    def restore_kept(self, key: bytes, packed: bytes) -> None:
        """Put back a cell that is kept as its legs."""
        before = self.cells.get(key)
        if before is not None:
            self._uncount(key, before)
        self.timers.set(due_of(packed), key)
        self.cells[key] = packed
        if is_one(packed):
            self.waiting_items += 1
        else:
            self.count(key, packed)
            self._recent.append(key)

    def due_at(self, key: bytes) -> int | None:
        """Return when the cell under `key` is due; None where there is none."""
        held = self.cells.get(key)
        if held is None:
            return None
        if type(held) is not bytes:
            return held.due_at  # type: ignore[union-attr]  # no bytes
        if is_frozen(held):
            held = unpack_block(held)[key]
        return due_of(held) if is_kept(held) else self.unpack(held).due_at

    def fire_pair(self, key: bytes, packed: bytes, due: int) -> None:
        """Forget a settled pair that is not frozen, or look at it again when it is due."""
        due_at = due_of(packed)
        if due_at > due:
            self.timers.set(due_at, key)
            return
        del self.cells[key]
        self.settled_items -= 1
        self.settled_bytes -= len(key) + len(packed) + SETTLED_OVERHEAD_BYTES
        self.dirty[key] = b""

    def fire_block(self, block: bytes) -> None:
        """Forget the pairs of a block that are due, and look at the others when the next one is."""
        cells, dirty, log_time = self.cells, self.dirty, self.log_time
        waiting = self._expiring.pop(id(block), None)
        if waiting is None:
            pairs = unpack_block(block).items()
            waiting = sorted(((due_of(packed), key) for key, packed in pairs if cells.get(key) is block), reverse=True)
        while waiting and waiting[-1][0] < log_time:
            _, key = waiting.pop()
            if cells.get(key) is block:
                self._uncount(key, block)
                del cells[key]
                dirty[key] = b""
        if waiting:
            next_due, _ = waiting[-1]
            self.timers.set(next_due, block)
            if next_due < log_time + EXPIRING_MS:
                self._expiring[id(block)] = waiting

    def take(self, other: Callable[[bytes], bytes]) -> Changes:
        """Return what happened since the last call; `other` gives the entries that are no cells."""
        changes = self.changes
        if self.dirty:
            changes.state = [
                (key, held if type(held) is bytes else other(key) if held is None else self.pack(held))  # type: ignore[arg-type]
                for key, held in self.dirty.items()
            ]
            self.dirty = {}
            # Whatever was settled since has published an item.
            self._recent += [key for key, _ in changes.items]
            self.freeze_surplus(self._freezing.waiting_pairs_max)
        self.changes = Changes()
        return changes

    def freeze(self) -> bool:
        """Freeze some settled pairs, the oldest first; False: all are frozen but the recent ones."""
        blocks = (len(self._recent) - self._freezing.recent_pairs) // self._freezing.block_pairs
        self._freeze(min(blocks, self._freezing.blocks_at_once))
        return blocks > 0

    def freeze_surplus(self, pairs_max: int) -> None:
        """Freeze the oldest settled pairs as far as there are more than may wait for a quiet moment."""
        self._freeze((len(self._recent) - pairs_max) // self._freezing.block_pairs)

    def _freeze(self, blocks: int) -> None:
        recent, cells = self._recent, self.cells
        for _ in range(blocks):
            keys = [recent.popleft() for _ in range(self._freezing.block_pairs)]
            # What has changed since is no pair any more, or no bytes at all.
            pairs = {key: held for key in keys if type(held := cells.get(key)) is bytes and held[:2] == PAIR}
            if pairs:
                block = pack_block(pairs)
                cells.update(dict.fromkeys(pairs, block))
                self.timers.set(due_of(block), block)
                self.timers.sift(self._is_frozen, SIFTED_PER_PAIR * len(pairs))
                self.settled_bytes -= _saved_bytes(block, pairs)

    def melt(self, keys: Iterable[bytes]) -> None:
        """Put the pairs among these keys back as they came, and those that were frozen with them."""
        cells = self.cells
        for key in keys:
            block = cells.get(key)
            if type(block) is bytes and is_frozen(block):
                pairs = unpack_block(block)
                self._put_back(block, {one: packed for one, packed in pairs.items() if cells.get(one) is block})

    def _is_frozen(self, key: bytes) -> bool:
        held = self.cells.get(key)
        return type(held) is bytes and held[1] == BLOCK and held[0] == MARKED

    def _put_back(self, block: bytes, pairs: dict[bytes, bytes]) -> None:
        self.cells.update(pairs)
        self.settled_bytes += _saved_bytes(block, pairs)
        self._recent += pairs
        for key, packed in pairs.items():
            self.timers.set(due_of(packed), key)

    def packed(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every cell, packed as it is when it is taken; cells may change between two steps."""
        cells, seen = self.cells, dict[int, bytes]()
        for key in list(cells):
            held = cells.get(key, b"")
            if type(held) is not bytes:
                yield key, self.pack(held)  # type: ignore[arg-type]
            elif not held or not is_frozen(held):
                yield key, held
            elif id(held) not in seen:
                # All of the block at once, for to read it costs the same for one pair. Those that are put back
                # meanwhile come at their own places.
                seen[id(held)] = held
                yield from ((one, packed) for one, packed in unpack_block(held).items() if cells.get(one) is held)

    def pack(self, cell: Cell) -> bytes:
        """Return a cell of any kind as bytes."""
        return pack(cell) if type(cell) is Group else self._by_type[type(cell)].pack(cell)

    def unpack(self, packed: bytes) -> Cell:
        """Read a packed cell of any kind."""
        if packed[0] != MARKED:
            return unpack(packed)
        return unpack_kept(packed) if is_kept(packed) else self._by_number[packed[1]].unpack(packed)

    def count(self, key: bytes, packed: bytes) -> None:
        """Count a settled cell that was put into `cells` by the hot path."""
        self.settled_items += 1
        self.settled_bytes += len(key) + len(packed) + SETTLED_OVERHEAD_BYTES

    def _uncount(self, key: bytes, packed: Packed | None) -> None:
        if type(packed) is not bytes:
            return
        if is_one(packed):
            self.waiting_items -= 1
            return
        self.settled_items -= 1
        self.settled_bytes -= _bytes_of(key, packed)


def _bytes_of(key: bytes, packed: bytes) -> int:
    """Return the memory that a settled cell takes, about."""
    if is_frozen(packed):
        return len(key) + bytes_of_one(packed) + FROZEN_OVERHEAD_BYTES
    return len(key) + len(packed) + SETTLED_OVERHEAD_BYTES


def _saved_bytes(block: bytes, pairs: dict[bytes, bytes]) -> int:
    """Return the memory that these pairs take less in the block."""
    of_one = SETTLED_OVERHEAD_BYTES - FROZEN_OVERHEAD_BYTES - bytes_of_one(block)
    return sum(map(len, pairs.values())) + len(pairs) * of_one
