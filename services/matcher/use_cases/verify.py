"""Prove that what was published is what the log says: replay the legs, compare every result and every checkpoint.

The core is a pure function of its log, so the same legs give the same bytes. What differs was altered, lost, doubled,
or made by something else. Results are compared in the order they were published; a checkpoint by the digest of its
state. Ranges that another core version made are named and not compared.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import Literal, Protocol

from services.matcher.ports import Batch, CheckpointHead, Core, Entry, InputRecord
from services.matcher.use_cases.partition import Partition, Policy
from shared.contracts.dead_letter import DeadLetter

CHUNK_RECORDS = 2_000
"""Replayed between two comparisons."""
DIFFERENCES_MAX = 100
"""Told per partition; the rest is counted."""
NEVER = 1 << 62
REPLAY = Policy(NEVER, NEVER, progress_interval_s=0.0, checkpoint_interval_ms=NEVER)

ResultTopic = Literal["discrepancies", "matches", "checks"]
RESULT_TOPICS: tuple[ResultTopic, ...] = ("discrepancies", "matches", "checks")
Kind = Literal["missing", "extra", "altered", "order", "state", "dead letter"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint of one partition, found in its topic."""

    head: CheckpointHead
    next_offset: int
    """Of legs: its state is that of everything before."""
    first: int
    """Offset of its first record."""
    last: int
    written_ms: int
    """When the broker took its first record: results that follow it are not older."""


@dataclass(frozen=True, slots=True)
class Published:
    """A result as it stands in its topic."""

    log_offset: int
    """Offset of the leg that made it."""
    value: bytes


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the log says."""

    kind: Kind
    topic: str
    name: str
    """The result's id and revision, or the checkpoint's place."""
    log_offset: int
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A range of legs that was not compared, and why."""

    first: int
    end: int
    why: str


