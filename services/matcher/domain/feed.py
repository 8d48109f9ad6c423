"""Feeds: when a source is silent, and what must not be called missing because of it.

The normaliser's ticks tell every partition how many events of each source came, and when. From that each partition
learns how long a source is usually silent at every hour of the week, or takes it from a rule, and knows the same as
all others: what waits for a silent feed is held back wherever it waits. The one partition that owns the feed says so.

A feed is quiet when it has been silent for longer than is usual, and silent once that is `factor` times as long (or
as long as the rule says). What is missing from a quiet feed is not raised either: nobody can tell yet. Whether it is
silent is decided by the time that ticks with counts have told, never by log time alone: an ingest that stands still
and a source that does are different things.

Work per tick is bounded by the feeds counted in it and HOURS steps for each; memory by `PROFILE_BYTES` per feed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Final, NamedTuple
from zlib import crc32
from zoneinfo import ZoneInfo

import msgspec

from services.matcher.domain.moment import UNKNOWN
from services.matcher.domain.timers import NEVER, Timers
from shared.contracts.discrepancy import Discrepancy, FeedStatus, LogPosition, Resolution, Severity
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import FeedCount, Tick, feed_key
from shared.ids import discrepancy_id
from shared.rules.feed_rule import SILENT, FeedRule, FeedRuleModel, compile_feed

FEED_ENTRY: Final = b"feed "
"""State entries of feeds: what changes with every tick."""
PROFILE_ENTRY: Final = b"feed-hours "
"""What changes once an hour."""
TIME_ENTRY: Final = b"feed-time"

HOUR_MS: Final = 3_600_000
HOURS: Final = 168
"""Hours of a week: each has a usual silence of its own."""
WEEKS: Final = 8
"""Weeks remembered: enough for an outage in two of them to count for nothing, few enough to follow a change."""
WEEKS_MIN: Final = 2
"""Before so many weeks nothing is guessed."""
_VALUE_BYTES: Final = 4
_NEVER_TOLD: Final = -1
_VALUE_MAX: Final = (1 << 32) - 1
PROFILE_BYTES: Final = HOURS * WEEKS * _VALUE_BYTES
OUTLIERS: Final = 4
"""One week in so many may be out of the ordinary: the usual silence is the longest of the others."""

GRACE_MS_MAX: Final = HOUR_MS // 2
"""An hour has begun for so long, or for the rule's `at_least`, before its own usual silence counts for one from before it."""
QUIET_PART: Final = 3
"""Where a rule gives the time after which a feed is silent, it is quiet after this part of it."""
HOLD_PART: Final = 4
"""What is held back is looked at again after this part of the silence: it is long back in the line when the feed is."""
HOLD_MS_MIN: Final = 5_000
HOLD_MS_MAX: Final = 900_000
RELEASE_MS_MAX: Final = 3_600_000
"""A feed that is back gets the time that it was silent to bring what it owes, but not more than this."""
SPREAD_MS: Final = 60_000
"""What is still missing then is raised over a minute, in the order of its deadlines: thousands at once would stall."""
SPREAD_TIES_MS: Final = 5_000
"""And what was due at one instant within so long."""
QUIET_MS_MIN: Final = 60_000
"""A learned silence shorter than this is no reason to hold anything back: ticks and commits take seconds themselves."""
LOOK_MS: Final = 5_000
"""How often it is looked whether there is news to tell of a feed, in log time."""
STATUS_MS: Final = 60_000
"""How often it is told that a feed sends, and that something still waits for it."""

BUILT_IN_NAME: Final = "feed.builtin"
BUILT_IN_PACK: Final = "feed"


class Silence(msgspec.Struct, array_like=True, gc=False):
    """A `FeedSilent` that is raised."""

    id: str
    since: int
    raised_at: int
    severity: str
    rule: str
    pack: str
    shadow: bool


class Feed(msgspec.Struct, array_like=True, gc=False):
    """What one source of one org has been doing. Times in milliseconds."""

    org: str
    source: str
    owner: int
    """The partition that speaks for it."""
    first_at: int
    last_at: int
    hour: int
    """The hour (since 1970, in the rule's zone) that is being looked at."""
    longest: int = 0
    """The longest silence in it so far."""
    due_at: int = NEVER
    """When it is to be looked at; not after it is silent unless something comes."""
    silence: Silence | None = None
    gone_at: int = 0
    """It was last seen then, before it was quiet the last time."""
    back_at: int = 0
    release_until: int = 0
    """What has been missing since it was gone is not raised before this."""
    told_at: int = 0
    told_waiting: int = 0


