"""Several partitions of the matcher behind one ingest that counts feeds: what Kafka would bring to each of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.ingest.domain.feed_counts import FeedCounts
from services.matcher.domain.core import Core
from shared.contracts.discrepancy import Discrepancy, FeedStatus
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import LegRecord, feed_key
from shared.kafka.partitioner import partition_of
from shared.rules.compiled import rule_record
from shared.rules.extract import Extractor
from tests.support.offline import PACK, accepted, rules_of, time_of

ORG = "acme"
SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BEGIN = time_of("2026-03-02T10:00:00Z")
"""A Monday."""

PAYMENTS: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "key": "refs.payment_id",
    "sides": {
        "internal": {"source": "ledger", "type": "payment.*"},
        "provider": {"source": "stripe", "type": "payment.*"},
    },
    "deadline": "10m",
}
STRIPE: dict[str, Any] = {"name": "billing.feeds", "kind": "feed", "source": "stripe", "silent_after": "15m"}


class Running:
    """Ingest and every partition of the matcher, in one thread and by the clock of the events."""

    def __init__(
        self, rules: list[dict[str, Any]], *, partitions: int = 3, inboxes: int = 1, counts: bool = True
    ) -> None:
        self.cores = [Core(number) for number in range(partitions)]
        self.logs: list[list[tuple[bytes, LegRecord]]] = [[] for _ in self.cores]
        self.revisions: list[Discrepancy] = []
        self.statuses: list[FeedStatus] = []
        self._inboxes = inboxes
        self._counts = FeedCounts() if counts else None
        self._partitions = partitions
        self.put_in_force(rules, 0)

    def put_in_force(self, rules: list[dict[str, Any]], version: int) -> None:
        """Announce rules, as ingest does when a rule set was applied."""
        self._extractor = Extractor(ORG, {PACK: rules_of(rules)})
        for pack, model in self._extractor.models.values():
            self.to_all(rule_record(ORG, pack, model, version))

    def to_all(self, record: LegRecord) -> None:
        for number in range(self._partitions):
            self._to(number, b"", record)

    def take(self, source: str, number: int, at: int, amount: str = "10.00") -> None:
        """Receive one payment of a source (`at`: milliseconds), without a tick."""
        event = accepted(payment(source, number, at, amount))
        inbox = number % self._inboxes
        for group, leg in self._extractor.extract(event, inbox, number, at).legs:
            self._to(partition_of(group, self._partitions), group, leg)
        if self._counts and source in self._extractor.sources:
            self._counts.add(inbox, ORG, source, at)

    def tick(self, at: int, inboxes: Iterable[int] | None = None) -> None:
        """Let ingest say that it has read everything up to `at`."""
        for inbox in range(self._inboxes) if inboxes is None else inboxes:
            counts = self._counts or FeedCounts()
            for tick in counts.ticks(inbox, self._inboxes, at, self._owner_of):
                if self._counts is None:
                    tick.feeds = None
                self.to_all(tick)
            counts.told(inbox, at)

    def run(self, payments: Iterable[tuple[int, str, int]], until: int, every: int = SECOND) -> None:
        """Receive payments (milliseconds, source, number) in order, with a tick at least `every` milliseconds."""
        ticked = None
        for at, source, number in sorted(payments):
            ticked = at if ticked is None else ticked
            while ticked + every < at:
                ticked += every
                self.tick(ticked)
            self.take(source, number, at)
        ticked = until - every if ticked is None else ticked
        while ticked < until:
            ticked = min(ticked + every, until)
            self.tick(ticked)

    def become(self, partitions: Sequence[Mapping[bytes, bytes]]) -> None:
        """Go on with other partitions, of which this is the state."""
        self._partitions = len(partitions)
        self.cores = [Core(number) for number in range(self._partitions)]
        self.logs = [[] for _ in self.cores]
        self.statuses = []
        for core, entries in zip(self.cores, partitions, strict=True):
            core.restore(entries.items())

    def found(self, type_: str) -> list[Discrepancy]:
        """Every revision of a type."""
        return [one for one in self.revisions if one.type == type_]

    @property
    def open(self) -> list[Discrepancy]:
        """What is raised now."""
        last = {one.id: one for one in self.revisions}
        return [one for one in last.values() if one.state == "raised"]

    def waiting(self, source: str = "stripe") -> int:
        """What is held back, as it was told last by each partition."""
        last = {one.log.partition: one.waiting for one in self.statuses if one.source == source}
        return sum(last.values())

    def _owner_of(self, org: str, source: str) -> int:
        return partition_of(feed_key(org, source), self._partitions)

    def _to(self, number: int, group: bytes, record: LegRecord) -> None:
        core, log = self.cores[number], self.logs[number]
        log.append((group, record))
        core.apply(group, record, len(log) - 1)
        changes = core.take()
        self.revisions += changes.discrepancies
        self.statuses += changes.feeds


def payment(source: str, number: int, at: int, amount: str = "10.00") -> dict[str, Any]:
    """A payment as a producer posts it."""
    time = from_milliseconds(at).isoformat()
    return {
        "org": ORG,
        "source": source,
        "type": "payment.succeeded",
        "id": f"{source}-{number}",
        "record": f"{source}-{number}",
        "occurred_at": time,
        "received_at": time,
        "amount": amount,
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": f"p{number}"},
    }
