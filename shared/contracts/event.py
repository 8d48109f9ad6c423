"""The public event: what producers post and what the topic `events` carries (DESIGN section 2)."""

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.ids import EventId, event_id
from shared.money import AmountError, is_currency, is_plain_amount, parse_amount

TEXT_LENGTH_MAX = 255
"""Characters of ids, records, accounts and statuses: what the longest known provider id needs, several times over."""
NAME_LENGTH_MAX = 64
CURRENCY_LENGTH_MAX = 8
AMOUNT_LENGTH_MAX = 58
"""A minus, 38 digits, a point, 18 more."""
VALUE_LENGTH_MAX = 1024
"""Characters of one value in refs or attrs."""
ENTRIES_MAX = 64
"""Entries of refs and of attrs."""
AHEAD_MAX = timedelta(minutes=10)
"""How far `occurred_at` may be ahead of the receipt: clocks differ by seconds; more is a wrong date that would
outlive every correction (the newest event of a record wins)."""
SEQUENCE_MAX = 2**63 - 1

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._\-]*$"
_TYPE = r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$"
_AMOUNT = r"^-?[0-9]{1,38}(\.[0-9]{1,18})?$"
_CURRENCY = r"^[A-Z0-9]+$"

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX, pattern=_NAME)]
"""Organisation and source names: they stand in URLs, topic names and keys."""
# The forms of an event's own fields are told by the schema and held by `_check_forms`: by msgspec they would be tried anew
# at every event, which took four times as long as reading the rest.
EventName = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX, extra_json_schema={"pattern": _NAME})]
TypeName = Annotated[str, Meta(min_length=3, max_length=NAME_LENGTH_MAX, extra_json_schema={"pattern": _TYPE})]
"""Lower case words joined by dots: what kind of movement, then what happened to it; one word where that says it all."""
Amount = Annotated[str, Meta(max_length=AMOUNT_LENGTH_MAX, extra_json_schema={"pattern": _AMOUNT})]
CurrencyCode = Annotated[
    str, Meta(min_length=3, max_length=CURRENCY_LENGTH_MAX, extra_json_schema={"pattern": _CURRENCY})
]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_LENGTH_MAX)]
OptionalText = Annotated[str, Meta(max_length=TEXT_LENGTH_MAX)]
Entries = Annotated[dict[str, Annotated[str, Meta(max_length=VALUE_LENGTH_MAX)]], Meta(max_length=ENTRIES_MAX)]
Time = Annotated[datetime, Meta(tz=True)]

SIGNED_TYPES = ("entry.", "movement.", "adjustment.", "balance.", "snapshot.")
"""Types whose amount may be negative; everywhere else the type says the direction."""


class PostedEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """An event as a producer writes it. Times are RFC 3339 with zone, amounts exact decimal strings in the major unit."""

    source: EventName
    type: TypeName
    id: Text
    """The source's id of this notification; the same id again is the same event."""
    occurred_at: Time
    org: EventName | None = None
    """Comes from the API key on HTTP; a body that names another org is refused."""
    record: Text | None = None
    """The object it speaks about; a newer event of the same record replaces its leg, whole. Default: `id`."""
    sequence: Annotated[int, Meta(ge=0, le=SEQUENCE_MAX)] | None = None
    """Order among events of equal `occurred_at`."""
    supersedes: Text | None = None
    """A record of the same source and key that this one replaces."""
    amount: Amount | None = None
    currency: CurrencyCode | None = None
    status: OptionalText | None = None
    account: OptionalText | None = None
    refs: Entries = {}
    """Names that other systems know it by."""
    attrs: Entries = {}
    """Anything else a rule needs: strings or exact decimal strings."""
    received_at: Time | None = None
    """Only files given to `replay` carry it; over HTTP it is refused."""


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A canonical event: defaults filled in, org and receipt known. Topic `events`, JSON."""

    org: str
    source: str
    type: str
    id: str
    record: str
    occurred_at: datetime
    received_at: datetime
    """Broker time of the event's `inbox` record, whole milliseconds."""
    sequence: int = 0
    supersedes: str | None = None
    amount: str | None = None
    currency: str | None = None
    status: str | None = None
    account: str | None = None
    refs: dict[str, str] = {}
    attrs: dict[str, str] = {}

    @property
    def uuid(self) -> EventId:
        """The event's name on topics: unique across orgs and sources."""
        return event_id(self.org, self.source, self.id)


