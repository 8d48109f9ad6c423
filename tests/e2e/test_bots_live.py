"""Goal: the same files give the same findings offline and through the services, and a fill's finding comes in seconds.

Method: bots with every kind of fault; `tieout bots reconcile` in this process, and `tieout bots feed` with real ingest,
matcher and alerts on Kafka and PostgreSQL. Then the files change, and both look again; then one healthy bot loses a fill.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.packs.bots.thresholds import ThresholdsFile, load_thresholds
from tests.support.servers import Server
from tests.support.services import ORG, Services, prepared, short_rules
from tests.support.webhook_receiver import Receiver
from tieout.api import AlertsApi
from tieout.bots.report import as_number
from tieout.bots.service import read_settings, reconcile
from tieout.bots.view.live import standing_of_alerts

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=2, inbox=1)]
STATE = {"equity_quote": 1000.5, "base_pct": 0.5, "target_base_pct": 0.5, "fees_paid": 10, "turnover": 1000}
FOUND_WITHIN_S = 90
"""Readings wait for late events and half-written lines for some seconds; the rest is what a loaded machine takes."""
Found = tuple[Any, ...]


class Bots:
    """A working directory of bots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = datetime.now(UTC) - timedelta(hours=1)

    def snapshot(self, bot: str, at: datetime | None = None, **fields: Any) -> None:
        self.clock += timedelta(seconds=1)
        said = {**STATE, "ts": (at or self.clock).isoformat(), **fields}
        self.write(bot, "snapshot.json", json.dumps({name: value for name, value in said.items() if value is not None}))

    def write(self, bot: str, name: str, text: str) -> None:
        path = self.folder / "data" / bot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # As careful bots do; what is half-written on purpose is written in one go as well.
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)

    def fills(self, bot: str, rows: int, events: int, more: str = "") -> None:
        self.write(bot, "fills.csv", "ts,price\n" + "".join(f"{number},2.5\n" for number in range(rows)))
        line = json.dumps({"type": "order_filled", "ts": (self.clock - timedelta(minutes=5)).isoformat()}) + "\n"
        self.write(bot, "events.jsonl", line * events + more)

    def append(self, bot: str, name: str, text: str) -> None:
        with (self.folder / "data" / bot / name).open("a") as file:
            file.write(text)

    def exchange(self, **figures: str | float) -> None:
        path = self.folder / "reports/exchange_snapshots/latest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {
            bot: {"account_probe_status": "ok", "base_pct": one}
            if isinstance(one, float)
            else {"account_probe_status": one, "base_pct": None}
            for bot, one in figures.items()
        }
        at = datetime.now(UTC).isoformat()
        path.with_suffix(".new").write_text(json.dumps({"ts_utc": at, "bots": said}))
        path.with_suffix(".new").replace(path)

    def thresholds(self, **bots: dict[str, Any]) -> None:
        path = self.folder / "config/reconciliation_thresholds.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps({"bots": bots}))
        path.with_suffix(".new").replace(path)

    def environment(self, reports: str) -> dict[str, str]:
        return {
            "RECON_SNAPSHOT_FILES": f"{self.folder}/data/{{bot}}/snapshot.json",
            "RECON_FILLS_FILES": f"{self.folder}/data/{{bot}}/fills.csv",
            "RECON_EVENT_FILES": f"{self.folder}/data/{{bot}}/events.jsonl,{self.folder}/reports/event_store/*.jsonl",
            "RECON_EXCHANGE_SNAPSHOT_PATH": f"{self.folder}/reports/exchange_snapshots/latest.json",
            "RECON_REPORTS_PATH": f"{self.folder}/{reports}",
            "RECON_THRESHOLDS_PATH": f"{self.folder}/config/reconciliation_thresholds.json",
        }


THRESHOLDS: dict[str, dict[str, Any]] = {
    "asked": {"exchange_check_enabled": True},
    "broke": {"exchange_check_enabled": True},
    "gone": {},
    "strict": {"inventory_warn": "0.01", "inventory_critical": "0.02"},
    "off": {"enabled": False},
}


