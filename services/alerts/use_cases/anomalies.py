"""Anomaly detection: one round over what was read since the last one, away from everything that stores or sends."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from services.alerts.domain.anomaly import Family, Standing, is_news, next_anomalies, resolution, standing_of
from services.alerts.domain.baseline import Limits
from services.alerts.ports.anomalies import AnomalyStore, History, LimitsOf, WatchedRules
from services.alerts.ports.directory import DirectoryStore
from shared.contracts.anomaly import Anomaly

SERIES_AT_ONCE = 50
"""Assessed in one go in the thread, some 30 ms each: between two of them everything else has its turn."""
SERIES_MAX = 2_000
"""Of one organisation in one round; the next round takes those that wait longest."""
NEWS_MAX = 50
"""Messages of one organisation in one round: when everything is unusual at once, the rest stands in the list."""
_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Looked:
    """What a round brought, for logs."""

    series: int = 0
    changed: Sequence[Anomaly] = ()


class Anomalies:
    """Keeps baselines and anomalies.

    Args:
        store: where they and the histories are.
        rules: whose readings have a drift, and how far it may go.
        directory: the organisations and their zones.
        now: the clock.
    """

    def __init__(
        self, store: AnomalyStore, rules: WatchedRules, directory: DirectoryStore, now: Callable[[], datetime]
    ) -> None:
        self.store = store
        self._rules = rules
        self._directory = directory
        self._now = now

    async def round(self) -> Looked:
        """Look at every organisation once.

        Raises:
            DependencyAway: what was not looked at is in the next round.
        """
        async with self.store.watcher() as mine:
            if not mine:
                return Looked()
            limits = await self._rules.limits()
            looked, changed = 0, list[Anomaly]()
            for org in await self._directory.orgs():
                one = await self._look(org.org, ZoneInfo(org.zone), limits)
                looked += one.series
                changed += one.changed
            return Looked(looked, changed)

    async def _look(self, org: str, zone: ZoneInfo, limits: Mapping[tuple[str, str], LimitsOf]) -> Looked:
        now = self._now()
        for of, rule in sorted(limits):
            if of == org:
                await self.store.roll_up(org, rule, now)
        await self.store.roll_up_checks(org, now)
        waiting = await self.store.changed(org, now, SERIES_MAX)
        changed: list[Anomaly] = []
        told = 0
        for start in range(0, len(waiting), SERIES_AT_ONCE):
            histories = await self.store.history(waiting[start : start + SERIES_AT_ONCE])
            # In a thread of its own: statistics must not hold up what waits on the loop.
            standings, anomalies, news = await asyncio.to_thread(_assess_all, histories, limits, zone)
            news = news[: max(0, NEWS_MAX - told)]
            told += len(news)
            await self.store.save(standings, anomalies, news, self._now())
            changed += news
        return Looked(len(waiting), changed)


def _assess_all(
    histories: Sequence[History], limits: Mapping[tuple[str, str], LimitsOf], zone: ZoneInfo
) -> tuple[list[Standing], list[Anomaly], list[Anomaly]]:
    standings: list[Standing] = []
    anomalies: list[Anomaly] = []
    news: list[Anomaly] = []
    for history in histories:
        standing, changed = assess_one(history, limits.get((history.series.org, history.series.rule)), zone)
        standings.append(standing)
        anomalies += changed
        before = {one.id: one for one in history.open.values()}
        news += [one for one in changed if is_news(one, before.get(one.id))]
    return standings, anomalies, news


def assess_one(history: History, limits_of: LimitsOf | None, zone: ZoneInfo) -> tuple[Standing, list[Anomaly]]:
    """Return how a series stands and which of its anomalies changed."""
    # Loaded in the thread that computes: it takes a second, which no start and no request should wait for.
    from services.alerts.domain.seasonal import assess

    series = history.series
    limits = _NO_LIMITS if limits_of is None else limits_of(series.account, series.currency)
    found = assess(
        history.hours,
        history.values,
        zone=zone,
        limits=limits,
        resolution=resolution(series.currency, limits.tolerance),
    )
    last = datetime.fromtimestamp(history.hours[-1] * 3_600, tz=zone), history.values[-1]
    open_: Mapping[Family, Anomaly] = history.open
    return standing_of(series, found, last, limits, zone), next_anomalies(series, found, limits, open_, zone)
