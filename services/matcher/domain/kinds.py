"""What the core asks of a kind of rule: `match`, `zero_sum`, `balance`, and others.

A kind decides everything about its cells; the core knows log time, timers and rules. All methods are pure in the sense
of the core: they look at the state, the record and log time, and answer by changing the state and its `changes`.
"""

from typing import Any, Protocol

from services.matcher.domain.state import Codec
from shared.contracts.discrepancy import Resolution
from shared.contracts.leg import Cut, Leg, Withdraw


class Kind(Protocol):
    """One kind of rule over the cells of one partition. `rule` is the compiled rule in force."""

    @property
    def codec(self) -> Codec | None:
        """How its cells are packed; None: its cells are groups."""

    def apply(self, key: bytes, leg: Leg, rule: Any, offset: int) -> None:
        """Apply a leg of this kind; `key` is its Kafka key."""

    def fire(self, key: bytes, cell: Any, rule: Any, due: int, offset: int) -> None:
        """Do what was due at `due` (milliseconds); log time is past it. It counts as having happened at `due` + 1."""

    def rejudge(self, key: bytes, cell: Any, rule: Any, offset: int) -> None:
        """Judge a cell under a new generation of its rule: what is no longer true resolves `rule_changed`."""

    def close(self, key: bytes, cell: Any, old: Any, cause: Resolution, offset: int) -> None:
        """Resolve what a cell has open, for `cause`: its rule is gone or took another shape. The core forgets it then."""

    def cut(self, key: bytes, cell: Any, rule: Any, record: Cut, offset: int) -> None:
        """At a period's end: publish what the cell has said nothing about yet."""

    def withdraw(self, key: bytes, cell: Any, rule: Any, record: Withdraw, offset: int) -> None:
        """Take a record out of a keyless cell for good: it came under a key of its own."""

    def is_settled(self, cell: Any) -> bool:
        """Tell whether a cell waits for nothing but to be forgotten: it is held packed then."""

    def restored(self, key: bytes, cell: Any) -> None:
        """Put a restored cell (None: it was forgotten) into whatever index the kind keeps beside the state."""