def plant(bots: Bots) -> None:
    """One bot per fault."""
    bots.thresholds(**THRESHOLDS)
    bots.exchange(healthy=0.5, exchange_warn=0.38, exchange_crit=0.2, asked="wrong_key", paper="paper_only")
    for bot in ("healthy", "asked", "paper", "exchange_warn", "exchange_crit", "counter", "turnover", "clock"):
        bots.snapshot(bot)
        bots.fills(bot, 3, 3)
    bots.snapshot("broke", equity_quote=0)
    bots.snapshot("outside", base_pct=1.2)
    bots.snapshot("drift_warn", base_pct=0.8)
    bots.snapshot("drift_crit", base_pct=0.01)
    bots.snapshot("strict", base_pct=0.515)
    bots.snapshot("off", base_pct=7)
    bots.snapshot("negative", fees_paid=-0.5)
    bots.snapshot("nan", fees_paid="NaN")
    bots.snapshot("words", base_pct="half")
    bots.snapshot("lacking", target_base_pct=None)
    for bot in ("broke", "outside", "drift_warn", "drift_crit", "strict", "off", "negative", "nan", "words", "lacking"):
        bots.fills(bot, 2, 2)
    bots.write("half", "snapshot.json", '{"equity_quote": 1000')
    bots.fills("half", 1, 1)
    for bot, rows, events, more in (
        ("unbooked", 5, 3, ""),
        ("unfilled", 3, 5, ""),
        ("torn", 2, 2, '{"type": "order_fil'),
        ("garbage", 2, 2, "no json\n"),
    ):
        bots.snapshot(bot)
        bots.fills(bot, rows, events, more)
    bots.snapshot("no_files")


def change(bots: Bots) -> None:
    """Counters fall, a clock goes back, drifts heal, a file is rotated."""
    bots.snapshot("counter", fees_paid=9.5)
    bots.snapshot("turnover", turnover=1200)
    bots.snapshot("clock", at=bots.clock - timedelta(minutes=30))
    bots.snapshot("drift_warn", base_pct=0.55)
    bots.snapshot("nan", fees_paid=11)
    bots.snapshot("half")
    bots.append("torn", "events.jsonl", 'led"}\n')
    bots.append("torn", "fills.csv", "9,2.5\n")
    bots.append("unbooked", "events.jsonl", '{"type": "order_filled"}\n{"type": "order_filled"}\n')
    store = bots.folder / "data/unfilled/events.jsonl"
    store.rename(store.with_name("events.jsonl.1"))
    bots.write("unfilled", "events.jsonl", '{"type": "order_filled"}\n')


def offline(bots: Bots) -> set[Found]:
    """What `tieout bots reconcile --once` finds."""
    environment = bots.environment("offline") | {"RECON_SETTLE_SECONDS": "0"}
    report = reconcile(read_settings(environment), ThresholdsFile(environment)).report
    return {
        (
            one.bot,
            one.name,
            one.severity,
            one.expected,
            one.actual,
            one.difference,
            one.warn_threshold,
            one.critical_threshold,
        )
        for one in report.findings
    }


def live(api: AlertsApi, bots: Bots) -> set[Found]:
    """What alerts has stored, in the same words."""
    found = standing_of_alerts(api, load_thresholds(bots.environment("live"))).findings
    return {
        (
            one.bot,
            one.name,
            one.severity,
            *map(
                as_number,
                (one.expected, one.actual, one.difference, one.warn_threshold, one.critical_threshold),
            ),
        )
        for one in found
    }


async def become(expected: set[Found], ask: Callable[[], set[Found]]) -> float:
    """Wait until the services say the same; return how long that took."""
    began = time.monotonic()
    while True:
        found = await asyncio.to_thread(ask)
        if found == expected:
            return time.monotonic() - began
        if time.monotonic() - began > FOUND_WITHIN_S:
            missing, extra = sorted(map(str, expected - found)), sorted(map(str, found - expected))
            pytest.fail(f"only offline: {missing}\nonly live: {extra}")
        await asyncio.sleep(0.3)


