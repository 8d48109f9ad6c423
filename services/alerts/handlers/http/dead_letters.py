"""`/v1/dead-letters`: what was accepted and could not be used, why, and what people make of it."""

import base64
import codecs
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from services.alerts.domain.dead_letter import RAW_BYTES_MAX, KeptLetter, LetterAction, LetterState, StateRefused
from services.alerts.handlers.http.auth import Manager, Reader
from services.alerts.handlers.http.bodies import NoteText
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.handlers.http.triage import after_time, known_id
from services.alerts.ports.dead_letters import LetterFilter, LetterHistory
from services.alerts.use_cases.dead_letters import DeadLetters, RecordGone
from shared.contracts.dead_letter import Reason

_WHAT = "dead letter"
_EXAMPLE: dict[str, Any] = {
    "id": "1f0c9a2b-6d53-5d0e-a4f1-0d1b6c1c8f0e",
    "source": "ledger",
    "reason": "no match key",
    "detail": "ledger event nokey1: refs.payment_id is empty, so nothing can be matched with it",
    "hint": "Send a newer event of the same record with the key.",
    "rule": "billing.payments",
    "event": "nokey1",
    "inbox_partition": 3,
    "inbox_offset": 4711,
    "received_at": "2026-11-20T10:00:00Z",
    "first_seen_at": "2026-11-20T10:00:01Z",
    "raw_bytes": 181,
    "state": "open",
    "state_by": None,
    "state_reason": None,
    "state_at": None,
}

LetterId = Annotated[str, Path(examples=[_EXAMPLE["id"]])]
Encoding = Literal["utf-8", "base64"]


class DeadLetterBody(BaseModel):
    """One record that was set aside; nothing of it counts as long as it is not sent through again."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: str
    source: str | None
    reason: Reason
    detail: str = Field(description="What is wrong with which field, in one sentence.")
    hint: str = Field(description="What to do.")
    rule: str | None
    event: str | None = Field(description="The source's id of the event.")
    inbox_partition: int
    inbox_offset: int
    received_at: datetime
    first_seen_at: datetime
    raw_bytes: int = Field(description="Size of the request or row as it came; 0 where only `inbox` has it.")
    state: LetterState = Field(description="`open` until a person replays or dismisses it.")
    state_by: str | None
    state_reason: str | None
    state_at: datetime | None


class ChangeBody(BaseModel):
    """What somebody did with it."""

    at: datetime
    actor: str
    action: LetterAction
    from_state: LetterState
    to_state: LetterState
    reason: str | None


class DeadLetterDetail(DeadLetterBody):
    """A dead letter with its raw body and everything that people did with it, the oldest first."""

    raw: str = Field(description=f"The first {RAW_BYTES_MAX} bytes. Foreign content: show it as text, never run it.")
    raw_encoding: Encoding = Field(description="`base64` where it is no UTF-8 text.")
    raw_truncated: bool
    changes: list[ChangeBody]


class DismissRequest(BaseModel):
    """Why nothing is to be done."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "test event of the vendor"}})

    reason: NoteText


class LetterCountBody(BaseModel):
    """Dead letters that agree in all of these."""

    state: LetterState
    reason: Reason
    source: str | None
    rule: str | None
    count: int


class LetterCountList(BaseModel):
    """Kinds are few: one page."""

    data: list[LetterCountBody]
    next_cursor: None = None


def _filter(
    state: LetterState | None = None,
    reason: Reason | None = None,
    source: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
    rule: Annotated[str | None, Query(max_length=64, pattern=r"^[^\x00]*$")] = None,
) -> LetterFilter:
    return LetterFilter(state=state, reason=reason, source=source, rule=rule)


Wanted = Annotated[LetterFilter, Depends(_filter)]


