"""The HTTP API of alerts. `create_app` takes the routers; each module here makes one from the ports it needs."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from services.alerts.handlers.http import problem
from services.alerts.handlers.http.body_limit import BodyLimit
from services.alerts.ports.directory import DirectoryStore
from shared.telemetry.health import Health
from shared.telemetry.ops import OpsEndpoints


def create_app(routers: Sequence[APIRouter], directory: DirectoryStore, health: Health) -> FastAPI:
    """Return the application: `routers` behind API keys, `/health/…`, `/metrics`, problem+json for every error."""
    app = FastAPI(
        title="tieout alerts",
        version="1",
        description="Discrepancies, triage, runs and reports, outgoing webhooks.",
        openapi_url="/openapi.json",
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.directory = directory
    problem.install(app)
    for router in routers:
        app.include_router(router)
    app.add_middleware(BodyLimit)
    app.add_middleware(OpsEndpoints, health=health)
    return app
