"""Triage over HTTP: the same actions under `/v1` and under the billing pack's own paths."""

import re
import uuid
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime

from services.alerts.domain.triage import Acknowledge, Action, Assign, Note, Resolve, Status, TransitionRefused
from services.alerts.handlers.http.auth import Caller, Manager
from services.alerts.handlers.http.bodies import (
    EXAMPLE_ID,
    AssignRequest,
    DiscrepancyBody,
    NoteRequest,
    ResolveRequest,
    discrepancy_body,
)
from services.alerts.handlers.http.pagination import Page, PageWish, bad_cursor, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.ports.triage import Filter, Stored
from services.alerts.use_cases.triage import Triage
from shared.contracts.discrepancy import Severity, State

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

ONE = "/discrepancies/{discrepancyId}"
DiscrepancyIdPath = Annotated[str, Path(examples=[EXAMPLE_ID])]
KeyFilter = Annotated[
    str | None, Query(max_length=2_000, description="A key of one field as it is; of several as the JSON list.")
]

ShadowFilter = Annotated[
    Literal["false", "true", "any"],
    Query(
        description="Of rules that only watch: left out (false), only those (true), or listed with the others (any)."
    ),
]


def only_shadow(wish: ShadowFilter) -> bool | None:
    """Return what the filter asks for; None: both."""
    return None if wish == "any" else wish == "true"


def _filter(
    status: Status | None = None,
    state: State | None = None,
    type: Annotated[str | None, Query(max_length=64)] = None,  # noqa: A002 - the parameter's public name
    rule: Annotated[str | None, Query(max_length=64)] = None,
    severity: Severity | None = None,
    key: KeyFilter = None,
    assignee: Annotated[str | None, Query(max_length=255)] = None,
    since: Annotated[AwareDatetime | None, Query(description="Raised first at or after this time.")] = None,
    cluster: Annotated[uuid.UUID | None, Query(description="Id of a cluster: only what belongs to it.")] = None,
    shadow: ShadowFilter = "false",
) -> Filter:
    return Filter(
        status=status,
        state=state,
        type=type,
        rule=rule,
        severity=severity,
        key=_key(key),
        assignee=assignee,
        since=since,
        cluster=None if cluster is None else str(cluster),
        shadow=only_shadow(shadow),
    )


Wanted = Annotated[Filter, Depends(_filter)]


def _key(text: str | None) -> str | None:
    if text is None or "\x00" not in text:
        return text
    raise Problem(422, "invalid-request", "key: holds a NUL character")


def known_id(id_: str, what: str = "discrepancy") -> str:
    """Return an id as it is stored; 404 for what can be none."""
    if not _UUID.fullmatch(id_.lower()):
        raise not_found(what, id_[:64])
    return str(uuid.UUID(id_))


def after_time(wish: PageWish) -> tuple[datetime, str] | None:
    """Read the place of a cursor (time, id)."""
    if wish.after is None:
        return None
    try:
        time, id_ = wish.after
        return datetime.fromisoformat(time), str(uuid.UUID(id_))
    except ValueError:
        raise bad_cursor() from None


async def list_page(triage: Triage, caller: Caller, chosen: Filter, wish: PageWish) -> Page[DiscrepancyBody]:
    """Return one page of the caller's discrepancies."""
    rows = await triage.store.list(caller.org, chosen, after_time(wish), wish.limit + 1)
    return page(rows, wish.limit, _place, discrepancy_body)


def _place(stored: Stored) -> tuple[str, str]:
    return stored.found.raised_at.isoformat(), stored.found.id


async def take_action(
    triage: Triage, caller: Caller, id_: str, action: Action, *, pack: str | None = None
) -> DiscrepancyBody:
    """Do what the caller asked, on a discrepancy of `pack` (None: of any); 404 and 409 as problems."""
    try:
        stored = await triage.act(caller.org, known_id(id_), action, caller.actor, pack)
    except TransitionRefused as refused:
        raise Problem(
            409,
            "no-such-transition",
            f"{refused}; it is {refused.status} now",
            current_status=refused.status,
            action=refused.action,
        ) from None
    if stored is None:
        raise not_found("discrepancy", id_)
    return discrepancy_body(stored)


def action_routes(triage: Triage, pack: str | None = None) -> APIRouter:
    """Return the actions on one discrepancy; `pack` limits them to its own."""
    routes = APIRouter()

    @routes.patch(f"{ONE}/acknowledge", responses=problem_responses(401, 403, 404, 409))
    async def acknowledge(caller: Manager, discrepancyId: DiscrepancyIdPath) -> DiscrepancyBody:  # noqa: N803 - public name
        """Say that somebody looks into it. Only an open one can be acknowledged."""
        return await take_action(triage, caller, discrepancyId, Acknowledge(), pack=pack)

    @routes.patch(f"{ONE}/assign", responses=problem_responses(401, 403, 404, 409, 422))
    async def assign(
        caller: Manager,
        discrepancyId: DiscrepancyIdPath,  # noqa: N803 - public name
        body: AssignRequest,
    ) -> DiscrepancyBody:
        """Say who is to look into it. A resolved one cannot be assigned."""
        return await take_action(triage, caller, discrepancyId, Assign(body.assignee), pack=pack)

    @routes.patch(f"{ONE}/resolve", responses=problem_responses(401, 403, 404, 409, 422))
    async def resolve(
        caller: Manager,
        discrepancyId: DiscrepancyIdPath,  # noqa: N803 - public name
        body: ResolveRequest,
    ) -> DiscrepancyBody:
        """Decide that nothing more is to be done; it reopens when its type, amounts or currency change."""
        return await take_action(triage, caller, discrepancyId, Resolve(body.reason, body.notes), pack=pack)

    @routes.post(f"{ONE}/notes", status_code=201, responses=problem_responses(401, 403, 404, 422))
    async def note(
        caller: Manager,
        discrepancyId: DiscrepancyIdPath,  # noqa: N803 - public name
        body: NoteRequest,
    ) -> DiscrepancyBody:
        """Add a remark to its log."""
        return await take_action(triage, caller, discrepancyId, Note(body.text), pack=pack)

    return routes
