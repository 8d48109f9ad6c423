"""`/v1/checks`: verdicts of balance, zero-sum and invariant rules on every reading."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from services.alerts.handlers.http.auth import Reader
from services.alerts.handlers.http.pagination import Page, bad_cursor, decode_cursor, page
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.ports.checks import CheckStore, Verdict, VerdictFilter
from shared.contracts.discrepancy import CheckResult

ROWS_MAX = 1_000
"""Verdicts are small, and curves are made of many: still below a megabyte."""
NAME_LENGTH_MAX = 64

Name = Annotated[str | None, Query(max_length=NAME_LENGTH_MAX)]
CursorText = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before")]


class CheckBody(BaseModel):
    """A verdict on a reading."""

    id: str
    rule: str
    pack: str
    key: str | list[str] = Field(description="The account; a list where the rule has several key fields.")
    code: str | None = Field(description="Which check of the rule; null: the reading as a whole.")
    result: CheckResult
    currency: str | None
    as_of: datetime
    expected: str | None
    actual: str | None
    difference: str | None
    reason: str | None = Field(description="Why it is in error, or which of its causes failed it.")
    shadow: bool = Field(description="From a rule that only watches.")
    log_partition: int
    log_offset: int
    log_time: datetime


def router(store: CheckStore) -> APIRouter:
    """Return `/v1/checks`."""
    routes = APIRouter(prefix="/v1", tags=["checks"])

    @routes.get("/checks", responses=problem_responses(401, 403, 422))
    async def checks(
        caller: Reader,
        pack: Name = None,
        rule: Name = None,
        code: Name = None,
        key: Annotated[
            str | None, Query(max_length=512, description="The account of a rule with one key field.")
        ] = None,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        judged_since: Annotated[
            AwareDatetime | None,
            Query(description="Given at this log time or later; with `pack` quick, and what a poller asks for."),
        ] = None,
        latest: Annotated[bool, Query(description="Only the last of each rule, key, check and currency.")] = False,
        limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = 200,
        cursor: CursorText = None,
    ) -> Page[CheckBody]:
        """List verdicts, those on the newest readings first."""
        chosen = VerdictFilter(
            pack=pack,
            rule=rule,
            code=code,
            key=None if key is None else msgspec.json.encode(key).decode(),
            since=since,
            until=until,
            judged_since=judged_since,
            latest=latest,
        )
        rows = await store.verdicts(caller.org, chosen, _after(cursor), limit + 1)
        return page(rows, limit, _place, _body)

    return routes


def _after(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    try:
        at, id_ = decode_cursor(cursor)
        return datetime.fromisoformat(at), id_
    except ValueError:
        raise bad_cursor() from None


def _place(verdict: Verdict) -> tuple[str, str]:
    return verdict.as_of.isoformat(), verdict.id


def _body(verdict: Verdict) -> CheckBody:
    return CheckBody(**msgspec.structs.asdict(verdict))
