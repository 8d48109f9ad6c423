"""Settled pairs that nobody has asked for lately: many of them compressed into one value, which stands under each key.

The legs of a pair share most of their bytes, and so do the pairs of one rule: a pair takes 50 to 100 bytes instead of
250. It is memory only: the state on disk, results and the order of everything are as if nobody had frozen anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final

import msgspec
from cramjam import lz4

from services.matcher.domain.kept_legs import BLOCK, MARKED, due_of

_head = Struct(">BBQI")
_DATA_AT: Final = _head.size

_encode: Callable[[dict[bytes, bytes]], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], dict[bytes, bytes]] = msgspec.msgpack.Decoder(dict[bytes, bytes]).decode


@dataclass(frozen=True, slots=True)
class Freezing:
    """Which settled pairs of a partition are frozen, when, and how many together."""

    recent_pairs: int = 4_096
    """So many stay as they came (1.2 MB): most records that come again come soon."""
    waiting_pairs_max: int = 200_000
    """More do not wait for a quiet moment (120 MB)."""
    restored_pairs_max: int = 50_000
    """The same while they are restored: what fitted into memory before a restart does so after it."""
    block_pairs: int = 256
    """More would hardly be smaller, and to look one up all are read (30 us)."""
    blocks_at_once: int = 8
    """Of each partition, between two polls: 2 ms."""


FREEZING: Final = Freezing()


def is_frozen(held: bytes) -> bool:
    """Tell whether a cell in memory is such a block."""
    return held[0] == MARKED and held[1] == BLOCK


def pack_block(pairs: dict[bytes, bytes]) -> bytes:
    """Return the block of these settled pairs: cells by key."""
    first_due = due_of(min(pairs.values()))  # they begin alike, and then with the time
    return _head.pack(MARKED, BLOCK, first_due, len(pairs)) + bytes(lz4.compress_block(_encode(pairs)))


def unpack_block(block: bytes) -> dict[bytes, bytes]:
    """Return the pairs of a block."""
    return _decode(bytes(lz4.decompress_block(memoryview(block)[_DATA_AT:])))


def bytes_of_one(block: bytes) -> int:
    """Return what one pair takes in the block, about."""
    count: int = _head.unpack_from(block)[3]
    return len(block) // count