class EventRefused(ValueError):
    """The event breaks the contract; `field` names where, the message says what to write instead."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


_json_decoder = msgspec.json.Decoder(PostedEvent)
_FIELD = re.compile(r" - at `\$\.?([^`]*)`")


def decode_posted(raw: bytes | str) -> PostedEvent:
    """Read one posted event.

    Raises:
        EventRefused: not JSON, or a field is missing, unknown or of the wrong form.
    """
    try:
        posted = _json_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRefused(f"not valid JSON: {error}") from None
    _check_forms(posted)
    return posted


def convert_posted(value: Any) -> PostedEvent:
    """Read one posted event from parsed JSON (strict: no string is taken for a number or the reverse)."""
    try:
        posted = msgspec.convert(value, PostedEvent)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    _check_forms(posted)
    return posted


def checked(posted: PostedEvent) -> PostedEvent:
    """Return an event that a mapping built, once it is known to keep what `convert_posted` holds a posted one to.

    Types are the mapping's own and are not looked at.

    Raises:
        EventRefused: the same as for a posted event that says this.
    """
    if not _within_limits(posted):
        return convert_posted(msgspec.structs.asdict(posted))
    _check_forms(posted)
    return posted


def _within_limits(posted: PostedEvent) -> bool:
    """Tell whether every text is as long as it may be; a rare event that is not goes the slow way, which says where."""
    record, supersedes, sequence = posted.record, posted.supersedes, posted.sequence
    refs, attrs = posted.refs, posted.attrs
    if not (
        0 < len(posted.id) <= TEXT_LENGTH_MAX
        and (record is None or 0 < len(record) <= TEXT_LENGTH_MAX)
        and (supersedes is None or 0 < len(supersedes) <= TEXT_LENGTH_MAX)
        and (sequence is None or 0 <= sequence <= SEQUENCE_MAX)
        and len(posted.status or "") <= TEXT_LENGTH_MAX
        and len(posted.account or "") <= TEXT_LENGTH_MAX
        and len(posted.amount or "") <= AMOUNT_LENGTH_MAX
        and len(refs) <= ENTRIES_MAX
        and len(attrs) <= ENTRIES_MAX
        and (_names(posted) in _remembered or _names_within_limits(posted))
    ):
        return False
    for entries in (refs, attrs):
        for value in entries.values():
            if len(value) > VALUE_LENGTH_MAX:
                return False
    return True


def _names_within_limits(posted: PostedEvent) -> bool:
    org, currency = posted.org, posted.currency
    return (
        0 < len(posted.source) <= NAME_LENGTH_MAX
        and 3 <= len(posted.type) <= NAME_LENGTH_MAX
        and (org is None or 0 < len(org) <= NAME_LENGTH_MAX)
        and (currency is None or 3 <= len(currency) <= CURRENCY_LENGTH_MAX)
    )


_FORMS = {
    "org": (re.compile(_NAME), "is no name; use letters, digits, . _ -, at most 64"),
    "source": (re.compile(_NAME), "is no name; use letters, digits, . _ -, at most 64"),
    "type": (re.compile(_TYPE), 'is no type; write lower case words joined by dots, e.g. "payment.recorded"'),
    "currency": (re.compile(_CURRENCY), 'is no currency code; write it in capitals, e.g. "EUR"'),
}
"""What a field's form is, and in words: the pattern itself says it to nobody."""
_AMOUNT_FORM = re.compile(_AMOUNT)
FORMS_REMEMBERED_MAX = 10_000
"""Combinations of names that were looked at; a bound, since producers choose them."""
_Names = tuple[str, str, str | None, str | None]
_remembered: set[_Names] = set()
"""Of events whose limits had been held before."""


def _names(posted: PostedEvent) -> _Names:
    return (posted.source, posted.type, posted.currency, posted.org)


def _check_forms(posted: PostedEvent) -> None:
    """Hold the forms of names and of the amount; names come again and again, so each combination is tried once."""
    names = _names(posted)
    if names not in _remembered:
        for field, (form, words) in _FORMS.items():
            text = getattr(posted, field)
            if text is not None and not form.fullmatch(text):
                raise EventRefused(f"{field}: {words}", field)
        if len(_remembered) >= FORMS_REMEMBERED_MAX:
            _remembered.clear()
        _remembered.add(names)
    if not is_plain_year(posted.occurred_at) or posted.received_at is not None:
        _check_times(posted)
    amount = posted.amount
    if amount is not None and not is_plain_amount(amount) and not _AMOUNT_FORM.fullmatch(amount):
        raise EventRefused('amount: is no decimal string; write the amount in the major unit, e.g. "120.50"', "amount")


