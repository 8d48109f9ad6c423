"""A block of a file, read at once into columns: enough of each event to tell which pairs agree, without keeping events.

Lines are read by the event contract itself, many in one call. Where a block holds anything else than one event on every
line, its lines are read one by one. Where it is built (`native/`), C reads the lines that are plain in every respect, to
the same rows; property tests hold the two together.
"""

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import compress
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.contracts.event import (
    AHEAD_MAX,
    EPOCH,
    EventRefused,
    PostedEvent,
    accept,
    decode_posted,
    is_plain_year,
    milliseconds,
)
from shared.contracts.leg import GroupName, read_group_key
from shared.money import is_currency, is_plain_amount
from shared.rules.duration import Duration
from shared.rules.extract import ADJUSTMENT, Extractor
from shared.rules.extract.common import filled
from shared.rules.extract.match import SideTaker
from shared.rules.feed_rule import FeedRuleModel
from shared.rules.match_rule import MatchRule, MatchRuleModel
from shared.rules.model import Rule
from tieout.offline.lines import LINE_MAX_BYTES, raw_lines, told_time

_LAYOUT: Final = 1
"""Of `LINES` and `LEGS`, as the compiled build must know them."""

try:
    from tieout_native import columns as _native
except ImportError:
    _native = None

BUILT: Final = _native is not None and _native.LAYOUT == _LAYOUT

DAY_MS = 86_400_000
FIRST = np.iinfo(np.int64).min
"""The time of lines before a file's first event, and no time at all."""

LINES = np.dtype([("at", "i8"), ("offset", "i8"), ("number", "i8"), ("is_event", "?")])
"""A line: receipt in microseconds (of one that is no event: of the event before it), place in the file, number."""

SPOILS = 255
LEGS = np.dtype(
    [
        ("group", "u8"),
        ("says", "u8"),
        ("record", "u8"),
        ("status", "i8"),
        ("line", "i8"),
        ("at", "i8"),
        ("until_ms", "i8"),
        ("side", "u1"),
    ]
)
"""A leg: hashes of its group, of its key and money together, of its record, and of its status (0: not compared);
its place among the lines, receipt in microseconds, until when the other side is in time, and its side.
`SPOILS` as side: something else speaks to the group, so nothing of it is plain."""


class Block(NamedTuple):
    """A stretch of a file that begins and ends with whole lines."""

    path: Path
    begin: int
    end: int


class Columns(NamedTuple):
    """What a block holds."""

    lines_in_all: int
    """Empty ones as well."""
    lines: NDArray[Any]
    """Those that are not empty, as `LINES`; numbers count from 0."""
    legs: NDArray[Any]
    """As `LEGS`; lines count from 0 in `lines`."""
    keyless: NDArray[np.uint64]
    """Hashes of records without a key."""
    told: NDArray[np.int64]
    """Time that each line tells, event or not, `FIRST` where it tells none: they decide whether the file is in order."""


class _Plain(NamedTuple):
    """A side of a rule whose pairs can be told by their columns."""

    rule: int
    side: int
    rule_name: str
    fields: tuple[str, ...]
    """Of the key, and what reads them."""
    key: tuple[Callable[[PostedEvent], str | None], ...]
    wait_ms: int
    """How long a leg of this side surely waits for the other side."""
    compared: MatchRule


class _Kind(NamedTuple):
    """What events of the same names are to the rules."""

    plain: _Plain | None = None
    """The side they stand on, unless something else about them is not plain."""
    status: int = 0
    """Hash of their status, where one is compared."""
    is_close: bool = False
    """Each has to be looked at by itself."""


_Names = tuple[str | None, str, str, str | None, str | None]
_CURRENCY = 3
"""Place of the currency among them."""
_NONE = {None}
_supersedes_of: Callable[[PostedEvent], str | None] = attrgetter("supersedes")
_received_at_of: Callable[[PostedEvent], datetime | None] = attrgetter("received_at")
_amount_of: Callable[[PostedEvent], str | None] = attrgetter("amount")
_names_of: Callable[[PostedEvent], _Names] = attrgetter("org", "source", "type", "currency", "status")
_OTHERS = _Kind()
"""No plain rule selects them."""
_CLOSE = _Kind(is_close=True)
_decode_lines: Callable[[bytes], list[PostedEvent]] = msgspec.json.Decoder(PostedEvent).decode_lines
_NAMES_MAX = 10_000
"""Combinations of names that are remembered; a bound, since producers choose them."""


