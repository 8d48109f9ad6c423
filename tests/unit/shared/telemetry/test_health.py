"""Health tells the truth: loops prove progress, conditions are false until set."""

import pytest

from shared.telemetry.health import Health, UnknownCondition


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(["kafka", "rules"], stall_seconds_max=10, clock=clock)


@pytest.mark.parametrize(
    ("kafka", "rules", "silent_seconds", "live", "ready"),
    [
        (True, True, 0, True, True),
        (True, True, 10, True, True),
        (True, True, 10.5, False, False),
        (True, False, 0, True, False),
        (False, True, 0, True, False),
        (False, False, 0, True, False),
        (False, False, 11, False, False),
    ],
)
def test_truth_table(health, clock, kafka, rules, silent_seconds, live, ready):
    health.watch("normaliser")
    for name, so in (("kafka", kafka), ("rules", rules)):
        if so:
            health.set_ready(name)
    clock.now += silent_seconds
    assert (health.live().ok, health.ready().ok) == (live, ready)


def test_starting_process_is_live_and_not_ready(health):
    assert health.live() == (True, {})
    assert health.ready() == (False, {"kafka": "not yet", "rules": "not yet"})


def test_condition_can_become_untrue_again_and_says_why(health):
    health.set_ready("kafka")
    health.set_ready("rules")
    assert health.ready().ok
    health.set_not_ready("kafka", "no broker answers")
    assert health.ready() == (False, {"kafka": "no broker answers", "rules": "ok"})


def test_stalled_loop_is_named_and_a_heartbeat_heals_it(health, clock):
    health.watch("normaliser")
    health.watch("copier", stall_seconds_max=60)
    clock.now += 42
    assert health.live() == (
        False,
        {"normaliser": "no progress for 42 s (limit 10 s)", "copier": "ok"},
    )
    assert health.ready().reasons["normaliser"] == "no progress for 42 s (limit 10 s)"
    health.heartbeat("normaliser")
    assert health.live().ok


def test_loop_that_beats_without_being_declared_is_watched(health, clock):
    health.heartbeat("sink")
    clock.now += 11
    assert not health.live().ok


def test_loop_that_ended_as_it_should_is_not_missed(health, clock):
    health.watch("restore")
    health.unwatch("restore")
    clock.now += 1000
    assert health.live() == (True, {})


def test_failure_is_for_good_whatever_the_heartbeats(health):
    health.fail("matcher", "input offset out of range")
    health.heartbeat("matcher")
    assert health.live() == (False, {"matcher": "input offset out of range"})


def test_check_is_looked_up_when_asked(health):
    health.set_ready("kafka")
    health.set_ready("rules")
    state = {"reason": "directory is empty"}
    health.check("directory", lambda: state["reason"])
    assert health.ready().reasons["directory"] == "directory is empty"
    state["reason"] = None
    assert health.ready().ok


def test_check_that_raises_is_not_ready_and_keeps_its_text_to_itself(health):
    def broken():
        raise ConnectionError("postgresql://u:hunter2@db")

    health.check("store", broken)
    assert health.ready().reasons["store"] == "check failed: ConnectionError"


def test_undeclared_condition_is_refused(health):
    with pytest.raises(UnknownCondition, match="kafak is not declared; declared: kafka, rules"):
        health.set_ready("kafak")


def test_process_without_a_condition_cannot_claim_to_be_ready():
    with pytest.raises(ValueError, match="at least one readiness condition"):
        Health([])