async def start_feed(services: Services, bots: Bots) -> Any:
    environment = {
        **services.environment,
        **bots.environment("live"),
        "TIEOUT_INGEST_URL": services.url("ingest"),
        "TIEOUT_API_KEY": services.keys["ingest"],
    }
    words = ["-m", "tieout", "bots", "feed", "--org", ORG, "--poll-s", "0.2"]
    return await services.processes.python("feed", words, environment)


async def test_same_files_same_findings_offline_and_live(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str, tmp_path: Path
) -> None:
    """Also after the files have changed and the feed was killed meanwhile; a lost fill is found within seconds."""
    bots = Bots(tmp_path)
    plant(bots)
    async with Receiver() as receiver, prepared(kafka_settings, database_url, short_rules(1)) as services:
        receiver.secrets["/hook"] = "whsec_dGllb3V0LWJvdHMtdGVzdC1zZWNyZXQtMDA="
        for name in ("ingest", "matcher"):
            await services.start(name)
        await services.start(
            "alerts",
            RECONCILIATION_ALERT_WEBHOOK_URL=receiver.url("/hook"),
            RECONCILIATION_ALERT_WEBHOOK_SECRET=receiver.secrets["/hook"],
        )
        await services.ready("ingest", "matcher", "alerts")
        api = AlertsApi(services.url("alerts"), services.keys["owner"])
        first = offline(bots)
        assert {name for _, name, *_ in first} >= {
            "equity_not_positive",
            "base_pct_out_of_range",
            "inventory_drift_warning",
            "inventory_drift_critical",
            "exchange_drift_warning",
            "exchange_drift_critical",
            "fees_paid_negative",
            "fill_count_mismatch",
            "snapshot_missing",
            "snapshot_unreadable",
            "not_a_number",
            "field_missing",
            "lines_unreadable",
            "line_incomplete",
            "exchange_snapshot_missing",
            "exchange_probe_failed",
            "fills_missing",
            "events_missing",
        }
        assert not [one for one in first if one[0] in {"healthy", "paper", "off"}]
        feed = await start_feed(services, bots)
        await become(first, lambda: live(api, bots))

        await services.processes.kill(feed)
        change(bots)
        second = offline(bots)
        names = {(bot, name) for bot, name, *_ in second}
        assert names >= {
            ("counter", "fees_counter_decreased_critical"),
            ("turnover", "turnover_without_fee_accrual"),
            ("clock", "clock_went_back"),
        }
        assert not {bot for bot, _ in names} & {"drift_warn", "half", "nan", "unbooked", "torn"}
        await start_feed(services, bots)
        # A line that could not be read is told for one cycle there, for RECON_INTERVAL_SECONDS here.
        still = {one for one in first if one[:2] == ("garbage", "lines_unreadable")}
        await become(second | still, lambda: live(api, bots))

        # A fill without its event, as an operator would see it: the row, the finding, the webhook.
        began = time.monotonic()
        bots.append("healthy", "fills.csv", "3,2.5\n")
        lost = ("healthy", "fill_count_mismatch", "warning")
        while lost not in {found[:3] for found in await asyncio.to_thread(live, api, bots)}:
            assert time.monotonic() - began < FOUND_WITHIN_S
            await asyncio.sleep(0.05)
        stored_s = time.monotonic() - began
        while not any(lost_fill(one.body) for one in receiver.at("/hook")):
            assert time.monotonic() - began < FOUND_WITHIN_S
            await asyncio.sleep(0.05)
        told_s = time.monotonic() - began
        sys.stderr.write(f"\nfrom a fill to its stored finding {stored_s:.2f} s, to its webhook {told_s:.2f} s\n")

        # The thresholds change while all runs: so do the rules, and what holds of snapshots that were judged before.
        bots.thresholds(**THRESHOLDS | {"drift_warn": {"inventory_warn": "0.02"}})
        third = offline(bots) | still
        assert ("drift_warn", "inventory_drift_warning") in {found[:2] for found in third}
        await become(third, lambda: live(api, bots))


def lost_fill(body: dict[str, Any]) -> bool:
    return (
        body.get("data", body).get("rule") == "bots.fill_parity" and body.get("data", body).get("account") == "healthy"
    )
