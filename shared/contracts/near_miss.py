"""What is said about a discrepancy beside its own record: its near miss, and the cluster it belongs to.

Neither is on a topic: both depend on what else is open. The API, the commands and the web page show them.
"""

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.discrepancy import Key

NearMissKind = Literal[
    "same_amount",
    "sign_flipped",
    "minor_units",
    "same_number",
    "digits_transposed",
    "rounding",
    "fee",
    "tax",
    "other_currency",
    "day_off",
]


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """A record on the other side that is most likely the same money. Both of a pair name each other."""

    kind: NearMissKind
    """In what the two differ, beside their references."""
    discrepancy: str
    """Id of the discrepancy that speaks about the other record."""
    source: str
    record: str
    key: Key
    amount: str
    currency: str | None
    sentence: str
    score: int
    """How sure it is, out of 1000."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Open discrepancies of an organisation that share a cause."""

    id: str
    sentence: str
    size: int
    """How many are open."""
    since: datetime
    """First raise of the oldest that is open."""
