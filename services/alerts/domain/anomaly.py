"""Anomalies as decisions: what is raised, changed and closed, and the sentence that explains it. No I/O here."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from services.alerts.domain.baseline import (
    DAYS_MIN,
    POINTS_MIN,
    SHIFT_H,
    Assessment,
    Breach,
    Limits,
    TooLittle,
)
from services.alerts.domain.delivery import Message
from shared.contracts.anomaly import Anomaly, AnomalyKind
from shared.contracts.discrepancy import Severity
from shared.contracts.webhook import AnomalyMessage, encode_webhook
from shared.ids import NAMESPACE, canonical
from shared.money import decimals_of, format_amount

SOON = timedelta(hours=24)
"""A critical limit that will be passed within a day is told as high: people still have time to act."""
Family = Literal["level", "trend"]
"""Of a series one anomaly about its level may be open, and one about where it leads."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The drift of one account, hour by hour, or the hourly discrepancy of a check."""

    org: str
    pack: str
    rule: str
    account: str
    """Empty: the check as a whole."""
    currency: str

    @property
    def name(self) -> str:
        """What people call it."""
        of = f" of {self.account}" if self.account else ""
        return f"{self.rule}{of}" + (f" ({self.currency})" if self.currency else "")


@dataclass(frozen=True, slots=True)
class Standing:
    """A series as it was found to stand: for people who ask what is watched."""

    series: Series
    state: Literal["learning", "watched"]
    points: int
    last_at: datetime
    expected: str | None
    seen: str
    usual_width: str | None
    """How far readings usually are from what is expected: six of these are unusual."""
    tolerance: str | None
    critical: str | None
    sentence: str


def money(value: float, currency: str) -> str:
    """Print a statistic with the currency's decimals."""
    decimals = decimals_of(currency) if currency else 0
    text = format_amount(Decimal(f"{value:.{decimals}f}"), currency or None)
    return text.removeprefix("-") if not Decimal(text) else text


def resolution(currency: str, tolerance: float | None) -> float:
    """Return the smallest difference that means anything: a minor unit, or a fiftieth of what is tolerated."""
    unit = 10.0 ** -min(decimals_of(currency) if currency else 0, 6)
    return max(unit, (tolerance or 0.0) / 50)


def standing_of(
    series: Series, found: Assessment | TooLittle, last: tuple[datetime, float], limits: Limits, zone: ZoneInfo
) -> Standing:
    """Return how a series stands after it was assessed; `last` is its newest hour and what was seen in it."""
    at, seen = last
    shown = {
        "tolerance": None if limits.tolerance is None else money(limits.tolerance, series.currency),
        "critical": None if limits.critical is None else money(limits.critical, series.currency),
    }
    if isinstance(found, TooLittle):
        return Standing(
            series,
            "learning",
            found.points,
            at,
            None,
            money(seen, series.currency),
            None,
            **shown,
            sentence=_too_little(found),
        )
    sentence = f"{_hour(found.at, zone)}: {_expected(found, series)}, {money(seen, series.currency)} was seen."
    return Standing(
        series,
        "watched",
        found.points,
        at,
        money(found.expected, series.currency),
        money(seen, series.currency),
        money(found.sigma, series.currency),
        **shown,
        sentence=sentence,
    )


def _too_little(found: TooLittle) -> str:
    return (
        f"Too little history to say what is usual: {found.points} hours with a reading over {found.days:.1f} days; "
        f"{POINTS_MIN} hours over {DAYS_MIN} days are needed."
    )


def anomaly_id(series: Series, family: Family, raised_at: datetime) -> str:
    """Return the id of an anomaly: the same in whichever process finds it."""
    name = canonical(
        ["anomaly", series.org, series.rule, series.account, series.currency, family, raised_at.isoformat()]
    )
    return str(uuid.uuid5(NAMESPACE, name.decode()))


def next_anomalies(
    series: Series,
    found: Assessment | TooLittle,
    limits: Limits,
    before: Mapping[Family, Anomaly],
    zone: ZoneInfo,
) -> list[Anomaly]:
    """Return what became of the anomalies of a series: new ones, changed ones and those that are closed now.

    Args:
        series: whose they are.
        found: its newest reading against what is usual; with too little history nothing is raised or closed.
        limits: of its check.
        before: those that are open.
        zone: in which people read times.
    """
    if isinstance(found, TooLittle):
        return []
    changed: list[Anomaly] = []
    for family, holds, ended in (
        ("level", found.is_unusual, found.is_usual),
        ("trend", found.breach is not None, found.breach is None),
    ):
        old = before.get(family)  # type: ignore[call-overload]  # the tuple's texts are families
        if holds:
            changed.append(_raised(series, family, found, limits, old, zone))  # type: ignore[arg-type]  # as above
        elif old is not None and ended:
            changed.append(_closed(old, found, series, zone))
    return changed


