"""`/v1/feeds`: when each source was last heard of, and what waits for one that is silent."""

from datetime import datetime

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.alerts.handlers.http.auth import Reader
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.ports.feeds import FeedStore


class FeedBody(BaseModel):
    """The feed of one source."""

    source: str
    rule: str = Field(description="The rule it is watched by; empty: no rule selects the source any more.")
    last_seen_at: datetime
    usual_silence_ms: int | None = Field(
        description="The longest silence that is usual at this hour of the week; null: not known yet."
    )
    silent_after_ms: int | None = Field(description="Silence after which it is told; null: not known yet.")
    silent_since: datetime | None = Field(description="When it was last seen, while it is silent.")
    waiting: int = Field(description="Records whose counterpart is not called missing as long as this feed is silent.")
    told_at: datetime = Field(description="Log time of this: the matcher tells of a feed once a minute.")


class FeedList(BaseModel):
    """Feeds are few: one page."""

    data: list[FeedBody]
    next_cursor: None = None


def router(store: FeedStore) -> APIRouter:
    """Return `/v1/feeds`."""
    routes = APIRouter(prefix="/v1", tags=["feeds"])

    @routes.get("/feeds", responses=problem_responses(401, 403))
    async def feeds(caller: Reader) -> FeedList:
        """List the feeds of every source that rules know."""
        return FeedList(data=[FeedBody(**msgspec.structs.asdict(feed)) for feed in await store.feeds(caller.org)])

    return routes
