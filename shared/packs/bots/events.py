"""What bots write, as tieout events: pure functions from a snapshot, a line or a count to one event.

The offline reader and the live tailer both stand on them. Numbers are read by their text, never through floats; text
that is no number goes on as it is, so that the check that reads it says so.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from shared.contracts.event import AHEAD_MAX, EPOCH, VALUE_LENGTH_MAX, PostedEvent, microseconds, milliseconds
from shared.ids import canonical
from shared.packs.bots.names import BOT, EXTERNAL, FILLS, FILLS_READ, INPUT, ORDER_FILLED, SNAPSHOT, SNAPSHOT_FIELDS

TIME_FIELDS: Final = ("ts", "timestamp", "ts_utc", "occurred_at", "as_of", "time")
BOT_FIELDS: Final = ("bot", "instance_name", "bot_id", "account")
TYPE_FIELDS: Final = ("type", "event_type", "event")
BODY_FIELDS: Final = ("payload", "data")
"""An event's own words may stand in one of these."""
SNAPSHOT_TYPES: Final = frozenset({"snapshot", "bot_snapshot", SNAPSHOT})
NOT_ASKED: Final = frozenset({"disabled", "paper_only"})
"""`account_probe_status` of bots that have no account to compare with."""
EXCHANGE_AGE_MAX: Final = timedelta(minutes=15)
"""A figure of the exchange that is older than a snapshot by more than this says nothing about it."""
BOT_NAME_LENGTH_MAX: Final = 128
EXPONENT_MAX: Final = 38
"""Numbers with more digits than this before or behind the point are none that a bot means."""
DEPTH_TEXT_MAX: Final = 80

_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_DIGITS = re.compile(r"[0-9]{9,20}(?:\.[0-9]+)?", re.ASCII)


class Unreadable(ValueError):
    """A file or line that says nothing that can be used; the message says why."""


class Exchange(NamedTuple):
    """What the exchange says of one bot's account."""

    status: str
    """`account_probe_status`: ok, disabled, paper_only, or what went wrong."""
    base_pct: str | None = None
    at: datetime | None = None

    def speaks_of(self, snapshot_at: datetime) -> bool:
        """Tell whether there is a figure to hold against a snapshot of that time."""
        is_old = self.at is not None and snapshot_at - self.at > EXCHANGE_AGE_MAX
        return self.status == "ok" and self.base_pct is not None and not is_old

    def has_failed(self, snapshot_at: datetime | None) -> bool:
        """Tell whether it should have said something about the bot's last snapshot and did not."""
        if self.status in NOT_ASKED:
            return False
        return (
            self.status != "ok"
            or self.base_pct is None
            or (snapshot_at is not None and not self.speaks_of(snapshot_at))
        )


class InputRead(NamedTuple):
    """How well one bot's files could be read: what `snapshot.input` says."""

    snapshots: int = 1
    snapshots_unreadable: int = 0
    fills_files: int = 1
    events_files: int = 1
    exchange_snapshots: int = 1
    """0: the exchange's snapshot does not name this bot."""
    exchange_probes_failed: int = 0
    """1: it does, and the account could not be asked, or not since long before the bot's snapshot."""
    lines_unreadable: int = 0
    lines_incomplete: int = 0
    files_lost: int = 0


