"""Triage: what people and the engine may do with a discrepancy, and what each step leaves in the action log.

`state` (raised, resolved) is the matcher's word, `status` (open, acknowledged, resolved) people's; neither overwrites
the other. Every function returns the new standing and log rows; storing them is the caller's job.
"""

from datetime import datetime
from typing import Literal, assert_never, get_args

import msgspec

from shared.contracts.discrepancy import Discrepancy, Resolution, State

Status = Literal["open", "acknowledged", "resolved"]
STATUSES: tuple[Status, ...] = get_args(Status)
Reason = Literal["accepted", "written_off", "timing", "adjusted", "false_positive"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a person resolves what is still true."""
ActionName = Literal[
    "acknowledge",
    "assign",
    "resolve",
    "note",
    "adjust",
    "engine_resolve",
    "reopen",
    "refetch",
    "post_adjustment",
    "correction_succeeded",
    "correction_failed",
]
ENGINE = "engine"
"""Actor of what the matcher's results bring about."""


class Facts(msgspec.Struct, frozen=True):
    """What a person resolves; a revision that changes any of these reopens it."""

    type: str
    expected: str | None
    actual: str | None
    currency: str | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A stored discrepancy, as far as decisions need it."""

    status: Status
    state: State
    revision: int
    log_offset: int
    facts: Facts
    resolution: Resolution | None
    status_at: datetime
    assignee: str | None = None
    reason: str | None = None
    accepted: Facts | None = None
    """What was so when a person resolved it; None while no person has."""
    reopened: int = 0
    shadow: bool = False
    """From a rule that only watched: nobody has been told."""


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the action log."""

    at: datetime
    actor: str
    action: ActionName
    from_status: Status
    to_status: Status
    revision: int
    assignee: str | None = None
    reason: str | None = None
    notes: str | None = None


class Acknowledge(msgspec.Struct, frozen=True):
    """Somebody has seen it and looks into it."""

    notes: str | None = None


class Assign(msgspec.Struct, frozen=True):
    """Somebody is to look into it; says nothing about whether they have seen it."""

    assignee: str
    notes: str | None = None


class Resolve(msgspec.Struct, frozen=True):
    """A person decides that nothing more is to be done."""

    reason: Reason
    notes: str | None = None


class Note(msgspec.Struct, frozen=True):
    """A remark; possible in every status."""

    text: str


class Adjust(msgspec.Struct, frozen=True):
    """An adjustment entry was posted that references it; possible in every status."""

    reason: str
    notes: str | None = None


Action = Acknowledge | Assign | Resolve | Note | Adjust


class TransitionRefused(Exception):
    """The action does not exist in this status; `status` says which that is."""

    def __init__(self, action: ActionName, status: Status) -> None:
        super().__init__(f"a discrepancy that is {status} cannot be {_PAST[action]}")
        self.action = action
        self.status = status


_PAST: dict[ActionName, str] = {
    "acknowledge": "acknowledged",
    "assign": "assigned",
    "resolve": "resolved",
    "note": "commented",
    "adjust": "adjusted",
    "engine_resolve": "resolved",
    "reopen": "reopened",
}


def act(standing: Standing, action: Action, actor: str, at: datetime) -> tuple[Standing, LogRow]:
    """Return what a person's action makes of `standing`, and its line in the log.

    Raises:
        TransitionRefused: there is no such transition from the present status.
    """
    now = standing.status
    match action:
        case Acknowledge(notes):
            if now != "open":
                raise TransitionRefused("acknowledge", now)
            row = _row(standing, "acknowledge", actor, at, to="acknowledged", notes=notes)
            return _to(standing, "acknowledged", at), row
        case Assign(assignee, notes):
            if now == "resolved":
                raise TransitionRefused("assign", now)
            return (
                msgspec.structs.replace(standing, assignee=assignee),
                _row(standing, "assign", actor, at, assignee=assignee, notes=notes),
            )
        case Resolve(reason, notes):
            if now == "resolved":
                raise TransitionRefused("resolve", now)
            resolved = msgspec.structs.replace(_to(standing, "resolved", at), reason=reason, accepted=standing.facts)
            return resolved, _row(standing, "resolve", actor, at, to="resolved", reason=reason, notes=notes)
        case Note(text):
            return standing, _row(standing, "note", actor, at, notes=text)
        case Adjust(reason, notes):
            return standing, _row(standing, "adjust", actor, at, reason=reason, notes=notes)
        case _:
            assert_never(action)


class Absorbed(msgspec.Struct, frozen=True, kw_only=True):
    """What a revision made of the stored discrepancy."""

    found: Discrepancy
    """As it is stored: a repeat of settled records is stored as resolved."""
    standing: Standing
    log: list[LogRow]
    alerts: bool
    """Whether endpoints are told about it."""
    previous: State | None
    """State stored before; None when it is new."""


def facts_of(found: Discrepancy) -> Facts:
    """Return what a person would resolve."""
    return Facts(found.type, found.expected, found.actual, found.currency)


def is_newer(found: Discrepancy, standing: Standing) -> bool:
    """By place in the log first: a key that comes back long after it was forgotten starts at revision 1 again."""
    return (found.log.offset, found.revision) > (standing.log_offset, standing.revision)


def starts_again(found: Discrepancy, standing: Standing) -> bool:
    """Tell whether the matcher had forgotten the discrepancy and found it anew under the same id."""
    return found.revision <= standing.revision


def absorb(standing: Standing | None, found: Discrepancy, *, repeats_settled: bool) -> Absorbed | None:
    """Return what the revision `found` makes of what is stored; None when it is not newer.

    `repeats_settled`: the group holds only records that the sink already holds as settled.
    """
    if standing is not None and not is_newer(found, standing):
        return None
    absorbed = _absorb(standing, found, repeats_settled=repeats_settled)
    if not found.shadow and standing is not None and standing.shadow:
        # Nobody has heard of it yet: to a receiver it is raised now, or was never raised.
        return msgspec.structs.replace(absorbed, previous=None, alerts=absorbed.alerts and found.state == "raised")
    if not found.shadow:
        return absorbed
    # When its rule becomes a shadow, endpoints hear once more of what they know; then no more.
    return msgspec.structs.replace(absorbed, alerts=absorbed.alerts and standing is not None and not standing.shadow)


def _absorb(standing: Standing | None, found: Discrepancy, *, repeats_settled: bool) -> Absorbed:
    muted = standing is not None and standing.resolution == "already_settled"
    if found.state == "raised" and repeats_settled and (muted or standing is None or starts_again(found, standing)):
        return _store_settled(standing, found)
    if muted and found.state == "resolved":
        return _store_settled(standing, found)
    if standing is None:
        return _first(found)
    if found.state == "resolved":
        return _engine_resolves(standing, found)
    return _still_true(standing, found)


def _first(found: Discrepancy) -> Absorbed:
    standing = _standing(found, "open")
    if found.state == "raised":
        return Absorbed(found=found, standing=standing, log=[], alerts=True, previous=None)
    # Its raise was compacted away, or lies in the same batch of a topic that is read again.
    row = _row(standing, "engine_resolve", ENGINE, found.log.time, to="resolved", reason=found.resolution)
    resolved = msgspec.structs.replace(standing, status="resolved", reason=found.resolution)
    return Absorbed(found=found, standing=resolved, log=[row], alerts=True, previous=None)


def _store_settled(before: Standing | None, found: Discrepancy) -> Absorbed:
    stored = msgspec.structs.replace(
        found,
        state="resolved",
        resolution="already_settled",
        resolved_at=found.resolved_at if found.state == "resolved" else found.log.time,
    )
    standing = _standing(stored, "resolved", before)
    standing = msgspec.structs.replace(standing, reason="already_settled")
    status = before.status if before else "open"
    known = before is not None and before.status == "resolved"
    row = _row(
        standing, "engine_resolve", ENGINE, found.log.time, at_status=status, to="resolved", reason="already_settled"
    )
    return Absorbed(
        found=stored,
        standing=standing,
        log=[] if known else [row],
        alerts=False,
        previous=before.state if before else None,
    )


def _engine_resolves(before: Standing, found: Discrepancy) -> Absorbed:
    after = _standing(found, before.status, before)
    if before.status == "resolved":
        return Absorbed(found=found, standing=after, log=[], alerts=before.state == "raised", previous=before.state)
    row = _row(after, "engine_resolve", ENGINE, found.log.time, to="resolved", reason=found.resolution)
    after = msgspec.structs.replace(after, status="resolved", reason=found.resolution, status_at=found.log.time)
    return Absorbed(found=found, standing=after, log=[row], alerts=True, previous=before.state)


def _still_true(before: Standing, found: Discrepancy) -> Absorbed:
    after = _standing(found, before.status, before)
    if before.status != "resolved":
        return Absorbed(found=found, standing=after, log=[], alerts=True, previous=before.state)
    if before.accepted == after.facts and not starts_again(found, before):
        return Absorbed(found=found, standing=after, log=[], alerts=False, previous=before.state)
    row = _row(after, "reopen", ENGINE, found.log.time, to="open", notes=_what_changed(before, after))
    after = msgspec.structs.replace(
        after, status="open", reason=None, accepted=None, reopened=before.reopened + 1, status_at=found.log.time
    )
    # To a receiver it is raised again: after a resolve nobody looks at mere updates.
    return Absorbed(found=found, standing=after, log=[row], alerts=True, previous="resolved")


def _what_changed(before: Standing, after: Standing) -> str:
    accepted = before.accepted
    if accepted is None:
        return "raised again after the engine had resolved it"
    if accepted == after.facts:
        return "raised anew after it had been settled and forgotten"
    changes = [
        f"{name}: {getattr(accepted, name) or '-'} -> {getattr(after.facts, name) or '-'}"
        for name in Facts.__struct_fields__
        if getattr(accepted, name) != getattr(after.facts, name)
    ]
    return "changed since it was resolved: " + ", ".join(changes)


def _standing(found: Discrepancy, status: Status, before: Standing | None = None) -> Standing:
    return Standing(
        status=status,
        state=found.state,
        revision=found.revision,
        log_offset=found.log.offset,
        facts=facts_of(found),
        resolution=found.resolution,
        status_at=before.status_at if before and before.status == status else found.log.time,
        assignee=before.assignee if before else None,
        reason=before.reason if before else None,
        accepted=before.accepted if before else None,
        reopened=before.reopened if before else 0,
        shadow=found.shadow,
    )


def _to(standing: Standing, status: Status, at: datetime) -> Standing:
    return msgspec.structs.replace(standing, status=status, status_at=at)


def _row(
    standing: Standing,
    action: ActionName,
    actor: str,
    at: datetime,
    *,
    at_status: Status | None = None,
    to: Status | None = None,
    assignee: str | None = None,
    reason: str | None = None,
    notes: str | None = None,
) -> LogRow:
    return LogRow(
        at=at,
        actor=actor,
        action=action,
        from_status=at_status or standing.status,
        to_status=to or standing.status,
        revision=standing.revision,
        assignee=assignee,
        reason=reason,
        notes=notes,
    )