def may_be_plain(packs: Mapping[str, Sequence[Rule]]) -> bool:
    """Tell whether any pairs of these rules can be told by columns.

    A rule on feeds counts every event, so that none may be passed over; rules of one name share their groups.
    """
    extractor = Extractor("any", packs)
    models = [model for _, model in extractor.models.values()]
    if any(isinstance(model, FeedRuleModel) for model in models) or len({model.name for model in models}) < len(models):
        return False
    return bool(_plain_sides(extractor))


def _plain_sides(extractor: Extractor) -> dict[int, _Plain]:
    """Return the plain sides by the identity of their takers: matches of two sides of different sources, a record each."""
    found: dict[int, _Plain] = {}
    for place, (generation, (_, model)) in enumerate(extractor.models.items()):
        rule = extractor.rules[generation]
        if not isinstance(model, MatchRuleModel) or not isinstance(rule, MatchRule) or not rule.pairs:
            continue
        if len({side.source for side in rule.sides}) < len(rule.sides):
            continue
        fields = tuple(model.key)
        key = tuple(map(_getter, fields))
        for side, selector in enumerate(model.sides.values()):
            wait_ms = _at_least(rule.sides[1 - side].deadline)
            for taker in extractor.takers_of_source(selector.source):
                if isinstance(taker, SideTaker) and taker.generation == generation and taker.adds_as_it_is:
                    found[id(taker)] = _Plain(place, side, rule.name, fields, key, wait_ms, rule)
    return found


def _at_least(deadline: Duration) -> int:
    return deadline.milliseconds + deadline.business_days * DAY_MS


def _getter(field: str) -> Callable[[PostedEvent], str | None]:
    """Compile a field of the key to what reads it from an event as posted."""
    place, _, name = field.partition(".")
    if place == "refs":
        return lambda event: event.refs.get(name)
    if place == "attrs":
        return lambda event: event.attrs.get(name)
    if field == "record":
        return lambda event: event.record or event.id
    return attrgetter(field)


