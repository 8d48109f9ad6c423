"""`tieout bench memory`: what held items take in memory, and whether a leg costs more while many are held."""

import gc
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from services.matcher.domain.compiled import BUILT
from services.matcher.domain.core import Core
from services.matcher.handlers.worker import GC_THRESHOLDS
from services.matcher.ports import InputRecord
from services.matcher.use_cases.partition import Partition, Policy
from shared.rules.duration import parse_duration
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.bench.prepared_legs import START_MS, payments_rule, rule_and_ticks, settled_and_waiting

SIZES_DEFAULT = (100_000, 1_000_000)
MEASURED_PAIRS = 50_000
"""Legs of so many new pairs are timed while the rest is held."""
TIMED_LEGS = 500
BATCH_LEGS = 8_000
"""After so many legs changes are taken, as a commit does."""
SETTLED_MAX = 5_000_000
"""Larger sizes hold so many settled groups and no more."""
PAGE_BYTES = 4096
POLICY = Policy(
    snapshot_threshold_bytes=1 << 62,
    snapshot_chunk_bytes=1 << 20,
    progress_interval_s=1.0,
    checkpoint_interval_ms=1 << 62,
)
"""No snapshot and no daily checkpoint falls into what is measured: they cost what is held, not what comes."""
KEEP_MS = parse_duration(payments_rule().keep).milliseconds


class _Record(NamedTuple):
    offset: int
    key: bytes
    value: bytes
    headers: tuple[()] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What was seen while so many items were held."""

    items: int
    bytes_per_open_item: int
    """Growth of the process divided by the items: Python's own overhead is in it."""
    told_bytes_per_open_item: int
    """What the gauge and `TIEOUT_STATE_BYTES_MAX` reckon with."""
    settled: int
    bytes_per_settled_group: int
    """After quiet moments, in which a matcher makes them small."""
    told_bytes_per_settled_group: int
    cpu_us_per_leg_open: float
    """Of legs that come and settle while so many others wait."""
    cpu_us_per_leg_expiring: float
    """The same while so many settled groups are held and one is forgotten for each that settles."""


@dataclass(frozen=True, slots=True)
class Result:
    """All sizes; `growth` is the cost of a leg at the largest as a multiple of that at the smallest."""

    benchmark: str
    sizes: list[Held]
    growth_open: float
    growth_expiring: float
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions_used)
    machine: dict[str, Any] = field(default_factory=machine_facts)


def bench(sizes: tuple[int, ...]) -> Result:
    """Measure every size in a process of its own."""
    held = []
    for items in sizes:
        say(f"holding {items:,} items, open and then settled")
        groups = min(items, SETTLED_MAX)
        opened, settled = _alone(_hold_open, items), _alone(_hold_settled, groups)
        costs = round(opened[2], 2), round(settled[2], 2)
        held.append(Held(items, opened[0], opened[1], groups, settled[0], settled[1], *costs))
    return Result(
        benchmark="memory",
        sizes=held,
        growth_open=round(held[-1].cpu_us_per_leg_open / held[0].cpu_us_per_leg_open, 2),
        growth_expiring=round(held[-1].cpu_us_per_leg_expiring / held[0].cpu_us_per_leg_expiring, 2),
        settings={
            "rule": payments_rule().name,
            "keep": payments_rule().keep,
            "measured_pairs": MEASURED_PAIRS,
            "core": "compiled" if BUILT else "Python",
        },
    )


def _alone(measure: Any, items: int) -> tuple[int, int, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        measured: tuple[int, int, float] = process.submit(measure, items).result()
    return measured


def _hold_open(items: int) -> tuple[int, int, float]:
    """Return bytes per item, as it is and as it is told, and CPU microseconds of a leg."""
    partition = _begun()
    grown = _grown(partition, settled_and_waiting(0, items))
    told = partition.core.state_bytes // items
    # Other keys: those of the first `items` numbers wait.
    fresh = settled_and_waiting(MEASURED_PAIRS, 0, START_MS + items, first=items)
    return grown // items, told, _cost(partition, fresh)


def _hold_settled(items: int) -> tuple[int, int, float]:
    partition = _begun()
    grown = _grown(partition, settled_and_waiting(items, 0))
    told = partition.core.state_bytes // items
    fresh = settled_and_waiting(MEASURED_PAIRS, 0, START_MS + KEEP_MS, first=items)
    return grown // items, told, _cost(partition, fresh)


def _begun() -> Partition:
    gc.set_threshold(*GC_THRESHOLDS)
    partition = Partition(0, Core(0), POLICY, 0)
    partition.apply(_records(partition, [(b"", value) for value in rule_and_ticks()]))
    # Warm up: code, caches and buffers of the process are no items.
    partition.apply(_records(partition, settled_and_waiting(1_000, 0, first=1 << 40)))
    partition.collect(0)
    gc.collect()
    gc.freeze()
    return partition


def _records(partition: Partition, legs: Iterable[tuple[bytes, bytes]]) -> list[InputRecord]:
    """Return them as Kafka gives them: every record has bytes of its own."""
    return [
        _Record(offset, bytes(bytearray(key)), value) for offset, (key, value) in enumerate(legs, partition.position)
    ]


def _grown(partition: Partition, legs: Iterator[tuple[bytes, bytes]]) -> int:
    """Apply legs; return by how many bytes the process has grown."""
    before = _resident_bytes()
    while batch := _records(partition, islice(legs, BATCH_LEGS)):
        partition.apply(batch)
        partition.collect(0)
        while partition.core.freeze():
            pass
    gc.collect()
    return _resident_bytes() - before


def _cost(partition: Partition, legs: Iterator[tuple[bytes, bytes]]) -> float:
    """Return the CPU microseconds of a leg: applying it, taking what changed, making small what settled.

    The median of short stretches: others run on the same machine.
    """
    stretches = []
    while batch := _records(partition, islice(legs, TIMED_LEGS)):
        begun = time.process_time()
        partition.apply(batch)
        partition.collect(0)
        partition.core.freeze()
        stretches.append(time.process_time() - begun)
    return sorted(stretches)[len(stretches) // 2] / TIMED_LEGS * 1e6


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def show(result: Result, *, as_json: bool) -> None:
    """Print a table, or one JSON object last."""
    if as_json:
        print(json.dumps(asdict(result)), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("items", "bytes an open item", "bytes a settled group", "CPU a leg, open", "CPU a leg, expiring")
    for held in result.sizes:
        table.add_row(
            f"{held.items:,}",
            f"{held.bytes_per_open_item} (told {held.told_bytes_per_open_item})",
            f"{held.bytes_per_settled_group} (told {held.told_bytes_per_settled_group}; {held.settled:,} groups)",
            f"{held.cpu_us_per_leg_open:.2f} us",
            f"{held.cpu_us_per_leg_expiring:.2f} us",
        )
    growth = f"{result.growth_open:.2f}x", f"{result.growth_expiring:.2f}x"
    table.add_row("largest to smallest", "", "", *growth)
    facts = chain(result.settings.items(), result.versions.items(), result.machine.items())
    table.caption = ", ".join(f"{name} {value}" for name, value in facts)
    Console().print(table)
