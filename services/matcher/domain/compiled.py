"""The common case in C, where it is built (`native/`): the same objects and the same bytes for a fraction of the time.

Python stays the reference: what is compiled stops before every record that is not a plain leg of a plain pair, and
property tests hold the two together.
"""

from collections.abc import Sequence
from hashlib import sha1
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from services.matcher.domain.pairs import Pairs
from services.matcher.domain.state import SETTLED_OVERHEAD_BYTES, State
from shared.ids import NAMESPACE
from shared.money import decimals_of

if TYPE_CHECKING:
    from services.matcher.domain.core import Core

LAYOUT: Final = 3
"""Of cells, legs, pairs and state entries, as the compiled build must know them."""

try:
    from tieout_native import pairs as _native
except ImportError:
    _native = None

BUILT: Final = _native is not None and _native.LAYOUT == LAYOUT


def _digest(named: bytes) -> bytes:
    return sha1(named, usedforsecurity=False).digest()


_writer: Any = _native.Writer(_digest, decimals_of, NAMESPACE.bytes) if BUILT else None


def pair_as_json(value: bytes) -> bytes | None:
    """Return the item of a `MatchedPair` as JSON; None where Python has to write it, or it is not built."""
    return _writer.write(value) if BUILT else None


def bytes_of(entries: Sequence[tuple[bytes, bytes]]) -> int:
    """Return how many bytes keys and values of state entries have."""
    counted: int | None = _native.bytes_of(entries) if BUILT else None
    return sum(map(len, chain.from_iterable(entries))) if counted is None else counted


def pack_entries(entries: Sequence[tuple[bytes, bytes]], overhead_bytes: int, bytes_max: int) -> list[bytes] | None:
    """Return msgpack arrays of state entries, as many in each as fit into `bytes_max`; None where Python has to."""
    return _native.pack_entries(entries, overhead_bytes, bytes_max) if BUILT else None


def make_runner(core: "Core", state: State, clock_entry: bytes) -> Any:
    """Return what applies runs of plain legs to `state`; None where it is not built, or built for another layout."""
    return _native.Runner(core, state, clock_entry, SETTLED_OVERHEAD_BYTES) if BUILT else None


def set_rules(runner: Any, pairs: dict[str, Pairs]) -> None:
    """Let `runner` know the rules in force, by every generation of them; what it cannot do is not among them."""
    runner.rules = [
        _native.Rule(generation, one.known_live, bytes(one.words), one.keep_ms, one.deadlines_ms, one.compares_status)
        for generation, one in pairs.items()
        if one.deadlines_ms is not None
    ]