class _Counted(msgspec.Struct, array_like=True):
    """How far events have been counted: by inbox partition, and of all."""

    times: dict[int, int]
    time: int


class _Limits(NamedTuple):
    """How long a feed may be silent at an hour, in milliseconds."""

    usual: int | None
    """None: not known yet."""
    quiet: int
    silent: int


class Said(NamedTuple):
    """What a tick made of the feeds that this partition owns."""

    discrepancies: list[Discrepancy]
    statuses: list[FeedStatus]


Name = tuple[str, str]


class Feeds:
    """All feeds, as one partition knows them."""

    def __init__(self, partition: int) -> None:
        self.dirty: dict[bytes, None] = {}
        """Entries that changed since the core took them."""
        self.time = UNKNOWN
        """Every event up to here has been counted, of every inbox partition."""
        self._partition = partition
        self._times: dict[int, int] = {}
        self._feeds: dict[Name, Feed] = {}
        self._profiles: dict[Name, bytearray] = {}
        self._keys: dict[Name, bytes] = {}
        self._known_usual: dict[Name, tuple[int, int | None]] = {}
        """What is usual at the hour that was asked for last; forgotten with every change of a profile."""
        self._timers = Timers()
        self._rules: dict[Name, FeedRule] = {}
        self._watched: dict[Name, set[str]] = {}
        """Rules by the sources that they select."""
        self._built_in: dict[str, FeedRule] = {}
        self._ended: list[tuple[Feed, Silence, int]] = []
        """Silences that a tick ended, until they are told."""
        self._waiting: dict[bytes, Name] = {}
        """Groups that are held back, and by which feed."""
        self._waiting_of: Counter[Name] = Counter()

    @property
    def known(self) -> bool:
        """Somebody counts: else nothing is held back."""
        return bool(self._feeds)

    def _key(self, name: Name) -> bytes:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = feed_key(*name)
        return key

    # ---- rules

    def watch(self, org: str, rule: str, sources: Iterable[str]) -> None:
        """Note which sources a rule selects now; none: it was withdrawn."""
        for (of, source), rules in list(self._watched.items()):
            if of == org:
                rules.discard(rule)
                if not rules:
                    del self._watched[of, source]
        for source in sources:
            self._watched.setdefault((org, source), set()).add(rule)

    def rule_feeds(self, rules: Iterable[FeedRule]) -> None:
        """Put the feed rules in force; of two that name a source the first by name counts."""
        self._rules = {}
        for rule in sorted(rules, key=lambda one: one.name, reverse=True):
            self._rules |= {(rule.org, source): rule for source in rule.sources}

    def judge_again(self, org: str, log: LogPosition, at: int) -> Said:
        """Hold every feed of an org against the rules that are in force now."""
        said = Said([], [])
        for name, feed in self._feeds.items():
            if name[0] != org:
                continue
            rule = self._rule(name)
            silence = feed.silence
            due_at = self._due(feed, rule)
            if silence is not None and (rule is None or rule.name != silence.rule or due_at >= self.time):
                feed.silence = None
                cause: Resolution = "rule_withdrawn" if rule is None or rule.name != silence.rule else "rule_changed"
                if feed.owner == self._partition:
                    said.discrepancies.append(_resolved(feed, silence, max(at, silence.raised_at), cause, log))
            self._schedule(feed, NEVER if feed.silence else due_at)
        return said

    def _rule(self, name: Name) -> FeedRule | None:
        """Return the rule of a feed; None: nothing selects its source any more."""
        rule = self._rules.get(name)
        if rule is None and name in self._watched:
            rule = self._built_in.get(name[0]) or self._build_in(name[0])
        return rule

    def _build_in(self, org: str) -> FeedRule:
        model = FeedRuleModel(name=BUILT_IN_NAME, kind="feed", source=["any"])
        rule = self._built_in[org] = compile_feed(org, BUILT_IN_PACK, model)
        return rule

    # ---- ticks

    def count(self, tick: Tick) -> None:
        """Take the counts of a tick."""
        for count in tick.feeds or ():
            self._count(count)
        if tick.feeds is not None:
            self._times[tick.inbox_partition] = max(tick.time, self._times.get(tick.inbox_partition, UNKNOWN))
            self.dirty[TIME_ENTRY] = None

    def settle(self, inbox_partitions: int, position: Callable[[], LogPosition]) -> Said:
        """Say who sends again, and who has been silent for too long by what has been counted."""
        said = Said([], [])
        for feed, silence, at in self._ended:
            if feed.owner == self._partition:
                said.discrepancies.append(_resolved(feed, silence, at, "late_arrival", position()))
                said.statuses.append(self._status(feed, at, position()))
        self._ended.clear()
        if len(self._times) < inbox_partitions or not self._times:
            return said
        before, self.time = self.time, max(self.time, min(self._times.values()))
        if self._timers.next_at < self.time:
            for due, key in self._timers.due(self.time):
                self._fire(key, due, position, said)
        if before // LOOK_MS < self.time // LOOK_MS:
            news = [feed for feed in self._feeds.values() if self._is_news(feed)]
            said.statuses.extend(self._status(feed, self.time, position()) for feed in news)
        return said

    def _count(self, count: FeedCount) -> None:
        name = (count.org, count.source)
        feed = self._feeds.get(name)
        rule = self._rule(name)
        zone = rule.zone if rule else _UTC
        if feed is None:
            hour = _hour(count.first_at, zone)[0]
            feed = self._feeds[name] = Feed(*name, count.owner, count.first_at, count.first_at, hour)
        feed.owner = count.owner
        hour_before = feed.hour
        self.dirty[FEED_ENTRY + self._key(name)] = None
        if count.first_at > feed.last_at:
            self._back(feed, rule, count.first_at)
            self._learn(feed, feed.last_at, count.first_at, zone)
        if count.last_at > feed.last_at:
            self._enter(feed, _hour(count.last_at, zone)[0])
            feed.longest = max(feed.longest, min(count.longest_ms, count.last_at - feed.last_at))
            feed.last_at = count.last_at
        # Being heard of puts it off, which is found out when it is due; only what is learned with an hour may hasten it.
        if feed.silence is None and (feed.due_at == NEVER or feed.hour != hour_before):
            self._schedule(feed, self._due(feed, rule))

    def _back(self, feed: Feed, rule: FeedRule | None, at: int) -> None:
        """Note that a feed sends again; one that was quiet gets time to bring what it owes."""
        silent_ms = at - feed.last_at
        limits = None if rule is None else self._limits(feed, rule, at)
        if feed.silence is not None or (limits and silent_ms > limits.quiet):
            feed.gone_at, feed.back_at = feed.last_at, at
            feed.release_until = at + min(silent_ms, RELEASE_MS_MAX)
        if feed.silence is not None:
            self._ended.append((feed, feed.silence, max(at, feed.silence.raised_at)))
            feed.silence = None

    def _fire(self, key: bytes, due: int, position: Callable[[], LogPosition], said: Said) -> None:
        """Say that a feed is silent, at the instant after `due`."""
        feed = self._feeds[_names(key)]
        if feed.due_at > due:
            if feed.due_at != NEVER:
                self._timers.set(feed.due_at, key)
            return
        rule = self._rule((feed.org, feed.source))
        feed.due_at = self._due(feed, rule)
        self.dirty[FEED_ENTRY + key] = None
        if feed.due_at > due:  # it has been heard of since this was set
            if feed.due_at != NEVER:
                self._timers.set(feed.due_at, key)
            return
        assert rule is not None, "without a rule nothing is due"
        feed.due_at = NEVER
        opener = from_milliseconds(feed.last_at).isoformat()
        id_ = discrepancy_id(feed.org, rule.name, [feed.source], opener, SILENT, None)
        severity = rule.severity_of(SILENT, None, None)
        feed.silence = Silence(id_, feed.last_at, due + 1, severity, rule.name, rule.pack, rule.shadow)
        if feed.owner == self._partition:
            limits = self._limits(feed, rule, due + 1)
            words = _explain(feed, rule, limits.usual if limits else None)
            said.discrepancies.append(_revision(feed, feed.silence, 1, None, None, words, position()))
            said.statuses.append(self._status(feed, due + 1, position()))

    def _is_news(self, feed: Feed) -> bool:
        """Tell whether something is to be told: by every partition how much waits there, by the owner when it was seen."""
        waiting = self._waiting_of[feed.org, feed.source]
        if waiting != feed.told_waiting:
            return True
        if not waiting and (feed.owner != self._partition or feed.last_at <= feed.told_at):
            return False
        return not feed.told_at or self.time - feed.told_at >= STATUS_MS

    def _status(self, feed: Feed, at: int, log: LogPosition) -> FeedStatus:
        name = (feed.org, feed.source)
        rule = self._rule(name)
        limits = None if rule is None else self._limits(feed, rule, at)
        feed.told_at, feed.told_waiting = max(at, feed.told_at), self._waiting_of[name]
        self.dirty[FEED_ENTRY + self._key(name)] = None
        silence = feed.silence
        return FeedStatus(
            org=feed.org,
            source=feed.source,
            rule=rule.name if rule else "",
            last_seen_at=from_milliseconds(feed.last_at),
            usual_silence_ms=limits.usual if limits else None,
            silent_after_ms=limits.silent if limits else None,
            silent_since=from_milliseconds(silence.since) if silence else None,
            waiting=feed.told_waiting,
            log=log,
        )

    # ---- cadence

    def _learn(self, feed: Feed, start: int, end: int, zone: ZoneInfo) -> None:
        """Note how old the silence from `start` to `end` became in every hour of it (of a longer one: its last week)."""
        at = max(start, end - HOURS * HOUR_MS)
        while True:
            hour, next_at = _hour(at, zone)
            self._enter(feed, hour)
            until = min(next_at, end)
            feed.longest = max(feed.longest, until - start)
            if until >= end:
                return
            at = until

    def _enter(self, feed: Feed, hour: int) -> None:
        """Begin an hour; the one before it goes into the profile."""
        if hour <= feed.hour:
            return
        name = (feed.org, feed.source)
        profile = self._profiles.get(name)
        if profile is None:
            profile = self._profiles[name] = bytearray(PROFILE_BYTES)
        self._known_usual.pop(name, None)
        at = (feed.hour % HOURS * WEEKS + feed.hour // HOURS % WEEKS) * _VALUE_BYTES
        profile[at : at + _VALUE_BYTES] = min(max(feed.longest, 1), _VALUE_MAX).to_bytes(_VALUE_BYTES, "big")
        self.dirty[PROFILE_ENTRY + self._key(name)] = None
        feed.hour, feed.longest = hour, 0

    def _usual(self, feed: Feed, at: int, zone: ZoneInfo) -> int | None:
        """Return the longest silence that is usual at the hour of the week of `at`; None: not known yet."""
        if feed.last_at - feed.first_at < WEEKS_MIN * HOURS * HOUR_MS:
            return None
        name, slot = (feed.org, feed.source), _hour(at, zone)[0] % HOURS
        known = self._known_usual.get(name)
        if known is None or known[0] != slot:
            known = self._known_usual[name] = (slot, _usual_of(self._profiles.get(name), slot))
        return known[1]

    def _limits(self, feed: Feed, rule: FeedRule, at: int) -> _Limits | None:
        usual = self._usual(feed, at, rule.zone)
        if rule.given_ms is not None:
            quiet = max(usual or 0, rule.given_ms // QUIET_PART)
            return _Limits(usual, min(quiet, rule.given_ms), rule.given_ms)
        if usual is None:
            return None
        silent = max(usual * rule.factor, rule.at_least_ms)
        return _Limits(usual, min(max(usual, QUIET_MS_MIN), silent), silent)

    def _due(self, feed: Feed, rule: FeedRule | None) -> int:
        """Return when the feed is silent unless something comes; NEVER: not known.

        An hour in which it is usually silent for less than in the one before counts from its own beginning.
        """
        if rule is None:
            return NEVER
        if rule.given_ms is not None:
            return feed.last_at + rule.given_ms
        if feed.last_at - feed.first_at < WEEKS_MIN * HOURS * HOUR_MS:
            return NEVER
        at, least = feed.last_at, feed.last_at
        for _ in range(HOURS + 1):
            limits = self._limits(feed, rule, at)
            next_at = _hour(at, rule.zone)[1]
            if limits is not None:
                due = max(feed.last_at + limits.silent, least)
                if due < next_at:
                    return due
            at, least = next_at, next_at + min(rule.at_least_ms, GRACE_MS_MAX)
        return NEVER

    def _schedule(self, feed: Feed, due_at: int) -> None:
        if due_at < feed.due_at:
            self._timers.set(due_at, self._key((feed.org, feed.source)))
        if due_at != feed.due_at:
            feed.due_at = due_at
            self.dirty[FEED_ENTRY + self._key((feed.org, feed.source))] = None

    # ---- what is held back

    def held_until(self, org: str, source: str, deadline: int, armed_at: int, key: bytes, now: int) -> int | None:
        """Return until when a record missing from `source` must not be raised (milliseconds); None: it may be.

        `deadline` is when it was due, `armed_at` when its group began to wait, `key` spreads what is raised.
        """
        name = (org, source)
        feed = self._feeds.get(name)
        rule = self._rule(name) if feed else None
        if feed is None or rule is None or rule.shadow:
            return None
        limits = self._limits(feed, rule, now)
        silent_ms = now - feed.last_at
        if feed.silence is not None or (limits and silent_ms > limits.quiet):
            pause = min(max(silent_ms // HOLD_PART, HOLD_MS_MIN), HOLD_MS_MAX)
            return now + pause + crc32(key) % (pause // HOLD_PART)
        if armed_at > feed.back_at:
            return None
        # In the order of their deadlines; what was due at one instant apart as well.
        spread = max(1, min(SPREAD_MS, (feed.release_until - feed.back_at) // HOLD_PART))
        span = max(1, feed.release_until - feed.gone_at)
        share = min(max(deadline - feed.gone_at, 0), span) * spread // span
        until = feed.release_until + share + crc32(key) % min(SPREAD_TIES_MS, spread)
        return until if now <= until else None

    def note(self, key: bytes, org: str, source: str | None) -> None:
        """Note that the group under `key` is held back by a feed; None: by none any more."""
        if not self._waiting and source is None:
            return
        before = self._waiting.pop(key, None)
        if before is not None:
            self._waiting_of[before] -= 1
        if source is not None:
            self._waiting[key] = (org, source)
            self._waiting_of[org, source] += 1

    # ---- state

    def take_dirty(self) -> dict[bytes, None]:
        """Return the entries that changed since the last call."""
        dirty, self.dirty = self.dirty, {}
        return dirty

    def entry(self, key: bytes) -> bytes:
        """Return a state entry."""
        if key == TIME_ENTRY:
            return _encode(_Counted(self._times, self.time))
        if key.startswith(PROFILE_ENTRY):
            return bytes(self._profiles[_names(key.removeprefix(PROFILE_ENTRY))])
        return _encode(self._feeds[_names(key.removeprefix(FEED_ENTRY))])

    def entries(self) -> Iterator[bytes]:
        """Yield the keys of all entries."""
        if self._times:
            yield TIME_ENTRY
        for name in list(self._feeds):
            yield FEED_ENTRY + feed_key(*name)
        for name in list(self._profiles):
            yield PROFILE_ENTRY + feed_key(*name)

    def restore(self, key: bytes, value: bytes) -> None:
        """Put back an entry."""
        if key == TIME_ENTRY:
            counted = _decode_counted(value)
            self._times, self.time = counted.times, counted.time
        elif key.startswith(PROFILE_ENTRY):
            self._profiles[_names(key.removeprefix(PROFILE_ENTRY))] = bytearray(value)
        else:
            name = _names(key.removeprefix(FEED_ENTRY))
            feed = self._feeds[name] = _decode_feed(value)
            if feed.due_at != NEVER:
                self._timers.set(feed.due_at, feed_key(*name))


_UTC: Final = ZoneInfo("UTC")
_encode = msgspec.msgpack.Encoder().encode
_decode_feed: Callable[[bytes], Feed] = msgspec.msgpack.Decoder(Feed).decode
_decode_counted: Callable[[bytes], _Counted] = msgspec.msgpack.Decoder(_Counted).decode
_decode_key = msgspec.json.Decoder(tuple[str, str, str]).decode


def is_feed_entry(key: bytes) -> bool:
    """Tell whether a state entry belongs to a feed: the keys of cells begin with a bracket."""
    return key.startswith((b"feed ", b"feed-"))


def merged(partitions: Iterable[Mapping[bytes, bytes]], owner_of: Callable[[bytes], int]) -> dict[bytes, bytes]:
    """Return the feed entries of partitions that are laid out anew over another number: each has them all.

    Every partition has applied the whole log, so what differs is what each told last; all tell anew. `owner_of`: which
    of the new partitions a key goes to.
    """
    found: dict[bytes, bytes] = {}
    newest: dict[bytes, Feed] = {}
    for entries in partitions:
        for key, value in entries.items():
            if key.startswith(FEED_ENTRY):
                feed = _decode_feed(value)
                if key not in newest or newest[key].last_at < feed.last_at:
                    newest[key] = feed
            elif is_feed_entry(key):
                found[key] = value
    for key, feed in newest.items():
        feed.owner = owner_of(key.removeprefix(FEED_ENTRY))
        feed.told_at, feed.told_waiting = 0, _NEVER_TOLD
        found[key] = _encode(feed)
    return found


def _names(key: bytes) -> Name:
    org, _, source = _decode_key(key)
    return org, source


def _usual_of(profile: bytearray | None, slot: int) -> int | None:
    """Return the longest silence of an hour of the week that is not out of the ordinary; None: too few weeks."""
    if profile is None:
        return None
    start = slot * WEEKS * _VALUE_BYTES
    values = [
        int.from_bytes(profile[place : place + _VALUE_BYTES], "big")
        for place in range(start, start + WEEKS * _VALUE_BYTES, _VALUE_BYTES)
    ]
    known = sorted(filter(None, values), reverse=True)
    return known[len(known) // OUTLIERS] if len(known) >= WEEKS_MIN else None


def _hour(at: int, zone: ZoneInfo) -> tuple[int, int]:
    """Return the hour since 1970 by the clocks of `zone` at an instant, and the instant when the next one begins."""
    if zone is _UTC:
        return at // HOUR_MS, at - at % HOUR_MS + HOUR_MS
    offset = from_milliseconds(at).astimezone(zone).utcoffset() or timedelta(0)
    local = at + offset // timedelta(milliseconds=1)
    return local // HOUR_MS, at - local % HOUR_MS + HOUR_MS


# ---- results


def _resolved(feed: Feed, silence: Silence, at: int, cause: Resolution, log: LogPosition) -> Discrepancy:
    silent_ms = at - silence.since
    words = {
        "late_arrival": f"{feed.source} sends again after {_span(silent_ms)}; what is still missing is raised once it "
        "has had the time to come",
        "rule_withdrawn": f"{feed.source} is no longer watched by {silence.rule}",
        "rule_changed": f"{feed.source} is not silent by its rule as it is now",
    }[cause]
    return _revision(feed, silence, 2, at, cause, f"{words}.", log)


def _revision(
    feed: Feed,
    silence: Silence,
    revision: int,
    resolved_at: int | None,
    resolution: Resolution | None,
    explanation: str,
    log: LogPosition,
) -> Discrepancy:
    severity: Severity = silence.severity  # type: ignore[assignment]  # kept as text in packed state
    return Discrepancy(
        id=silence.id,
        revision=revision,
        state="raised" if resolved_at is None else "resolved",
        org=feed.org,
        rule=silence.rule,
        pack=silence.pack,
        type=SILENT,
        severity=severity,
        key=feed.source,
        side=None,
        account=None,
        sides={},
        duplicate=None,
        expected=None,
        actual=None,
        difference=None,
        currency=None,
        raised_at=from_milliseconds(silence.raised_at),
        resolved_at=None if resolved_at is None else from_milliseconds(resolved_at),
        resolution=resolution,
        expired=False,
        explanation=explanation,
        log=log,
        shadow=silence.shadow,
    )


def _explain(feed: Feed, rule: FeedRule, usual_ms: int | None) -> str:
    time = from_milliseconds(feed.last_at)
    words = f"{feed.source} has sent nothing since {time:%Y-%m-%d %H:%M:%S} UTC"
    if rule.given_ms is not None:
        words += f"; its rule expects something every {_span(rule.given_ms)}"
    if usual_ms is not None:
        words += f"; at this hour of the week it is usually not silent for longer than {_span(usual_ms)}"
    return f"{words}. Records missing from it are held back until it sends again."


_UNITS: Final = ((86_400_000, "d"), (HOUR_MS, "h"), (60_000, "min"), (1000, "s"))


def _span(ms: int) -> str:
    """Return a length of time as people say it: its two largest units."""
    parts = []
    for size, unit in _UNITS:
        if count := ms // size:
            parts.append(f"{count} {unit}")
            ms %= size
        elif parts:
            break
    return " ".join(parts[:2]) or "less than a second"
