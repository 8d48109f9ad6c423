"""What applying records changed: data for the shell to write in one transaction."""

import msgspec

from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus
from shared.contracts.item import Item


class Changes(msgspec.Struct):
    """Results in the order they were made, and the state entries that changed."""

    discrepancies: list[Discrepancy] = []
    items: list[tuple[bytes, Item | bytes]] = []
    """(group key, item); the item of a plain match comes already encoded, as a `MatchedPair`."""
    checks: list[tuple[bytes, Check]] = []
    """(group key, verdict)."""
    dead_letters: list[DeadLetter] = []
    feeds: list[FeedStatus] = []
    state: list[tuple[bytes, bytes]] = []
    """(key, packed value); an empty value: forgotten."""

    def __bool__(self) -> bool:
        return bool(self.discrepancies or self.items or self.checks or self.dead_letters or self.feeds or self.state)
