"""Dead letters for people: what is kept of a record that was set aside, and what somebody may do with it.

A letter is `open` until a person has its record sent through again (`replayed`) or decides that nothing is to be done
(`dismissed`). Every function returns data; storing it is the caller's job.
"""

from datetime import datetime
from typing import Literal, get_args

import msgspec

from shared.contracts.dead_letter import DeadLetter

LetterState = Literal["open", "replayed", "dismissed"]
LETTER_STATES: tuple[LetterState, ...] = get_args(LetterState)
LetterAction = Literal["replay", "dismiss"]

RAW_BYTES_MAX = 65_536
"""Kept of a body for people to look at: no event that somebody reads is longer, and `inbox` has it whole."""
TEXT_CHARS_MAX = 4_000
"""Kept of each text: a detail may quote what it refuses."""
ORG_CHARS_MAX = 255
"""No organisation's name is longer; PostgreSQL refuses index entries of more than 2,704 bytes."""
_PLACE_MAX = 2**31 - 1, 2**63 - 1
_NUL_SHOWN = "\N{REPLACEMENT CHARACTER}"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what people did with a letter."""

    at: datetime
    actor: str
    action: LetterAction
    from_state: LetterState
    to_state: LetterState
    reason: str | None = None


class KeptLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as it is stored, and where it stands."""

    letter: DeadLetter
    """Its `raw` holds the first `RAW_BYTES_MAX` bytes, or none in a list."""
    raw_bytes: int
    """Size of the body as it came."""
    first_seen_at: datetime
    state: LetterState = "open"
    state_by: str | None = None
    state_reason: str | None = None
    state_at: datetime | None = None


class StateRefused(Exception):
    """The letter's present state does not allow the action."""

    def __init__(self, action: LetterAction, state: LetterState) -> None:
        super().__init__(f"a dead letter that is {state} cannot be {_PAST[action]}")
        self.action = action
        self.state = state


_PAST: dict[LetterAction, str] = {"replay": "replayed", "dismiss": "dismissed"}


def trouble_of(letter: DeadLetter) -> str | None:
    """Return why `letter` cannot be stored as it is; None when it can."""
    if letter.received_at.tzinfo is None:
        return "received_at has no zone"
    if letter.org is not None and len(letter.org) > ORG_CHARS_MAX:
        return f"org has more than {ORG_CHARS_MAX} characters"
    partition_max, offset_max = _PLACE_MAX
    if not (-1 <= letter.inbox_partition <= partition_max and -1 <= letter.inbox_offset <= offset_max):
        return "its place in inbox is none"
    return None


def keep(letter: DeadLetter, seen_at: datetime) -> KeptLetter:
    """Return what is stored of a letter that was read at `seen_at`."""
    kept = msgspec.structs.replace(
        letter,
        org=None if letter.org is None else _text(letter.org),
        source=None if letter.source is None else _text(letter.source),
        rule=None if letter.rule is None else _text(letter.rule),
        event=None if letter.event is None else _text(letter.event),
        detail=_text(letter.detail),
        hint=_text(letter.hint),
        raw=letter.raw[:RAW_BYTES_MAX],
    )
    return KeptLetter(letter=kept, raw_bytes=len(letter.raw), first_seen_at=seen_at)


def dismiss(state: LetterState, actor: str, reason: str, at: datetime) -> Change:
    """Decide that nothing is to be done.

    Raises:
        StateRefused: it is dismissed already.
    """
    if state == "dismissed":
        raise StateRefused("dismiss", state)
    return Change(at=at, actor=actor, action="dismiss", from_state=state, to_state="dismissed", reason=reason)


def replay(state: LetterState, actor: str, at: datetime) -> Change:
    """Have its record sent through again; possible in every state, for a repeat is harmless."""
    return Change(at=at, actor=actor, action="replay", from_state=state, to_state="replayed")


def _text(text: str) -> str:
    # PostgreSQL holds no NUL in a text.
    return text[:TEXT_CHARS_MAX].replace("\x00", _NUL_SHOWN)