class ColumnReader:
    """Reads blocks for one set of rules. Hashes are Python's own: readers that work together share its seed.

    Args:
        packs: rules by pack.
        org: organisation of events that name none.
        compiled: let C read what is plain, where it is built.
    """

    def __init__(self, packs: Mapping[str, Sequence[Rule]], org: str, *, compiled: bool = True) -> None:
        self._org = org
        self._packs = packs
        self._extractors = {org: Extractor(org, packs)}
        self._plain = _plain_sides(self._extractors[org])
        self._rule_places = {plain.rule_name: plain.rule for plain in self._plain.values()}
        self._known: dict[_Names, _Kind] = {}
        self._scanner = _Scanner(self._plain.values()) if compiled and BUILT else None

    def read(self, block: Block) -> Columns:
        """Read a block."""
        with block.path.open("rb") as file:
            file.seek(block.begin)
            if block.end - block.begin > BLOCK_BYTES_MAX:
                return self._columns(self._read_one_by_one(file, block.end))
            raw = file.read(block.end - block.begin)
        if self._scanner is None:
            return self._read_lines(raw, block.begin)
        scanned = self._scanner.scan(raw, block.begin)
        if not len(scanned.rest):
            return scanned.alone()
        rest = self._read_lines(scanned.text_of_rest(raw, block.begin), 0)
        self._scanner.know(self._known)
        return scanned.beside(rest)

    def _read_lines(self, raw: bytes, begin: int) -> Columns:
        with _no_garbage():
            read = self._read_at_once(raw, begin) or self._read_one_by_one(BytesIO(raw), len(raw), begin)
            return self._columns(read)

    def _read_at_once(self, raw: bytes, begin: int) -> "_Read | None":
        """Read lines that are an event each; None: some are not, or cannot be told apart without a closer look."""
        if raw and not raw.endswith(b"\n"):
            raw += b"\n"
        count = raw.count(b"\n")
        # A newline between braces stands between two lines and nowhere inside an event: in JSON text it is escaped.
        if not raw.startswith(b"{") or not raw.endswith(b"}\n") or raw.count(b"}\n{") != count - 1:
            return None
        try:
            events = _decode_lines(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == ord("\n"))
        if len(events) != count or np.diff(ends, prepend=-1).max() > LINE_MAX_BYTES:
            return None
        lines = np.empty(count, LINES)
        lines["number"] = np.arange(count)
        lines["offset"][0] = begin
        lines["offset"][1:] = ends[:-1] + (begin + 1)
        lines["is_event"] = True
        names = list(map(_names_of, events))
        amounts = list(map(_amount_of, events))
        # What is seen for the first time keeps its form if the contract says so of one line.
        new = set(names) - self._known.keys()
        closer = {names.index(one) for one in new}
        if not _are_plain_amounts(amounts):
            closer |= {place for place, one in enumerate(amounts) if one is not None and not is_plain_amount(one)}
        closer |= {place for place, event in enumerate(events) if not _are_plain_years(event)}
        for place in closer:
            if _event(raw[ends[place - 1] + 1 if place else 0 : ends[place]]) is None:
                return None
        return _Read(count, lines, events, names, amounts)

    def _read_one_by_one(self, source: BinaryIO, end: int, begin: int = 0) -> "_Read":
        """Read the lines up to a place of `source`, whose own first byte stands at `begin` of the file."""
        rows: list[tuple[int, int, int, bool]] = []
        told: list[timedelta | None] = []
        events: list[PostedEvent] = []
        count = 0
        for number, offset, raw in raw_lines(source, end):
            count = number
            if not raw.strip():
                continue
            event, time = _event(raw), told_time(raw)
            told.append(None if time is None else time - EPOCH)
            rows.append((0, begin + offset, number - 1, event is not None))
            if event is not None:
                events.append(event)
        names, amounts = list(map(_names_of, events)), list(map(_amount_of, events))
        return _Read(count, np.array(rows, LINES), events, names, amounts, _microseconds(told))

    def _columns(self, read: "_Read") -> Columns:
        is_event, events = read.lines["is_event"], read.events
        at = _microseconds([(event.received_at or event.occurred_at) - EPOCH for event in events])
        read.lines["at"][is_event] = at
        _tell_with_the_event_before(read.lines)
        legs, closer = self._legs(read)
        legs["at"] = at[legs["line"]]
        legs["until_ms"] += legs["at"] // 1000
        spoils, keyless = self._spoils([events[place] for place in closer])
        legs["line"] = np.flatnonzero(is_event)[legs["line"]]
        told = at if read.told is None else read.told
        return Columns(read.lines_in_all, read.lines, np.concatenate((legs, spoils)), keyless, told)

    def _legs(self, read: "_Read") -> "tuple[NDArray[Any], list[int]]":
        """Return the legs of plain events, by their places among the events, and the places that need a closer look."""
        numbers = {one: number for number, one in enumerate(set(read.names))}
        number_of = np.fromiter(map(numbers.__getitem__, read.names), np.int64, len(read.names))
        kinds = [self._kind(one) for one in numbers]
        close = np.array([kind.is_close for kind in kinds], bool)
        closer: list[int] = np.flatnonzero(close[number_of]).tolist() if close.any() else []
        found = [np.empty(0, LEGS)]
        for plain in {id(kind.plain): kind.plain for kind in kinds if kind.plain is not None}.values():
            statuses = np.array([kind.status for kind in kinds], np.int64)[number_of]
            chosen = np.flatnonzero(np.array([kind.plain is plain for kind in kinds], bool)[number_of])
            places, texts = self._plain_places(plain, read, chosen.tolist())
            found.append(_legs_of_side(plain, read, places, texts, statuses))
            closer += sorted(set(chosen.tolist()) - set(places)) if len(places) < len(chosen) else []
        return np.concatenate(found), closer

    def _plain_places(self, plain: _Plain, read: "_Read", chosen: list[int]) -> tuple[list[int], list[str]]:
        """Return which of the chosen events are plain, with their keys."""
        events = read.events if len(chosen) == len(read.events) else [read.events[place] for place in chosen]
        keys: list[Any] = [list(map(get, events)) for get in plain.key]
        if (
            all(map(all, keys))
            and not any(any(map(str.isspace, key)) for key in keys)
            and set(map(_supersedes_of, events)) <= _NONE
            and set(map(_received_at_of, events)) <= _NONE
            and _are_plain_amounts([read.amounts[place] for place in chosen])
        ):
            return chosen, _texts(keys)
        is_plain = [
            filled(list(key))
            and event.supersedes is None
            and event.amount is not None
            and is_plain_amount(event.amount)
            and (event.received_at is None or event.occurred_at - event.received_at <= AHEAD_MAX)
            for key, event in zip(zip(*keys, strict=True), events, strict=True)
        ]
        return list(compress(chosen, is_plain)), _texts([list(compress(part, is_plain)) for part in keys])

    def _kind(self, names: _Names) -> _Kind:
        kind = self._known.get(names)
        if kind is None:
            if len(self._known) >= _NAMES_MAX:
                self._known.clear()
            kind = self._known[names] = self._look_at(names)
        return kind

    def _look_at(self, names: _Names) -> _Kind:
        org, source, type_, currency, status = names
        is_strange = org not in (None, self._org) or type_.startswith(ADJUSTMENT)
        takers = self._extractors[self._org].takers_of(source, type_)
        if not is_strange and not any(taker.rule_name in self._rule_places for taker in takers):
            return _OTHERS
        plain = self._plain.get(id(takers[0])) if len(takers) == 1 else None
        if is_strange or plain is None or currency is None or not is_currency(currency):
            return _CLOSE
        rule, side = plain.compared, plain.compared.sides[plain.side]
        if not side.is_live(status):
            return _CLOSE
        if not rule.compares_status or not status:
            return _Kind(plain)
        return _Kind(plain, hash(side.status_map.get(status, status)) or 1)

    def _spoils(self, events: list[PostedEvent]) -> "tuple[NDArray[Any], NDArray[np.uint64]]":
        """Return which groups these events speak to, and the records among them without a key."""
        groups: list[int] = []
        keyless: list[str] = []
        for posted in events:
            for name, record in self._spoken_to(posted):
                if name.keyless:
                    keyless.append(record)
                elif name.rule in self._rule_places:
                    key = _texts([[part] for part in name.key])
                    groups.append(int(_mixed(key, self._rule_places[name.rule])[0]))
        legs = np.zeros(len(groups), LEGS)
        legs["group"] = np.array(groups, np.uint64)
        legs["side"] = SPOILS
        return legs, _hashes(keyless)

    def _spoken_to(self, posted: PostedEvent) -> list[tuple[GroupName, str]]:
        org = posted.org or self._org
        received_at = (posted.received_at or posted.occurred_at).astimezone(UTC)
        try:
            event = accept(posted, org=org, received_at=received_at)
        except EventRefused:
            return []
        if org not in self._extractors:
            self._extractors[org] = Extractor(org, self._packs)
        legs = self._extractors[org].extract(event, 0, 0, milliseconds(received_at)).legs
        return [(read_group_key(group), leg.record) for group, leg in legs]


