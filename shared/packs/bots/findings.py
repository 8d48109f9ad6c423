"""Findings in the pack's words: severity `ok`, `warning`, `critical`, names with their suffix, thresholds beside them."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec

from shared.contracts.discrepancy import Check, Discrepancy, Key
from shared.packs.bots.names import CHECKS, STATE_RULE
from shared.packs.bots.rules import is_checked, sizes_of
from shared.packs.bots.thresholds import Thresholds
from shared.strict_yaml import parse_yaml

FindingSeverity = Literal["warning", "critical"]
Status = Literal["ok", "warning", "critical"]
STATUSES: Final[tuple[Status, ...]] = ("ok", "warning", "critical")
"""From best to worst."""

BOUNDS: Final[dict[str, tuple[str | None, str | None]]] = {
    "equity_not_positive": (None, "0"),
    "base_pct_out_of_range": (None, "1"),
    "fees_paid_negative": (None, "0"),
    "fill_count_mismatch": ("1", None),
}
"""`warn` and `critical` threshold of checks whose bounds are not set by anybody."""
UNJUDGED: Final[dict[str, tuple[str, ...]]] = {
    "snapshot_missing": ("balance", "inventory", "accounting"),
    "snapshot_unreadable": ("balance", "inventory", "accounting"),
    "clock_went_back": ("balance", "inventory", "accounting"),
    "fills_missing": ("fill_parity",),
    "events_missing": ("fill_parity",),
    "exchange_snapshot_missing": ("exchange",),
    "exchange_probe_failed": ("exchange",),
}
"""By code: which checks have no verdict while it is open."""
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "equity_not_positive": ("equity_quote",),
    "base_pct_out_of_range": ("base_pct",),
    "inventory_drift": ("base_pct", "target_base_pct"),
    "exchange_drift": ("base_pct", "the exchange's base_pct"),
    "fees_paid_negative": ("fees_paid",),
    "fees_counter_decreased": ("fees_paid",),
    "turnover_without_fee_accrual": ("turnover", "fees_paid"),
}
"""By code: what it reads of a snapshot."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with one bot."""

    bot: str
    check: str
    """balance, inventory, fill_parity, exchange, accounting or input."""
    name: str
    """What it is called on the surface, such as `inventory_drift_critical`."""
    code: str
    """The same without how bad it is."""
    severity: FindingSeverity
    message: str
    expected: str | None
    actual: str | None
    difference: str | None
    warn_threshold: str | None
    critical_threshold: str | None
    since: str | None
    """When it was first seen; RFC 3339."""
    about: str = ""
    """Of what could not be judged: the codes of the checks that could not judge it."""

    @property
    def unjudged(self) -> set[str]:
        """Which checks of the bot it leaves without a verdict."""
        if self.about:
            return {check_of(code) for code in self.about.split()}
        return set(UNJUDGED.get(self.code, ()))

    @property
    def place(self) -> str:
        """What it is about: a bot has one finding of a place at a time."""
        return f"{self.bot}/{self.code}/{self.about}"


def findings_of(discrepancies: Iterable[Discrepancy], checks: Iterable[Check], thresholds: Thresholds) -> list[Finding]:
    """Return everything that the engine's results mean, in order.

    Args:
        discrepancies: last revisions of the pack's rules; those that are resolved or expired are left out.
        checks: the last verdict on each check of each bot, and those that say `stale` and are still true.
        thresholds: in force.
    """
    found = [_of_discrepancy(one, thresholds) for one in discrepancies if one.state == "raised" and not one.expired]
    return in_order([*found, *_not_judged(checks, thresholds)])


def _of_discrepancy(found: Discrepancy, thresholds: Thresholds) -> Finding:
    """Return an open discrepancy of the pack's rules as a finding."""
    bot, code = found.account or _bot(found.key), _code_of(found.rule, found.type)
    says: str | None = _findings().get(code, {}).get("says")
    return named(
        bot,
        code,
        _severity_of(found.severity),
        found.explanation if says is None else says.format(bot=bot, expected=found.expected, actual=found.actual),
        thresholds,
        expected=found.expected,
        actual=found.actual,
        difference=found.difference,
        since=instant(found.raised_at),
    )


