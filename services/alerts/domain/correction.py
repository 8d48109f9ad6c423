"""Auto-correction of low exceptions: what is tried, what counts as having helped, and how often it did. No I/O here.

tieout changes no ledger. It asks a provider again, or asks the ledger to book an entry; whether that helped is what the
matcher says afterwards, and nothing else.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal, get_args

import msgspec

from services.alerts.domain.adjustment import AdjustmentRefused, Entry, RuleShape, adjust
from services.alerts.domain.triage import Standing
from shared.contracts.discrepancy import Discrepancy, Key
from shared.ids import NAMESPACE, canonical

ActionKind = Literal["refetch", "adjust"]
ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)
AttemptState = Literal["begun", "waiting", "succeeded", "failed"]
"""`begun`: the ledger may not have been asked yet. `waiting`: for the matcher to say whether it helped."""
Outcome = Literal[
    "resolved",
    "still_differs",
    "no_fresh_reading",
    "read_failed",
    "refused",
    "unavailable",
    "changed",
    "left_to_people",
]
"""`resolved` is the one that succeeded. `changed`: another difference stands there now, so nothing can be said of this."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
ACTOR = "auto-correction"
"""Who acts, in the action log."""

ADJUSTABLE = frozenset({"BalanceMismatch", "AmountMismatch"})
"""Types whose difference is an amount that an entry can add."""
REFETCHES_MAX = 3
"""Per raise: a provider that cannot be read three times in a row is for people."""
AGAIN_AFTER = timedelta(minutes=5)
"""Between two reads."""
DETAIL_LENGTH_MAX = 500


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be tried on exceptions of one rule."""

    refetch: str | None = None
    """Source whose provider is asked again."""
    adjust: bool = False
    """Whether an entry may be posted to the ledger."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an organisation lets be tried."""

    allowed: Mapping[str, Allowed]
    """By rule."""
    ceilings: Mapping[str, Decimal] = field(default_factory=dict)
    """Largest adjustment per currency; a currency that is not here is never adjusted."""
    ledger_source: str | None = None
    """Source of the ledger that takes entries; None: there is no address to post to."""
    after: timedelta = timedelta(seconds=60)
    """How long an exception must have lasted: most go away by themselves."""
    within: timedelta = timedelta(minutes=10)
    """How long an action may take to help."""
    per_hour_max: int = 20
    """Adjustments of the organisation in an hour: more of them are a fault that no entry mends."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One action on one exception."""

    id: str
    """Stable name of the attempt: the idempotency key at the ledger."""
    org: str
    discrepancy_id: str
    number: int
    """From 1, over all that was ever tried on the exception."""
    episode: int
    """How often the exception had come back when it was tried."""
    rule: str
    pack: str
    action: ActionKind
    source: str
    """Whose provider is asked, or which ledger."""
    account: str | None
    key: Key
    currency: str | None
    difference: str | None
    requested_at: datetime
    validate_by: datetime
    state: AttemptState
    read_as_of: datetime | None = None
    """As of when the newest reading was that was known when it was tried: only a newer one says something new."""
    body: dict[str, Any] | None = None
    """What is posted to the ledger."""
    outcome: Outcome | None = None
    detail: str | None = None
    finished_at: datetime | None = None


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """The newest verdict on a reading that was made for the attempt."""

    as_of: datetime
    result: str
    difference: str | None
    cause: str | None


class Verdict(msgspec.Struct, frozen=True):
    """What became of an attempt."""

    succeeded: bool
    outcome: Outcome
    detail: str


class CorrectionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How an action fared over some time."""

    action: ActionKind
    finished: int
    succeeded: int
    failed: int
    success_percent: str | None
    """Succeeded of finished, half even to two places; null where none has finished."""
    outcomes: dict[str, int]


def attempt_id(discrepancy_id: str, number: int) -> str:
    """Return the name of an attempt: the same after a crash, so that a ledger books it once."""
    return str(uuid.uuid5(NAMESPACE, canonical(["correction", discrepancy_id, str(number)]).decode()))


def next_action(
    found: Discrepancy, standing: Standing, earlier: Sequence[Attempt], policy: Policy, now: datetime
) -> ActionKind | None:
    """Return what to try now on an exception, None where nothing is to be tried (any more, or yet).

    An adjustment follows only a fresh reading that says the same: never what may be a reading's fault.

    Args:
        found: the exception as the matcher told it last.
        standing: what people have made of it.
        earlier: everything that was tried on it, the oldest first.
        policy: of its organisation.
        now: the present time.
    """
    allowed = policy.allowed.get(found.rule)
    if allowed is None or not _is_ours(found, standing) or now - found.raised_at < policy.after:
        return None
    tried = [one for one in earlier if one.episode == standing.reopened]
    if any(one.state in {"begun", "waiting"} for one in tried):
        return None
    reads = [one for one in tried if one.action == "refetch"]
    if allowed.refetch is not None and not _confirmed(reads, found):
        return "refetch" if _may_read(reads, now) else None
    return "adjust" if _may_adjust(found, tried, policy) else None


def _is_ours(found: Discrepancy, standing: Standing) -> bool:
    """An exception that somebody looks into is theirs."""
    return (
        found.severity == "low"
        and found.state == "raised"
        and not found.expired
        and not found.shadow
        and standing.status == "open"
        and standing.assignee is None
    )


def _confirmed(reads: Sequence[Attempt], found: Discrepancy) -> bool:
    return any(one.outcome == "still_differs" and one.difference == found.difference for one in reads)


def _may_read(reads: Sequence[Attempt], now: datetime) -> bool:
    if not reads:
        return True
    last = reads[-1].finished_at
    return len(reads) < REFETCHES_MAX and last is not None and now - last >= AGAIN_AFTER


def _may_adjust(found: Discrepancy, tried: Sequence[Attempt], policy: Policy) -> bool:
    allowed = policy.allowed[found.rule]
    ceiling = policy.ceilings.get(found.currency or "")
    if not allowed.adjust or policy.ledger_source is None or ceiling is None:
        return False
    if found.type not in ADJUSTABLE or found.difference is None or abs(Decimal(found.difference)) > ceiling:
        return False
    # Once per raise: what the ledger took or refused is its answer, and one that did not answer may have booked.
    return not any(one.action == "adjust" for one in tried)


def make_attempt(
    action: ActionKind, found: Discrepancy, standing: Standing, number: int, policy: Policy, now: datetime
) -> Attempt:
    """Return the attempt to be stored before anything is done; the body of an adjustment comes from `with_body`."""
    allowed = policy.allowed[found.rule]
    source = allowed.refetch if action == "refetch" else policy.ledger_source
    assert source is not None, "the action is allowed only where it has a source"
    return Attempt(
        id=attempt_id(found.id, number),
        org=found.org,
        discrepancy_id=found.id,
        number=number,
        episode=standing.reopened,
        rule=found.rule,
        pack=found.pack,
        action=action,
        source=source,
        account=found.account or (found.key if isinstance(found.key, str) else None),
        key=found.key,
        currency=found.currency,
        difference=found.difference,
        requested_at=now,
        validate_by=now + policy.within,
        state="waiting" if action == "refetch" else "begun",
    )


def with_body(attempt: Attempt, found: Discrepancy, shape: RuleShape) -> Attempt:
    """Return the attempt with what the ledger is asked: an entry that adds the difference to its side.

    Raises:
        AdjustmentRefused: the rule takes no entry of this ledger on its first side.
    """
    assert found.difference is not None
    assert found.currency is not None
    if next(iter(shape.sources.values()), None) != attempt.source:
        raise AdjustmentRefused(f"{attempt.source!r} is not the first side of {found.rule}, which a difference is from")
    wish = Entry(source=attempt.source, amount=found.difference, currency=found.currency, reason=ACTOR)
    entry = adjust(found, shape, wish, id_=attempt.id, actor=ACTOR, at=attempt.requested_at)
    body = {
        "idempotency_key": attempt.id,
        "org": found.org,
        "discrepancy": found.id,
        "rule": found.rule,
        "type": found.type,
        "key": found.key,
        "account": attempt.account,
        "currency": found.currency,
        "amount": found.difference,
        "expected": found.expected,
        "actual": found.actual,
        "explanation": found.explanation,
        "entry": entry.event,
    }
    return msgspec.structs.replace(attempt, body=msgspec.to_builtins(body))


def judge(
    attempt: Attempt, found: Discrepancy, standing: Standing, fresh: Fresh | None, now: datetime
) -> Verdict | None:
    """Say whether a waiting attempt helped; None: it cannot be told yet."""
    ended = _ended(attempt, found, standing)
    if ended is not None:
        return ended
    if attempt.action == "refetch" and fresh is not None and fresh.result in {"error", "failed"}:
        return _by_reading(attempt, fresh)
    if now < attempt.validate_by or attempt.state == "begun":
        return None
    return _too_late(attempt, found, fresh)


def _ended(attempt: Attempt, found: Discrepancy, standing: Standing) -> Verdict | None:
    """Return what the exception itself says, whatever was read or booked."""
    if found.state == "resolved":
        return Verdict(True, "resolved", f"the exception resolved: {found.resolution or 'no resolution given'}")
    if standing.status != "open" or standing.assignee is not None:
        who = f"assigned to {standing.assignee}" if standing.assignee else standing.status
        return Verdict(False, "left_to_people", f"somebody took it over: it is {who}")
    if found.difference != attempt.difference:
        return Verdict(
            False, "changed", f"the difference is {found.difference} now and was {attempt.difference} when it was tried"
        )
    return None


def _too_late(attempt: Attempt, found: Discrepancy, fresh: Fresh | None) -> Verdict:
    minutes = (attempt.validate_by - attempt.requested_at) / timedelta(minutes=1)
    if attempt.action == "refetch" and fresh is None:
        return Verdict(False, "no_fresh_reading", f"{attempt.source} was not read again within {minutes:.3g} minutes")
    helped = "the ledger took the entry" if attempt.action == "adjust" else f"{attempt.source} was read again"
    return Verdict(
        False,
        "still_differs",
        f"{helped}, and {found.difference} {found.currency} still differ after {minutes:.3g} minutes",
    )


def _by_reading(attempt: Attempt, fresh: Fresh) -> Verdict:
    if fresh.result == "error":
        return Verdict(False, "read_failed", f"{attempt.source} {fresh.cause or 'could not be read'}")
    return Verdict(
        False,
        "still_differs",
        f"read again as of {fresh.as_of:%Y-%m-%d %H:%M:%S} UTC, {attempt.source} says the same: "
        f"{fresh.difference} {attempt.currency}",
    )


def figures(counts: Mapping[tuple[ActionKind, str], int]) -> list[CorrectionFigures]:
    """Return the figures of each action that has finished attempts, from their counts by (action, outcome)."""
    found: list[CorrectionFigures] = []
    for action in ACTIONS:
        outcomes = {outcome: many for (of, outcome), many in sorted(counts.items()) if of == action}
        finished, succeeded = sum(outcomes.values()), outcomes.get("resolved", 0)
        if not finished:
            continue
        found.append(
            CorrectionFigures(
                action=action,
                finished=finished,
                succeeded=succeeded,
                failed=finished - succeeded,
                success_percent=percent(succeeded, finished),
                outcomes=outcomes,
            )
        )
    return found


def percent(part: int, whole: int) -> str | None:
    """Return part of whole in percent, half even to two places; None of nothing."""
    if not whole:
        return None
    return str((Decimal(100 * part) / whole).quantize(Decimal("0.01"), ROUND_HALF_EVEN))
