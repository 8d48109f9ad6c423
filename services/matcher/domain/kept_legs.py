"""Cells that are kept as the very bytes their legs came in: one leg that waits, or two that are settled.

Layout: the mark, the form, when it is due (8 bytes), and the values as they stand in the topic `legs` (of two legs,
the length of the first one before them). A state of many millions of such cells is restored without reading a leg.
"""

from struct import Struct
from typing import Final

from services.matcher.domain.group import MATCHED, Group, record_of
from shared.contracts.leg import Leg, decode_leg_record

MARKED: Final = 0xC1
"""First byte of a packed cell that is no packed group: msgpack never uses it. What the cell is follows."""
ONE: Final = 0xFA
TWO: Final = 0xFB
BLOCK: Final = 0xFC
"""Stands in memory only, for many settled pairs together: see `frozen`."""
PAIR: Final = bytes([MARKED, TWO])
_head_of_one = Struct(">BBQ")
_head_of_two = Struct(">BBQI")
LEG_AT: Final = _head_of_one.size
_FIRST_AT: Final = _head_of_two.size


def is_kept(packed: bytes) -> bool:
    """Tell whether this is a cell of either form."""
    return packed[0] == MARKED and packed[1] >= ONE


def is_one(packed: bytes) -> bool:
    """Tell whether this is a leg that waits."""
    return packed[0] == MARKED and packed[1] == ONE


def keep_one(due_at: int, leg: bytes) -> bytes:
    """Return the cell of a leg that waits until `due_at` (milliseconds)."""
    return _head_of_one.pack(MARKED, ONE, due_at) + leg


def keep_two(due_at: int, one: bytes, leg: bytes) -> bytes:
    """Return the cell of a pair: the leg `one` that waited, and the leg that settled it."""
    return _head_of_two.pack(MARKED, TWO, due_at, len(one)) + one + leg


def due_of(packed: bytes) -> int:
    """Return when a cell of either form is due, milliseconds."""
    due_at: int = _head_of_one.unpack_from(packed)[2]
    return due_at


def unpack_kept(packed: bytes) -> Group:
    """Return the group that the legs of a cell make."""
    if packed[1] == ONE:
        leg = _leg(packed[LEG_AT:])
        return Group(
            leg.generation, leg.id, leg.received_at, due_of(packed), leg.received_at, [record_of(leg)], waits=True
        )
    second_at = _FIRST_AT + _head_of_two.unpack_from(packed)[3]
    one, other = _leg(packed[_FIRST_AT:second_at]), _leg(packed[second_at:])
    return Group(
        one.generation,
        one.id,
        max(one.received_at, other.received_at),
        due_of(packed),
        one.received_at,
        [record_of(one), record_of(other)],
        item_revision=1,
        item_status=MATCHED,
    )


def _leg(value: bytes) -> Leg:
    leg = decode_leg_record(value)
    assert isinstance(leg, Leg)
    return leg