def _not_judged(checks: Iterable[Check], thresholds: Thresholds) -> Iterable[Finding]:
    """Say what could not be judged, once per bot and cause: it has not passed."""
    errors: dict[str, list[Check]] = {}
    skipped: dict[str, list[Check]] = {}
    for check in checks:
        bot = _bot(check.key)
        if check.result == "stale":
            since = instant(check.as_of)
            words = f"{bot}: a snapshot or count dated {since} came after a newer one and was not judged; look at its clock."
            yield named(bot, "clock_went_back", "warning", words, thresholds, since=since)
        elif not is_checked(check.code or "", thresholds.of(bot)):
            continue
        elif check.result == "error":
            errors.setdefault(bot, []).append(check)
        elif check.result == "skipped" and check.rule == STATE_RULE and check.code != "exchange_drift":
            skipped.setdefault(bot, []).append(check)
    for bot, failed in errors.items():
        yield _could_not(bot, "not_a_number", failed, "is no number", thresholds)
    for bot, failed in skipped.items():
        yield _could_not(bot, "field_missing", failed, "is not in the snapshot", thresholds)


def _could_not(bot: str, code: str, checks: list[Check], why: str, thresholds: Thresholds) -> Finding:
    """Return one finding for all checks of a bot that one cause stops."""
    about = sorted({one.code or one.rule for one in checks})
    severity: FindingSeverity = "critical" if any(check_of(one) == "balance" for one in about) else "warning"
    fields = sorted({field for one in about for field in _FIELDS.get(one, ("what was read",))})
    whose = fields[0] if len(fields) == 1 else f"one of {', '.join(fields)}"
    words = f"{bot}: {', '.join(about)} could not be judged, because {whose} {why}."
    since = instant(min(one.as_of for one in checks))
    return named(bot, code, severity, words, thresholds, since=since, about=" ".join(about))


def _bot(key: Key) -> str:
    return key if isinstance(key, str) else "/".join(key)


def named(
    bot: str,
    code: str,
    severity: FindingSeverity,
    message: str,
    thresholds: Thresholds,
    *,
    expected: str | None = None,
    actual: str | None = None,
    difference: str | None = None,
    since: str | None = None,
    about: str = "",
) -> Finding:
    """Return a finding with the thresholds that hold for its bot."""
    warn, critical = _thresholds(code, severity, bot, thresholds)
    if code == "base_pct_out_of_range" and expected is not None:
        critical = expected
    words = _findings().get(code, {})
    return Finding(
        bot=bot,
        check=words.get("check", "input"),
        name=f"{code}_{severity}" if words.get("graded") else code,
        code=code,
        severity=severity,
        message=message,
        expected=expected,
        actual=actual,
        difference=difference,
        warn_threshold=warn,
        critical_threshold=critical,
        since=since,
        about=about,
    )


def instant(at: datetime) -> str:
    """Return a time as people read it everywhere else: RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def status_of(findings: Iterable[Finding]) -> Status:
    """Return the worst severity; `ok` where there is no finding."""
    return max((one.severity for one in findings), key=STATUSES.index, default="ok")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings worst first, then by bot and check."""
    return sorted(
        findings,
        key=lambda one: (-STATUSES.index(one.severity), one.bot, CHECKS.index(one.check), one.name, one.message),
    )


def _code_of(rule: str, type_: str) -> str:
    """Return the pack's code of a discrepancy."""
    own: str = _vocabulary()["types"].get(rule, {}).get(type_, type_)
    return own


def check_of(code: str) -> str:
    """Return the check that a code belongs to."""
    name: str = _findings().get(code, {}).get("check", "input")
    return name


def _severity_of(severity: str) -> FindingSeverity:
    """Return the pack's word for a severity of the engine."""
    word: FindingSeverity = _vocabulary()["severities"][severity]
    return word


def _thresholds(
    code: str, severity: FindingSeverity, bot: str, thresholds: Thresholds
) -> tuple[str | None, str | None]:
    warn, critical = sizes_of(code, thresholds.of(bot))
    if warn is not None or critical is not None:
        return _printed(warn), _printed(critical)
    if code in BOUNDS:
        return BOUNDS[code]
    # What could not be read: one such thing is enough.
    return ("1", None) if severity == "warning" else (None, "1")


def _printed(size: Decimal | None) -> str | None:
    return None if size is None else format(size, "f")


def _findings() -> Mapping[str, Any]:
    found: Mapping[str, Any] = _vocabulary()["findings"]
    return found


@cache
def _vocabulary() -> dict[str, Any]:
    name = "vocabulary.yaml"
    document: dict[str, Any] = parse_yaml(files(__package__).joinpath(name).read_text(encoding="utf-8"), name)
    return document
