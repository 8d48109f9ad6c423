"""How the bots stand and stood by the reports that `tieout bots reconcile` leaves."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from shared.errors import UsageError
from shared.packs.bots.findings import Finding
from tieout.bots.feed.figures import read_figures
from tieout.bots.report import LATEST, PREFIX
from tieout.bots.view.standing import BotStanding, Figures, Standing

CYCLES_MISSED_MAX = 3
"""A report that is older than so many cycles is stale."""


def standing_of_reports(reports: Path, interval_s: int) -> Standing:
    """Return what the last report says.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = reports / LATEST
    if not path.exists():
        raise UsageError(
            f"{path} is not there; run `tieout bots reconcile --once`, or set TIEOUT_API_KEY to ask alerts"
        )
    report = _read(path)
    try:
        figures = dict(_figures(report))
        bots = [
            BotStanding(one["bot"], one["status"], one["checks"], figures.get(one["bot"])) for one in report["bots"]
        ]
        findings = [_finding(one) for one in report["findings"]]
        at = datetime.fromisoformat(report["ts_utc"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: is no report of the bots ({type(error).__name__}: {error})") from None
    return Standing(str(path), at, bots, findings, timedelta(seconds=interval_s * CYCLES_MISSED_MAX))


def history_of_reports(reports: Path, since: datetime) -> tuple[dict[str, list[Figures]], int]:
    """Return each bot's figures over time, of reports and of what a feed has kept; and how many reports are unreadable.

    A figure that stands in several reports, because the bot wrote nothing new, is there once.
    """
    found: dict[str, dict[datetime, Figures]] = {}
    unreadable = 0
    for path in sorted(reports.glob(f"{PREFIX}*.json")):
        if _written_at(path) < since:
            continue
        try:
            for bot, figures in _figures(_read(path)):
                found.setdefault(bot, {})[figures.as_of] = figures
        except (UsageError, KeyError, TypeError, ValueError, AttributeError):
            unreadable += 1
    for line in read_figures(reports):
        numbers = (_number_of_text(one) for one in (line.base_pct, line.target_base_pct, line.external_base_pct))
        found.setdefault(line.bot, {})[line.at] = Figures(line.at, *numbers)
    return {
        bot: [by_time[at] for at in sorted(by_time) if at >= since] for bot, by_time in sorted(found.items())
    }, unreadable


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no report of the bots: {error}") from None


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, Figures]]:
    for one in report["accounting_snapshots"]:
        names = ("base_pct", "target_base_pct", "external_base_pct")
        at = datetime.fromisoformat(one["as_of"])
        yield one["bot"], Figures(at, *(_number(one.get(name)) for name in names))


def _number(value: Any) -> Decimal | None:
    return value if isinstance(value, Decimal) and value.is_finite() else None


def _number_of_text(text: str | None) -> Decimal | None:
    try:
        return _number(None if text is None else Decimal(text))
    except InvalidOperation:
        return None


def _finding(line: Mapping[str, Any]) -> Finding:
    def text(name: str) -> str | None:
        value = line[name]
        return format(value, "f") if isinstance(value, Decimal) else value

    return Finding(
        bot=line["bot"],
        check=line["check"],
        name=line["name"],
        code=line["name"],
        severity=line["severity"],
        message=line["message"],
        expected=text("expected"),
        actual=text("actual"),
        difference=text("difference"),
        warn_threshold=text("warn_threshold"),
        critical_threshold=text("critical_threshold"),
        since=line["since"],
    )


def _written_at(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)
