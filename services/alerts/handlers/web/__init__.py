"""The web page of finance people: static files at `/` and `/static/…`; everything it shows comes from the HTTP API.

The files are read once at the start. Only names in that list are answered, so no path can lead out of it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response

from services.alerts.handlers.http.problem import Problem
from services.alerts.handlers.reports.page import style_digest

MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE: Final = "index.html"

# The last two: browsers that know them refuse to turn any text into HTML or script, whatever the page's code does.
# A report opens as a page of its own, made from what the API sent: it is under this policy, which knows its style.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'self'; style-src 'self' {style_digest()}; img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Asked for again each time, and answered 304 while unchanged: an update is seen at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def static_files() -> Mapping[str, StaticFile]:
    """Return the page's files by name."""
    found: dict[str, StaticFile] = {}
    for entry in files(__package__).joinpath("static").iterdir():
        media_type = MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            found[entry.name] = StaticFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def router() -> APIRouter:
    """Return the routes of the page; they need no key, for they hold no data."""
    routes = APIRouter(include_in_schema=False)
    known = static_files()

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(request, known[PAGE])

    @routes.api_route("/static/{name}", methods=["GET", "HEAD"])
    async def static(request: Request, name: str) -> Response:
        file = known.get(name)
        if file is None:
            raise Problem(404, "not-found", "the web page has no such file", headers=dict(HEADERS))
        return _answer(request, file)

    return routes


def _answer(request: Request, file: StaticFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
