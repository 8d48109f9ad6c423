"""The report of a cycle: its form, its files and how it looks on a terminal."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.errors import UsageError
from shared.packs.bots.findings import STATUSES, Finding, Status
from shared.packs.bots.names import CHECKS
from tieout.bots.atomic_file import write_whole
from tieout.bots.reading import Problem

LATEST: Final = "latest.json"
PREFIX: Final = "reconciliation_"
SAME_SECOND_MAX: Final = 1000
"""Reports of one second: more are a runaway loop."""
ROWS_MAX: Final = 40
"""Bots in a table: of more only those are shown that are not ok."""

NumberOrText = Decimal | str | None
_NUMBER = re.compile(r"-?[0-9]{1,60}(?:\.[0-9]{1,60})?", re.ASCII)


class FindingLine(msgspec.Struct, frozen=True, kw_only=True):
    """A finding as the report has it; numbers are JSON numbers whose text is exact."""

    severity: str
    check: str
    name: str
    bot: str
    message: str
    expected: NumberOrText
    actual: NumberOrText
    difference: NumberOrText
    warn_threshold: NumberOrText
    critical_threshold: NumberOrText
    since: str | None
    synthetic: bool = False


class AccountingSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one bot, beside those of the cycle before."""

    bot: str
    as_of: datetime
    equity_quote: NumberOrText = None
    base_pct: NumberOrText = None
    target_base_pct: NumberOrText = None
    external_base_pct: NumberOrText = None
    fees_paid: NumberOrText = None
    turnover: NumberOrText = None
    previous_as_of: datetime | None = None
    previous_fees_paid: NumberOrText = None
    previous_turnover: NumberOrText = None
    fees_paid_delta: NumberOrText = None
    turnover_delta: NumberOrText = None
    fills: int = 0
    order_filled: int = 0
    account_probe_status: str | None = None


class BotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one bot stands."""

    bot: str
    status: Status
    checks: dict[str, str]
    """By check: ok, warning, critical, `unknown` (it could not be judged) or `disabled`."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one cycle came to."""

    ts_utc: datetime
    status: Status
    critical_count: int
    warning_count: int
    checked_bots: int
    synthetic_drift: bool
    bots: list[BotStatus]
    findings: list[FindingLine]
    accounting_snapshots: list[AccountingSnapshot]
    problems: list[Problem]
    """Files and lines that could not be read."""
    lines_read: int
    previous_report: str | None
    duration_seconds: Decimal


_encode = msgspec.json.Encoder(decimal_format="number").encode


def as_number(text: str | None) -> NumberOrText:
    """Return a number's text as a number; other text stays text."""
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else text


def finding_line(finding: Finding, *, is_synthetic: bool) -> FindingLine:
    """Return a finding as the report has it."""
    return FindingLine(
        severity=finding.severity,
        check=finding.check,
        name=finding.name,
        bot=finding.bot,
        message=finding.message,
        expected=as_number(finding.expected),
        actual=as_number(finding.actual),
        difference=as_number(finding.difference),
        warn_threshold=as_number(finding.warn_threshold),
        critical_threshold=as_number(finding.critical_threshold),
        since=finding.since,
        synthetic=is_synthetic,
    )


def encode_report(report: Any) -> bytes:
    """Return it as indented JSON."""
    return msgspec.json.format(_encode(report), indent=2) + b"\n"


def write_report(reports: Path, report: Report) -> str:
    """Write `reconciliation_<timestamp>.json`, then `latest.json`; return the name of the first.

    Raises:
        UsageError: they cannot be written.
    """
    content = encode_report(report)
    stamp = f"{report.ts_utc:%Y%m%dT%H%M%SZ}"
    names = (f"{PREFIX}{stamp}{f'-{number}' if number else ''}.json" for number in range(SAME_SECOND_MAX))
    name = next((one for one in names if not (reports / one).exists()), None)
    if name is None:
        raise UsageError(
            f"{reports}: holds {SAME_SECOND_MAX} reports of {stamp} already; is something running in a loop?"
        )
    write_whole(reports / name, content)
    write_whole(reports / LATEST, content)
    return name


def drop_old(reports: Path, kept: int) -> None:
    """Remove the oldest reports until `kept` are left; 0: all stay."""
    if not kept:
        return
    names = sorted(one.name for one in reports.glob(f"{PREFIX}*.json"))
    for name in names[:-kept]:
        (reports / name).unlink(missing_ok=True)


def table(report: Report) -> Iterable[str]:
    """Yield the report as lines for a terminal."""
    rows = [["BOT", "STATUS", *(check.upper() for check in CHECKS)]]
    worst_first = sorted(report.bots, key=lambda one: (-STATUSES.index(one.status), one.bot))
    if len(worst_first) > ROWS_MAX:
        worst_first = [one for one in worst_first if one.status != "ok"]
    rows += [[one.bot, one.status, *(_mark(one.checks.get(check, "ok")) for check in CHECKS)] for one in worst_first]
    if len(rows) > 1:
        yield from _aligned(rows)
    if len(report.bots) > len(worst_first):
        yield f"({len(report.bots) - len(worst_first)} more bots are ok)"
    if report.bots:
        yield ""
    for one in report.findings:
        limits = " ".join(
            f"{word} {_text(size)}"
            for word, size in (("warn", one.warn_threshold), ("critical", one.critical_threshold))
            if size is not None
        )
        yield f"{one.severity:<8}  {one.bot}  {one.name}  ({limits})"
        yield f"          {one.message}"
    for problem in report.problems:
        place = problem.file if problem.offset is None else f"{problem.file}, byte {problem.offset}"
        yield f"unread    {place}: {problem.reason}"
    if report.findings or report.problems:
        yield ""
    yield (
        f"{report.status}: {report.checked_bots} bot{'' if report.checked_bots == 1 else 's'} checked, "
        f"{report.critical_count} critical, "
        f"{report.warning_count} warning{'' if report.warning_count == 1 else 's'}"
        f"{' (synthetic drift)' if report.synthetic_drift else ''}"
    )


def _mark(word: str) -> str:
    return {"disabled": "-"}.get(word, word)


def _text(size: NumberOrText) -> str:
    return format(size, "f") if isinstance(size, Decimal) else str(size)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
