"""Why a record is open, in words: what was seen of it, what the engine said, what people did, what would close it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from services.alerts.domain.triage import REASONS, LogRow
from services.alerts.ports.triage import Filter, History, ItemFilter, Revision, TriageStore
from shared.contracts.discrepancy import Discrepancy, Key, RecordEvidence, SideEvidence
from shared.contracts.item import Item, Total, totals_of

STORIES_MAX = 5
"""Discrepancies told of one record: more would fill an agent's context."""
RECORDS_TOLD_MAX = 5
"""Records named per side; a sum may have thousands."""
TEXT_LENGTH_MAX = 1_024
"""No id and no key is longer."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was asked about, told in sentences."""

    discrepancy: str | None
    """Its id; None: an item without a discrepancy."""
    open: bool
    subject: str
    seen: Sequence[str]
    """What was seen of each side."""
    history: Sequence[str]
    """What the engine said and what people did, the oldest first."""
    now: str
    closes: Sequence[str]
    """What would close it; empty where it is closed."""

    @property
    def text(self) -> str:
        """All of it, to be read."""
        parts = [self.subject, *self.seen, *self.history, self.now]
        if self.closes:
            parts += ["What would close it:", *(f"- {line}" for line in self.closes)]
        return "\n".join(parts)


class Stories:
    """Finds what somebody asks about by whichever name they know, and tells it."""

    def __init__(self, store: TriageStore) -> None:
        self._store = store

    async def tell(self, org: str, name: str) -> Sequence[Story]:
        """Tell what is known by `name`: a discrepancy's id, a match key, or a record's own id; none where nothing is."""
        name = name.strip()[:TEXT_LENGTH_MAX]
        history = await self._store.history(org, name) if _is_uuid(name) else None
        if history is not None:
            return [story_of(history)]
        found = await self._store.list(org, Filter(key=name, shadow=None), None, STORIES_MAX)
        items = await self._store.items(org, ItemFilter(key=name, shadow=None), None, STORIES_MAX)
        if not found and not items:
            found = await self._store.naming(org, name, STORIES_MAX)
        ids = [one.found.id for one in found] + [one.id for item in items for one in item.discrepancies]
        stories = [await self._of(org, id_) for id_ in list(dict.fromkeys(ids))[:STORIES_MAX]]
        stories += [story_of_item(item) for item in items if not item.discrepancies]
        return [story for story in stories if story is not None]

    async def _of(self, org: str, id_: str) -> Story | None:
        history = await self._store.history(org, id_)
        return None if history is None else story_of(history)


def story_of(history: History) -> Story:
    """Tell a discrepancy from its history."""
    found, standing = history.stored.found, history.stored.standing
    is_open = found.state == "raised" and standing.status != "resolved"
    told: list[tuple[datetime, str]] = []
    seen: Revision | None = None
    for revision in history.revisions:
        told.append((revision.log_time, _said(revision, seen)))
        seen = revision
    told += [(row.at, _did(row)) for row in history.log]
    told += [
        (
            one.created_at,
            f"{one.posted_by} posted an adjustment entry of {one.amount} {one.currency} on {one.source}: {one.reason}",
        )
        for one in history.adjustments
    ]
    closes = [*would_close(found), _PEOPLE] if is_open else []
    return Story(
        discrepancy=found.id,
        open=is_open,
        subject=f"{found.type} of rule {found.rule}, pack {found.pack}, key {_key(found.key)}, severity {found.severity}.",
        seen=[_side(name, side) for name, side in found.sides.items()],
        # Sorted by time alone: what happened at the same time stays in the order it is told in.
        history=[f"{_time(at)}: {text}." for at, text in sorted(told, key=lambda one: one[0])],
        now=_now(history, is_open=is_open),
        closes=closes,
    )


def story_of_item(item: Item) -> Story:
    """Tell of an item on which no discrepancy is raised."""
    absent = [name for name, side in item.sides.items() if side is None]
    now = {
        "matched": "It is not open: its records match.",
        "pending": f"It waits for {' and '.join(absent) or 'what is missing'}; no deadline has passed, so nothing was raised.",
        "discrepant": "A discrepancy of it was raised and is over.",
    }[item.status]
    return Story(
        discrepancy=None,
        open=item.status == "pending" and item.live,
        subject=f"Item of rule {item.rule}, pack {item.pack}, key {_key(item.key)}.",
        seen=[
            f"{name}: no record."
            if side is None
            else f"{name}: {_totals(totals_of(side))}{_listed(side.records, len(side.records))}."
            for name, side in item.sides.items()
        ],
        history=[f"{_time(item.at)}: it became {item.status} (revision {item.revision})."],
        now=now,
        closes=[f"a record of {name} with key {_key(item.key)} arrives" for name in absent]
        if item.status == "pending"
        else [],
    )


