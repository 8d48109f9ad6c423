"""From one record of `inbox` to events, legs and dead letters. Pure: what is known of rules and providers comes in."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from services.ingest.domain.feed_counts import FeedCounts
from services.ingest.domain.providers import MAPPINGS, Mapped, MappingOptions, Unmapped
from services.ingest.domain.rows import read_row
from services.ingest.domain.rule_book import RuleBook
from shared.contracts.dead_letter import DeadLetter, Reason
from shared.contracts.event import Event, EventRefused, PostedEvent, accept, from_milliseconds
from shared.contracts.inbox import (
    CutRequested,
    RowReceived,
    RulesAwaited,
    TickRequested,
    WebhookReceived,
    WithdrawRequested,
    decode_inbox,
)
from shared.contracts.leg import Cut, LegRecord, Withdraw, keyless_group_key
from shared.contracts.not_reconciled import NotReconciledEvent
from shared.ids import dead_letter_id
from shared.rules.extract.common import Place, Problem

OptionsOf = Callable[[str, str], MappingOptions]
"""Mapping options of (org, source)."""

SourceAndType = tuple[str, str]


Outgoing = tuple[bytes | None, LegRecord]
"""Group and record for `legs`. Without a group it goes to every partition."""


class Outcome:
    """What a batch of inbox records comes to; `legs` keeps their order."""

    __slots__ = (
        "awaited",
        "dead_letters",
        "events",
        "feeds",
        "ignored",
        "legs",
        "normalised",
        "not_reconciled",
        "places",
    )

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.places: list[Place] = []
        """Where in `inbox` each of the events stands."""
        self.legs: list[Outgoing] = []
        self.dead_letters: list[DeadLetter] = []
        self.feeds = FeedCounts()
        """Events of the sources that rules know."""
        self.normalised: Counter[SourceAndType] = Counter()
        self.not_reconciled: list[NotReconciledEvent] = []
        """Events that no rule selects."""
        self.ignored: Counter[SourceAndType] = Counter()
        """Notifications about no money movement."""
        self.awaited = -1
        """Version of the rules that what comes next must be derived by."""


class Normaliser:
    """Maps inbox records; the rule book may change between two of them."""

    def __init__(self, rules: RuleBook, options_of: OptionsOf, mappings: Mapping[str, "_Read"] = MAPPINGS) -> None:
        self._rules = rules
        self._options_of = options_of
        self._mappings = mappings
        self._received_ms = -1
        self._received_at = from_milliseconds(0)

    def add(self, value: bytes, place: Place, outcome: Outcome) -> None:
        """Add to `outcome` what the record at `place` comes to; never raises on what it holds."""
        try:
            record = decode_inbox(value)
        except (ValueError, msgspec.MsgspecError) as error:
            outcome.dead_letters.append(_unreadable(value, place, str(error)))
            return
        match record:
            case RowReceived():
                self._row(record, place, outcome)
            case WebhookReceived():
                self._webhook(record, place, outcome)
            case TickRequested():
                pass
            case RulesAwaited(version=version):
                outcome.awaited = max(outcome.awaited, version)
            case CutRequested(org=org, id=id_):
                outcome.legs.append((None, Cut(org, id_, place[0], place[2])))
            case WithdrawRequested(org=org, rule=rule, source=source, record=name):
                group = keyless_group_key(org, rule, source, name)
                outcome.legs.append((group, Withdraw(source, name, place[0], place[2])))

    def _row(self, received: RowReceived, place: Place, outcome: Outcome) -> None:
        org, raw = received.org, received.row
        try:
            event = accept(read_row(raw), org=org, received_at=self._time(place))
        except EventRefused as refusal:
            outcome.dead_letters.append(_refused(org, None, refusal, place, raw))
            return
        self._event(event, place, outcome, raw)

    def _webhook(self, received: WebhookReceived, place: Place, outcome: Outcome) -> None:
        org, source, body = received.org, received.source, received.body
        read = self._mappings.get(received.provider)
        if read is None:
            outcome.dead_letters.append(_no_mapping(received, place))
            return
        try:
            mapped = read(body, source, self._options_of(org, source))
        except Unmapped as problem:
            outcome.dead_letters.append(
                _dead_letter("unknown mapping", place, str(problem), problem.hint, body, org=org, source=source)
            )
            return
        for refusal in mapped.refused:
            outcome.dead_letters.append(_refused(org, source, refusal, place, body))
        if not mapped.events and not mapped.refused:
            outcome.ignored[source, mapped.kind] += 1
        for posted in mapped.events:
            self._posted(posted, org, place, outcome, body)

    def _posted(self, posted: PostedEvent, org: str, place: Place, outcome: Outcome, raw: bytes) -> None:
        try:
            event = accept(posted, org=org, received_at=self._time(place))
        except EventRefused as refusal:
            outcome.dead_letters.append(_refused(org, posted.source, refusal, place, raw, event=posted.id))
            return
        self._event(event, place, outcome, raw)

    def _event(self, event: Event, place: Place, outcome: Outcome, raw: bytes) -> None:
        outcome.events.append(event)
        outcome.places.append(place)
        name = (event.source, event.type)
        outcome.normalised[name] += 1
        extractor = self._rules.extractor(event.org)
        if extractor is None:
            outcome.not_reconciled.append(_not_reconciled(event))
            return
        if event.source in extractor.sources:
            outcome.feeds.add(place[0], event.org, event.source, place[2])
        problems: list[Problem] = []
        if not extractor.add(event, place, outcome.legs, problems):  # type: ignore[arg-type]  # it adds legs only
            outcome.not_reconciled.append(_not_reconciled(event))
            return
        for problem in problems:
            outcome.dead_letters.append(
                _dead_letter(
                    problem.reason,
                    place,
                    problem.detail,
                    problem.hint,
                    raw,
                    org=event.org,
                    source=event.source,
                    rule=problem.rule,
                    event=event.id,
                )
            )

    def _time(self, place: Place) -> datetime:
        """Return the receipt; the broker stamps whole batches, so the last one is often asked for again."""
        time_ms = place[2]
        if time_ms != self._received_ms:
            self._received_ms = time_ms
            self._received_at = from_milliseconds(time_ms)
        return self._received_at


_Read = Callable[[bytes, str, MappingOptions], Mapped]


def _dead_letter(
    reason: Reason,
    place: Place,
    detail: str,
    hint: str,
    raw: bytes,
    *,
    org: str | None = None,
    source: str | None = None,
    rule: str | None = None,
    event: str | None = None,
) -> DeadLetter:
    partition, offset, time_ms = place
    return DeadLetter(
        # A body that holds several events may fail for several of them.
        id=dead_letter_id(reason, partition, offset, rule if event is None else f"{rule or ''}/{event}"),
        org=org,
        source=source,
        reason=reason,
        detail=detail,
        hint=hint,
        rule=rule,
        event=event,
        inbox_partition=partition,
        inbox_offset=offset,
        received_at=from_milliseconds(time_ms),
        raw=raw,
    )


def _not_reconciled(event: Event) -> NotReconciledEvent:
    return NotReconciledEvent(
        org=event.org,
        source=event.source,
        type=event.type,
        event_id=event.uuid,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
    )


def _refused(
    org: str, source: str | None, refusal: EventRefused, place: Place, raw: bytes, event: str | None = None
) -> DeadLetter:
    hint = "Correct the event at its source and send it again; nothing of it has been counted."
    return _dead_letter("refused", place, str(refusal), hint, raw, org=org, source=source, event=event)


def _no_mapping(received: WebhookReceived, place: Place) -> DeadLetter:
    return _dead_letter(
        "unknown mapping",
        place,
        f"this build has no mapping for provider {received.provider!r}",
        f"Use one of {', '.join(sorted(MAPPINGS))} for the source, or update tieout; then replay this dead letter.",
        received.body,
        org=received.org,
        source=received.source,
    )


def _unreadable(value: bytes, place: Place, reason: str) -> DeadLetter:
    return _dead_letter(
        "unreadable",
        place,
        f"not a record of the inbox: {reason}",
        "Only ingest may write to inbox: find who else does (ACLs), or deploy the newer build first.",
        value,
    )
