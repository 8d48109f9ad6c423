"""`/v1`: discrepancies of every pack with their history, items, adjustments, and the directory."""

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from services.alerts.domain.adjustment import AdjustmentRefused, Entry
from services.alerts.handlers.http.auth import Manager, Owner, Reader
from services.alerts.handlers.http.bodies import (
    AdjustmentBody,
    AdjustmentRequest,
    DiscrepancyBody,
    HistoryBody,
    ItemBody,
    ShortText,
    history_body,
    item_body,
)
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.handlers.http.triage import (
    DiscrepancyIdPath,
    KeyFilter,
    ShadowFilter,
    Wanted,
    action_routes,
    after_time,
    known_id,
    list_page,
    only_shadow,
)
from services.alerts.ports.directory import ApiKey, DirectoryStore, Org, Source
from services.alerts.ports.triage import ItemFilter
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.triage import RuleGone, Triage
from shared.contracts.directory import Role
from shared.contracts.item import Item, ItemStatus

_ONE = "/discrepancies/{discrepancyId}"
SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$", max_length=64)]


def discrepancies_router(triage: Triage) -> APIRouter:
    """Return `/v1/discrepancies`."""
    routes = APIRouter(prefix="/v1", tags=["discrepancies"])

    @routes.get("/discrepancies", responses=problem_responses(401, 403, 422))
    async def list_discrepancies(caller: Reader, chosen: Wanted, wish: Paging) -> Page[DiscrepancyBody]:
        """List discrepancies, those raised last first."""
        return await list_page(triage, caller, chosen, wish)

    @routes.get(_ONE, responses=problem_responses(401, 403, 404))
    async def show(caller: Reader, discrepancyId: DiscrepancyIdPath) -> HistoryBody:  # noqa: N803 - the path's public name
        """Show one with every revision, the action log and its adjustment entries."""
        history = await triage.store.history(caller.org, known_id(discrepancyId))
        if history is None:
            raise not_found("discrepancy", discrepancyId)
        return history_body(history)

    routes.include_router(action_routes(triage))

    @routes.post(f"{_ONE}/adjustments", status_code=201, responses=problem_responses(401, 403, 404, 409, 422, 503))
    async def post_adjustment(
        caller: Manager,
        discrepancyId: DiscrepancyIdPath,  # noqa: N803 - as above
        body: AdjustmentRequest,
    ) -> AdjustmentBody:
        """Post a signed adjustment entry. It references the discrepancy; no ledger row is changed."""
        entry = Entry(**body.model_dump())
        try:
            posted = await triage.adjust(caller.org, known_id(discrepancyId), entry, caller.actor)
        except AdjustmentRefused as refused:
            raise Problem(422, "adjustment-refused", str(refused)) from None
        except RuleGone as gone:
            raise Problem(409, "rule-gone", f"the rule {gone} is no longer in force; apply it again first") from None
        if posted is None:
            raise not_found("discrepancy", discrepancyId)
        adjustment = posted[1]
        return AdjustmentBody(**{name: getattr(adjustment, name) for name in AdjustmentBody.model_fields})

    return routes


def items_router(triage: Triage) -> APIRouter:
    """Return `/v1/items`."""
    routes = APIRouter(prefix="/v1", tags=["items"])

    @routes.get("/items", responses=problem_responses(401, 403, 422))
    async def list_items(
        caller: Reader,
        wish: Paging,
        status: ItemStatus | None = None,
        rule: Annotated[str | None, Query(max_length=64)] = None,
        pack: Annotated[str | None, Query(max_length=64)] = None,
        key: KeyFilter = None,
        shadow: ShadowFilter = "false",
    ) -> Page[ItemBody]:
        """List items (the outcome of each group of records), the latest change first."""
        chosen = ItemFilter(status=status, rule=rule, pack=pack, key=key, shadow=only_shadow(shadow))
        rows = await triage.store.items(caller.org, chosen, after_time(wish), wish.limit + 1)
        return page(rows, wish.limit, _item_place, item_body)

    return routes


def _item_place(item: Item) -> tuple[str, str]:
    return item.log.time.isoformat(), item.id


class KeyBody(BaseModel):
    """An API key without its secret."""

    id: str
    org: str
    role: Role
    name: str
    created_at: datetime
    revoked_at: datetime | None


