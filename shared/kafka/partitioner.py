"""Which partition a key belongs to: a contract, because state of the matcher lives by partition.

Producers in other languages that write to a tieout topic by key must compute the same:
CRC-32 (IEEE 802.3, as in zlib, unsigned) of the key's bytes, modulo the number of partitions.
Kafka's own murmur2 is not used: in pure Python it takes longer than encoding the record.
"""

import zlib
from collections.abc import Sequence
from random import choice


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, from 0, of `key` in a topic of `partitions` partitions (at least 1)."""
    return zlib.crc32(key) % partitions


def by_crc32(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
    """The same, in the shape that aiokafka and FastStream ask for.

    A record without key goes to any partition that has a leader now. `every` is sorted first: a client
    lists the partitions in the order in which the broker named them.
    """
    if key is None:
        return choice(available or every)  # noqa: S311 - spreading load, nothing secret
    return sorted(every)[partition_of(key, len(every))]