def would_close(found: Discrepancy) -> list[str]:  # noqa: C901, PLR0911 - one per type
    """Return what the engine closes it for, by the type of what it found."""
    money = f" {found.currency}" if found.currency else ""
    key = _key(found.key)
    match found.type:
        case "MissingInternalRecord" | "MissingProviderRecord" | "MissingRecord":
            have = found.expected or found.actual
            of = f" of {have}{money}" if have else ""
            return [
                f"a record of {_missing(found)} with key {key}{of} arrives",
                "the record that stands alone is voided or corrected by a newer event",
            ]
        case "AmountMismatch":
            entry = _entry(found)
            return [
                "a newer event corrects the amount of one of the records",
                *([f"an adjustment entry is posted: {entry}"] if entry else []),
            ]
        case "CurrencyMismatch" | "StatusMismatch":
            what = "currency" if found.type == "CurrencyMismatch" else "status"
            return [f"a newer event gives both records the same {what} ({found.expected} was expected)"]
        case "DuplicateChargeSuspected":
            extra = found.duplicate or "the second record"
            return [f"{extra} is refunded, voided or corrected by a newer event"]
        case "LedgerImbalance":
            return [f"entries that make up for {found.difference}{money} are booked in transaction {key}"]
        case "BalanceMismatch":
            return [
                f"movements of {found.difference}{money} are posted to {found.account or key}",
                "the next reading agrees with the movements",
            ]
        case "AmbiguousMatch":
            return ["one of the candidates is voided, or events give both records the same reference"]
        case "RecordMoved":
            return ["newer events leave the record under one key"]
        case "FeedSilent":
            return ["the feed sends again"]
        case "plug_grew" | "plug_past_threshold":
            return [f"the next reconciliation of {key} has a smaller plug: find the spend that escapes and track it"]
        case _:
            return [f"the next reading of {found.account or key} is as rule {found.rule} wants it"]


_PEOPLE = f"a person resolves it with a reason ({', '.join(REASONS)}); it reopens by itself when its figures change"


def _entry(found: Discrepancy) -> str | None:
    if found.difference is None or found.expected is None or len(found.sides) < 2:
        return None
    first = next(iter(found.sides))
    other = found.side or list(found.sides)[-1]
    opposite = found.difference[1:] if found.difference.startswith("-") else f"-{found.difference}"
    return f"{opposite} {found.currency} on {other}, or {found.difference} {found.currency} on {first}"


def _missing(found: Discrepancy) -> str:
    absent = [name for name, side in found.sides.items() if side is None]
    return " and ".join(absent) or found.side or "the other side"


def _side(name: str, side: SideEvidence | None) -> str:
    if side is None:
        return f"{name}: no record."
    if side.record is not None and side.source is not None:
        return (
            f"{name}: {_record(side.source, side.record, side.amount, side.currency, side.status, side.occurred_at)}."
        )
    sum_ = f"{side.amount} {side.currency or ''}".strip() if side.amount is not None else "no sum"
    records = side.records or []
    return f"{name}: {side.count or len(records)} records, {sum_}{_listed(records, side.count or len(records))}."


def _listed(records: Sequence[RecordEvidence], count: int) -> str:
    if not records:
        return ""
    shown = records[:RECORDS_TOLD_MAX]
    more = count - len(shown)
    told = "; ".join(
        _record(one.source, one.record, one.amount, one.currency, one.status, one.occurred_at) for one in shown
    )
    return f" ({told}{f'; and {more} more' if more > 0 else ''})"


def _record(
    source: str, record: str, amount: str | None, currency: str | None, status: str | None, at: datetime | None
) -> str:
    money = None if amount is None else f"{amount} {currency or ''}".strip()
    when = None if at is None else f"of {_time(at)}"
    return ", ".join(part for part in (f"{source} has {record}", money, status, when) if part)


def _totals(totals: Mapping[str, Total]) -> str:
    told = [f"{total.count} of {total.amount} {currency}" for currency, total in totals.items()]
    return " and ".join(told) or "no live record"


def _said(revision: Revision, before: Revision | None) -> str:
    text = revision.explanation.removesuffix(".")
    if revision.state == "resolved":
        return f"the engine resolved it ({revision.resolution or 'no longer true'}): {text}"
    if before is None:
        return f"the engine raised it: {text}"
    if before.state == "resolved":
        return f"the engine raised it again (revision {revision.revision}): {text}"
    return f"the engine revised it (revision {revision.revision}): {text}"


def _did(row: LogRow) -> str:  # noqa: PLR0911 - one per action
    who = "the engine" if row.actor == "engine" else row.actor
    notes = f': "{row.notes}"' if row.notes else ""
    match row.action:
        case "acknowledge":
            return f"{who} acknowledged it{notes}"
        case "assign":
            return f"{who} assigned it to {row.assignee}{notes}"
        case "note":
            return f"{who} noted{notes}"
        case "resolve":
            return f"{who} resolved it as {row.reason}{notes}"
        case "adjust":
            return f"{who} adjusted it, {row.reason}{notes}"
        case "engine_resolve":
            return f"its status became resolved by itself ({row.reason})"
        case "reopen":
            return "it reopened by itself: what somebody resolved is no longer what is true"
        case _:
            return f"{who} did {row.action.replace('_', ' ')}{notes}"


def _now(history: History, *, is_open: bool) -> str:
    found, standing = history.stored.found, history.stored.standing
    whose = f", assigned to {standing.assignee}" if standing.assignee else ""
    if is_open:
        more = [f" {one.sentence}" for one in (history.stored.near_miss, history.stored.cluster) if one is not None]
        watched = " The engine no longer watches it." if found.expired else ""
        return f"It is open: still true, and its status is {standing.status}{whose}.{''.join(more)}{watched}"
    if found.state == "resolved":
        return f"It is closed: no longer true ({found.resolution}), status {standing.status}{whose}."
    return f"It is closed by a person though still true: resolved as {standing.reason}{whose}."


def _key(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None
