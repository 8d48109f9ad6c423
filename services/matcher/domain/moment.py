"""When and where something is judged."""

from typing import NamedTuple

from shared.contracts.discrepancy import LogPosition

UNKNOWN = -1
"""Log time while an inbox partition has not been heard of."""


class Moment(NamedTuple):
    """When and where something is judged."""

    log_time: int
    """Milliseconds: what deadlines are held against."""
    at: int
    """Milliseconds: receipt of the leg, or the instant the timer fired; what results are dated with."""
    log: LogPosition
    anew: bool = False
    """Say again what is raised, though nothing about it is new: its rule became a shadow or is none any more."""
