"""What the API takes and answers about discrepancies, with examples for OpenAPI."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.alerts.domain.triage import Reason, Status
from services.alerts.ports.triage import History, Stored
from shared.contracts.discrepancy import Key, Severity, State
from shared.contracts.item import Item
from shared.contracts.near_miss import NearMissKind
from shared.money import AmountError, is_currency, parse_amount

NOTE_LENGTH_MAX = 4_000
"""Characters of a note: a page of text; longer explanations belong into a document that the note names."""
NAME_LENGTH_MAX = 255

ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH_MAX)]
NoteText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NOTE_LENGTH_MAX)]

EXAMPLE_ID = "5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e"
_EXAMPLE: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "revision": 1,
    "state": "raised",
    "status": "open",
    "org": "acme",
    "rule": "billing.payments",
    "pack": "billing",
    "type": "AmountMismatch",
    "severity": "medium",
    "key": "pay_9",
    "side": None,
    "account": None,
    "sides": {
        "internal": {
            "id": "evt_123",
            "source": "ledger",
            "record": "pay_9",
            "amount": "120.50",
            "currency": "EUR",
            "status": "succeeded",
            "occurred_at": "2026-11-20T10:00:00Z",
        },
        "provider": {
            "id": "evt_1Q",
            "source": "stripe",
            "record": "pi_3Q",
            "amount": "120.00",
            "currency": "EUR",
            "status": "succeeded",
            "occurred_at": "2026-11-20T10:00:02Z",
        },
    },
    "duplicate": None,
    "expected": "120.50",
    "actual": "120.00",
    "difference": "-0.50",
    "currency": "EUR",
    "raised_at": "2026-11-20T10:00:03Z",
    "resolved_at": None,
    "resolution": None,
    "expired": False,
    "explanation": "internal has 120.50 EUR, provider has 120.00 EUR: 0.50 EUR less than expected.",
    "log": {"partition": 3, "offset": 4711, "time": "2026-11-20T10:00:03Z"},
    "assignee": None,
    "reason": None,
    "reopened": 0,
    "status_at": "2026-11-20T10:00:03Z",
    "near_miss": None,
    "cluster": {
        "id": "0a3f7d0e-5a57-5a3e-9d0c-3c8d5f1f3b11",
        "sentence": "37 amounts of stripe since 2026-11-20 10:00 UTC are 2.9 % + 0.30 EUR short: "
        "fees are probably booked on one side only.",
        "size": 37,
        "since": "2026-11-20T10:00:03Z",
    },
}


class NearMissBody(BaseModel):
    """A record on the other side that is most likely the same money; both of a pair name each other."""

    kind: NearMissKind = Field(description="In what the two differ, beside their references.")
    discrepancy: str = Field(description="Id of the discrepancy that speaks about the other record.")
    source: str
    record: str
    key: Key
    amount: str
    currency: str | None
    sentence: str
    score: int = Field(description="How sure it is, out of 1000.")


class ClusterBody(BaseModel):
    """Open discrepancies that share a cause."""

    id: str = Field(description="Filter by it: `?cluster=`.")
    sentence: str
    size: int = Field(description="How many are open.")
    since: datetime


class DiscrepancyBody(BaseModel):
    """A discrepancy: the matcher's last revision, and what people made of it."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    id: str
    revision: int
    state: State = Field(description="The matcher's word: whether it is true now.")
    status: Status = Field(description="People's word: what they made of it.")
    org: str
    rule: str
    pack: str
    type: str
    severity: Severity
    key: Key
    side: str | None
    account: str | None
    sides: dict[str, Any]
    duplicate: str | None
    expected: str | None
    actual: str | None
    difference: str | None
    currency: str | None
    raised_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    expired: bool
    explanation: str
    log: dict[str, Any]
    shadow: bool = Field(
        default=False, description="From a rule that only watches: nobody is alerted, no report counts it."
    )
    cause: str | None = Field(default=None, description="Which of a type's causes it is, such as `incomplete`.")
    explained: str | None = Field(default=None, description="Of a drift: what movements after the reading explain.")
    unexplained: str | None = None
    assignee: str | None
    reason: str | None = Field(description="A person's reason code, or the engine's resolution.")
    reopened: int
    status_at: datetime
    near_miss: NearMissBody | None = Field(
        default=None, description="Found within a second or so after the raise, gone when either of the pair resolves."
    )
    cluster: ClusterBody | None = Field(default=None, description="What it shares its cause with.")


