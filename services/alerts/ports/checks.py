"""Verdicts of checks, as they were stored: the last of each, or all over time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from shared.contracts.discrepancy import CheckResult, Key


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict on one reading."""

    id: str
    rule: str
    pack: str
    key: Key
    code: str | None
    """Which check of the rule; null where the reading as a whole is spoken of."""
    result: CheckResult
    currency: str | None
    as_of: datetime
    expected: str | None
    actual: str | None
    difference: str | None
    reason: str | None
    shadow: bool
    log_partition: int
    log_offset: int
    log_time: datetime


class VerdictFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which verdicts to list; None: any."""

    pack: str | None = None
    rule: str | None = None
    code: str | None = None
    key: str | None = None
    """JSON, as it is stored."""
    since: datetime | None = None
    """Of readings as of this time or later."""
    until: datetime | None = None
    judged_since: datetime | None = None
    """Given at this log time or later, whatever the reading is as of."""
    latest: bool = False
    """Only the last of each rule, key, check and currency."""


class CheckStore(Protocol):
    """Always within one organisation. Raises `DependencyAway` while the database cannot be reached."""

    async def verdicts(
        self, org: str, chosen: VerdictFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Verdict]:
        """Return verdicts, those on the newest readings first."""
        ...
