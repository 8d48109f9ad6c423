"""Posted events: each row is checked on its own, the good ones go into the inbox in one round."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from services.ingest.domain.rows import Row, check
from services.ingest.ports import Appended, Inbox
from shared.contracts.event import EventRefused
from shared.contracts.inbox import RowReceived, encode_inbox


class RowAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one row."""

    index: int
    status: Literal["accepted", "refused"]
    id: str | None = None
    field: str | None = None
    error: str | None = None


class RowsAnswer(msgspec.Struct, frozen=True):
    """What became of a request's rows, in their order."""

    accepted: int
    refused: int
    results: list[RowAnswer]


async def accept_events(rows: Sequence[Row], *, org: str, received_at: datetime, inbox: Inbox) -> RowsAnswer:
    """Check every row and append the good ones; accepted means acknowledged.

    Raises:
        InboxAway: nothing may be reported as accepted.
    """
    results: list[RowAnswer] = []
    appended: list[Appended] = []
    for index, row in enumerate(rows):
        try:
            valid = check(row, org=org, received_at=received_at)
        except EventRefused as refusal:
            results.append(RowAnswer(index, "refused", field=refusal.field, error=str(refusal)))
            continue
        appended.append(Appended(valid.key, encode_inbox(RowReceived(org=org, row=valid.raw))))
        results.append(RowAnswer(index, "accepted", id=valid.id))
    if appended:
        await inbox.append(appended)
    return RowsAnswer(len(appended), len(results) - len(appended), results)