class _Scanned(NamedTuple):
    """What C read of a block."""

    lines: NDArray[Any]
    """All, as `LINES`; of those among the rest only number and offset."""
    legs: NDArray[Any]
    rest: NDArray[np.int64]
    """Numbers of the lines that it left."""

    def alone(self) -> Columns:
        """Return the columns of a block of which nothing was left."""
        return Columns(len(self.lines), self.lines, self.legs, _hashes([]), self.lines["at"].copy())

    def text_of_rest(self, raw: bytes, begin: int) -> bytes:
        """Return the lines that were left, of a block that begins at a place of its file."""
        if len(self.rest) == len(self.lines):
            return raw
        begins = self.lines["offset"] - begin
        ends = np.append(begins[1:], len(raw))
        return b"".join(
            [raw[begin:end] for begin, end in zip(begins[self.rest].tolist(), ends[self.rest].tolist(), strict=True)]
        )

    def beside(self, rest: Columns) -> Columns:
        """Return the columns of the whole block; `rest` are those of the lines that were left, in a text of their own."""
        lines = self.lines
        places = self.rest[rest.lines["number"]]
        lines["at"][places] = rest.lines["at"]
        lines["is_event"][places] = rest.lines["is_event"]
        told = lines["at"].copy()
        told[places] = rest.told
        _tell_with_the_event_before(lines)
        stays = np.ones(len(lines), bool)
        stays[self.rest] = False
        stays[places] = True
        place_of = np.cumsum(stays) - 1
        self.legs["line"] = place_of[self.legs["line"]]
        rest.legs["line"] = place_of[places[rest.legs["line"]]]
        legs = np.concatenate((self.legs, rest.legs))
        return Columns(len(lines), lines[stays], legs, rest.keyless, told[stays])


class _Scanner:
    """C that reads the lines which are plain in every respect and of names that were looked at."""

    def __init__(self, sides: Iterable[_Plain]) -> None:
        sides = list(sides)
        if len({field for side in sides for field in side.fields}) > _native.PARTS_MAX:
            sides = []
        self._sides = [(_spread(side.rule), side.side, side.wait_ms, side.fields) for side in sides]
        self._place_of = {id(side): place for place, side in enumerate(sides)}
        self._looked_at = 0
        self._kinds: dict[_Names, tuple[_Names, int, int]] = {}
        self._scanner = _native.Scanner(self._sides, [])

    def know(self, known: Mapping[_Names, _Kind]) -> None:
        """Let it know the names that were looked at since."""
        if len(known) == self._looked_at or len(self._kinds) >= _native.KINDS_MAX:
            return
        self._looked_at = len(known)
        for names, kind in known.items():
            side = -1 if kind.plain is None else self._place_of.get(id(kind.plain))
            is_ascii = all(name is None or name.isascii() for name in names)
            if side is not None and is_ascii and not kind.is_close and len(self._kinds) < _native.KINDS_MAX:
                self._kinds[names] = (names, side, kind.status)
        self._scanner = _native.Scanner(self._sides, list(self._kinds.values()))

    def scan(self, raw: bytes, begin: int) -> _Scanned:
        """Read a block that begins at a place of its file."""
        count = raw.count(b"\n") + 1
        lines, legs, rest = np.empty(count, LINES), np.empty(count, LEGS), np.empty(count, np.int64)
        read, made, left = self._scanner.scan(raw, begin, lines.view(np.uint8), legs.view(np.uint8), rest)
        return _Scanned(lines[:read], legs[:made], rest[:left])


