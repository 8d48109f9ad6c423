"""Runs of every pack under `/v1/runs`: make one, list them, read a report in the form that is asked for."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.alerts.domain.period import PeriodRefused
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import not_found, problem_responses
from services.alerts.handlers.http.run_bodies import (
    PeriodWish,
    RunBody,
    bad_period,
    place_of,
    plain_period,
    run_body,
    under_way,
)
from services.alerts.handlers.http.run_report import REPORT_RESPONSES, ReportFormat, answer_report
from services.alerts.ports.runs import RunType
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.runs import PACK, OrgUnknown, PackUnknown, Runs, RunUnderWay


class NewRunBody(BaseModel):
    """What to run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"pack": "billing", "period": "2026-11"}, {"pack": "stack"}]},
    )

    pack: str = Field(default=PACK, min_length=1, max_length=64)
    period: PeriodWish | None = Field(default=None, description="Left out: the 24 hours up to now.")


class Packs(BaseModel):
    """The packs that can be run, by name."""

    data: list[str]


def router(runs: Runs, reports: RunReports) -> APIRouter:
    """Return the routes under `/v1/runs`."""
    routes = APIRouter(prefix="/v1/runs", tags=["runs"])

    @routes.get("", summary="Runs of every pack, newest first", responses=problem_responses(401, 403, 422, 503))
    async def list_runs(
        caller: Manager,
        paging: Paging,
        pack: Annotated[str | None, Query(max_length=64, description="Only of this pack.")] = None,
        run_type: RunType | None = None,
    ) -> Page[RunBody]:
        found = await runs.store.runs(caller.org, pack, paging.limit + 1, place_of(paging), run_type)
        return page(found, paging.limit, lambda run: (run.created_at.isoformat(), run.id), run_body)

    @routes.get("/packs", summary="The packs that can be run", responses=problem_responses(401, 403, 503))
    async def packs(caller: Manager) -> Packs:
        return Packs(data=list(await runs.packs(caller.org)))

    @routes.get("/{id}", summary="One run", responses=problem_responses(401, 403, 404, 503))
    async def one(caller: Manager, run_id: Annotated[str, Path(alias="id")]) -> RunBody:
        run = await runs.store.run(caller.org, run_id)
        if run is None:
            raise not_found("run", run_id[:64])
        return run_body(run)

    @routes.get("/{id}/report", summary="The report of a run", response_class=Response, responses=REPORT_RESPONSES)
    async def report(
        run_id: Annotated[str, Path(alias="id")],
        caller: Manager,
        accept: Annotated[str, Header()] = "application/json",
        format_: ReportFormat = None,
    ) -> Response:
        return await answer_report(reports, caller.org, run_id, accept, format_)

    _add_make(routes, runs)
    return routes


def _add_make(routes: APIRouter, runs: Runs) -> None:
    @routes.post(
        "",
        summary="Run a period of a pack, or find the run there is; without a period the 24 hours up to now",
        responses={
            **problem_responses(401, 403, 404, 409, 422, 503),
            201: {"model": RunBody, "description": "Made now"},
        },
    )
    async def make(body: NewRunBody, caller: Manager, response: Response) -> RunBody:
        try:
            if body.period is None:
                run, made = await runs.manual(caller.org, body.pack, caller.actor), True
            else:
                run, made = await runs.trigger(caller.org, plain_period(body.period), caller.actor, body.pack)
        except PeriodRefused as error:
            raise bad_period(error) from None
        except RunUnderWay as other:
            raise under_way(other.run) from None
        except PackUnknown:
            raise not_found("pack with rules in force", body.pack) from None
        except OrgUnknown:
            raise not_found("organisation", caller.org) from None
        response.status_code = 201 if made else 200
        return run_body(run)
