"""The API of alerts as commands use it: address and key from the environment, errors as sentences for people."""

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from shared.errors import DependencyAway, UsageError

URL_VARIABLE = "TIEOUT_API_URL"
KEY_VARIABLE = "TIEOUT_API_KEY"
URL_DEFAULT = "http://127.0.0.1:8081"
TIMEOUT_S = 60.0
"""A triggered run waits some seconds for its result."""
CHUNK_BYTES = 64 * 1024


class ApiRefused(UsageError):
    """The API answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class AlertsApi:
    """One organisation's view of alerts, by its API key."""

    url: str
    key: str = field(repr=False)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the decoded JSON answer."""
        return json.loads(self.get_text(path, query, accept="application/json"))

    def get_text(self, path: str, query: Mapping[str, str] | None = None, *, accept: str) -> str:
        """Return the answer as it came."""
        where = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        return self._send("GET", where, None, accept)

    def download(self, path: str, query: Mapping[str, str], target: BinaryIO) -> None:
        """Write the answer to `target` as it comes: of however much, little is in memory.

        Raises:
            DependencyAway: nobody answers, or the answer breaks off.
            OSError: `target` takes no more.
        """
        where = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        with self._open("GET", where, None, "*/*") as answer:
            while part := self._read(answer, CHUNK_BYTES):
                target.write(part)  # its own faults (a closed pipe, a full disk) are none of alerts

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send `body` as JSON and return the decoded JSON answer."""
        return json.loads(self._send("POST", path, json.dumps(body).encode(), "application/json"))

    def send_text(self, method: str, path: str, body: str) -> str:
        """Send `body`, which is JSON already, and return the answer as it came: numbers keep their text."""
        return self._send(method, path, body.encode(), "application/json")

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Like `post`, with PATCH."""
        return json.loads(self._send("PATCH", path, json.dumps(body).encode(), "application/json"))

    def _send(self, method: str, path: str, body: bytes | None, accept: str) -> str:
        """Return the whole answer; raises as `_open` does."""
        with self._open(method, path, body, accept) as answer:
            return self._read(answer).decode()

    def _read(self, answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        try:
            return answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise DependencyAway(
                f"alerts at {self.url} broke off in the middle ({type(error).__name__}); its log says why"
            ) from None

    @contextmanager
    def _open(self, method: str, path: str, body: bytes | None, accept: str) -> Iterator[http.client.HTTPResponse]:
        """Raises `ApiRefused` for an error answer and `DependencyAway` where nobody answers."""
        headers = {"Authorization": f"Bearer {self.key}", "Accept": accept, "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - checked in `from_environment`
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise DependencyAway(
                f"alerts at {self.url} does not answer: {reason}; start it, or set {URL_VARIABLE} to where it runs"
            ) from None
        with answer:
            yield answer

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        try:
            problem = json.loads(error.read())
            detail, title = str(problem["detail"]), str(problem.get("type", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Whatever answers there, it is not alerts.
            return ApiRefused(
                error.code,
                f"{self.url} answers {error.code} {error.reason}, not as alerts does; set {URL_VARIABLE} to where it runs",
            )
        if title.endswith((":no-such-page", ":not-found")) and "no such page" in detail:
            return ApiRefused(
                error.code, f"{self.url} is not alerts of this build; set {URL_VARIABLE} to where it runs"
            )
        if error.code == 503:
            return DependencyAway(f"alerts at {self.url}: {detail}")
        hint = f" (the key is {KEY_VARIABLE})" if error.code in {401, 403} else ""
        return ApiRefused(error.code, f"{detail}{hint}")


def from_environment() -> AlertsApi:
    """Return the API that the environment names.

    Raises:
        UsageError: no key, or an address that is none.
    """
    return AlertsApi(url_from_environment(URL_VARIABLE, URL_DEFAULT), key_from_environment())


def url_from_environment(variable: str, default: str) -> str:
    """Return the address in a variable, without the slash at its end.

    Raises:
        UsageError: it is none.
    """
    url = os.environ.get(variable, "") or default
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{variable}={url!r} is no address: write http://HOST:PORT or https://…")
    return url.rstrip("/")


def key_from_environment() -> str:
    """Return the API key.

    Raises:
        UsageError: none is given, or what is given is none.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise UsageError(f"set {KEY_VARIABLE} to an API key (`tieout keys create` makes one)")
    if not key.isascii() or any(character.isspace() for character in key):
        raise UsageError(f"{KEY_VARIABLE} is no API key: it holds spaces or other characters than ASCII")
    return key
