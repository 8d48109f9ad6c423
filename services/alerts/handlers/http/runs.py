"""Runs and reports of the billing pack: trigger, list, report, and the token-guarded daily run of every pack.

Under the names that people already use; `/v1/runs` has the runs of every pack.
"""

import hmac
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.alerts.domain.period import PeriodRefused
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
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
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.runs import PACK, OrgUnknown, PackUnknown, Runs, RunUnderWay

TOKEN_HEADER = "x-reconciliation-token"  # noqa: S105 - the header's name


class TriggerBody(BaseModel):
    """What to run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"period": "2026-11"}, {"period": {"start": "2026-11-01", "end": "2026-11-08"}}]
        },
    )

    period: PeriodWish
    org: str | None = Field(default=None, description="The key's own organisation; another one is refused.")


class DailyBody(BaseModel):
    """What to run instead of yesterday for every organisation."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{}, {"org": "acme", "period": "2026-11-20"}]}
    )

    org: str | None = None
    period: PeriodWish | None = None
    pack: str | None = Field(default=None, max_length=64, description="Only of this pack; else of every pack in force.")


class DailyFailureBody(BaseModel):
    """An organisation without a run, and why."""

    org: str
    error: str


class DailyAnswer(BaseModel):
    """The runs of the day, made now or before."""

    runs: list[RunBody]
    failed: list[DailyFailureBody]


def router(runs: Runs, reports: RunReports, daily_token: SecretStr | None) -> APIRouter:
    """Return the routes under `/billing/reconciliation/runs`; without `daily_token` the daily run is off."""
    routes = APIRouter(prefix="/billing/reconciliation/runs", tags=["runs"])

    @routes.post(
        "/trigger",
        summary="Run a period, or find the run there is",
        responses={**problem_responses(401, 403, 409, 422, 503), 201: {"model": RunBody, "description": "Made now"}},
    )
    async def trigger(body: TriggerBody, caller: Manager, response: Response) -> RunBody:
        if body.org is not None and body.org != caller.org:
            raise Problem(403, "forbidden", f"this key belongs to another organisation than {body.org!r}")
        try:
            run, made = await runs.trigger(caller.org, plain_period(body.period), caller.actor)
        except PeriodRefused as error:
            raise bad_period(error) from None
        except RunUnderWay as other:
            raise under_way(other.run) from None
        except OrgUnknown:
            raise not_found("organisation", caller.org) from None
        response.status_code = 201 if made else 200
        return run_body(run)

    @routes.get("", summary="Runs, newest first", responses=problem_responses(401, 403, 422, 503))
    async def list_runs(caller: Manager, paging: Paging) -> Page[RunBody]:
        rows = await runs.store.runs(caller.org, PACK, paging.limit + 1, place_of(paging))
        return page(rows, paging.limit, lambda run: (run.created_at.isoformat(), run.id), run_body)

    @routes.get("/{runId}/report", summary="The report of a run", response_class=Response, responses=REPORT_RESPONSES)
    async def report(
        run_id: Annotated[str, Path(alias="runId")],
        caller: Manager,
        accept: Annotated[str, Header()] = "application/json",
        format_: ReportFormat = None,
    ) -> Response:
        return await answer_report(reports, caller.org, run_id, accept, format_)

    _add_daily(routes, runs, daily_token)
    return routes


def _add_daily(routes: APIRouter, runs: Runs, daily_token: SecretStr | None) -> None:
    @routes.post(
        "/daily",
        summary="Run yesterday, of every pack and organisation; for schedulers",
        description=f"Guarded by the header `{TOKEN_HEADER}`; off unless RECONCILIATION_DAILY_TOKEN is set. A repeat "
        "answers the same runs.",
        responses=problem_responses(401, 404, 422, 503),
    )
    async def daily(
        body: DailyBody | None = None, x_reconciliation_token: Annotated[str | None, Header()] = None
    ) -> DailyAnswer:
        _guard(daily_token, x_reconciliation_token)
        wish = body or DailyBody()
        try:
            made, failed = await runs.daily(
                wish.org, None if wish.period is None else plain_period(wish.period), wish.pack
            )
        except PeriodRefused as error:
            raise bad_period(error) from None
        except OrgUnknown:
            raise Problem(404, "not-found", f"there is no organisation {wish.org!r}") from None
        except PackUnknown:
            raise Problem(404, "not-found", f"{wish.org!r} has no rules of a pack {wish.pack!r}") from None
        return DailyAnswer(
            runs=[run_body(run) for run in made],
            failed=[DailyFailureBody(org=one.org, error=one.error) for one in failed],
        )


def _guard(expected: SecretStr | None, given: str | None) -> None:
    if expected is None or not expected.get_secret_value():
        raise Problem(404, "not-found", "the daily run is off: set RECONCILIATION_DAILY_TOKEN to turn it on")
    if given is None:
        raise Problem(401, "unauthorized", f"send the token in the header {TOKEN_HEADER}")
    # Compared as bytes: a header may hold any Latin-1 character, which compare_digest refuses in text.
    if not hmac.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise Problem(401, "unauthorized", f"the token in the header {TOKEN_HEADER} is wrong")
