"""The explainer's loop: looks for near misses and clusters of what the sink has just stored."""

import asyncio
import time

import structlog

from services.alerts.ports.explanations import ExplanationStore
from services.alerts.use_cases.explanations import CHANGES_MAX, explain_changes, skip_change
from shared.errors import DependencyAway
from shared.telemetry.health import Health

ROUND_S_MAX = 120.0
"""A round over a thousand changes of one organisation takes seconds; longer is stuck."""
REST_TIMES = 3
"""How much longer than a round the pause is after one that left nothing: what comes in one by one is looked at together, and
storing and telling, which cannot wait, have most of the process."""
REST_S_MAX = 10.0

log = structlog.get_logger()


async def explain(store: ExplanationStore, health: Health, *, poll_s: float, cluster_size_min: int) -> None:
    """Look at changes until cancelled; PostgreSQL being away only delays it."""
    health.watch("explainer", ROUND_S_MAX + REST_S_MAX + poll_s)
    singly = 0
    while True:
        health.heartbeat("explainer")
        changes_max, began = 1 if singly else CHANGES_MAX, time.monotonic()
        try:
            looked_at = await explain_changes(store, changes_max=changes_max, cluster_size_min=cluster_size_min)
        except DependencyAway as error:
            log.warning("the explainer waits", reason=str(error))
            looked_at = 0
        except Exception:
            # One change that cannot be looked at must not keep hints from all others: find it, and leave it out.
            log.exception("looking for near misses and clusters failed", singly=bool(singly))
            looked_at = await _leave_out(store) if singly else 1
            singly = CHANGES_MAX + 1
        singly = max(singly - 1, 0)
        if looked_at < changes_max:
            rest_s = REST_TIMES * (time.monotonic() - began)
            await asyncio.sleep(max(poll_s, min(rest_s, REST_S_MAX)))


async def _leave_out(store: ExplanationStore) -> int:
    try:
        skipped = await skip_change(store)
    except DependencyAway:
        return 0
    log.error("a discrepancy has no hints", discrepancy=skipped)
    return len(skipped)