class NewKeyBody(KeyBody):
    """A key that was just made."""

    key: str


class KeyRequest(BaseModel):
    """Whose key, and what it may do."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"role": "manager", "name": "finance team"}}
    )

    role: Role
    name: ShortText


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        msg = f"{name!r} is no IANA time zone, such as Europe/Berlin or UTC"
        raise ValueError(msg) from None
    return name


class OrgRequest(BaseModel):
    """The zone in which an organisation's days begin and end."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"zone": "Europe/Berlin"}})

    zone: Annotated[ShortText, AfterValidator(_zone)]


class OrgBody(BaseModel):
    """An organisation."""

    org: str
    zone: str
    created_at: datetime


class SourceRequest(BaseModel):
    """Which webhook mapping reads a source; null for one that posts events."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"provider": "stripe"}})

    provider: ShortText | None = None


class SourceBody(BaseModel):
    """A place where the organisation's money is recorded."""

    org: str
    source: str
    provider: str | None
    created_at: datetime


class Rows(BaseModel):
    """Directory lists are short: one page."""

    next_cursor: None = None


class KeyList(Rows):
    data: list[KeyBody]


class SourceList(Rows):
    data: list[SourceBody]


class OrgList(Rows):
    data: list[OrgBody]


def directory_router(store: DirectoryStore, keys: Keys) -> APIRouter:
    """Return `/v1/keys`, `/v1/sources` and `/v1/orgs`: always the caller's own organisation."""
    routes = APIRouter(prefix="/v1", tags=["directory"])

    @routes.get("/keys", responses=problem_responses(401, 403))
    async def list_keys(caller: Manager) -> KeyList:
        """List the organisation's keys, revoked ones too; secrets are nowhere."""
        return KeyList(data=[_key_body(key) for key in await store.keys(caller.org)])

    @routes.post("/keys", status_code=201, responses=problem_responses(401, 403, 422))
    async def create_key(caller: Owner, body: KeyRequest) -> NewKeyBody:
        """Make a key. It is shown in this answer and never again."""
        new = await keys.create(caller.org, body.role, body.name)
        entry = new.entry
        return NewKeyBody(
            id=entry.id,
            org=entry.org,
            role=entry.role,
            name=entry.name,
            created_at=entry.created_at,
            revoked_at=None,
            key=new.key,
        )

    @routes.delete("/keys/{id}", responses=problem_responses(401, 403, 404))
    async def revoke_key(caller: Owner, id: str) -> KeyBody:  # noqa: A002 - the path's public name
        """Withdraw a key; ingest refuses it within seconds."""
        key = await keys.revoke(caller.org, id)
        if key is None:
            raise not_found("key", id)
        return _key_body(key)

    @routes.get("/sources", responses=problem_responses(401, 403))
    async def list_sources(caller: Reader) -> SourceList:
        """List the organisation's sources."""
        return SourceList(data=[_source_body(source) for source in await store.sources(caller.org)])

    @routes.put("/sources/{source}", responses=problem_responses(401, 403, 422))
    async def put_source(caller: Owner, source: SourceName, body: SourceRequest) -> SourceBody:
        """Add a source, or change which mapping reads it. Its signing secret is given to ingest, never here."""
        return _source_body(await store.put_source(caller.org, source, body.provider))

    @routes.get("/orgs", responses=problem_responses(401, 403))
    async def list_orgs(caller: Reader) -> OrgList:
        """List the organisations of this key: its own."""
        org = await store.org(caller.org)
        return OrgList(data=[] if org is None else [_org_body(org)])

    @routes.put("/orgs/{org}", responses=problem_responses(401, 403, 404, 422))
    async def put_org(caller: Owner, org: str, body: OrgRequest) -> OrgBody:
        """Set the zone of the caller's organisation."""
        if org != caller.org:
            raise not_found("organisation", org)
        return _org_body(await store.put_org(org, body.zone))

    return routes


def _key_body(key: ApiKey) -> KeyBody:
    return KeyBody(**{name: getattr(key, name) for name in KeyBody.model_fields})


def _source_body(source: Source) -> SourceBody:
    return SourceBody(**{name: getattr(source, name) for name in SourceBody.model_fields})


def _org_body(org: Org) -> OrgBody:
    return OrgBody(**{name: getattr(org, name) for name in OrgBody.model_fields})
