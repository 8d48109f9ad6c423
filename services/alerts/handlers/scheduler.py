"""The scheduler: completes runs that were provisional when they were made."""

import asyncio

import structlog

from services.alerts.use_cases.runs import Runs
from shared.errors import DependencyAway
from shared.telemetry.health import Health

ROUND_S = 2.0
"""Between two looks for runs that are due; how often each run is looked at is decided by its age."""
ROUND_S_MAX = 600.0
"""A round over a hundred large months; longer is stuck."""

log = structlog.get_logger()


async def complete_runs(runs: Runs, health: Health, round_s: float = ROUND_S) -> None:
    """Look again and again at unfinished runs; PostgreSQL or Kafka being away only delays them."""
    health.watch("scheduler", ROUND_S_MAX)
    while True:
        health.heartbeat("scheduler")
        try:
            completed = await runs.advance_unfinished()
            if completed:
                log.info("runs completed", count=completed)
        except DependencyAway as error:
            log.warning("the scheduler waits", reason=str(error))
        await asyncio.sleep(round_s)
