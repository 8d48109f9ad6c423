"""`/v1/discrepancy-counts`: how many discrepancies there are by rule, type, severity, state and status."""

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.alerts.domain.triage import Status
from services.alerts.handlers.http.auth import Reader
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.ports.counts import CountsStore
from shared.contracts.discrepancy import Severity, State


class CountBody(BaseModel):
    """Discrepancies that agree in all of these."""

    pack: str
    rule: str
    type: str
    severity: Severity
    state: State
    status: Status
    shadow: bool = Field(description="From a rule that only watches: nobody is alerted.")
    count: int


class CountList(BaseModel):
    """Kinds are few: one page."""

    data: list[CountBody]
    next_cursor: None = None


def router(store: CountsStore) -> APIRouter:
    """Return `/v1/discrepancy-counts`."""
    routes = APIRouter(prefix="/v1", tags=["discrepancies"])

    @routes.get("/discrepancy-counts", responses=problem_responses(401, 403))
    async def count(caller: Reader) -> CountList:
        """Count discrepancies by kind; add up what you need."""
        return CountList(data=[CountBody(**msgspec.structs.asdict(kind)) for kind in await store.counts(caller.org)])

    return routes
