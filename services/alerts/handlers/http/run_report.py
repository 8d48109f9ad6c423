"""A run's report in the form that is asked for: JSON, Markdown, print-ready HTML, or CSV of its items."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any, Final, Literal, cast

from fastapi import Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.types import Send

from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.handlers.http.run_bodies import EXAMPLE_RUN, RunReport, run_body
from services.alerts.handlers.reports.page import content_policy, page_of
from services.alerts.handlers.reports.table import csv_of
from services.alerts.ports.runs import Run, StoredReport
from services.alerts.use_cases.run_reports import ReportNotReady, RunNotFound, RunReports

Form = Literal["json", "markdown", "html", "csv"]

MEDIA_TYPES: Final[dict[str, Form]] = {
    "application/json": "json",
    "text/markdown": "markdown",
    "text/html": "html",
    "text/csv": "csv",
}
DOWNLOADS_AT_ONCE_MAX: Final = 2
"""Per process: each holds a connection to PostgreSQL while it is read."""
DOWNLOAD_S_MAX: Final = 900.0
"""A client that reads slower than this is left: it would keep its rows in PostgreSQL from being cleaned up."""

ReportFormat = Annotated[
    Literal["json", "markdown", "md", "html", "csv"] | None,
    Query(alias="format", description="Instead of `Accept`; `csv` are the items that the report counts."),
]

REPORT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **problem_responses(401, 403, 404, 406, 409, 422, 503),
    200: {
        "description": "JSON: `run`, `reportJson` and `reportMarkdown`. Or Markdown, HTML, or CSV of the items.",
        "content": {
            "application/json": {
                "example": {
                    "run": EXAMPLE_RUN,
                    "reportMarkdown": "# Reconciliation …",
                    "reportJson": {"verdict": "complete"},
                }
            },
            "text/markdown": {"example": "# Reconciliation"},
            "text/html": {"example": "<!doctype html>"},
            "text/csv": {"example": "rule,key,status,occurred_at,currency"},
        },
    },
}

_GUARDS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}

_downloads = asyncio.Semaphore(DOWNLOADS_AT_ONCE_MAX)


async def answer_report(reports: RunReports, org: str, run_id: str, accept: str, format_: str | None) -> Response:
    """Return the report in the form of `format_`, or else the one that `accept` likes best.

    Raises:
        Problem: 404 no such run; 406 another form is accepted only; 409 there is no report yet.
    """
    form = _form(accept, format_)
    try:
        run, stored = await reports.find(org, run_id)
        match form:
            case "json":
                return _json(run, stored)
            case "markdown":
                return PlainTextResponse(stored.markdown, media_type="text/markdown; charset=utf-8")
            case "html":
                headers = {**_GUARDS, "Content-Security-Policy": content_policy()}
                return HTMLResponse(
                    page_of(*await reports.pictured(org, run_id)), headers=headers | _named(run, "html")
                )
            case "csv":
                return _csv(reports, run)
    except RunNotFound:
        raise not_found("run", run_id[:64]) from None
    except ReportNotReady as error:
        why = error.run.error or "it is being made"
        raise Problem(
            409, "report-not-ready", f"the run has no report yet: {why}", run_status=error.run.status
        ) from None


def _form(accept: str, format_: str | None) -> Form:
    if format_ is not None:
        return "markdown" if format_ == "md" else MEDIA_TYPES.get(format_) or _FORMS[format_]
    for media in _liked(accept):
        if media in {"*/*", "application/*"}:
            return "json"
        if media == "text/*":
            return "html"
        if media in MEDIA_TYPES:
            return MEDIA_TYPES[media]
    raise Problem(406, "not-acceptable", f"a report comes as {', '.join(MEDIA_TYPES)}; ask for one of these in Accept")


_FORMS: Final[dict[str, Form]] = {form: form for form in MEDIA_TYPES.values()}


def _liked(accept: str) -> list[str]:
    """Return the media types of an Accept header, the best liked first; none that is refused (q=0)."""
    found: list[tuple[float, str]] = []
    for part in accept.split(",")[:32]:
        media, *parameters = (one.strip().lower() for one in part.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            found.append((float(weight), media))
        except ValueError:
            continue
    return [media for weight, media in sorted(found, key=lambda one: -one[0]) if weight > 0 and media]


def _json(run: Run, stored: StoredReport) -> Response:
    head = RunReport(run=run_body(run), reportMarkdown=stored.markdown).model_dump_json()
    # The report goes out as it was stored, so that its amounts and their order stay as they were computed.
    return Response(f'{head[:-1]},"reportJson":{stored.json}}}', media_type="application/json")


def _csv(reports: RunReports, run: Run) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        async with AsyncExitStack() as closing:
            await closing.enter_async_context(_downloads)
            # An answer that ends here is cut off, which clients notice: its last chunk is missing.
            await closing.enter_async_context(asyncio.timeout(DOWNLOAD_S_MAX))
            rows = await closing.enter_async_context(reports.item_rows(run))
            async for piece in csv_of(rows):
                yield piece

    return _Download(pieces(), media_type="text/csv; charset=utf-8", headers=_GUARDS | _named(run, "csv"))


class _Download(StreamingResponse):
    """Lets go of its rows as soon as the client is gone."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(cast("AsyncGenerator[bytes, None]", self.body_iterator)):
            await super().stream_response(send)


def _named(run: Run, ending: str) -> dict[str, str]:
    """Headers that name the file: a browser shows HTML and saves CSV."""
    words = [run.org, run.pack, run.period.start_text, run.id[:8]]
    name = "-".join("".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in word) for word in words)
    kind = "attachment" if ending == "csv" else "inline"
    return {"Content-Disposition": f'{kind}; filename="reconciliation-{name}.{ending}"'}