class _Read(NamedTuple):
    """The events of a block, in columns as far as they are asked for often."""

    lines_in_all: int
    lines: NDArray[Any]
    """As `LINES`, without their times."""
    events: list[PostedEvent]
    names: list[_Names]
    amounts: list[str | None]
    told: NDArray[np.int64] | None = None
    """Times that lines tell; None: each is an event and tells its own."""


def _legs_of_side(
    plain: _Plain, read: _Read, places: list[int], texts: list[str], statuses: "NDArray[np.int64]"
) -> "NDArray[Any]":
    legs = np.empty(len(places), LEGS)
    money = [(read.amounts[place], read.names[place][_CURRENCY]) for place in places]
    legs["group"] = _mixed(texts, plain.rule)
    legs["says"] = _hashes(
        [f"{amount}\0{currency}\0{text}" for (amount, currency), text in zip(money, texts, strict=True)]
    )
    legs["record"] = _hashes([read.events[place].record or read.events[place].id for place in places])
    legs["status"] = statuses[places]
    legs["line"] = places
    legs["until_ms"] = plain.wait_ms
    legs["side"] = plain.side
    return legs


_PLAIN_AMOUNTS = re.compile(r"(?:[0-9]{1,18}+(?:\.[0-9]{1,18}+)?+\n)*+", re.ASCII)


def _are_plain_amounts(amounts: list[str | None]) -> bool:
    """Tell whether these are amounts that `is_plain_amount` says are plain, all of them."""
    if None in amounts:
        return False
    text = "\n".join([*amounts, ""])  # type: ignore[list-item]  # none is None
    return text.count("\n") == len(amounts) and _PLAIN_AMOUNTS.fullmatch(text) is not None


def _are_plain_years(event: PostedEvent) -> bool:
    received_at = event.received_at
    return is_plain_year(event.occurred_at) and (received_at is None or is_plain_year(received_at))


BLOCK_BYTES = 250_000
"""What is read at once: its events, six times as large, stay in a processor's caches, which halves the time."""
BLOCK_BYTES_MAX = BLOCK_BYTES + LINE_MAX_BYTES
"""A block that is longer holds a line that is longer than any event."""


def _event(raw: bytes) -> PostedEvent | None:
    """Read one line; None: it is no event, and the second reading says why."""
    if len(raw) > LINE_MAX_BYTES:
        return None
    try:
        return decode_posted(raw)
    except EventRefused:
        return None


def _tell_with_the_event_before(lines: "NDArray[Any]") -> None:
    """Give lines that are no event the time of the event before them: they are told of with it."""
    is_event = lines["is_event"]
    if not is_event.all():
        before = np.maximum.accumulate(np.where(is_event, np.arange(len(lines)), -1))
        lines["at"] = np.where(before < 0, FIRST, lines["at"][before])


def _texts(keys: list[list[Any]]) -> list[str]:
    """Return keys, given by their parts, as texts: no two are one, since each part of several has its length before it."""
    if len(keys) == 1:
        return keys[0]
    return ["".join([f"{len(part)}:{part}" for part in key]) for key in zip(*keys, strict=True)]


def _microseconds(since_epoch: Sequence[timedelta | None]) -> "NDArray[np.int64]":
    return np.array(since_epoch, "m8[us]").view(np.int64)


def _spread(rule: int) -> int:
    """Return what tells the groups of one rule from those of another."""
    return (rule + 1) * 0x9E3779B97F4A7C15 % 2**64


def _mixed(keys: list[str], rule: int) -> "NDArray[np.uint64]":
    """Return hashes of keys under a rule."""
    return _hashes(keys) ^ np.uint64(_spread(rule))


def _hashes(values: list[str]) -> "NDArray[np.uint64]":
    return np.fromiter(map(hash, values), np.int64, len(values)).view(np.uint64)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Events of a block make no cycles, and a collector that walks through them takes longer than reading them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
