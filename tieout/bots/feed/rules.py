"""Rules made of the thresholds, put in force over the rules topic, and again whenever the thresholds change."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from shared.kafka.settings import KafkaSettings
from shared.packs.bots.rules import Reset, rules_of
from shared.packs.bots.thresholds import Thresholds

PACK = "bots"
APPLIED_BY = "tieout bots feed"
FIRST_WAIT_S = 3.0
"""After the very first rules of the pack: events that ingest reads before it knows them are reconciled by nobody."""


@dataclass(slots=True)
class RulesFollower:
    """Puts the rules of one organisation in force.

    Raises `KafkaAway` from `follow` while no broker answers; asking again is fine.
    """

    kafka: KafkaSettings
    org: str
    reset: Reset = "never"
    zone: str = "UTC"
    _applied: tuple[Thresholds, frozenset[str]] | None = None

    def follow(self, thresholds: Thresholds, bots: Iterable[str], stop: threading.Event) -> list[str]:
        """Put the rules in force where they are not; return what changed, for people."""
        wanted = (thresholds, frozenset(bots))
        if wanted == self._applied:
            return []
        lines, is_first = asyncio.run(self._apply(thresholds, wanted[1]))
        self._applied = wanted
        if is_first:
            stop.wait(FIRST_WAIT_S)
        return lines

    async def _apply(self, thresholds: Thresholds, bots: frozenset[str]) -> tuple[list[str], bool]:
        from tieout.rules_topic import apply_rules, rules_in_force

        file = rules_of(thresholds, bots, reset=self.reset, zone=self.zone)
        before = (await rules_in_force(self.org)).get(PACK)
        if before is not None and list(before) == list(file.rules):
            return [], False
        applied = await apply_rules(self.kafka, file, self.org, APPLIED_BY)
        return applied.lines, before is None