class ActionBody(BaseModel):
    """One line of the action log."""

    at: datetime
    actor: str
    action: str
    from_status: Status
    to_status: Status
    revision: int
    assignee: str | None
    reason: str | None
    notes: str | None


class AdjustmentBody(BaseModel):
    """An adjustment entry as it was posted."""

    id: str
    source: str
    amount: str
    currency: str
    reason: str
    notes: str | None
    posted_by: str
    event: dict[str, Any]
    created_at: datetime


class RevisionBody(BaseModel):
    """One revision in the history."""

    revision: int
    state: State
    type: str
    severity: Severity
    expected: str | None
    actual: str | None
    difference: str | None
    currency: str | None
    resolution: str | None
    expired: bool
    explanation: str
    log_time: datetime
    shadow: bool = False


class HistoryBody(DiscrepancyBody):
    """A discrepancy with everything that happened to it, the oldest first."""

    history: list[RevisionBody]
    actions: list[ActionBody]
    adjustments: list[AdjustmentBody]


class ItemBody(BaseModel):
    """The outcome of one group of records."""

    id: str
    revision: int
    status: str
    org: str
    rule: str
    pack: str
    key: Key
    sides: dict[str, Any]
    discrepancies: list[dict[str, Any]]
    at: datetime
    occurred_at: datetime | None
    live: bool
    log: dict[str, Any]
    shadow: bool = False
    confidence: str | None = Field(
        default=None, description="Of records matched without a shared key: how alike they are, from 0 to 1."
    )
    reasons: list[str] = Field(default=[], description="What made them alike.")


class AssignRequest(BaseModel):
    """Who is to look into it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"assignee": "ann@acme.example"}})

    assignee: ShortText


class ResolveRequest(BaseModel):
    """Why nothing more is to be done, though it is still true."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"reason": "accepted", "notes": "bank fee, agreed with finance"}}
    )

    reason: Reason
    notes: NoteText | None = None


class NoteRequest(BaseModel):
    """A remark."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"text": "asked Stripe support, ticket 77"}}
    )

    text: NoteText


def _amount(text: str) -> str:
    try:
        if not parse_amount(text):
            msg = "an adjustment of 0 changes nothing"
            raise ValueError(msg)
    except AmountError as error:
        raise ValueError(str(error)) from None
    return text


def _currency(text: str) -> str:
    if not is_currency(text):
        msg = f"{text!r} is no ISO 4217 code and no token that tieout knows"
        raise ValueError(msg)
    return text


class AdjustmentRequest(BaseModel):
    """A correction: a new signed entry that is added to the side of `source`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "source": "ledger",
                "amount": "-0.50",
                "currency": "EUR",
                "reason": "rounding",
                "notes": "see 77",
            }
        },
    )

    source: ShortText
    amount: Annotated[str, AfterValidator(_amount)]
    currency: Annotated[str, AfterValidator(_currency)]
    reason: ShortText
    notes: NoteText | None = None


def discrepancy_body(stored: Stored) -> DiscrepancyBody:
    """Return what the API answers about one discrepancy."""
    return DiscrepancyBody.model_validate(_discrepancy(stored))


def _discrepancy(stored: Stored) -> dict[str, Any]:
    standing = stored.standing
    return {
        **_plain(stored.found),
        "cause": stored.found.reason,
        "status": standing.status,
        "assignee": standing.assignee,
        "reason": standing.reason,
        "reopened": standing.reopened,
        "status_at": standing.status_at,
        "near_miss": _plain(stored.near_miss),
        "cluster": _plain(stored.cluster),
    }


def history_body(history: History) -> HistoryBody:
    """Return a discrepancy with its history."""
    return HistoryBody.model_validate(
        {
            **_discrepancy(history.stored),
            "history": _plain(history.revisions),
            "actions": _plain(history.log),
            "adjustments": _plain(history.adjustments),
        }
    )


def item_body(item: Item) -> ItemBody:
    """Return what the API answers about one item."""
    return ItemBody.model_validate(_plain(item))


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