def _raised(
    series: Series, family: Family, found: Assessment, limits: Limits, old: Anomaly | None, zone: ZoneInfo
) -> Anomaly:
    raised_at = found.at if old is None else old.raised_at
    kind: AnomalyKind = "trend"
    if family == "level":
        kind = "level_shift" if found.unusual_h >= SHIFT_H or (old and old.kind == "level_shift") else "unusual"
    breach = found.breach if family == "trend" else None
    return Anomaly(
        id=anomaly_id(series, family, raised_at),
        org=series.org,
        pack=series.pack,
        rule=series.rule,
        check_type=[*series.rule.split("."), series.rule][1],
        account=series.account or None,
        currency=series.currency,
        kind=kind,
        state="open",
        severity=_severity(found, limits, breach),
        raised_at=raised_at,
        seen_at=found.at,
        closed_at=None,
        expected=money(found.expected, series.currency),
        seen=money(found.seen, series.currency),
        per_day=money(found.per_day, series.currency),
        breach_of=None if breach is None else breach.of,
        breach_limit=None if breach is None else money(breach.limit, series.currency),
        breach_at=None if breach is None else breach.at,
        explanation=_sentence(series, kind, found, limits, zone),
    )


def _closed(old: Anomaly, found: Assessment, series: Series, zone: ZoneInfo) -> Anomaly:
    if old.kind == "trend":
        said = "it no longer leads to a breach within two weeks"
    else:
        said = f"{_expected(found, series)}, and {money(found.seen, series.currency)} was seen"
    return msgspec.structs.replace(
        old,
        state="closed",
        closed_at=found.at,
        seen_at=found.at,
        expected=money(found.expected, series.currency),
        seen=money(found.seen, series.currency),
        per_day=money(found.per_day, series.currency),
        explanation=f"{series.name}, {_hour(found.at, zone)}: usual again: {said}.",
    )


def _severity(found: Assessment, limits: Limits, breach: Breach | None) -> Severity:
    if breach is not None:
        return "high" if breach.of == "critical" and breach.at - found.at <= SOON else "medium"
    return "medium" if limits.tolerance is not None and abs(found.seen) > limits.tolerance else "low"


def _sentence(series: Series, kind: AnomalyKind, found: Assessment, limits: Limits, zone: ZoneInfo) -> str:
    """One sentence: what was expected at this hour, what was seen, when it will breach."""
    what = (
        f"a discrepancy of {money(found.seen, series.currency)}"
        if not series.account
        else money(found.seen, series.currency)
    )
    said = f"{series.name}, {_hour(found.at, zone)}: {_expected(found, series)}, {what} was seen"
    if kind == "level_shift":
        said += f" ({found.unusual_h} hours beside the usual by now)" if found.unusual_h else ""
    return f"{said}; {_outlook(found, limits, series, zone)}."


def _expected(found: Assessment, series: Series) -> str:
    width = money(found.sigma, series.currency)
    return f"{money(found.expected, series.currency)} is usual at this {found.season} (give or take {width})"


def _outlook(found: Assessment, limits: Limits, series: Series, zone: ZoneInfo) -> str:
    if found.breach is not None:
        way = "grows" if found.per_day > 0 else "falls"
        return (
            f"it {way} by {money(abs(found.per_day), series.currency)} a day and will pass the {_named(found.breach)} of "
            f"{money(found.breach.limit, series.currency)} about {found.breach.at.astimezone(zone):%A %d %B %H:%M}"
        )
    passed = [limit for limit in (limits.critical, limits.tolerance) if limit is not None and abs(found.seen) > limit]
    if passed:
        name = "critical threshold" if passed[0] == limits.critical else "tolerance"
        return f"it is beyond the {name} of {money(passed[0], series.currency)} already"
    return "no breach is foreseen within two weeks"


def _named(breach: Breach) -> str:
    return "tolerance" if breach.of == "tolerance" else "critical threshold"


def _hour(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%A %d %B %H:00}"


def compose(endpoint_id: str, anomaly: Anomaly, now: datetime) -> Message:
    """Return the message that tells an endpoint that an anomaly was raised or is over."""
    event: Literal["anomaly.raised", "anomaly.closed"] = (
        "anomaly.raised" if anomaly.state == "open" else "anomaly.closed"
    )
    name = canonical([endpoint_id, anomaly.id, event, anomaly.kind, anomaly.breach_of or ""])
    return Message(
        message_id=f"msg_{uuid.uuid5(NAMESPACE, name.decode()).hex}",
        kind="anomaly",
        type=event,
        severity=anomaly.severity,
        payload=encode_webhook(AnomalyMessage(type=event, timestamp=now, data=anomaly)).decode(),
    )


def is_news(anomaly: Anomaly, before: Anomaly | None) -> bool:
    """Tell whether endpoints hear of it: raised, of another kind, worse, or over; not each hour anew."""
    if before is None or anomaly.state == "closed":
        return True
    return (anomaly.kind, anomaly.breach_of, anomaly.severity) != (before.kind, before.breach_of, before.severity)