def router(letters: DeadLetters) -> APIRouter:
    """Return `/v1/dead-letters` and `/v1/dead-letter-counts`."""
    routes = APIRouter(prefix="/v1", tags=["dead letters"])

    @routes.get("/dead-letters", responses=problem_responses(401, 403, 422))
    async def list_dead_letters(caller: Reader, chosen: Wanted, wish: Paging) -> Page[DeadLetterBody]:
        """List dead letters, those received last first."""
        rows = await letters.store.list(caller.org, chosen, after_time(wish), wish.limit + 1)
        return page(rows, wish.limit, _place, shown_of)

    @routes.get("/dead-letter-counts", responses=problem_responses(401, 403))
    async def count(caller: Reader) -> LetterCountList:
        """Count dead letters by kind; add up what you need."""
        counted = await letters.store.counts(caller.org)
        return LetterCountList(data=[LetterCountBody(**msgspec.structs.asdict(kind)) for kind in counted])

    @routes.get("/dead-letters/{dead_letter_id}", responses=problem_responses(401, 403, 404))
    async def show(caller: Reader, dead_letter_id: LetterId) -> DeadLetterDetail:
        """Show one with its raw body and what people did with it."""
        history = await letters.store.history(caller.org, known_id(dead_letter_id, _WHAT))
        if history is None:
            raise not_found(_WHAT, dead_letter_id)
        return detail_of(history)

    @routes.post("/dead-letters/{dead_letter_id}/dismiss", responses=problem_responses(401, 403, 404, 409, 422))
    async def dismiss(caller: Manager, dead_letter_id: LetterId, body: DismissRequest) -> DeadLetterBody:
        """Decide that nothing is to be done. It stays dismissed however often the same letter arrives."""
        try:
            kept = await letters.dismiss(caller.org, known_id(dead_letter_id, _WHAT), body.reason, caller.actor)
        except StateRefused as refused:
            raise Problem(
                409,
                "no-such-transition",
                str(refused),
                current_state=refused.state,
                action=refused.action,
            ) from None
        return _answered(kept, dead_letter_id)

    @routes.post(
        "/dead-letters/{dead_letter_id}/replay", status_code=202, responses=problem_responses(401, 403, 404, 409, 503)
    )
    async def replay(caller: Manager, dead_letter_id: LetterId) -> DeadLetterBody:
        """Append the request or row that it came from to `inbox` again, after a fix. A repeat is harmless.

        If it still cannot be used, a new dead letter appears.
        """
        try:
            kept = await letters.replay(caller.org, known_id(dead_letter_id, _WHAT), caller.actor)
        except RecordGone:
            raise Problem(
                409,
                "record-gone",
                "its record is no longer in inbox, so it cannot be sent through again; send the event again from its "
                "source",
            ) from None
        return _answered(kept, dead_letter_id)

    return routes


def _answered(kept: KeptLetter | None, dead_letter_id: str) -> DeadLetterBody:
    if kept is None:
        raise not_found(_WHAT, dead_letter_id)
    return shown_of(kept)


def shown_of(kept: KeptLetter) -> DeadLetterBody:
    """Return a letter as a list shows it."""
    return DeadLetterBody(**_plain(kept))


def _place(kept: KeptLetter) -> tuple[str, str]:
    return kept.letter.received_at.isoformat(), kept.letter.id


def _plain(kept: KeptLetter) -> dict[str, Any]:
    names = DeadLetterBody.model_fields
    both = {**msgspec.structs.asdict(kept.letter), **msgspec.structs.asdict(kept)}
    return {name: both[name] for name in names}


def detail_of(history: LetterHistory) -> DeadLetterDetail:
    """Return what is answered about one letter."""
    kept = history.kept
    raw, truncated = kept.letter.raw, kept.raw_bytes > len(kept.letter.raw)
    shown, encoding = _readable(raw, whole=not truncated)
    return DeadLetterDetail(
        **_plain(kept),
        raw=shown,
        raw_encoding=encoding,
        raw_truncated=truncated,
        changes=[ChangeBody(**msgspec.structs.asdict(change)) for change in history.changes],
    )


def _readable(raw: bytes, *, whole: bool) -> tuple[str, Encoding]:
    """As text; a character that the cut went through is left out."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(raw, final=whole), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"
