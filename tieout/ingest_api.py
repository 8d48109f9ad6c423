"""`POST /v1/events` as commands use it: retried while ingest is busy or away, answered per row."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from shared.errors import DependencyAway, UsageError
from tieout.api import KEY_VARIABLE, key_from_environment, url_from_environment

URL_VARIABLE = "TIEOUT_INGEST_URL"
URL_DEFAULT = "http://127.0.0.1:8080"
REQUEST_TIMEOUT_S = 60.0
"""Ingest itself gives Kafka some seconds to acknowledge; the rest is for a slow way there."""
RETRY_TIMEOUT_VARIABLE = "TIEOUT_IMPORT_RETRY_TIMEOUT_S"
RETRY_TIMEOUT_DEFAULT_S = 300.0
"""How long one batch is tried again: a broker that is restarted is back by then."""
RETRY_WAIT_S = 0.5
RETRY_WAIT_MAX_S = 15.0
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request is sent again: repeats are harmless, the same id is the same event."""


class Refused(NamedTuple):
    """A row that ingest did not take."""

    row: int
    """Its place in the request, from 0."""
    error: str


class IngestBusy(DependencyAway):
    """Ingest does not answer, or asks to come back later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLarge(UsageError):
    """The request is larger than this ingest takes: send it in parts."""


@dataclass(frozen=True, slots=True)
class IngestApi:
    """Ingest, as an API key may use it."""

    url: str
    key: str = field(repr=False)
    retry_timeout_s: float = RETRY_TIMEOUT_DEFAULT_S

    def post(self, rows: Sequence[bytes]) -> list[Refused]:
        """Send events, a JSON object each, and return the rows that were refused; all others are acknowledged by Kafka.

        Raises:
            TooLarge: one row alone is too large, or this is no ingest that takes parts.
            UsageError: the key may not post, or another mistake of the request as a whole.
            IngestBusy: ingest stayed away or busy for longer than `retry_timeout_s`.
        """
        if not rows:
            return []
        try:
            return self._retried(rows)
        except TooLarge:
            if len(rows) == 1:
                return [Refused(0, "the event is larger than this ingest takes")]
        half = len(rows) // 2
        earlier = self.post(rows[:half])
        return [*earlier, *(Refused(half + row, error) for row, error in self.post(rows[half:]))]

    def _retried(self, rows: Sequence[bytes]) -> list[Refused]:
        sending = stamina.retry(
            on=_wait, attempts=None, timeout=self.retry_timeout_s, wait_initial=RETRY_WAIT_S, wait_max=RETRY_WAIT_MAX_S
        )
        return sending(self._send)(rows)

    def _send(self, rows: Sequence[bytes]) -> list[Refused]:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/x-ndjson"}
        request = urllib.request.Request(f"{self.url}/v1/events", b"\n".join(rows), headers, method="POST")  # noqa: S310 - checked in `url_from_environment`
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:  # noqa: S310 - as above
                return _refused(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return self._answered(error)
        except (http.client.InvalidURL, ValueError, KeyError, TypeError):
            raise UsageError(
                f"{self.url} does not answer as ingest does; set {URL_VARIABLE} to where it runs"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise IngestBusy(
                f"ingest at {self.url} does not answer: {reason}; start it, or set {URL_VARIABLE} to where it runs"
            ) from None

    def _answered(self, error: urllib.error.HTTPError) -> list[Refused]:
        problem = _problem(error)
        detail = str(problem.get("detail") or error.reason)
        if error.code in BUSY:
            raise IngestBusy(f"ingest at {self.url} answers {error.code}: {detail}", _retry_after(error))
        if error.code == 413:
            raise TooLarge(f"ingest at {self.url}: {detail}")
        if error.code == 422 and isinstance(problem.get("results"), list):
            return _refused(problem)
        hint = f" (the key is {KEY_VARIABLE})" if error.code in {401, 403} else ""
        if not problem:
            hint = f"; is this ingest? Set {URL_VARIABLE} to where it runs"
        raise UsageError(f"ingest at {self.url} answers {error.code}: {detail}{hint}")


def from_environment() -> IngestApi:
    """Return the ingest that the environment names.

    Raises:
        UsageError: no key, or an address or a number that is none.
    """
    given = os.environ.get(RETRY_TIMEOUT_VARIABLE, "").strip()
    try:
        timeout_s = float(given) if given else RETRY_TIMEOUT_DEFAULT_S
    except ValueError:
        raise UsageError(f"{RETRY_TIMEOUT_VARIABLE}={given!r} is no number of seconds") from None
    return IngestApi(url_from_environment(URL_VARIABLE, URL_DEFAULT), key_from_environment(), timeout_s)


def tell_of_retries(tell: Callable[[str], None]) -> None:
    """Say whenever a request is to be repeated, instead of logging it."""

    def hook(details: RetryDetails) -> None:
        tell(f"{details.caused_by}; trying again in {details.wait_for:.1f} s")

    set_on_retry_hooks([hook])


def _wait(error: Exception) -> bool | float:
    if not isinstance(error, IngestBusy):
        return False
    return True if error.retry_after_s is None else error.retry_after_s


def _refused(answer: dict[str, Any]) -> list[Refused]:
    return [Refused(int(one["index"]), str(one["error"])) for one in answer["results"] if one["status"] == "refused"]


def _problem(error: urllib.error.HTTPError) -> dict[str, Any]:
    try:
        problem = json.loads(error.read())
    except (OSError, ValueError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    given = (error.headers.get("Retry-After") or "").strip()
    # The other form, a date, would need the server's clock to be ours.
    return min(float(given), RETRY_TIMEOUT_DEFAULT_S) if given.isdecimal() else None
