"""Who reads blocks into columns: this process, or for large files one process for each processor."""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context

from shared.rules.model import Rule
from tieout.offline.columns import Block, ColumnReader, Columns

TOGETHER_BYTES_MIN = 100_000_000
"""Files that are larger together are read by several processes: below, starting them takes longer than they save."""
READERS_MAX = 8
"""More would wait for the one that takes their columns."""
BLOCKS_AT_ONCE = 16
"""Blocks that a process is asked for at once: asking takes as long as reading a thousand lines."""
ASKED_AHEAD = 2
"""How often each process is asked before its first answer is taken: none waits, and few answers are in memory."""
_SEED = "PYTHONHASHSEED"
_SEEDS = 2**32

Read = Callable[[Iterable[Block]], Iterator[tuple[Block, Columns]]]
_reader: ColumnReader


@contextmanager
def readers(packs: Mapping[str, Sequence[Rule]], org: str, size: int) -> Iterator[Read]:
    """Give what reads blocks, in their order, of files of `size` bytes together."""
    count = min(_processors(), READERS_MAX)
    if size < TOGETHER_BYTES_MIN or count == 1:
        reader = ColumnReader(packs, org)
        yield lambda blocks: ((block, reader.read(block)) for block in blocks)
        return
    with _one_seed(), ProcessPoolExecutor(count, get_context("spawn"), _begin, (packs, org)) as pool:
        yield lambda blocks: _read_together(pool, iter(blocks), count * ASKED_AHEAD)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_together(pool: ProcessPoolExecutor, blocks: Iterator[Block], ahead: int) -> Iterator[tuple[Block, Columns]]:
    asked: deque[tuple[list[Block], Future[list[Columns]]]] = deque()
    while (some := list(islice(blocks, BLOCKS_AT_ONCE))) or asked:
        if some:
            asked.append((some, pool.submit(_read, some)))
        if not some or len(asked) > ahead:
            first, answer = asked.popleft()
            yield from zip(first, answer.result(), strict=True)


def _begin(packs: Mapping[str, Sequence[Rule]], org: str) -> None:
    global _reader  # noqa: PLW0603 - a process of a pool has nothing else to keep it in
    _reader = ColumnReader(packs, org)


def _read(blocks: list[Block]) -> list[Columns]:
    return [_reader.read(block) for block in blocks]


@contextmanager
def _one_seed() -> Iterator[None]:
    """Let processes that are started meanwhile hash alike, and not as anybody could foresee."""
    before = os.environ.get(_SEED)
    os.environ[_SEED] = str(secrets.randbelow(_SEEDS)) if before is None else before
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED]
