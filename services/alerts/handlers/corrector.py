"""The loop of auto-correction: one process at a time tries and judges, every one shows how often it helped."""

import asyncio
import math
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.alerts.domain.correction import ACTIONS, OUTCOMES
from services.alerts.ports.corrections import CorrectionStore
from services.alerts.use_cases.corrections import Corrections
from shared.errors import DependencyAway
from shared.telemetry.health import Health
from shared.telemetry.metrics import counter, gauge

ROUND_S_MAX: Final = 600.0
"""A round that posts to ledgers which do not answer; longer is stuck."""
RATIO_OF: Final = timedelta(days=30)
"""What the success ratio is of."""

log = structlog.get_logger()


async def correct(corrections: Corrections, health: Health, *, poll_s: float) -> None:
    """Go round until cancelled; PostgreSQL or Kafka being away only delays."""
    health.watch("corrections", ROUND_S_MAX + poll_s)
    while True:
        health.heartbeat("corrections")
        try:
            await correct_once(corrections)
        except DependencyAway as error:
            log.warning("corrections wait", reason=str(error))
        await asyncio.sleep(poll_s)


async def correct_once(corrections: Corrections) -> None:
    """Do one round, and tell of it.

    Raises:
        DependencyAway: what was begun goes on in the next round.
    """
    begun, finished = await corrections.round()
    for attempt in begun:
        log.info(
            "correction tried",
            org=attempt.org,
            discrepancy=attempt.discrepancy_id,
            rule=attempt.rule,
            action=attempt.action,
            attempt=attempt.id,
        )
    for attempt, verdict in ((one.attempt, one.verdict) for one in finished):
        counter("reconciliation_corrections_total").labels(attempt.action, verdict.outcome).inc()
        tell = log.info if verdict.succeeded else log.warning
        tell(
            "correction helped" if verdict.succeeded else "correction did not help",
            org=attempt.org,
            discrepancy=attempt.discrepancy_id,
            rule=attempt.rule,
            action=attempt.action,
            attempt=attempt.id,
            outcome=verdict.outcome,
            detail=verdict.detail,
        )


async def show_ratio(store: CorrectionStore, now: datetime) -> None:
    """Set the gauges of how often corrections helped.

    Raises:
        DependencyAway: they stay as they are.
    """
    found = {one.action: one for one in await store.figures(None, now - RATIO_OF)}
    for action in ACTIONS:
        one = found.get(action)
        ratio = math.nan if one is None else one.succeeded / one.finished
        gauge("reconciliation_correction_success_ratio").labels(action).set(ratio)


def declare_corrections() -> None:
    """Show every counter at zero: an increase from nothing is none to an alert."""
    for action in ACTIONS:
        for outcome in OUTCOMES:
            counter("reconciliation_corrections_total").labels(action, outcome)
