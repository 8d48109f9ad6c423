"""Seconds and memory of cycles of `tieout bots reconcile` over many bots with many fills."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tieout.bench.harness import machine_facts

START: Final = datetime(2026, 1, 5, 8, tzinfo=UTC)
HEADER: Final = "ts,order_id,side,price,amount,fee_quote\n"
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class CycleCost:
    """One cycle in a process of its own, its start included."""

    what: str
    seconds: float
    cpu_seconds: float
    peak_mb: int
    lines_read: int
    status: str
    command_ms: int
    """Of the whole: what the cycle itself took."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    bots: int
    fills: int
    file_mb: int
    read_seconds: float
    """Reading the same files without looking at them: the limit of a first cycle."""
    cycles: list[CycleCost] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=machine_facts)


def bench(bots: int, fills: int, more: int) -> Result:
    """Write the files, then run cycles: the first, one without news, one after `more` new fills and falling counters.

    Args:
        bots: how many.
        fills: rows of all fills.csv together; as many lines of event stores.
        more: fills that come between two cycles.
    """
    with tempfile.TemporaryDirectory(prefix="tieout-bench-bots-") as folder:
        root = Path(folder)
        random_ = random.Random(1)  # noqa: S311 - data, no secret
        per_bot = max(1, fills // bots)
        names = [f"bot{number:03d}" for number in range(bots)]
        for name in names:
            (root / "data" / name).mkdir(parents=True)
            _append(root / "data" / name, 0, per_bot, random_)
            _snapshot(root / "data" / name, fees="10", turnover="100")
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        read_seconds = _read_all(root)
        cycles = [_cycle(root, "first"), _cycle(root, "nothing new")]
        for name in names:
            _append(root / "data" / name, per_bot, max(1, more // bots), random_)
            _snapshot(root / "data" / name, fees="9", turnover="101")
        cycles.append(_cycle(root, f"{max(1, more // bots) * bots} new fills, every fee counter fell"))
        return Result(bots, per_bot * bots, size // 1_000_000, read_seconds, cycles)


def _append(folder: Path, first: int, count: int, random_: random.Random) -> None:
    rows, events = [], []
    for number in range(first, first + count):
        at = (START + timedelta(seconds=7 * number)).isoformat()
        price, amount = random_.randint(90_000, 110_000), random_.randint(1, 999)
        side = "buy" if number % 2 else "sell"
        rows.append(f"{at},o{number},{side},{price}.5,0.{amount:03d},0.01\n")
        events.append(
            f'{{"ts":"{at}","event_type":"order_filled","event_id":"{folder.name}-{number}","payload":'
            f'{{"order_id":"o{number}","side":"{side}","price":{price}.5,"amount":0.{amount:03d}}}}}\n'
        )
    with (folder / "fills.csv").open("a") as file:
        file.write(("" if first else HEADER) + "".join(rows))
    with (folder / "events.jsonl").open("a") as file:
        file.write("".join(events))


def _snapshot(folder: Path, *, fees: str, turnover: str) -> None:
    said = f'"equity_quote":1000.25,"base_pct":0.5,"target_base_pct":0.5,"fees_paid":{fees},"turnover":{turnover}'
    (folder / "snapshot.json").write_text(f'{{"ts":"{datetime.now(UTC).isoformat()}",{said}}}')


def _read_all(root: Path) -> float:
    begun = time.monotonic()
    for path in root.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return round(time.monotonic() - begun, 3)


def _cycle(root: Path, what: str) -> CycleCost:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tieout", "bots", "reconcile", "--once"],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    if process.returncode:
        msg = f"the cycle ended with {process.returncode}"
        raise RuntimeError(msg)
    report = json.loads((root / "reports/reconciliation/latest.json").read_bytes())
    return CycleCost(
        what=what,
        seconds=round(seconds, 2),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 2),
        peak_mb=usage.ru_maxrss // KIB,
        lines_read=report["lines_read"],
        status=report["status"],
        command_ms=round(report["duration_seconds"] * 1000),
    )
