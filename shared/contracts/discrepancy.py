"""Topic `discrepancies`: every revision of every discrepancy, with both sides' evidence and an explaining sentence.

JSON with CloudEvents headers (`ce_id` = id/revision). Kafka key: the discrepancy id. Compacted.
"""

from datetime import datetime
from typing import Literal

import msgspec

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
State = Literal["raised", "resolved"]
Resolution = Literal[
    "late_arrival",
    "corrected",
    "voided",
    "adjusted",
    "superseded",
    "rule_changed",
    "rule_withdrawn",
    "already_settled",
]
MatchType = Literal[
    "MissingInternalRecord",
    "MissingProviderRecord",
    "MissingRecord",
    "AmountMismatch",
    "CurrencyMismatch",
    "StatusMismatch",
    "DuplicateChargeSuspected",
    "RecordMoved",
]
CheckResult = Literal["passed", "failed", "opening", "stale", "skipped", "error", "usage"]
"""`usage`: a closing reading, which completes its period and is not judged."""
RECORDS_SHOWN_MAX = 20
"""Records listed per side of a sum; `count` says how many there are."""

Key = str | list[str]
"""A one-field key prints as a string, else as a list."""


class LogPosition(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where in the log of legs a result was made; `time` is log time there."""

    partition: int
    offset: int
    time: datetime


class RecordEvidence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record as it stood when the result was made."""

    id: str
    source: str
    record: str
    amount: str | None
    currency: str | None
    status: str | None
    occurred_at: datetime


class SideEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A side's compared record; for sums the total, how many records it has and up to 20 of them."""

    id: str | None
    source: str | None
    record: str | None
    amount: str | None
    currency: str | None
    status: str | None
    occurred_at: datetime | None
    count: int | None = None
    records: list[RecordEvidence] | None = None
    adjustments: list[RecordEvidence] | None = None
    """Adjustment entries added to the side, each as its own line."""


class Discrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of one discrepancy. `expected` is the first side the rule names; difference = actual - expected."""

    id: str
    revision: int
    state: State
    org: str
    rule: str
    pack: str
    type: str
    severity: Severity
    key: Key
    side: str | None
    account: str | None
    sides: dict[str, SideEvidence | None]
    duplicate: str | None
    expected: str | None
    actual: str | None
    difference: str | None
    currency: str | None
    raised_at: datetime
    """First raise."""
    resolved_at: datetime | None
    resolution: Resolution | None
    expired: bool
    explanation: str
    log: LogPosition
    reason: str | None = None
    """Which of a type's causes it is, e.g. `incomplete` or `unbalanced`."""
    explained: str | None = None
    """Of a drift: the part that movements dated after the reading explain."""
    unexplained: str | None = None
    shadow: bool = False
    """From a rule that only watches: nobody is alerted, no report counts it."""
    confidence: str | None = None
    """Between records matched without a shared key: how alike they are, from 0 to 1."""
    reasons: list[str] | None = None
    """What made them alike."""


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a source's feed stands, as partition `log.partition` knows it; on topic `checks`, with the header `kind: feed`."""

    org: str
    source: str
    rule: str
    """The rule it is watched by; empty: no rule selects the source any more."""
    last_seen_at: datetime
    usual_silence_ms: int | None
    """The longest silence that is usual at this hour of the week; null: not known yet."""
    silent_after_ms: int | None
    """Silence after which it is told; null: not known yet."""
    silent_since: datetime | None
    """When it was last seen, while it is silent."""
    waiting: int
    """Groups of this partition whose missing record is not raised, since the feed is quiet or just back."""
    log: LogPosition


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Partition `log.partition` has been applied up to `log`; on `discrepancies`, `matches` and `checks` alike.

    Kafka key `progress`; its header `kind: progress` tells it apart without reading the value.
    """

    log: LogPosition


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Topic `checks`: a verdict on a reading (balance, zero sum, invariant). Kafka key: the account or group key."""

    org: str
    rule: str
    pack: str
    key: Key
    code: str | None
    """Which check of the rule; null where the rule has but one, or where the reading as a whole is spoken of."""
    result: CheckResult
    currency: str | None
    as_of: datetime
    expected: str | None
    actual: str | None
    difference: str | None
    log: LogPosition
    reason: str | None = None
    """Why it is in error, or which of the causes failed it."""
    explained: str | None = None
    unexplained: str | None = None
    entries: int | None = None
    """Zero sum: live entries of the transaction."""
    of: int | None = None
    """Zero sum: entries stated; null where none is."""
    period: str | None = None
    """Counters that reset: the period that `usage` is of, e.g. `2026-11`."""
    usage: str | None = None
    partial: bool | None = None
    """The period has no closing reading yet."""
    shadow: bool = False
