"""The alert of a cycle: one POST with what is new, and a note of what was sent, when, and what was answered.

A finding is told once: again only when its name says that it got worse or better, or when it went away and came back.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from shared.errors import UsageError
from shared.packs.bots.findings import STATUSES, Status
from tieout.bots.atomic_file import write_whole
from tieout.bots.cycle import Cycle
from tieout.bots.memory import Memory
from tieout.bots.report import FindingLine, Report, encode_report, finding_line

URL_VARIABLE: Final = "RECON_ALERT_WEBHOOK_URL"
SEVERITY_VARIABLE: Final = "RECON_ALERT_MIN_SEVERITY"
SENT: Final = "last_webhook_sent.json"
FAILED: Final = "last_webhook_failed.json"
TIMEOUT_SECONDS: Final = 10.0
"""A receiver that takes longer is down: the next cycle tries again."""
ANSWER_BYTES_MAX: Final = 2000
"""Of an answer, kept for people."""
TEXT_LINES_MAX: Final = 5
"""Findings in the text for people: what fits on a telephone."""
FINDINGS_MAX: Final = 500
"""In one message; `more` says how many there are beside them."""


@dataclass(frozen=True, slots=True)
class Alerting:
    """Where alerts go, and from which severity on."""

    url: SecretStr | None
    """It may hold a secret: it is written nowhere."""
    least: Status

    @property
    def host(self) -> str:
        """The receiver, for people."""
        return "" if self.url is None else urlsplit(self.url.get_secret_value()).hostname or ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is posted."""

    source: str = "reconciliation_service"
    text: str
    """The same in a few lines for people: what chat rooms show of a message."""
    status: Status
    ts_utc: datetime
    critical_count: int
    warning_count: int
    synthetic_drift: bool
    findings: list[FindingLine]
    """What is new since the last message; the report has all that is open."""
    more: int = 0
    report: str


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was sent, or could not be."""

    sent_at: datetime
    host: str
    ok: bool
    status_code: int | None
    answer: str
    payload: Message


def read_alerting(environment: Mapping[str, str] | None = None) -> Alerting:
    """Return where alerts go.

    Raises:
        UsageError: no address of http(s), or a severity that is none.
    """
    given = os.environ if environment is None else environment
    url, least = given.get(URL_VARIABLE, "").strip(), given.get(SEVERITY_VARIABLE, "").strip().lower() or "critical"
    if least not in ("warning", "critical"):
        raise UsageError(f"{SEVERITY_VARIABLE}: must be warning or critical (got {least[:40]!r})")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise UsageError(f"{URL_VARIABLE}: must be an address that begins with https:// or http://")
    return Alerting(SecretStr(url) if url else None, "warning" if least == "warning" else "critical")


def tell(alerting: Alerting, reports: Path, cycle: Cycle, name: str, memory: Memory) -> str | None:
    """Send what nobody has been told yet; return a note for people, or None where there was nothing to send.

    Args:
        alerting: where to.
        reports: where the note of it is kept.
        cycle: its findings are told once each, those of a drill every time: they try the way that alerts go.
        name: of its report's file.
        memory: knows what was told, and is moved on.
    """
    least = STATUSES.index(alerting.least)
    worth = {one.place: one for one in cycle.findings if STATUSES.index(one.severity) >= least}
    memory.told = {place: told for place, told in memory.told.items() if place in worth}
    if alerting.url is None:
        return None
    new = [one for place, one in worth.items() if memory.told.get(place) != one.name]
    lines = [finding_line(one, is_synthetic=False) for one in new]
    lines += [finding_line(one, is_synthetic=True) for one in cycle.synthetic]
    if not lines:
        return None
    message = _message(cycle.report, name, lines)
    code, answer = _post(alerting.url, encode_report(message))
    is_taken = code is not None and HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES
    sent = Sent(
        sent_at=datetime.now(UTC), host=alerting.host, ok=is_taken, status_code=code, answer=answer, payload=message
    )
    write_whole(reports / (SENT if is_taken else FAILED), encode_report(sent))
    if not is_taken:
        said = answer if code is None else f"HTTP {code}"
        return (
            f"webhook: {_count(lines)} could not be sent to {alerting.host} ({said}); the report is kept, and the "
            "next cycle sends them"
        )
    memory.told |= {one.place: one.name for one in new}
    return f"webhook: {_count(lines)} sent to {alerting.host} (HTTP {code})"


def _message(report: Report, name: str, lines: Sequence[FindingLine]) -> Message:
    return Message(
        text=_text(report, lines),
        status=report.status,
        ts_utc=report.ts_utc,
        critical_count=report.critical_count,
        warning_count=report.warning_count,
        synthetic_drift=report.synthetic_drift,
        findings=list(lines[:FINDINGS_MAX]),
        more=max(0, len(lines) - FINDINGS_MAX),
        report=name,
    )


def _text(report: Report, lines: Sequence[FindingLine]) -> str:
    told = [f"{one.severity}: {one.message}" for one in lines[:TEXT_LINES_MAX]]
    more = [] if len(lines) <= TEXT_LINES_MAX else [f"and {len(lines) - TEXT_LINES_MAX} more"]
    drill = " (synthetic drift: a drill)" if report.synthetic_drift else ""
    return "\n".join([f"Bots are {report.status}{drill}: {_count(lines)} new", *told, *more])


def _count(lines: Sequence[FindingLine]) -> str:
    return f"{len(lines)} finding{'' if len(lines) == 1 else 's'}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the alert belongs to the address that was configured."""


def _post(url: SecretStr, body: bytes) -> tuple[int | None, str]:
    """Return the status and the answer; without an answer None and why."""
    request = urllib.request.Request(  # noqa: S310 - http or https, see read_alerting
        url.get_secret_value(), data=body, headers={"Content-Type": "application/json", "User-Agent": "tieout"}
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(ANSWER_BYTES_MAX).decode(errors="replace")
    except urllib.error.URLError as error:
        reason = error.reason
        return None, str(getattr(reason, "strerror", None) or reason)
    except (OSError, ValueError) as error:
        return None, f"{type(error).__name__}: {error}" if not isinstance(error, TimeoutError) else "timed out"
