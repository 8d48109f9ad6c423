"""The loop of anomaly detection: one process at a time looks, every one shows what is open."""

import asyncio
import time
from typing import Final

import structlog

from services.alerts.ports.anomalies import AnomalyStore
from services.alerts.use_cases.anomalies import Anomalies
from shared.contracts.anomaly import ANOMALY_KINDS
from shared.errors import DependencyAway
from shared.telemetry.health import Health
from shared.telemetry.metrics import gauge, histogram

ROUND_S_MAX: Final = 1_800.0
"""Two thousand accounts of each of many organisations; longer is stuck."""

log = structlog.get_logger()


async def watch_anomalies(anomalies: Anomalies, health: Health, *, poll_s: float) -> None:
    """Go round until cancelled; what fails is logged and tried again, and stops nothing else."""
    health.watch("anomalies", ROUND_S_MAX + poll_s)
    while True:
        health.heartbeat("anomalies")
        try:
            await look_once(anomalies)
        except DependencyAway as error:
            log.warning("anomaly detection waits", reason=str(error))
        except Exception:
            # A history that nobody foresaw must not take runs and webhooks with it.
            log.exception("anomaly detection failed")
        await asyncio.sleep(poll_s)


async def look_once(anomalies: Anomalies) -> None:
    """Do one round, and tell of it.

    Raises:
        DependencyAway: the next round goes on.
    """
    begun = time.monotonic()
    looked = await anomalies.round()
    if not looked.series:
        return
    histogram("reconciliation_anomaly_round_seconds").observe(time.monotonic() - begun)
    for one in looked.changed:
        tell = log.warning if one.state == "open" else log.info
        tell(
            "anomaly" if one.state == "open" else "usual again",
            org=one.org,
            rule=one.rule,
            account=one.account,
            kind=one.kind,
            severity=one.severity,
            said=one.explanation,
        )


async def show_anomalies(store: AnomalyStore) -> None:
    """Set the gauges.

    Raises:
        DependencyAway: they stay as they are.
    """
    opened, watched = await store.counts()
    for kind in ANOMALY_KINDS:
        gauge("reconciliation_anomalies_open").labels(kind).set(opened.get(kind, 0))
    for state in ("learning", "watched"):
        gauge("reconciliation_baselines").labels(state).set(watched.get(state, 0))
