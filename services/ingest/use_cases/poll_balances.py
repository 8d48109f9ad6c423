"""One look at a provider: read everything, and publish only what is whole."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from services.ingest.domain.balances import PollResult, ReadFailed, failed_reading, readings
from services.ingest.domain.rows import Row, check
from services.ingest.ports import Appended, BalanceSource, Inbox, InboxAway
from shared.contracts.event import EventRefused, PostedEvent
from shared.contracts.inbox import RowReceived, encode_inbox

APPEND_ROWS_MAX = 2_000
"""Rows that Kafka has to acknowledge in one round, within the time that a request has."""


class PollReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one look brought; for logs, metrics and the command."""

    org: str
    source: str
    provider: str
    result: PollResult
    detail: str | None = None
    as_of: datetime | None = None
    accounts: int = 0
    published: int = 0
    totals: Mapping[str, str] = {}
    """By currency."""
    left_out: Mapping[str, int] = {}


class Poll(msgspec.Struct, frozen=True):
    """What to poll and what its events are called."""

    org: str
    source: str
    provider: str
    total_account: str
    users: bool
    currencies: tuple[str, ...] = ()
    """In which a failed read is told."""


async def read(poll: Poll, reader: BalanceSource) -> tuple[PollReport, list[PostedEvent]]:
    """Read a source; the events are what would be published, none where the read is not whole."""
    try:
        reading = await reader.read()
    except ReadFailed as failed:
        return PollReport(poll.org, poll.source, poll.provider, failed.result, str(failed)), []
    events = readings(reading, source=poll.source, total_account=poll.total_account, users=poll.users)
    totals = {event.currency: event.amount for event in events if event.type == "balance.total"}
    report = PollReport(
        poll.org,
        poll.source,
        poll.provider,
        "ok",
        as_of=reading.as_of,
        accounts=reading.accounts,
        totals={currency: amount for currency, amount in totals.items() if currency and amount},
        left_out=reading.left_out,
    )
    return report, events


async def poll_balances(poll: Poll, reader: BalanceSource, inbox: Inbox, now: datetime) -> PollReport:
    """Read a source and publish what it says; the report tells what became of it."""
    report, events = await read(poll, reader)
    if not events:
        return report
    return await _publish(poll, report, events, inbox, now)


async def publish_failure(poll: Poll, report: PollReport, inbox: Inbox, now: datetime) -> PollReport:
    """Publish that a source could not be read, so that its check is in error in every run until it can be again."""
    events = [
        failed_reading(
            report.result,
            report.detail or "no detail",
            now,
            source=poll.source,
            account=poll.total_account,
            currency=currency,
        )
        for currency in poll.currencies
    ]
    return await _publish(poll, report, events, inbox, now)


async def _publish(
    poll: Poll, report: PollReport, events: Sequence[PostedEvent], inbox: Inbox, now: datetime
) -> PollReport:
    try:
        rows = [check(Row(msgspec.json.encode(event)), org=poll.org, received_at=now) for event in events]
    except EventRefused as refusal:
        return msgspec.structs.replace(
            report, result="not_published", detail=f"an event breaks the contract: {refusal}"
        )
    appended = [Appended(row.key, encode_inbox(RowReceived(org=poll.org, row=row.raw))) for row in rows]
    published = 0
    try:
        for start in range(0, len(appended), APPEND_ROWS_MAX):
            part = appended[start : start + APPEND_ROWS_MAX]
            await inbox.append(part)
            published += len(part)
    except InboxAway as away:
        return msgspec.structs.replace(report, result="not_published", detail=str(away), published=published)
    return msgspec.structs.replace(report, published=published)
