"""What an answer means, who gets what under which id, and the order and number of messages."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.domain.delivery import (
    RETRY_AFTER_MAX,
    RETRY_PLAN,
    Answer,
    Delivered,
    EndpointGone,
    GaveUp,
    Retry,
    Waiting,
    choose,
    compose,
    compose_storm,
    decide,
    event_of,
    message_id,
    retry_after,
    wants,
)
from shared.contracts.discrepancy import Discrepancy, LogPosition

NOW = datetime(2026, 11, 20, 10, 0, 30, tzinfo=UTC)


def answer(status: int | None = None, error: str | None = None, after: str | None = None) -> Answer:
    return Answer(status=status, error=error, duration_ms=5, retry_after=after)


def found(**changes: object) -> Discrepancy:
    plain = {
        "id": "d1", "revision": 1, "state": "raised", "org": "acme", "rule": "billing.payments", "pack": "billing",
        "type": "AmountMismatch", "severity": "medium", "key": "p1", "side": None, "account": None, "sides": {},
        "duplicate": None, "expected": "10.00", "actual": "9.00", "difference": "-1.00", "currency": "EUR",
        "raised_at": NOW, "resolved_at": None, "resolution": None, "expired": False, "explanation": "x",
        "log": LogPosition(partition=0, offset=7, time=NOW),
    }  # fmt: skip
    return Discrepancy(**(plain | changes))  # type: ignore[arg-type]


def test_the_plan_is_ten_tries_over_75_hours() -> None:
    assert len(RETRY_PLAN) + 1 == 10
    assert timedelta(hours=75) < sum(RETRY_PLAN, timedelta()) < timedelta(hours=76)
    assert list(RETRY_PLAN) == sorted(RETRY_PLAN)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert decide(answer(status), attempt=1, now=NOW, chance=0.5) == Delivered()


def test_410_ends_the_endpoint_even_at_the_first_try() -> None:
    assert isinstance(decide(answer(410), attempt=1, now=NOW, chance=0.5), EndpointGone)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 409, 429, 500, 503, 199, 600])
def test_everything_else_is_tried_again(status: int) -> None:
    assert isinstance(decide(answer(status), attempt=1, now=NOW, chance=0.5), Retry)


def test_a_redirect_says_what_to_do() -> None:
    decision = decide(answer(302), attempt=1, now=NOW, chance=0.5)
    assert isinstance(decision, Retry)
    assert "final URL" in decision.error


@given(attempt=st.integers(1, 9), chance=st.floats(0, 1, exclude_max=True))
def test_waits_follow_the_plan_within_a_tenth(attempt: int, chance: float) -> None:
    decision = decide(answer(500), attempt=attempt, now=NOW, chance=chance)
    assert isinstance(decision, Retry)
    assert 0.9 <= (decision.at - NOW) / RETRY_PLAN[attempt - 1] <= 1.1


@pytest.mark.parametrize("attempt", [10, 11])
def test_after_the_tenth_try_it_is_given_up_whatever_retry_after_says(attempt: int) -> None:
    decision = decide(answer(503, after="60"), attempt=attempt, now=NOW, chance=0.5)
    assert decision == GaveUp("HTTP 503")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, timedelta(0)),
        ("120", timedelta(minutes=2)),
        (" 7 ", timedelta(seconds=7)),
        (format_datetime(NOW + timedelta(minutes=3), usegmt=True), timedelta(minutes=3)),
        (format_datetime(NOW - timedelta(minutes=3), usegmt=True), timedelta(0)),
        ("9999999999999999999999", RETRY_AFTER_MAX),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX),
        ("-5", timedelta(0)),
        ("soon", timedelta(0)),
        ("٣", timedelta(0)),
        ("1.5", timedelta(0)),
    ],
)
def test_retry_after_is_read_and_bounded(value: str | None, expected: timedelta) -> None:
    assert retry_after(value, NOW) == expected


def test_retry_after_makes_a_wait_longer_and_never_shorter() -> None:
    longer = decide(answer(429, after="3600"), attempt=1, now=NOW, chance=0.5)
    shorter = decide(answer(429, after="1"), attempt=3, now=NOW, chance=0.5)
    assert longer == Retry(NOW + timedelta(hours=1), "HTTP 429")
    assert shorter == Retry(NOW + timedelta(minutes=30), "HTTP 429")


@pytest.mark.parametrize(
    ("types", "minimum", "expected"),
    [
        ((), "low", True),
        ((), "medium", True),
        ((), "high", False),
        (("AmountMismatch",), "low", True),
        (("Other",), "low", False),
    ],
)
def test_filters_by_type_and_severity(types: tuple[str, ...], minimum: str, expected: bool) -> None:
    assert wants(types, minimum, found()) is expected  # type: ignore[arg-type]


def test_what_a_revision_is_called() -> None:
    resolved = found(state="resolved", revision=2, resolved_at=NOW, resolution="corrected")
    assert event_of(found(), None) == "discrepancy.raised"
    assert event_of(found(revision=2), "raised") == "discrepancy.updated"
    assert event_of(resolved, "raised") == "discrepancy.resolved"
    assert event_of(found(revision=3), "resolved") == "discrepancy.raised", "it came back"


def test_the_id_names_endpoint_discrepancy_and_revision_and_nothing_else() -> None:
    first = compose("e1", found(), None, NOW)
    again = compose("e1", found(), None, NOW + timedelta(hours=1))
    assert first.message_id == again.message_id == message_id("e1", "d1", 7, 1)
    others = {
        message_id("e2", "d1", 7, 1),
        message_id("e1", "d2", 7, 1),
        message_id("e1", "d1", 7, 2),
        message_id("e1", "d1", 8, 1),
    }
    assert len(others | {first.message_id}) == 5


def test_the_body_holds_type_time_and_the_whole_discrepancy() -> None:
    body = msgspec.json.decode(compose("e1", found(), None, NOW).payload)
    assert body == {
        "type": "discrepancy.raised",
        "timestamp": "2026-11-20T10:00:30Z",
        "data": msgspec.to_builtins(found()),
    }


def test_a_storm_has_one_id_per_endpoint_and_minute() -> None:
    minute = NOW.replace(second=0)
    storm = compose_storm("acme", "e1", minute, 5)
    assert storm.message_id == compose_storm("acme", "e1", minute, 9).message_id
    assert storm.message_id != compose_storm("acme", "e1", minute + timedelta(minutes=1), 5).message_id
    assert msgspec.json.decode(storm.payload)["data"] == {"org": "acme", "minute": "2026-11-20T10:00:00Z", "cap": 5}


def waiting(id_: int, subject: str | None = None, revision: int = 1, **changes: object) -> Waiting:
    plain = {
        "id": id_, "kind": "discrepancy", "created_at": NOW, "attempts": 0, "replayed": False,
        "subject": subject or f"d{id_}", "place": (0, revision),
    }  # fmt: skip
    return Waiting(**(plain | changes))  # type: ignore[arg-type]


def chosen(*due: Waiting, cap: int = 100, room: int = 8, **more: object) -> list[int]:
    given_ = {"busy": frozenset(), "started": {}} | more
    return choose(due, cap=cap, room=room, **given_).send  # type: ignore[arg-type]


def test_revisions_go_one_at_a_time_in_order() -> None:
    assert chosen(waiting(2, "d", 2), waiting(1, "d", 1), waiting(3, "e", 1)) == [1, 3]
    assert chosen(waiting(2, "d", 2), busy=frozenset({"d"})) == []


def test_a_revision_that_failed_gives_way_to_a_newer_one() -> None:
    assert chosen(waiting(1, "d", 1, attempts=2), waiting(2, "d", 2)) == [2]
    assert chosen(waiting(1, "d", 1, attempts=2)) == [1]


def test_replayed_revisions_keep_their_order_too() -> None:
    assert chosen(waiting(1, "d", 1, replayed=True), waiting(2, "d", 2, replayed=True)) == [1]
    assert chosen(waiting(1, "d", 1, attempts=1, replayed=True), waiting(2, "d", 2, replayed=True)) == [2]


def test_no_more_than_there_is_room_for() -> None:
    assert chosen(*[waiting(n) for n in range(1, 6)], room=2) == [1, 2]


def test_above_the_cap_nothing_more_of_the_minute_is_sent() -> None:
    minute = NOW.replace(second=0)
    due = [waiting(n) for n in range(1, 6)]
    choice = choose(due, busy=frozenset(), cap=3, started={minute: 1}, room=8)
    assert (choice.send, choice.stormy) == ([1, 2], [minute])


def test_the_cap_is_per_minute_and_only_for_first_tries() -> None:
    minute = NOW.replace(second=0)
    due = [
        waiting(1), waiting(2, attempts=3), waiting(3, replayed=True), waiting(4, kind="storm", subject=None),
        waiting(5, created_at=NOW + timedelta(minutes=1)),
    ]  # fmt: skip
    choice = choose(due, busy=frozenset(), cap=1, started={minute: 1}, room=8)
    assert (sorted(choice.send), choice.stormy) == ([2, 3, 4, 5], [minute])


def test_filling_the_places_is_no_storm() -> None:
    due = [waiting(n) for n in range(1, 6)]
    assert choose(due, busy=frozenset(), cap=5, started={}, room=2).stormy == []


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2)), max_size=20, unique_by=lambda t: t[:2])
)
def test_never_two_of_one_discrepancy_and_never_an_older_first_try_after_a_newer(
    messages: list[tuple[int, int, int]],
) -> None:
    due = [
        waiting(n, f"d{subject}", revision, attempts=attempts)
        for n, (subject, revision, attempts) in enumerate(messages)
    ]
    random.Random(1).shuffle(due)
    sent = [one for one in due if one.id in set(chosen(*due, room=100))]
    subjects = [one.subject for one in sent]
    assert len(set(subjects)) == len(subjects)
    for one in sent:
        older = [other for other in due if other.subject == one.subject and other.place < one.place]
        assert all(other.attempts for other in older), "an untried older revision goes first"
