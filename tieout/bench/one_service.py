"""One service as a process of its own, for benchmarks that need no others."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from shared.kafka.settings import KafkaSettings
from tieout.bench.connections import NotAnswered, connections
from tieout.local.places import free_ports

READY_TIMEOUT_S = 60.0
LOOK_S = 0.01


class Running(NamedTuple):
    """A service that is ready."""

    process: asyncio.subprocess.Process
    port: int


@asynccontextmanager
async def running(service: str, kafka: KafkaSettings, **variables: str) -> AsyncIterator[Running]:
    """Start a service, wait until it is ready, and end it afterwards.

    Raises:
        NotAnswered: it was not ready in time.
    """
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"services.{service}",
        env={
            **os.environ,
            "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "TIEOUT_HTTP_PORT": str(port),
            "TIEOUT_LOG_LEVEL": "warning",
            **variables,
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        await _ready(service, port)
        yield Running(process, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _ready(service: str, port: int) -> None:
    ends = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, NotAnswered):
            async with connections(port, 1) as one:
                status, _ = await one.ask(b"GET /health/ready HTTP/1.1\r\nHost: bench\r\n\r\n")
            if status == 200:
                return
        await asyncio.sleep(LOOK_S)
    raise NotAnswered(f"{service} was not ready within {READY_TIMEOUT_S:g} s")
