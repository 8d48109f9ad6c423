"""What an import would do, without doing it: first events, counts and sums, and which rules would take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from shared.contracts.event import PostedEvent, accept, milliseconds
from shared.contracts.leg import read_group_key
from shared.money import EXACT, parse_amount
from shared.rules.extract import Extractor
from shared.rules.parts import RuleModel

FIRST_EVENTS = 10
KINDS_MAX = 10_000
"""Triples of source, type and currency that are counted apart: a wrong mapping may make one of each row."""


class Kind(NamedTuple):
    """What is counted apart."""

    source: str
    type: str
    currency: str | None


@dataclass
class Sum:
    """Of one kind."""

    count: int = 0
    total: Decimal = Decimal(0)


@dataclass
class Preview:
    """Takes events one by one; everything in it is bounded."""

    org: str
    packs: Mapping[str, Sequence[RuleModel]] | None
    """None: no rules are known."""
    received_at: datetime
    first: list[PostedEvent] = field(default_factory=list)
    sums: dict[Kind, Sum] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    """Events by the rule that takes them."""
    problems: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    """By rule and reason: how many events would become dead letters, and the words for the first."""
    unselected: dict[tuple[str, str], int] = field(default_factory=dict)
    """Events that no rule selects, by source and type."""

    def __post_init__(self) -> None:
        self._extractor = None if self.packs is None else Extractor(self.org, self.packs)

    def take(self, posted: PostedEvent) -> None:
        """Count one event."""
        if len(self.first) < FIRST_EVENTS:
            self.first.append(posted)
        kind = Kind(posted.source, posted.type, posted.currency)
        if kind not in self.sums and len(self.sums) >= KINDS_MAX:
            kind = Kind("others", "others", posted.currency)
        counted = self.sums.setdefault(kind, Sum())
        counted.count += 1
        if posted.amount is not None:
            counted.total = EXACT.add(counted.total, parse_amount(posted.amount))
        if self._extractor is not None:
            self._extract(posted, self._extractor)

    def _extract(self, posted: PostedEvent, extractor: Extractor) -> None:
        event = accept(posted, org=self.org, received_at=self.received_at)
        extracted = extractor.extract(event, 0, 0, milliseconds(self.received_at))
        if not extracted.selected:
            kind = (posted.source, posted.type)
            if kind in self.unselected or len(self.unselected) < KINDS_MAX:
                self.unselected[kind] = self.unselected.get(kind, 0) + 1
        for rule in {read_group_key(group).rule for group, _ in extracted.legs}:
            self.taken[rule] = self.taken.get(rule, 0) + 1
        for problem in extracted.problems:
            count, words = self.problems.get((problem.rule, problem.reason), (0, problem.detail))
            self.problems[problem.rule, problem.reason] = (count + 1, words)
