"""The explainer's loop: looks for near misses and clusters of what the sink has just stored."""

import asyncio

import structlog

from services.alerts.ports.explanations import ExplanationStore
from services.alerts.use_cases.explanations import explain_changes
from shared.errors import DependencyAway
from shared.telemetry.health import Health

ROUND_S_MAX = 120.0
"""A round over a thousand changes of one organisation takes seconds; longer is stuck."""

log = structlog.get_logger()


async def explain(store: ExplanationStore, health: Health, *, poll_s: float, cluster_size_min: int) -> None:
    """Look at changes until cancelled; PostgreSQL being away only delays it."""
    health.watch("explainer", ROUND_S_MAX + poll_s)
    while True:
        health.heartbeat("explainer")
        try:
            looked_at = await explain_changes(store, cluster_size_min=cluster_size_min)
        except DependencyAway as error:
            log.warning("the explainer waits", reason=str(error))
            looked_at = 0
        if not looked_at:
            await asyncio.sleep(poll_s)
