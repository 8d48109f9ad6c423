"""Errors of the HTTP API as RFC 9457 problem documents; every refusal says what to do."""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

PROBLEM_JSON = "application/problem+json"

TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Nothing accepted",
    500: "Internal error",
    503: "Not available",
}


class Problem(Exception):
    """A request ends here; `slug` names the kind of problem for programs, `detail` explains it to people."""

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def response_of(problem: Problem) -> Response:
    """Return the problem as a response."""
    document = {
        "type": f"urn:tieout:problem:{problem.slug}",
        "title": TITLES[problem.status],
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    return Response(msgspec.json.encode(document), problem.status, problem.headers, PROBLEM_JSON)


def unexpected() -> Response:
    """Return the answer to what is our own fault."""
    return response_of(Problem(500, "internal", "Something broke here; the log tells. Sending it again is safe."))


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem document."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> Response:
        return response_of(error)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        status = error.status_code if error.status_code in TITLES else 400
        slug = {404: "no-such-page", 405: "method-not-allowed"}.get(status, "bad-request")
        detail = {404: "There is no such page: see /docs.", 405: "The page takes another method: see /docs."}
        return response_of(
            Problem(status, slug, detail.get(status, str(error.detail)), headers=dict(error.headers or {}))
        )

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> Response:
        return unexpected()
