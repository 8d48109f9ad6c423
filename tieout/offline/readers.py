"""Who reads blocks into columns: this thread, or for large files one thread for each processor, where C reads most lines.

Where all is read by Python, it is one process for each processor: threads would wait for one another.
"""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from threading import local

from shared.errors import TieoutError
from shared.rules.model import Rule
from tieout.offline.columns import BUILT, Block, ColumnReader, Columns

TOGETHER_BYTES_MIN = 100_000_000
"""Files that are larger together are read by several: below, starting processes takes longer than they save."""
READERS_MAX = 8
"""More would wait for the one that takes their columns."""
BLOCKS_AT_ONCE = 16
"""Blocks that a process is asked for at once: asking takes as long as reading a thousand lines."""
ASKED_AHEAD = 2
"""How often each process is asked before its first answer is taken: none waits, and few answers are in memory."""
_SEED = "PYTHONHASHSEED"
_SEEDS = 2**32

Read = Callable[[Iterable[Block]], Iterator[tuple[Block, Columns]]]
_own = local()
"""The reader of this thread, in the process that it stands in."""


class ReaderLost(TieoutError):
    """A process that read for this one has ended, for whatever reason."""


@contextmanager
def readers(packs: Mapping[str, Sequence[Rule]], org: str, size: int, *, compiled: bool = True) -> Iterator[Read]:
    """Give what reads blocks, in their order, of files of `size` bytes together.

    Raises:
        ReaderLost: while it reads.
    """
    count = min(_processors(), READERS_MAX)
    begin = (packs, org, compiled)
    if size < TOGETHER_BYTES_MIN or count == 1:
        reader = ColumnReader(packs, org, compiled=compiled)
        yield lambda blocks: ((block, reader.read(block)) for block in blocks)
    elif compiled and BUILT:
        with ThreadPoolExecutor(count, "columns", _begin, begin) as threads:
            yield lambda blocks: _read_together(threads, iter(blocks), count * ASKED_AHEAD)
    else:
        with _one_seed(), ProcessPoolExecutor(count, get_context("spawn"), _begin, begin) as processes:
            yield lambda blocks: _read_together(processes, iter(blocks), count * ASKED_AHEAD)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_together(pool: Executor, blocks: Iterator[Block], ahead: int) -> Iterator[tuple[Block, Columns]]:
    asked: deque[tuple[list[Block], Future[list[Columns]]]] = deque()
    while (some := list(islice(blocks, BLOCKS_AT_ONCE))) or asked:
        if some:
            asked.append((some, pool.submit(_read, some)))
        if not some or len(asked) > ahead:
            first, answer = asked.popleft()
            try:
                columns = answer.result()
            except BrokenExecutor:
                raise ReaderLost(
                    "a process that read the files has ended, killed or out of memory; nothing was printed"
                ) from None
            yield from zip(first, columns, strict=True)


def _begin(packs: Mapping[str, Sequence[Rule]], org: str, compiled: bool) -> None:
    _own.reader = ColumnReader(packs, org, compiled=compiled)


def _read(blocks: list[Block]) -> list[Columns]:
    return [_own.reader.read(block) for block in blocks]


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
