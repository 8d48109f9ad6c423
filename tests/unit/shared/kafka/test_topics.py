"""The declared topics hold what the design promises about them."""

import re

import pytest

from shared.kafka.topics import (
    TOPICS,
    Count,
    Topics,
    inbox_of_org,
    partition_counts,
)

BY_NAME = {topic.name: topic for topic in TOPICS}


def test_results_have_the_partitions_of_legs():
    state = {topic.name for topic in TOPICS if topic.count is Count.STATE}

    assert state == {
        "legs", "matcher-state", "matcher-checkpoints", "discrepancies", "matches", "checks",
    }  # fmt: skip


def test_default_counts():
    assert partition_counts() == {
        Count.STATE: 12,
        Count.INBOX: 6,
        Count.EVENTS: 12,
        Count.DEAD_LETTERS: 6,
        Count.SINGLE: 1,
    }


@pytest.mark.parametrize("counts", [(0, 6), (12, 0), (-1, 6)])
def test_counts_below_one_are_refused(counts: tuple[int, int]):
    with pytest.raises(ValueError, match="at least 1"):
        partition_counts(*counts)


def test_only_inboxes_take_the_brokers_clock():
    broker_time = {topic.name for topic in TOPICS if "message.timestamp.type" in topic.config}

    assert broker_time == {"inbox"}
    assert inbox_of_org("acme").config["message.timestamp.type"] == "LogAppendTime"


def test_compacted_results_outlive_legs():
    legs_ms = int(BY_NAME["legs"].config["retention.ms"])
    for name in ("discrepancies", "checks"):
        assert BY_NAME[name].config["cleanup.policy"] == "compact"
        assert int(BY_NAME[name].config["min.compaction.lag.ms"]) >= legs_ms


def test_matcher_state_is_never_deleted_by_the_broker():
    config = BY_NAME["matcher-state"].config

    assert (config["cleanup.policy"], config["retention.ms"], config["retention.bytes"]) == ("delete", "-1", "-1")


def test_legs_outlive_the_longest_keep_and_inbox_outlives_legs():
    longest_keep_ms = 7 * 86_400_000

    assert int(BY_NAME["legs"].config["retention.ms"]) > longest_keep_ms
    assert int(BY_NAME["inbox"].config["retention.ms"]) >= int(BY_NAME["legs"].config["retention.ms"])


def test_events_that_no_rule_selects_are_spread_and_kept_as_events():
    """They are no result of `legs`: no partition of theirs belongs to a partition of it."""
    events, unselected = BY_NAME["events"], BY_NAME["not-reconciled"]

    assert (unselected.count, unselected.config) == (events.count, events.config)
    assert unselected.count is not Count.STATE


def test_every_topic_says_what_it_is():
    for topic in TOPICS:
        assert all((topic.key, topic.carries, topic.kept)), topic.name


def test_every_declared_topic_has_a_property_with_its_full_name():
    topics = Topics("blue.")
    for topic in TOPICS:
        assert getattr(topics, topic.name.replace("-", "_")) == f"blue.{topic.name}"
    assert set(topics.all) == {f"blue.{topic.name}" for topic in TOPICS}
    assert topics.inbox_of("acme") == "blue.inbox.acme"


def test_names_are_legal_in_kafka():
    assert all(re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) for name in Topics("tieout.").all)