@dataclass(slots=True)
class Verified:
    """What was found in one partition."""

    partition: int
    first: int = 0
    """Offset of the first leg compared."""
    end: int = 0
    """Offset after the last one."""
    legs: int = 0
    results: dict[str, int] = field(default_factory=dict)
    """Results compared, by topic."""
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    """Offset of legs and digest of the state, of each that was compared."""
    legs_digest: str = ""
    """SHA-256 of the legs' keys and values, in order."""
    results_digest: str = ""
    """SHA-256 of the published results as they were read, in order, topic after topic per chunk."""
    differences: list[Difference] = field(default_factory=list)
    differences_in_all: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing differs, and something was compared."""
        return not self.differences_in_all

    def differ(self, difference: Difference) -> None:
        """Note a difference."""
        self.differences_in_all += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(difference)


class ResultReader(Protocol):
    """Published results of one topic and partition, in order."""

    async def before(self, log_offset: int) -> list[Published]:
        """Return the results not yet read that legs before `log_offset` made."""


class Evidence(Protocol):
    """The topics of one installation, read only."""

    async def checkpoints(self, partition: int) -> list[Checkpoint]:
        """Whole checkpoints, in order."""

    def entries(self, partition: int, checkpoint: Checkpoint) -> AsyncIterator[list[Entry]]:
        """State entries of a checkpoint, in the order they restore."""

    async def bounds(self, partition: int) -> tuple[int, int]:
        """First offset of legs that is there, and the offset after the last."""

    async def matched(self, partition: int) -> int | None:
        """Offset up to which results are committed; None where nobody has committed any."""

    def legs(self, partition: int, first: int, end: int) -> AsyncIterator[Sequence[InputRecord]]:
        """Legs in order."""

    def results(self, topic: ResultTopic, partition: int, since_ms: int) -> ResultReader:
        """Results whose records are not older than `since_ms`."""

    async def dead_letter_ids(self, ids: frozenset[str]) -> frozenset[str]:
        """Which of these dead letters are there."""


@dataclass(frozen=True, slots=True)
class Shell:
    """What replaying needs of the running matcher, so that the same bytes are compared."""

    core: Callable[[int], Core]
    results: Callable[[Batch], Iterator[tuple[ResultTopic, bytes]]]
    """What a batch would publish, progress left out."""
    identify: Callable[[bytes], tuple[str, int]]
    """Name (id/revision) and log offset of a published result."""
    in_json: Callable[[bytes], bytes]
    """A result as JSON: pairs are published in either form (`matches_as_json`)."""


def state_digest(core: Core) -> str:
    """Return the SHA-256 of the whole state: entries in the order of their keys, each with its length before it."""
    digest = sha256()
    for key, value in sorted(core.snapshot()):
        digest.update(b"%d %d " % (len(key), len(value)))
        digest.update(key)
        digest.update(value)
    return digest.hexdigest()


async def verify_partition(
    number: int,
    evidence: Evidence,
    shell: Shell,
    *,
    from_ms: int | None,
    to_ms: int | None,
    step: Callable[[int, int, int], None] = lambda _number, _done, _of: None,
) -> Verified:
    """Replay one partition from the last checkpoint before `from_ms` until log time passes `to_ms`.

    Without `from_ms` it begins at the oldest leg, where the log is whole, else at the oldest checkpoint.
    """
    found = Verified(number)
    first, end = await evidence.bounds(number)
    matched = await evidence.matched(number)
    if matched is not None and matched < end:
        found.skipped.append(Skipped(matched, end, "the matcher has not come so far yet"))
        end = max(first, matched)
    known = [one for one in await evidence.checkpoints(number) if first <= one.next_offset <= end]
    base = _base(known, first, from_ms, found)
    if base is _NOTHING:
        return found
    run = _Replay(number, evidence, shell, found)
    start = base.next_offset if base else first
    later = [one for one in known if one.next_offset > start]
    await run.begin(base, start)
    await run.go(later, end, to_ms, step)
    await run.dead_letters()
    return found


_NOTHING = Checkpoint(CheckpointHead(0, 0, 0), -1, -1, -1, -1)


def _base(known: list[Checkpoint], first: int, from_ms: int | None, found: Verified) -> Checkpoint | None:
    """Choose where to begin; None: at the oldest leg, with an empty state."""
    before = [one for one in known if from_ms is not None and one.head.log_time <= from_ms]
    if before:
        return before[-1]
    if first == 0:
        return None
    if known:
        if from_ms is None or known[0].head.log_time > from_ms:
            why = "older legs are deleted, and this is the oldest checkpoint that has all that follow it"
            found.skipped.append(Skipped(0, known[0].next_offset, why))
        return known[0]
    found.skipped.append(Skipped(0, first, "older legs are deleted, and there is no checkpoint yet to begin at"))
    return _NOTHING


class _Replay:
    def __init__(self, number: int, evidence: Evidence, shell: Shell, found: Verified) -> None:
        self._number = number
        self._evidence = evidence
        self._shell = shell
        self._found = found
        self._legs_digest = sha256()
        self._results_digest = sha256()
        self._letters: dict[str, DeadLetter] = {}
        self._core = shell.core(number)
        self._partition = Partition(number, self._core, REPLAY, 0)
        self._readers: dict[ResultTopic, ResultReader] = {}

    async def begin(self, base: Checkpoint | None, start: int) -> None:
        await self._restore(base)
        self._partition = Partition(self._number, self._core, REPLAY, start)
        since = base.written_ms if base else 0
        self._readers = {topic: self._evidence.results(topic, self._number, since) for topic in RESULT_TOPICS}
        for reader in self._readers.values():
            await reader.before(start + self._core.offset_base)
        self._found.first = self._found.end = start

    async def _restore(self, base: Checkpoint | None) -> None:
        self._core = self._shell.core(self._number)
        if base is not None:
            async for entries in self._evidence.entries(self._number, base):
                self._core.restore(entries)
            self._core.take()

    async def go(
        self, later: list[Checkpoint], end: int, to_ms: int | None, step: Callable[[int, int, int], None]
    ) -> None:
        """Replay up to each checkpoint in turn, then to the end."""
        start = self._partition.position
        for checkpoint in [*later, None]:
            stop = checkpoint.next_offset if checkpoint else end
            made_by = checkpoint.head.made_by if checkpoint else self._core.version
            if checkpoint is not None and made_by != self._core.version:
                self._skip(checkpoint, f"made by core version {made_by}; this build has version {self._core.version}")
                await self.begin_again(checkpoint)
                continue
            async for records in self._evidence.legs(self._number, self._partition.position, stop):
                await self._apply(records)
                step(self._number, self._partition.position - start, end - start)
                if to_ms is not None and self._core.log_time > to_ms:
                    return
            if checkpoint is not None:
                await self._compare_state(checkpoint)

    async def begin_again(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, leaving out what came before it."""
        await self._restore(checkpoint)
        self._partition = Partition(self._number, self._core, REPLAY, checkpoint.next_offset)
        for reader in self._readers.values():
            await reader.before(checkpoint.next_offset + self._core.offset_base)

    def _skip(self, checkpoint: Checkpoint, why: str) -> None:
        self._found.skipped.append(Skipped(self._partition.position, checkpoint.next_offset, why))

    async def _apply(self, records: Sequence[InputRecord]) -> None:
        for begin in range(0, len(records), CHUNK_RECORDS):
            chunk = records[begin : begin + CHUNK_RECORDS]
            for record in chunk:
                self._legs_digest.update(record.key or b"")
                self._legs_digest.update(record.value or b"")
            self._partition.apply(list(chunk))
            self._found.legs += len(chunk)
            await self._compare()
        self._found.end = self._partition.position
        self._found.legs_digest = self._legs_digest.hexdigest()
        self._found.results_digest = self._results_digest.hexdigest()

    async def _compare(self) -> None:
        """Hold what the replay made since the last time against what was published."""
        made: dict[ResultTopic, list[bytes]] = {topic: [] for topic in RESULT_TOPICS}
        batch = self._partition.collect(0.0)
        if batch is not None:
            for topic, value in self._shell.results(batch):
                made[topic].append(value)
            self._letters |= {letter.id: letter for letter in batch.changes.dead_letters}
        for topic, reader in self._readers.items():
            published = [one.value for one in await reader.before(self._partition.position + self._core.offset_base)]
            for value in published:
                self._results_digest.update(value)
            self._found.results[topic] = self._found.results.get(topic, 0) + len(published)
            if published != made[topic] and published != (alike := self._in_form_of(published, made[topic])):
                self._tell(topic, alike, published)

    def _in_form_of(self, published: list[bytes], made: list[bytes]) -> list[bytes]:
        """Return what was made, as JSON where what was published in its place is JSON."""
        pairs = zip_longest(made, published, fillvalue=b"")
        return [self._shell.in_json(one) if other[:1] == b"{" else one for one, other in pairs if one]

    def _tell(self, topic: ResultTopic, made: list[bytes], published: list[bytes]) -> None:
        """Name what differs between two lists of results."""
        expected, actual = self._by_name(made), self._by_name(published)
        told = self._found.differences_in_all
        for name, (offset, value) in expected.items():
            if name not in actual:
                self._found.differ(Difference("missing", topic, name, offset, "the log makes it, the topic lacks it"))
            elif actual[name][1] != value:
                detail = _first_difference(value, actual[name][1])
                self._found.differ(Difference("altered", topic, name, offset, detail))
        for name, (offset, _) in actual.items():
            if name not in expected:
                self._found.differ(
                    Difference("extra", topic, name, offset, "it is published, the log does not make it")
                )
        if len(published) > len(actual):
            many = len(published) - len(actual)
            self._found.differ(Difference("extra", topic, "", -1, f"{many} results are published more than once"))
        if told == self._found.differences_in_all:
            self._found.differ(Difference("order", topic, "", -1, "the same results, in another order"))

    def _by_name(self, values: list[bytes]) -> dict[str, tuple[int, bytes]]:
        named: dict[str, tuple[int, bytes]] = {}
        for value in values:
            name, offset = self._shell.identify(value)
            named.setdefault(name, (offset, value))
        return named

    async def _compare_state(self, checkpoint: Checkpoint) -> None:
        replayed = state_digest(self._core)
        stored = self._shell.core(self._number)
        async for entries in self._evidence.entries(self._number, checkpoint):
            stored.restore(entries)
        digest = state_digest(stored)
        self._found.checkpoints.append((checkpoint.next_offset, digest))
        if digest != replayed:
            self._found.differ(
                Difference(
                    "state",
                    "matcher-checkpoints",
                    f"offset {checkpoint.first}",
                    checkpoint.next_offset,
                    f"its state has digest {digest[:16]}…, the replayed one {replayed[:16]}…",
                )
            )

    async def dead_letters(self) -> None:
        """Look whether what the replay set aside is in `dead-letters`."""
        ids = frozenset(self._letters)
        for lost in sorted(ids - await self._evidence.dead_letter_ids(ids) if ids else ()):
            letter = self._letters[lost]
            detail = f"{letter.reason}: the log makes it, the topic lacks it"
            self._found.differ(Difference("dead letter", "dead-letters", lost, letter.inbox_offset, detail))


def _first_difference(expected: bytes, actual: bytes) -> str:
    """Show where two values begin to differ."""
    at = next((n for n, (one, other) in enumerate(zip(expected, actual, strict=False)) if one != other), None)
    if at is None:
        at = min(len(expected), len(actual))
    begin = max(at - 24, 0)
    said, read = (value[begin : at + 24].decode(errors="replace") for value in (expected, actual))
    return f"the log says …{said}…, the topic …{read}…"
