"""`tieout bench bots-live`: from what a bot writes to the finding's webhook, through the feed and all services.

Healthy bots first; then each loses a fill (a row of fills.csv without its event), and each drifts (a new snapshot), one
after the other. Measured from the moment that the file has been written to the arrival of the outgoing webhook.
"""

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from shared.errors import DependencyAway
from shared.kafka.settings import KafkaSettings
from shared.packs.bots.names import PARITY_RULE, STATE_RULE
from shared.packs.bots.places import read_places
from shared.packs.bots.rules import rules_of
from shared.packs.bots.thresholds import Thresholds, ThresholdsFile
from tieout.api import AlertsApi
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.bots.feed.run import Feed
from tieout.bots.view.live import standing_of_alerts
from tieout.ingest_api import IngestApi
from tieout.local.access import create_access
from tieout.local.choose import choose_kafka, choose_postgres
from tieout.local.stack import Ports, Stack, Wanted, put_in_force, running_stack

ORG = "bench"
FILLS_BEFORE = 100
PACE_S = 0.25
"""Between two faults: each goes its way alone, as it would on a day."""
READY_TIMEOUT_S = 120.0
ARRIVAL_TIMEOUT_S = 60.0
STATE = {"equity_quote": 1000, "base_pct": 0.5, "target_base_pct": 0.5, "fees_paid": 1, "turnover": 10}

Place = tuple[str, str]
"""Rule and bot."""


async def bench(bots: int = 40, poll_s: float = 0.5) -> dict[str, Any]:
    """Run everything on this machine and return the figures.

    Raises:
        LocalUnavailable: Java, Maven or PostgreSQL's wheel is missing.
        DependencyAway: verdicts or webhooks did not come.
    """
    machine, arrivals, keys = machine_facts(), dict[Place, float](), dict[str, str]()
    names = [f"bot{number:03}" for number in range(bots)]

    async def prepare(kafka: KafkaSettings, url: str) -> None:
        keys.update(await create_access(url, ORG, ("owner", "ingest"), {}))
        await put_in_force(kafka, rules_of(Thresholds(), names), ORG, "bench")

    environment = {"TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true"}
    wanted = Wanted(choose_kafka("jvm"), choose_postgres(), Ports.free(), environment=environment)
    with tempfile.TemporaryDirectory(prefix="tieout-bots-") as folder:
        root = Path(folder)
        for name in names:
            _healthy(root / name)
        async with (
            _receiver(arrivals) as receiver_url,
            running_stack(wanted, prepare, say, lambda name, line: say(f"{name}: {line}")) as stack,
            _feeding(root, stack, keys["ingest"], poll_s),
        ):
            await _register(stack, keys["owner"], receiver_url)
            await _all_judged(AlertsApi(stack.alerts_url, keys["owner"]), bots)
            say(f"{bots} healthy bots are judged; now each loses a fill, then each drifts")
            fills = await _each(names, PARITY_RULE, arrivals, lambda name: _lose_fill(root / name))
            drifts = await _each(names, STATE_RULE, arrivals, lambda name: _drift(root / name))
    return {
        "bots": bots,
        "poll_s": poll_s,
        "fill_to_webhook_s": _percentiles(fills),
        "snapshot_to_webhook_s": _percentiles(drifts),
        "versions": versions_used(),
        "machine": machine | {"load_after": machine_facts()["load_before"]},
    }


def _healthy(folder: Path) -> None:
    folder.mkdir()
    _snapshot(folder)
    event = json.dumps({"type": "order_filled", "ts": datetime.now(UTC).isoformat()}) + "\n"
    (folder / "events.jsonl").write_text(event * FILLS_BEFORE)
    (folder / "fills.csv").write_text("ts,price\n" + "1,2.5\n" * FILLS_BEFORE)


def _snapshot(folder: Path, **fields: float) -> None:
    new = folder / "snapshot.new"
    new.write_text(json.dumps({"ts": datetime.now(UTC).isoformat(), **STATE, **fields}))
    new.replace(folder / "snapshot.json")


def _lose_fill(folder: Path) -> None:
    with (folder / "fills.csv").open("a") as file:
        file.write("2,2.5\n")


def _drift(folder: Path) -> None:
    _snapshot(folder, base_pct=0.99)


@asynccontextmanager
async def _receiver(arrivals: dict[Place, float]) -> AsyncIterator[str]:
    async def take(request: web.Request) -> web.Response:
        now = time.monotonic()
        data = json.loads(await request.read())["data"]
        arrivals.setdefault((data.get("rule", ""), data.get("account", "")), now)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _feeding(root: Path, stack: Stack, key: str, poll_s: float) -> AsyncIterator[None]:
    places = read_places(
        {
            "RECON_SNAPSHOT_FILES": f"{root}/{{bot}}/snapshot.json",
            "RECON_FILLS_FILES": f"{root}/{{bot}}/fills.csv",
            "RECON_EVENT_FILES": f"{root}/{{bot}}/events.jsonl",
            "RECON_EXCHANGE_SNAPSHOT_PATH": f"{root}/exchange.json",
            "RECON_REPORTS_PATH": f"{root}/reports",
        }
    )
    # The exchange is not measured here, so its snapshot need not be there.
    places = replace(places, exchange_is_named=False)
    feed = Feed(places, IngestApi(stack.ingest_url, key), ThresholdsFile({}), None, say)
    thread = threading.Thread(target=feed.forever, args=(poll_s,), name="feed")
    thread.start()
    try:
        yield
    finally:
        feed.stop.set()
        await asyncio.to_thread(thread.join)


async def _register(stack: Stack, key: str, url: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(stack.alerts_url, headers=headers) as session,
        session.post("/v1/webhooks/endpoints", json={"url": url}) as answer,
    ):
        answer.raise_for_status()


async def _all_judged(api: AlertsApi, bots: int) -> None:
    """Wait until every bot has passed."""
    begun = time.monotonic()
    while True:
        standing = await asyncio.to_thread(standing_of_alerts, api, Thresholds())
        if len(standing.bots) == bots and all(one.figures for one in standing.bots) and not standing.findings:
            return
        if time.monotonic() - begun > READY_TIMEOUT_S:
            raise DependencyAway(f"not all bots passed: {len(standing.bots)} seen, findings {standing.findings[:3]}")
        await asyncio.sleep(1)


async def _each(
    names: list[str], rule: str, arrivals: dict[Place, float], break_: Callable[[str], None]
) -> list[float]:
    """Break one bot after the other; return the seconds until each webhook."""
    begun: dict[str, float] = {}
    for name in names:
        break_(name)
        begun[name] = time.monotonic()
        await asyncio.sleep(PACE_S)
    deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
    while missing := [name for name in names if (rule, name) not in arrivals]:
        if time.monotonic() > deadline:
            raise DependencyAway(f"no webhook came about {len(missing)} bots, such as {missing[0]}")
        await asyncio.sleep(0.1)
    return [arrivals[rule, name] - begun[name] for name in names]


def _percentiles(seconds: Iterable[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    at = {"p50": ordered[round(last * 0.5)], "p99": ordered[round(last * 0.99)], "max": ordered[last]}
    return {name: round(value, 2) for name, value in at.items()}
