"""Errors over HTTP: RFC 9457 problem+json with a stable `type`, for every status that the API answers."""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from shared.errors import DependencyAway
from shared.kafka.errors import KafkaAway

TYPE_PREFIX = "urn:tieout:problem:"
RETRY_AFTER_S = 5
"""Asked of clients while PostgreSQL is away: a fail-over takes about as long."""

_NO_ROUTE = {404: "there is no such page: see /docs", 405: "this page takes another method: see /docs"}

log = structlog.get_logger()


class Problem(Exception):
    """An answer that is an error. `slug` is its stable name; `extra` stands in the body beside the standard members."""

    def __init__(
        self, status: int, slug: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = headers
        self.extra = extra


class ProblemBody(BaseModel):
    """What every error answers."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def not_found(what: str, name: str) -> Problem:
    """404: the organisation of the key has no such thing, or it belongs to another one."""
    return Problem(404, "not-found", f"there is no {what} {name!r} in this organisation")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route declares in OpenAPI for the errors it answers."""
    return {
        status: {
            "model": ProblemBody,
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in statuses
    }


def answer(problem: Problem) -> JSONResponse:
    """Return the response of `problem`."""
    body = {
        "type": TYPE_PREFIX + problem.slug,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    return JSONResponse(body, problem.status, problem.headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Turn every error of `app` into problem+json."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The values given are left out: they may be secrets or a customer's data.
        errors = [_problem_of(found["type"], found["loc"], found["msg"]) for found in error.errors()]
        first = errors[0] if errors else {"field": "body", "message": "invalid"}
        detail = f"{first['field']}: {first['message']}"
        return answer(Problem(422, "invalid-request", detail, errors=errors))

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        headers = dict(error.headers) if error.headers else None
        detail = _NO_ROUTE.get(error.status_code, str(error.detail))
        return answer(Problem(error.status_code, slug, detail, headers=headers))

    @app.exception_handler(DependencyAway)
    async def _away(request: Request, error: DependencyAway) -> JSONResponse:
        log.warning("a dependency is away", path=request.url.path, reason=str(error))
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        what = "Kafka" if isinstance(error, KafkaAway) else "the database"
        return answer(Problem(503, "unavailable", f"{what} is away; try again", headers=headers))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
        return answer(Problem(500, "internal", "this is a fault of tieout; its log has the details"))


def _place(location: tuple[int | str, ...]) -> str:
    where, *inner = location
    return ".".join(str(part) for part in inner) or str(where)


def _problem_of(kind: str, location: tuple[int | str, ...], message: str) -> dict[str, str]:
    if kind == "json_invalid":
        # The framework places it by its byte, which is no field.
        return {"field": "body", "message": "is not valid JSON"}
    if kind in {"model_attributes_type", "dict_type", "model_type"} and location == ("body",):
        return {"field": "body", "message": "must be a JSON object, sent with Content-Type: application/json"}
    if kind.startswith(("datetime", "timezone")):
        message = f'{message}; write RFC 3339 with a zone, e.g. "2026-11-20T10:00:00Z"'
    return {"field": _place(location), "message": message}