def read_json(raw: bytes, what: str) -> Any:
    """Return the document in `raw`, every number as its text; NaN and Infinity, which Python writes, as text too.

    Raises:
        Unreadable: it is empty, half-written or no JSON.
    """
    if not raw.strip():
        msg = f"{what} is empty"
        raise Unreadable(msg)
    try:
        return json.loads(raw.decode(), parse_float=str, parse_int=str, parse_constant=str)
    except UnicodeDecodeError:
        msg = f"{what} is not UTF-8 text"
        raise Unreadable(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{what} is not valid JSON: {error}"
        raise Unreadable(msg) from None


def snapshot_event(
    bot: str,
    said: Any,
    *,
    read_at: datetime,
    written_at: datetime | None = None,
    sequence: int | None = None,
    exchange: Exchange | None = None,
) -> PostedEvent:
    """Return a bot's snapshot as an event, with what the exchange says beside it.

    Args:
        bot: whose it is.
        said: the snapshot, as `read_json` gives it.
        read_at: now.
        written_at: when its file was written; the snapshot's time where it has none of its own.
        sequence: order among snapshots of one time; that of reading where left out, for what was read later is newer.
        exchange: what the exchange says; its figure counts where its status is ok.

    Raises:
        Unreadable: it is no object, or its time is no time or ahead of `read_at`.
    """
    if not isinstance(said, Mapping):
        msg = "the snapshot is no JSON object"
        raise Unreadable(msg)
    at = _time(said) or written_at or read_at
    if at - read_at > AHEAD_MAX:
        msg = (
            f"the snapshot is dated {at.isoformat()}, more than {AHEAD_MAX.seconds // 60} minutes ahead of now "
            f"({read_at.isoformat()}); check the bot's clock"
        )
        raise Unreadable(msg)
    attrs = {field: text for field in SNAPSHOT_FIELDS if (text := number_text(said.get(field))) is not None}
    if exchange is not None and exchange.base_pct is not None and exchange.speaks_of(at):
        attrs[EXTERNAL] = exchange.base_pct
    sequence = milliseconds(read_at) if sequence is None else sequence
    id_ = _digest(bot, at.isoformat(), str(sequence), *(part for pair in sorted(attrs.items()) for part in pair))
    return PostedEvent(
        source=BOT, type=SNAPSHOT, id=f"snapshot-{id_}", account=bot, occurred_at=at, sequence=sequence, attrs=attrs
    )


def line_event(
    raw: bytes, *, bot: str | None, file: str, offset: int, read_at: datetime, exchanges: Mapping[str, Exchange]
) -> PostedEvent | None:
    """Return what one line of an event store says: a fill, a snapshot, or None for everything else.

    Its id is its place: the same line read again is the same event, and a fill that stands there twice counts twice.

    Args:
        raw: the line.
        bot: whose file it is; None where lines name their bot.
        file: `Position.name` of the file.
        offset: of the line in its file.
        read_at: now: no fill happened after it was read.
        exchanges: by bot.

    Raises:
        Unreadable: the line is no JSON object, or names no bot.
    """
    said = _object(raw)
    body = _body(said)
    kind = _word(said, body, TYPE_FIELDS)
    is_snapshot = kind in SNAPSHOT_TYPES
    if kind != ORDER_FILLED and not is_snapshot:
        if not kind:
            msg = f"the line says no event type ({', '.join(TYPE_FIELDS)})"
            raise Unreadable(msg)
        return None
    whose = _word(said, body, BOT_FIELDS) or bot
    if not whose or len(whose) > BOT_NAME_LENGTH_MAX:
        msg = f"the {kind} event names no bot ({', '.join(BOT_FIELDS)})"
        raise Unreadable(msg)
    if is_snapshot:
        exact = read_json(raw, "the line")
        return snapshot_event(
            whose, exact | _body(exact), read_at=read_at, sequence=offset, exchange=exchanges.get(whose)
        )
    at = _time(said) or _time(body) or read_at
    return PostedEvent(
        source=BOT, type=ORDER_FILLED, id=f"{file}-{offset}", account=whose, occurred_at=min(at, read_at)
    )


def fills_event(bot: str, rows: int, *, read_at: datetime) -> PostedEvent:
    """Return how many rows a bot's fills.csv had when it was read."""
    return PostedEvent(
        source=FILLS,
        type=FILLS_READ,
        id=f"fills-{_digest(bot, str(rows), str(microseconds(read_at)))}",
        account=bot,
        amount=str(rows),
        occurred_at=read_at,
    )


def input_event(bot: str, read: InputRead, *, read_at: datetime) -> PostedEvent:
    """Return how well a bot's files could be read."""
    attrs = {name: str(value) for name, value in read._asdict().items()}
    id_ = _digest(bot, str(microseconds(read_at)), *attrs.values())
    return PostedEvent(source=BOT, type=INPUT, id=f"input-{id_}", account=bot, occurred_at=read_at, attrs=attrs)


def read_exchange(raw: bytes) -> dict[str, Exchange]:
    """Return what an exchange snapshot says of each bot.

    Its form: `{"ts": …, "bots": {"bot1": {"account_probe_status": "ok", "base_pct": 0.5}}}`.

    Raises:
        Unreadable: it is empty, half-written, or of another form.
    """
    document = read_json(raw, "the exchange snapshot")
    bots = document.get("bots") if isinstance(document, dict) else None
    if not isinstance(bots, dict):
        msg = 'the exchange snapshot has no object "bots"'
        raise Unreadable(msg)
    at = _time(document)
    found = {}
    for bot, said in bots.items():
        if not isinstance(said, dict):
            msg = f"the exchange snapshot says nothing usable of {bot}"
            raise Unreadable(msg)
        base_pct = number_text(said.get("base_pct"))
        status = said.get("account_probe_status") or ("ok" if base_pct is not None else "unknown")
        found[bot] = Exchange(str(status), base_pct, _time(said) or at)
    return found


def number_text(value: Any) -> str | None:
    """Return a number as plain decimal text; what is none as its own text; None where there is nothing."""
    if value is None or value == "":
        return None
    text = value.strip() if isinstance(value, str) else json.dumps(value)[:DEPTH_TEXT_MAX]
    if _PLAIN.fullmatch(text):
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text[:VALUE_LENGTH_MAX] or None
    if not number.is_finite() or abs(number.adjusted()) > EXPONENT_MAX:
        return text[:VALUE_LENGTH_MAX]
    return format(number, "f")


def time_of(value: Any) -> datetime | None:
    """Return a time given as RFC 3339 (without a zone: UTC) or as seconds, milli-, micro- or nanoseconds since 1970.

    Raises:
        Unreadable: it is neither.
    """
    if value is None or value == "":
        return None
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    try:
        if _DIGITS.fullmatch(text):
            return _since_1970(Decimal(text))
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        msg = f"{value!r} is no time; write RFC 3339 or a number since 1970"
        raise Unreadable(msg[:DEPTH_TEXT_MAX]) from None


def _since_1970(number: Decimal) -> datetime:
    """Tell the unit by the number of digits: 9 to 11 are seconds, three more each milli-, micro- and nanoseconds."""
    per_second = 10 ** (3 * max(0, (len(str(int(number))) - 9) // 3))
    whole = int(number * 1_000_000 / per_second)
    return EPOCH + timedelta(microseconds=whole)


def _time(said: Mapping[str, Any]) -> datetime | None:
    return next((time_of(said[name]) for name in TIME_FIELDS if said.get(name) not in (None, "")), None)


def _word(said: Mapping[str, Any], body: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """Return the first of some fields that says something, of the event or of its body."""
    for name in names:
        for one in (said, body):
            value = one.get(name)
            if isinstance(value, str) and value.strip():
                return value.strip()
    return ""


def _body(said: Mapping[str, Any]) -> dict[str, Any]:
    return next((said[name] for name in BODY_FIELDS if isinstance(said.get(name), dict)), {})


def _object(raw: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = read_json(raw, "the line")  # NaN, which Python writes, or the reason why it is no JSON
    if not isinstance(said, dict):
        msg = "the line is no JSON object"
        raise Unreadable(msg)
    return said


def _digest(*parts: str) -> str:
    return blake2b(canonical(list(parts)), digest_size=10).hexdigest()
