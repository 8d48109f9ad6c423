"""Folders of bots in named situations: the offline cycle and the live feed read the same ones."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

HEADER = "ts,order_id,side,price,amount,fee\n"
GOOD: dict[str, Any] = {
    "ts": "2026-11-20T10:00:00Z",
    "equity_quote": 1000.5,
    "base_pct": 0.5,
    "target_base_pct": 0.5,
    "fees_paid": 1.25,
    "turnover": 10,
}


class Bot:
    """One bot's folder under the default places."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.folder = root / "data" / name
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def fills(self) -> Path:
        """Its table of fills."""
        return self.folder / "fills.csv"

    @property
    def events(self) -> Path:
        """Its event store."""
        return self.folder / "events.jsonl"

    @property
    def snapshot_file(self) -> Path:
        """Its snapshot."""
        return self.folder / "snapshot.json"

    def snapshot(self, **changed: Any) -> "Bot":
        """Write a snapshot in order but for what is `changed`; None leaves a field out."""
        said = {field: value for field, value in (GOOD | changed).items() if value is not None}
        self.snapshot_file.write_text(json.dumps(said))
        return self

    def filled(self, count: int, *, first: int = 0) -> "Bot":
        """Append fills to both files."""
        return self.rows(count, first=first).orders(count, first=first)

    def rows(self, count: int, *, first: int = 0) -> "Bot":
        """Append rows to fills.csv."""
        with self.fills.open("a") as file:
            if not file.tell():
                file.write(HEADER)
            file.writelines(
                f"2026-11-20T09:00:{n % 60:02d}Z,o{n},buy,100.5,0.1,0.01\n" for n in range(first, first + count)
            )
        return self

    def orders(self, count: int, *, first: int = 0) -> "Bot":
        """Append order_filled events to the event store."""
        with self.events.open("a") as file:
            for n in range(first, first + count):
                event = {
                    "ts": f"2026-11-20T09:00:{n % 60:02d}Z",
                    "type": "order_filled",
                    "payload": {"order_id": f"o{n}"},
                }
                file.write(json.dumps(event) + "\n")
        return self


def write_exchange(root: Path, **bots: dict[str, Any]) -> Path:
    """Write what the exchange says of bots."""
    path = root / "reports/exchange_snapshots/latest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"ts": "2026-11-20T10:00:01Z", "mode": "bitget_ccxt_private", "bots": bots}))
    return path


def write_thresholds(root: Path, *, defaults: dict[str, Any] | None = None, **bots: dict[str, Any]) -> Path:
    """Write the thresholds file."""
    path = root / "config/reconciliation_thresholds.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"defaults": defaults or {}, "bots": bots}))
    return path


class Step(NamedTuple):
    """What bots write between two looks, and what is open afterwards as (bot, name)."""

    write: "Any"
    """Called with the root folder."""
    open: frozenset[tuple[str, str]]


def _everything_once(root: Path) -> None:
    Bot(root, "clean").snapshot().filled(3)
    Bot(root, "broke").snapshot(equity_quote=0).filled(1)
    Bot(root, "beyond").snapshot(base_pct=1.2, target_base_pct=1.0).filled(1)
    Bot(root, "drifting").snapshot(base_pct=0.8).filled(1)
    Bot(root, "far_off").snapshot(base_pct=0.95).filled(1)
    Bot(root, "unpaired").snapshot().rows(3).orders(1)
    Bot(root, "refunded").snapshot(fees_paid=-0.5).filled(1)
    Bot(root, "elsewhere").snapshot().filled(1)
    Bot(root, "falling").snapshot(fees_paid=10).filled(1)
    Bot(root, "free_ride").snapshot(turnover=10).filled(1)
    Bot(root, "not_a_number").snapshot(equity_quote="n/a").filled(1)
    write_exchange(
        root,
        clean={"account_probe_status": "ok", "base_pct": 0.5},
        elsewhere={"account_probe_status": "ok", "base_pct": 0.62},
        drifting={"account_probe_status": "paper_only"},
    )


def _counters_move(root: Path) -> None:
    later = "2026-11-20T10:05:00Z"
    Bot(root, "falling").snapshot(ts=later, fees_paid=9.9)
    Bot(root, "free_ride").snapshot(ts=later, turnover=12)
    Bot(root, "unpaired").orders(2, first=1)
    Bot(root, "broke").snapshot(ts=later, equity_quote=5, fees_paid=1.3)


def _counters_fall_further(root: Path) -> None:
    Bot(root, "falling").snapshot(ts="2026-11-20T10:10:00Z", fees_paid=9.5)
    Bot(root, "free_ride").snapshot(ts="2026-11-20T10:10:00Z", turnover=13, fees_paid=1.5)


_ALWAYS = (
    ("beyond", "base_pct_out_of_range"),
    ("drifting", "inventory_drift_warning"),
    ("far_off", "inventory_drift_critical"),
    ("refunded", "fees_paid_negative"),
    ("elsewhere", "exchange_drift_warning"),
    ("not_a_number", "not_a_number"),
)


def _open(*found: tuple[str, str], always: Iterable[tuple[str, str]] = _ALWAYS) -> frozenset[tuple[str, str]]:
    return frozenset((*always, *found))


STEPS: tuple[Step, ...] = (
    Step(_everything_once, _open(("broke", "equity_not_positive"), ("unpaired", "fill_count_mismatch"))),
    Step(
        _counters_move,
        _open(("falling", "fees_counter_decreased_warning"), ("free_ride", "turnover_without_fee_accrual")),
    ),
    Step(_counters_fall_further, _open(("falling", "fees_counter_decreased_critical"))),
)
"""Every check of the pack, wrong and right again, in three steps."""
