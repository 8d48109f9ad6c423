"""How the bots stand: findings and figures, whichever way they came."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from shared.packs.bots.findings import Finding, Status, status_of
from shared.packs.bots.names import CHECKS
from tieout.bots.reading import EVERYBODY


@dataclass(frozen=True, slots=True)
class Figures:
    """What a bot said last, and what the exchange said beside it."""

    as_of: datetime
    base_pct: Decimal | None = None
    target_base_pct: Decimal | None = None
    external_base_pct: Decimal | None = None

    @property
    def drift(self) -> Decimal | None:
        """Return how far the inventory is from its target."""
        return _difference(self.base_pct, self.target_base_pct)

    @property
    def exchange_drift(self) -> Decimal | None:
        """Return how far the bot's own figure is from the exchange's."""
        return _difference(self.base_pct, self.external_base_pct)


@dataclass(frozen=True, slots=True)
class BotStanding:
    """One bot."""

    bot: str
    status: Status
    checks: Mapping[str, str]
    figures: Figures | None


@dataclass(frozen=True, slots=True)
class Standing:
    """All bots, as of a time."""

    origin: str
    """Where this was read."""
    at: datetime
    bots: Sequence[BotStanding]
    findings: Sequence[Finding]
    stale_after: timedelta | None = None
    """How old it may be before nobody should believe it; None: it is asked anew each time."""

    def is_stale(self, now: datetime) -> bool:
        """Tell whether nobody wrote this for too long: then it says nothing about now."""
        return self.stale_after is not None and abs(now - self.at) > self.stale_after

    def status(self, now: datetime) -> Status:
        """Return the worst; what is stale, or about no bot at all, is never ok."""
        worst = status_of(self.findings)
        return "warning" if worst == "ok" and (self.is_stale(now) or not self.bots) else worst


def bots_of(bots: Iterable[str], findings: Sequence[Finding], figures: Mapping[str, Figures]) -> list[BotStanding]:
    """Return each bot with the worst of its findings, by check."""
    names = sorted({*bots, *(one.bot for one in findings)} - {EVERYBODY})
    found = []
    for bot in names:
        own = [one for one in findings if one.bot == bot]
        checks = {check: _standing(check, own) for check in CHECKS}
        found.append(BotStanding(bot, status_of(own), checks, figures.get(bot)))
    return found


def _standing(check: str, findings: Sequence[Finding]) -> str:
    """Return the worst finding of a check; `unknown` where there is none and it could not be judged."""
    worst = status_of(one for one in findings if one.check == check)
    unjudged = {one for finding in findings for one in finding.unjudged}
    return "unknown" if worst == "ok" and check in unjudged else worst


def _difference(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one - other
