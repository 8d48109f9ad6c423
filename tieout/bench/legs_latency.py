"""`tieout bench legs-latency`: how long after its second leg was written a discrepancy can be read, with a matcher alone.

Legs go straight to their topic at a fixed pace, as ingest would write them: the rule first, the time of every inbox
partition five times a second. Half a second after a payment's first leg comes its second; some differ by a cent.
Measured from before the second leg is handed to the producer to its discrepancy's appearance before a committed reader.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

from shared.contracts.leg import Leg, Tick, encode_leg_record, group_key
from shared.errors import DependencyAway
from shared.kafka.client import await_sent, producer
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_PARTITIONS, Topics, apply_topics
from shared.rules.generation import generation_of
from tieout.bench.harness import machine_facts, own_kafka, say, versions_used
from tieout.bench.latency import Observed, Percentiles, Seen, percentiles
from tieout.bench.one_service import running
from tieout.bench.prepared_legs import INBOX_PARTITIONS, ORG, PACK, RULE, payments_rule, rule_and_ticks
from tieout.local.follow import following

WINDOW_S = 0.01
"""Legs of so long are written at once: as ingest does with what came in meanwhile."""
SECOND_LEG_AFTER_WINDOWS = 50
TICK_WINDOWS = 20
WARM_UP_S = 5.0
DRAIN_TIMEOUT_S = 30.0
AMOUNTS = ("120.50", "120.51")
GOALS_MS = {"p50": 30, "p99": 80}


async def bench(legs_per_second: int = 5_000, seconds: int = 20, differing_percent: int = 4) -> dict[str, Any]:
    """Run a broker and one matcher and return the figures.

    Raises:
        DependencyAway: discrepancies did not come.
    """
    machine = machine_facts()
    observed = Observed()
    async with own_kafka() as kafka:
        await apply_topics(kafka)
        legs = Legs(kafka, observed, legs_per_second, differing_percent)
        async with running("matcher", kafka), following(kafka, observed.see):
            say(f"{legs_per_second} legs per second for {seconds} s, {differing_percent} % of the payments differ")
            await legs.write(seconds)
            await _drained(observed)
    payments = list(observed.payments.values())
    return {
        "benchmark": "legs-latency",
        "legs_per_second": legs_per_second,
        "seconds": seconds,
        "discrepancies": len(payments),
        "sender_behind_ms_max": round(observed.behind_s_max * 1000),
        "readable_ms": percentiles(seen.times["readable"] - seen.sent for seen in payments),
        "result_ms": percentiles(seen.times["result"] - seen.sent for seen in payments),
        "goals_ms": GOALS_MS,
        "settings": _settings() | {"differing_percent": differing_percent, "partitions": DEFAULT_PARTITIONS},
        "versions": versions_used(),
        "machine": machine | {"load_after": machine_facts()["load_before"]},
    }


class Legs:
    """The log that ingest would write."""

    def __init__(self, kafka: KafkaSettings, observed: Observed, legs_per_second: int, differing_percent: int) -> None:
        self._kafka = kafka
        self._observed = observed
        self._per_window = max(1, round(legs_per_second / 2 * WINDOW_S))
        self._differing_percent = differing_percent
        self._generation = generation_of(ORG, PACK, payments_rule())
        self._topic = Topics(kafka.topic_prefix).legs
        self._offset = 0
        self._sent: set[asyncio.Future[Any]] = set()

    async def write(self, seconds: int) -> None:
        """Write at the pace asked for, whatever comes back."""
        sender = producer(self._kafka)
        await sender.start()
        try:
            for number in range(DEFAULT_PARTITIONS):
                for value in rule_and_ticks(_now_ms()):
                    await sender.send_and_wait(self._topic, value, partition=number)
            begun = time.monotonic()
            for window in range(round((seconds + WARM_UP_S) / WINDOW_S)):
                behind_s = time.monotonic() - begun - window * WINDOW_S
                self._observed.behind_s_max = max(self._observed.behind_s_max, behind_s)
                await asyncio.sleep(max(0.0, -behind_s))
                await self._write(sender, window)
            await await_sent(self._sent)
        finally:
            await sender.stop()

    async def _write(self, sender: Any, window: int) -> None:
        builders: dict[int, Any] = {}
        for number, key, value in self._records(window):
            if number not in builders:
                builders[number] = sender.create_batch()
            assert builders[number].append(key=key, value=value, timestamp=None) is not None, "a window is small"
        for number, builder in builders.items():
            future = await sender.send_batch(builder, self._topic, partition=number)
            self._sent.add(future)
            future.add_done_callback(self._sent.discard)

    def _records(self, window: int) -> Iterator[tuple[int, bytes | None, bytes]]:
        for at in range(self._per_window):
            yield self._leg(window * self._per_window + at, 0, AMOUNTS[0])
        second = window - SECOND_LEG_AFTER_WINDOWS
        counted = window * WINDOW_S >= WARM_UP_S
        for at in range(self._per_window if second >= 0 else 0):
            payment = second * self._per_window + at
            differs = payment * self._differing_percent % 100 < self._differing_percent
            if differs and counted:
                self._observed.payments[_name(payment)] = Seen(time.time())
            yield self._leg(payment, 1, AMOUNTS[differs])
        if not window % TICK_WINDOWS:
            now_ms = _now_ms()
            for inbox_partition in range(INBOX_PARTITIONS):
                tick = encode_leg_record(Tick(inbox_partition, INBOX_PARTITIONS, now_ms))
                yield from ((number, None, tick) for number in range(DEFAULT_PARTITIONS))

    def _leg(self, payment: int, side: int, amount: str) -> tuple[int, bytes, bytes]:
        name, now_ms = _name(payment), _now_ms()
        source = ("ledger", "stripe")[side]
        key = group_key(ORG, RULE, (name,))
        self._offset += 1
        leg = Leg(
            self._generation,
            side,
            source,
            name,
            f"evt_{source}_{name}",
            now_ms * 1000,
            self._offset % INBOX_PARTITIONS,
            self._offset // INBOX_PARTITIONS,
            now_ms,
            amount=amount,
            currency="EUR",
            status="succeeded",
        )
        return partition_of(key, DEFAULT_PARTITIONS), key, encode_leg_record(leg)


def _name(payment: int) -> str:
    return f"pay_{payment:09d}"


def _now_ms() -> int:
    return int(time.time() * 1000)


async def _drained(observed: Observed) -> None:
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while observed.waiting("readable"):  # noqa: ASYNC110 - filled by the reader
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DependencyAway(
            f"{DRAIN_TIMEOUT_S:g} s after the last leg {observed.waiting('readable')} of "
            f"{len(observed.payments)} discrepancies are not on their topic"
        ) from None


def _settings() -> dict[str, Any]:
    from services.matcher.settings import MatcherSettings

    matcher = MatcherSettings()
    return {
        "commit_interval_ms": matcher.commit_interval_ms,
        "commit_interval_loaded_ms": matcher.commit_interval_loaded_ms,
        "commits_per_second_max": matcher.commits_per_second_max,
    }


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print a table, or one JSON object last."""
    if as_json:
        print(json.dumps(figures), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"bench legs-latency: {figures['legs_per_second']} legs per second, {figures['discrepancies']} discrepancies, ms",
        title_justify="left",
    )
    for heading in ("from the second leg to", "p50", "p99", "max", "goal"):
        table.add_column(heading, justify="left" if heading.startswith("from") else "right")
    goals: Percentiles = figures["goals_ms"]
    for name, found, goal in (
        ("its discrepancy in the topic", figures["result_ms"], ""),
        ("its discrepancy readable", figures["readable_ms"], f"{goals['p50']:.0f} / {goals['p99']:.0f}"),
    ):
        table.add_row(name, *(f"{found[part]:.0f}" if found else "-" for part in ("p50", "p99", "max")), goal)
    console = Console()
    console.print(table)
    for facts in ("settings", "versions", "machine"):
        console.print(f"{facts}: " + ", ".join(f"{name} {value}" for name, value in figures[facts].items()))
    console.print(f"sender behind by at most {figures['sender_behind_ms_max']} ms")