def is_plain_year(time: datetime) -> bool:
    """Tell whether UTC surely can tell a time, whatever its zone."""
    return MINYEAR < time.year < MAXYEAR


def _check_times(posted: PostedEvent) -> None:
    """Refuse what has no time in UTC: with its zone it lies before the year 1 or after 9999."""
    for field, time in (("occurred_at", posted.occurred_at), ("received_at", posted.received_at)):
        try:
            if time is not None:
                time.astimezone(UTC)
        except OverflowError:
            raise EventRefused(f"{field}: {time} lies outside the years 1 to 9999 in UTC", field) from None


def _refusal(message: str) -> EventRefused:
    found = _FIELD.search(message)
    field = found.group(1) if found else None
    text = _FIELD.sub("", message)
    if field == "amount":
        text = f'{text}; write the amount as a decimal string in the major unit, e.g. "120.50"'
    elif field in {"occurred_at", "received_at"}:
        text = f'{text}; write RFC 3339 with a zone, e.g. "2026-11-20T10:00:00Z"'
    elif "unknown field" in text:
        text = f"{text}; put what rules need into `attrs` and other systems' names into `refs`"
    return EventRefused(f"{field}: {text}" if field else text, field)


def accept(posted: PostedEvent, *, org: str, received_at: datetime) -> Event:
    """Return the canonical event of what was posted.

    Args:
        posted: the event as written.
        org: the organisation of the API key, topic or file.
        received_at: the receipt, which a producer never sets over HTTP.

    Raises:
        EventRefused: another org, a date ahead of its receipt, an unknown currency, or a negative amount where the
            type says the direction.
    """
    if posted.org is not None and posted.org != org:
        raise EventRefused(f"org: the event names {posted.org!r}, but this key belongs to {org!r}", "org")
    occurred_at = posted.occurred_at.astimezone(UTC)
    if occurred_at - received_at > AHEAD_MAX:
        raise EventRefused(
            f"occurred_at: {posted.occurred_at.isoformat()} is more than {AHEAD_MAX.seconds // 60} minutes ahead of its "
            f"receipt at {received_at.isoformat()}; check the producer's clock",
            "occurred_at",
        )
    _check_money(posted)
    return Event(
        org=org,
        source=posted.source,
        type=posted.type,
        id=posted.id,
        record=posted.record or posted.id,
        occurred_at=occurred_at,
        received_at=received_at,
        sequence=posted.sequence or 0,
        supersedes=posted.supersedes,
        amount=posted.amount,
        currency=posted.currency,
        status=posted.status,
        account=posted.account,
        refs=posted.refs,
        attrs=posted.attrs,
    )


def _check_money(posted: PostedEvent) -> None:
    if posted.currency is not None and not is_currency(posted.currency):
        raise EventRefused(
            f"currency: {posted.currency!r} is no ISO 4217 code and no token that tieout knows", "currency"
        )
    if posted.amount is None or is_plain_amount(posted.amount):
        return
    try:
        amount = parse_amount(posted.amount)
    except AmountError as error:
        raise EventRefused(f"amount: {error}", "amount") from None
    if amount < 0 and not posted.type.startswith(SIGNED_TYPES):
        raise EventRefused(
            f"amount: {posted.amount} is negative, but the type {posted.type!r} says the direction; "
            f"only {', '.join(t + '*' for t in SIGNED_TYPES)} may be negative",
            "amount",
        )


def microseconds(time: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC."""
    return (time - EPOCH) // _MICROSECOND


def milliseconds(time: datetime) -> int:
    """Return whole milliseconds since 1970-01-01 UTC: the unit of log time."""
    return (time - EPOCH) // _MICROSECOND // 1000


def from_microseconds(value: int) -> datetime:
    """Return the time of `value` microseconds since 1970-01-01 UTC."""
    return EPOCH + timedelta(0, 0, value)


def from_milliseconds(value: int) -> datetime:
    """Return the time of `value` milliseconds since 1970-01-01 UTC."""
    return EPOCH + timedelta(0, 0, 1000 * value)
