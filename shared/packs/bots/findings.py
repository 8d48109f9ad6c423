"""Findings in the pack's words: severity `ok`, `warning`, `critical`, names with their suffix, thresholds beside them."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

import msgspec

from shared.contracts.discrepancy import Check, Discrepancy
from shared.packs.bots.names import CHECKS, STATE_RULE
from shared.packs.bots.rules import sizes_of
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
_FIELDS: Final[dict[str, str]] = {
    "equity_not_positive": "equity_quote",
    "base_pct_out_of_range": "base_pct",
    "inventory_drift": "base_pct or target_base_pct",
    "exchange_drift": "base_pct or the exchange's base_pct",
    "fees_paid_negative": "fees_paid",
    "fees_counter_decreased": "fees_paid",
    "turnover_without_fee_accrual": "turnover or fees_paid",
}


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
    """Of what could not be judged: the code of the check that could not judge it."""

    @property
    def place(self) -> str:
        """What it is about: a bot has one finding of a place at a time."""
        return f"{self.bot}/{self.code}/{self.about}"


def of_discrepancy(found: Discrepancy, thresholds: Thresholds) -> Finding:
    """Return an open discrepancy of the pack's rules as a finding."""
    bot = found.account or (found.key if isinstance(found.key, str) else "/".join(found.key))
    return named(
        bot,
        code_of(found.rule, found.type),
        severity_of(found.severity),
        found.explanation,
        thresholds,
        expected=found.expected,
        actual=found.actual,
        difference=found.difference,
        since=found.raised_at.isoformat(),
    )


def of_check(check: Check, thresholds: Thresholds) -> Finding | None:
    """Return what a verdict that is neither passed nor failed means: what could not be judged has not passed."""
    bot = check.key if isinstance(check.key, str) else "/".join(check.key)
    about = check.code or ""
    since = check.as_of.isoformat()
    if check.result == "stale":
        words = (
            f"{bot}: a snapshot or count dated {since} came after a newer one and was not judged; look at its clock."
        )
        return named(bot, "clock_went_back", "warning", words, thresholds, since=since)
    severity: FindingSeverity = "critical" if check_of(about) == "balance" else "warning"
    what = _FIELDS.get(about, "what was read")
    if check.result == "error":
        words = f"{bot}: {about or check.rule} could not be judged: {what} is {check.reason or 'not a number'}."
        return named(bot, "not_a_number", severity, words, thresholds, since=since, about=about)
    if check.result == "skipped" and check.rule == STATE_RULE and about != "exchange_drift":
        words = f"{bot}: {about} could not be judged: the snapshot has no {what}."
        return named(bot, "field_missing", severity, words, thresholds, since=since, about=about)
    return None


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


def status_of(findings: Iterable[Finding]) -> Status:
    """Return the worst severity; `ok` where there is no finding."""
    return max((one.severity for one in findings), key=STATUSES.index, default="ok")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings worst first, then by bot and check."""
    return sorted(
        findings,
        key=lambda one: (-STATUSES.index(one.severity), one.bot, CHECKS.index(one.check), one.name, one.message),
    )


def code_of(rule: str, type_: str) -> str:
    """Return the pack's code of a discrepancy."""
    own: str = _vocabulary()["types"].get(rule, {}).get(type_, type_)
    return own


def check_of(code: str) -> str:
    """Return the check that a code belongs to."""
    name: str = _findings().get(code, {}).get("check", "input")
    return name


def severity_of(severity: str) -> FindingSeverity:
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
