"""Anomalies: where histories, baselines and anomalies are stored, and which limits the rules give."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from services.alerts.domain.anomaly import Family, Series, Standing
from services.alerts.domain.baseline import Limits
from shared.contracts.anomaly import Anomaly, AnomalyKind


class History(NamedTuple):
    """A series with its readings, and what is known of it."""

    series: Series
    hours: Sequence[int]
    """Since 1970, ascending."""
    values: Sequence[float]
    open: Mapping[Family, Anomaly]


class LimitsOf(Protocol):
    """How far an account of a rule may drift in a currency."""

    def __call__(self, account: str, currency: str) -> Limits: ...


class WatchedRules(Protocol):
    """The rules of kind balance in force, whose readings have a drift."""

    async def limits(self) -> Mapping[tuple[str, str], LimitsOf]:
        """Return the limits by (org, rule). Raises `DependencyAway` while Kafka cannot be reached."""
        ...


class AnomalyStore(Protocol):
    """Raises `DependencyAway` while the database cannot be reached."""

    def watcher(self) -> AbstractAsyncContextManager[bool]:
        """Hold the right to look: one process at a time; False: another one has it."""
        ...

    async def roll_up(self, org: str, rule: str, now: datetime) -> None:
        """Take the last reading of each hour of each account into the history, and forget what is too old."""
        ...

    async def roll_up_checks(self, org: str, now: datetime) -> None:
        """Take the discrepancies of the hourly runs' checks into the history."""
        ...

    async def changed(self, org: str, now: datetime, limit: int) -> Sequence[Series]:
        """Return series with a reading that was not looked at, or that may have changed, those that wait longest first."""
        ...

    async def history(self, series: Sequence[Series]) -> Sequence[History]:
        """Return the readings of series."""
        ...

    async def save(
        self, standings: Sequence[Standing], anomalies: Sequence[Anomaly], news: Sequence[Anomaly], now: datetime
    ) -> None:
        """Store what was found of one organisation, with a message to its endpoints for each of `news`."""
        ...

    async def anomalies(
        self,
        org: str,
        *,
        state: str | None,
        kind: AnomalyKind | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> Sequence[Anomaly]:
        """Return anomalies, the newest first, before the place `after` (raised, id)."""
        ...

    async def standings(
        self, org: str, *, state: str | None, after: Sequence[str] | None, limit: int
    ) -> Sequence[Standing]:
        """Return how series stand, by rule, account and currency, after that place."""
        ...

    async def counts(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Count open anomalies by kind, and series by state, over all organisations."""
        ...
