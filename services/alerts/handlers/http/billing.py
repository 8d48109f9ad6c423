"""The billing pack's triage API, letter for letter (its runs are in `runs`). For owners and managers only."""

import msgspec
from fastapi import APIRouter

from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.bodies import DiscrepancyBody
from services.alerts.handlers.http.pagination import Page, Paging
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.handlers.http.triage import Wanted, action_routes, list_page
from services.alerts.ports.triage import Filter
from services.alerts.use_cases.triage import Triage

PACK = "billing"


def router(triage: Triage) -> APIRouter:
    """Return the routes below `/billing/reconciliation/discrepancies`."""
    routes = APIRouter(prefix="/billing/reconciliation", tags=["billing: discrepancies"])

    @routes.get("/discrepancies", responses=problem_responses(401, 403, 422))
    async def list_discrepancies(caller: Manager, chosen: Wanted, wish: Paging) -> Page[DiscrepancyBody]:
        """List the billing pack's discrepancies, those raised last first."""
        return await list_page(triage, caller, _of_pack(chosen), wish)

    routes.include_router(action_routes(triage, PACK))
    return routes


def _of_pack(chosen: Filter) -> Filter:
    return msgspec.structs.replace(chosen, pack=PACK)
