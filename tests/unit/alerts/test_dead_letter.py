"""What is kept of a dead letter, and what people may do with it in which state."""

import pytest

from services.alerts.domain.dead_letter import (
    LETTER_STATES,
    RAW_BYTES_MAX,
    TEXT_CHARS_MAX,
    LetterState,
    StateRefused,
    dismiss,
    keep,
    replay,
    trouble_of,
)
from tests.support.letters import letter
from tests.support.results import START


@pytest.mark.parametrize("state", LETTER_STATES)
def test_a_letter_can_be_replayed_in_every_state(state: LetterState):
    """A repeat is harmless: an event that was understood meanwhile is the same event again."""
    change = replay(state, "ann", START)
    assert (change.from_state, change.to_state, change.action, change.reason) == (state, "replayed", "replay", None)


@pytest.mark.parametrize("state", ["open", "replayed"])
def test_a_letter_is_dismissed_with_a_reason(state: LetterState):
    change = dismiss(state, "ann", "known", START)
    assert (change.from_state, change.to_state, change.actor, change.at, change.reason) == (
        state,
        "dismissed",
        "ann",
        START,
        "known",
    )


def test_a_letter_is_not_dismissed_twice():
    """The first reason stands."""
    with pytest.raises(StateRefused, match="a dead letter that is dismissed cannot be dismissed"):
        dismiss("dismissed", "ann", "known", START)


def test_a_letter_is_kept_as_it_is_up_to_the_limits():
    """The body's size is told even where its end is not kept."""
    assert keep(letter(), START).letter == letter()
    long = letter(raw=b"x" * (RAW_BYTES_MAX + 1), detail="y" * (TEXT_CHARS_MAX + 1), event="z" * 9_999)
    kept = keep(long, START)
    assert (len(kept.letter.raw), kept.raw_bytes) == (RAW_BYTES_MAX, RAW_BYTES_MAX + 1)
    assert (len(kept.letter.detail), len(kept.letter.event or "")) == (TEXT_CHARS_MAX, TEXT_CHARS_MAX)


def test_no_text_that_is_kept_holds_a_nul():
    """PostgreSQL refuses it, and one such letter would stop the others."""
    texts = dict.fromkeys(("org", "source", "rule", "event", "detail", "hint"), "a\x00b")
    kept = keep(letter(**texts), START).letter
    assert {getattr(kept, name) for name in texts} == {"a\N{REPLACEMENT CHARACTER}b"}


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"received_at": START.replace(tzinfo=None)}, "received_at has no zone"),
        ({"org": "x" * 256}, "org has more than 255 characters"),
        ({"inbox_offset": 2**63}, "its place in inbox is none"),
        ({"inbox_partition": 2**31}, "its place in inbox is none"),
        ({"inbox_offset": -2}, "its place in inbox is none"),
    ],
)
def test_what_cannot_be_stored_is_told(changes: dict[str, object], trouble: str):
    assert trouble_of(letter(**changes)) == trouble


def test_a_letter_from_no_place_in_inbox_can_be_stored():
    """The matcher's, about a record of legs that it cannot read."""
    assert trouble_of(letter(inbox_partition=-1, inbox_offset=-1)) is None
