"""Cursor pagination: `{"data": […], "next_cursor": "…" | null}`; a cursor is opaque and stays valid while rows change."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from fastapi import Depends, Query
from pydantic import BaseModel, Field

from services.alerts.handlers.http.problem import Problem

PAGE_ROWS_DEFAULT = 50
PAGE_ROWS_MAX = 200
"""Keeps an answer below a megabyte; exports go page by page."""
CURSOR_LENGTH_MAX = 400

T = TypeVar("T")
R = TypeVar("R")

_decode = msgspec.json.Decoder(list[str]).decode


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    data: list[T]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null: this was the last.")


class PageWish(BaseModel):
    """What a request asks for: how many rows, after which place."""

    limit: int
    after: tuple[str, ...] | None


def _wish(
    limit: Annotated[int, Query(ge=1, le=PAGE_ROWS_MAX)] = PAGE_ROWS_DEFAULT,
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_LENGTH_MAX, description="`next_cursor` of the page before")
    ] = None,
) -> PageWish:
    return PageWish(limit=limit, after=None if cursor is None else decode_cursor(cursor))


Paging = Annotated[PageWish, Depends(_wish)]


def encode_cursor(place: Sequence[str]) -> str:
    """Return the cursor that stands for `place`, the sort values of a page's last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(place))).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[str, ...]:
    """Read a cursor; 422 when it is not one of ours."""
    try:
        return tuple(_decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
    except (ValueError, msgspec.DecodeError):
        raise bad_cursor() from None


def bad_cursor() -> Problem:
    """422: the cursor was changed or made up."""
    return Problem(422, "bad-cursor", "cursor: give `next_cursor` of the page before, unchanged, or leave it out")


def page(rows: Sequence[R], limit: int, place: Callable[[R], Sequence[str]], show: Callable[[R], T]) -> Page[T]:
    """Make a page of `rows`, of which one more than `limit` was asked for to know whether there are more."""
    more = len(rows) > limit
    shown = rows[:limit]
    return Page(data=[show(row) for row in shown], next_cursor=encode_cursor(place(shown[-1])) if more else None)
