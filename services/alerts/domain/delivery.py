"""Delivery of webhooks as decisions: what is sent to whom, under which id, and what an answer means. No I/O here."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from shared.contracts.discrepancy import SEVERITIES, Discrepancy, Severity, State
from shared.contracts.webhook import (
    STORM_EVENT,
    TEST_EVENT,
    DiscrepancyEvent,
    DiscrepancyMessage,
    Storm,
    StormMessage,
    TestData,
    TestMessage,
    encode_webhook,
)
from shared.ids import NAMESPACE, canonical

RETRY_PLAN: tuple[timedelta, ...] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""Waits after the first, second, … try: ten tries over 75 hours, so that a receiver broken on Friday evening still gets
what it missed when somebody repairs it on Monday."""
JITTER_PERCENT = 10
"""Each wait is this much longer or shorter, so that thousands of messages do not come back in the same second."""
RETRY_AFTER_MAX = timedelta(hours=24)
"""No receiver can put a message off for longer than the plan's own longest wait."""
ERROR_LENGTH_MAX = 500
"""Characters of an attempt's error that are kept."""

GONE = 410

Kind = Literal["discrepancy", "storm", "test", "anomaly"]
DropReason = Literal["superseded", "storm", "endpoint disabled", "endpoint deleted"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one endpoint, ready to be stored in the outbox."""

    message_id: str
    """Header `webhook-id`: the same in every attempt and after every restart."""
    kind: Kind
    type: str
    severity: Severity
    payload: str
    """The JSON that is signed and sent, byte for byte."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message that this dispatcher alone may send until `until`."""

    id: int
    org: str
    endpoint_id: str
    url: str
    secrets: tuple[str, ...]
    """The signing secret, and during a rotation the one before it."""
    message_id: str
    type: str
    payload: bytes
    attempt: int
    """From 1."""
    created_at: datetime
    until: datetime
    """By the database's clock."""
    ahead: timedelta = timedelta(0)
    """How far this process's clock is ahead of the database's, which decides when a message is due."""
    traceparent: str | None = None
    discrepancy_id: str | None = None
    revision: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from an endpoint, or why nothing did."""

    status: int | None
    error: str | None
    duration_ms: int
    retry_after: str | None = None


class Delivered(msgspec.Struct, frozen=True):
    """The endpoint took the message."""


class Retry(msgspec.Struct, frozen=True):
    """Try again at `at`."""

    at: datetime
    error: str


class GaveUp(msgspec.Struct, frozen=True):
    """The plan is used up. The message is kept and can be replayed."""

    error: str


class EndpointGone(msgspec.Struct, frozen=True):
    """The endpoint asked for nothing more: it is disabled, and people are told why."""

    reason: str


Decision = Delivered | Retry | GaveUp | EndpointGone


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was made for a claim, and what follows from its answer."""

    claim: Claim
    at: datetime
    """When it was begun, by the database's clock."""
    answer: Answer
    decision: Decision

    @property
    def error(self) -> str | None:
        """What went wrong, in words; None when the message arrived."""
        return None if isinstance(self.decision, Delivered) else failure(self.answer)

    @property
    def outcome(self) -> str:
        """The outcome in one word, for logs and metrics."""
        match self.decision:
            case Delivered():
                return "delivered"
            case EndpointGone():
                return "disabled"
            case Retry(error=error) | GaveUp(error=error):
                if self.answer.status is not None:
                    return "refused"
                return "timeout" if error.startswith("timeout") else "unreachable"


def decide(answer: Answer, *, attempt: int, now: datetime, chance: float) -> Decision:
    """Return what an answer to try number `attempt` (from 1) means; `chance` in [0, 1) spreads the next try."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Delivered()
    if answer.status == GONE:
        return EndpointGone("the endpoint answered 410 Gone")
    error = failure(answer)
    if attempt > len(RETRY_PLAN):
        return GaveUp(error)
    wait = RETRY_PLAN[attempt - 1] * (1 + JITTER_PERCENT / 100 * (2 * chance - 1))
    asked = retry_after(answer.retry_after, now)
    return Retry(now + max(wait, asked), error)


def failure(answer: Answer) -> str:
    """Say in words why an answer is none."""
    if answer.error is not None:
        return answer.error[:ERROR_LENGTH_MAX]
    if answer.status is not None and 300 <= answer.status < 400:
        return f"HTTP {answer.status}: redirects are not followed; set the endpoint to its final URL"
    return f"HTTP {answer.status}"


def retry_after(value: str | None, now: datetime) -> timedelta:
    """Read the header Retry-After (seconds or a date); zero when absent or not understood, at most 24 hours."""
    if not value:
        return timedelta(0)
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = min(int(text[:10]), int(RETRY_AFTER_MAX.total_seconds()))
        return timedelta(seconds=seconds)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return timedelta(0)
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(date - now, timedelta(0)), RETRY_AFTER_MAX)


def wants(types: Sequence[str], severity_min: Severity, found: Discrepancy) -> bool:
    """Say whether an endpoint with these filters gets `found`. No types means all of them."""
    if types and found.type not in types:
        return False
    return SEVERITIES.index(found.severity) >= SEVERITIES.index(severity_min)


def event_of(found: Discrepancy, previous: State | None) -> DiscrepancyEvent:
    """Name what a revision is to a receiver; `previous` is the state stored before it, None when it is new."""
    if found.state == "resolved":
        return "discrepancy.resolved"
    return "discrepancy.updated" if previous == "raised" else "discrepancy.raised"


def message_id(endpoint_id: str, discrepancy_id: str, log_offset: int, revision: int) -> str:
    """Return the webhook-id of a revision: a repeat after a crash carries the same one.

    The log offset is part of it, since a key that comes back long after it was forgotten starts at revision 1 again.
    """
    name = canonical([endpoint_id, discrepancy_id, str(log_offset), str(revision)])
    return f"msg_{uuid.uuid5(NAMESPACE, name.decode()).hex}"


def compose(endpoint_id: str, found: Discrepancy, previous: State | None, stored_at: datetime) -> Message:
    """Return the message that tells an endpoint about a revision."""
    event = event_of(found, previous)
    body = DiscrepancyMessage(type=event, timestamp=stored_at, data=found)
    return Message(
        message_id=message_id(endpoint_id, found.id, found.log.offset, found.revision),
        kind="discrepancy",
        type=event,
        severity=found.severity,
        payload=encode_webhook(body).decode(),
    )


def minute_of(time: datetime) -> datetime:
    """Return the begin of the minute (UTC) that `time` lies in."""
    return time.astimezone(UTC).replace(second=0, microsecond=0)


def compose_storm(org: str, endpoint_id: str, minute: datetime, cap: int) -> Message:
    """Return the one summary for a minute in which an endpoint's cap was passed."""
    name = canonical([endpoint_id, "storm", minute.isoformat()])
    data = Storm(org=org, minute=minute, cap=cap)
    return Message(
        message_id=f"msg_{uuid.uuid5(NAMESPACE, name.decode()).hex}",
        kind="storm",
        type=STORM_EVENT,
        severity="critical",
        payload=encode_webhook(StormMessage(type="discrepancy.storm", timestamp=minute, data=data)).decode(),
    )


def compose_test(org: str, endpoint_id: str, number: uuid.UUID, now: datetime) -> Message:
    """Return a message that only says that signature and address are right."""
    data = TestData(org=org, endpoint=endpoint_id, text="This is a test. No discrepancy stands behind it.")
    return Message(
        message_id=f"msg_{number.hex}",
        kind="test",
        type=TEST_EVENT,
        severity="low",
        payload=encode_webhook(TestMessage(type="endpoint.test", timestamp=now, data=data)).decode(),
    )


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is due, as far as the choice of what to send needs it."""

    id: int
    kind: Kind
    created_at: datetime
    attempts: int
    replayed: bool
    subject: str | None
    """The discrepancy; messages about the same one keep their order."""
    place: tuple[int, int]
    """(log offset, revision) of the discrepancy: its order."""


class Choice(msgspec.Struct, frozen=True):
    """What to do with the messages that are due."""

    send: list[int]
    stormy: list[datetime]
    """Minutes whose cap is used up: what was not sent of them is kept and summed up in one message."""


def choose(
    due: Sequence[Waiting], *, busy: frozenset[str], cap: int, started: dict[datetime, int], room: int
) -> Choice:
    """Choose up to `room` of an endpoint's due messages.

    `busy`: discrepancies with a message under way. `started`: messages already let through, by minute of storing;
    counted against `cap`, messages per minute. Of one discrepancy one message is under way at a time, in the order of
    its revisions; one that failed before gives way to a newer one that is due.
    """
    newest = _newest(due)
    let_through = dict(started)
    taken = set(busy)
    send: list[int] = []
    stormy: set[datetime] = set()
    for message in sorted(due, key=_order):
        subject = message.subject
        if subject is not None and (subject in taken or _gives_way(message, newest)):
            continue
        minute = minute_of(message.created_at)
        if _is_counted(message) and let_through.get(minute, 0) >= cap:
            stormy.add(minute)
            continue
        if len(send) >= room:
            continue
        send.append(message.id)
        if _is_counted(message):
            let_through[minute] = let_through.get(minute, 0) + 1
        if subject is not None:
            taken.add(subject)
    return Choice(send, sorted(stormy))


def _newest(due: Sequence[Waiting]) -> dict[str, tuple[int, int]]:
    newest: dict[str, tuple[int, int]] = {}
    for message in due:
        if message.subject is not None:
            newest[message.subject] = max(message.place, newest.get(message.subject, message.place))
    return newest


def _order(message: Waiting) -> tuple[bool, datetime, tuple[int, int], int]:
    return (message.kind == "discrepancy", message.created_at, message.place, message.id)


def _gives_way(message: Waiting, newest: dict[str, tuple[int, int]]) -> bool:
    if message.subject is None or not message.attempts:
        return False
    return message.place < newest[message.subject]


def _is_counted(message: Waiting) -> bool:
    """First tries count against the cap; repeats, replays, tests and the summary itself do not."""
    return message.kind == "discrepancy" and not message.attempts and not message.replayed
