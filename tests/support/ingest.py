"""A real ingest process, what it needs in Kafka, and what it wrote there."""

import asyncio
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiokafka import ConsumerRecord, TopicPartition

from shared.contracts.directory import (
    DirectoryEntry,
    KeyEntry,
    OrgEntry,
    Role,
    SourceEntry,
    directory_key,
    encode_entry,
)
from shared.kafka.client import consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.rules.load import load_rules
from tieout.rules_topic import apply_rules

REPOSITORY = Path(__file__).parents[2]
BILLING = REPOSITORY / "shared/packs/billing/rules.yaml"
STRIPE_SECRET = "whsec_for_tests"
KEY = "tk_ingest1_0123456789abcdef"
READY_TIMEOUT_S = 40


def key_entry(token: str = KEY, role: Role = "ingest", org: str = "acme", *, revoked: bool = False) -> KeyEntry:
    return KeyEntry(
        org=org,
        id=token.split("_")[1],
        sha256=hashlib.sha256(token.encode()).hexdigest(),
        role=role,
        name=f"test {role}",
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        revoked=revoked,
    )


ACME: tuple[DirectoryEntry, ...] = (
    OrgEntry(org="acme"),
    SourceEntry(org="acme", source="stripe", provider="stripe"),
    SourceEntry(org="acme", source="partner", provider="standard"),
    SourceEntry(org="acme", source="unsigned", provider="stripe"),
    key_entry(),
    key_entry("tk_viewer1_0123456789abcdef", "viewer"),
    key_entry("tk_revoked1_0123456789abcdef", revoked=True),
)


async def publish(settings: KafkaSettings, entries: Sequence[DirectoryEntry]) -> None:
    sender = producer(settings)
    await sender.start()
    try:
        topic = Topics(settings.topic_prefix).directory
        for entry in entries:
            await sender.send_and_wait(topic, encode_entry(entry), key=directory_key(entry))
    finally:
        await sender.stop()


async def prepare(settings: KafkaSettings) -> None:
    """Publish org `acme` and put the billing pack in force."""
    await publish(settings, ACME)
    await apply_rules(settings, load_rules(BILLING), "acme", "test")


async def read_topic(settings: KafkaSettings, topic: str) -> list[ConsumerRecord[bytes, bytes]]:
    """Return everything that a topic holds now, by partition and offset."""
    counts = await partitions_of(settings, topic)
    reader = consumer(settings, auto_offset_reset="earliest")
    await reader.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        partitions = [TopicPartition(topic, number) for number in range(counts.get(topic, 0))]
        if not partitions:
            return []
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        while any([await reader.position(place) < end for place, end in ends.items()]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                found += records
    finally:
        await reader.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def until(look: Callable[[], Any], timeout_s: float = 20) -> Any:
    """Return what the coroutine function `look` returns once it is true."""
    ends = time.monotonic() + timeout_s
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {timeout_s} s"
        await asyncio.sleep(0.1)


def signed(body: bytes, secret: str = STRIPE_SECRET, at: float | None = None) -> dict[str, str]:
    seconds = int(time.time() if at is None else at)
    signature = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={seconds},v1={signature}"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class IngestProcess:
    """`python -m services.ingest` with its own port and group."""

    def __init__(self, settings: KafkaSettings, **variables: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._variables = {
            **os.environ,
            "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "TIEOUT_KAFKA_TOPIC_PREFIX": settings.topic_prefix,
            "TIEOUT_HTTP_PORT": str(self.port),
            "TIEOUT_LOG_FORMAT": "json",
            "TIEOUT_INGEST_GROUP": f"{settings.topic_prefix}ingest",
            "TIEOUT_GROUP_INSTANCE_ID": "one",
            "TIEOUT_WEBHOOK_SECRET__ACME__STRIPE": STRIPE_SECRET,
            "TIEOUT_INGEST_ACK_TIMEOUT_S": "2",
            **variables,
        }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "services.ingest"], env=self._variables, cwd=REPOSITORY, stderr=self._log
        )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        ends = time.monotonic() + timeout_s
        answer = None
        while time.monotonic() < ends:
            assert self.process.poll() is None, f"ingest ended with {self.process.returncode}:\n{self.log()}"
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=2)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"not ready: {answer.text if answer else 'no answer'}\n{self.log()}")

    def post(self, path: str, **request: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=20, **request)

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()
        self.wait_ready()

    def terminate(self, timeout_s: float = 15) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout_s)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()[-6000:]


@contextmanager
def running(settings: KafkaSettings, **variables: str) -> Iterator[IngestProcess]:
    ingest = IngestProcess(settings, **variables)
    try:
        ingest.wait_ready()
        yield ingest
    except BaseException:
        sys.stderr.write(ingest.log())
        raise
    finally:
        if ingest.process.poll() is None:
            ingest.kill()


def ledger_event(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "source": "ledger",
        "type": "payment.succeeded",
        "id": f"evt_{number}",
        "record": f"pay_{number}",
        "occurred_at": "2026-11-20T10:00:00Z",
        "amount": "120.50",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": f"pay_{number}"},
        **fields,
    }
