"""Silent feeds: one discrepancy however much waits for them, nothing lost, and nothing said that ingest cannot know."""

from typing import Any

import pytest

from services.matcher.domain.core import Core
from services.matcher.domain.repartition import repartition
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import RuleRecord
from shared.kafka.partitioner import partition_of
from tests.support.feed_log import BEGIN, DAY, HOUR, MINUTE, ORG, PAYMENTS, SECOND, STRIPE, Running
from tests.support.laws import drive, results, whole_state

MISSING = "MissingProviderRecord"


def outage(count: int, *, lost: int, begin: int = BEGIN) -> list[tuple[int, str, int]]:
    """Payments of an hour: both sides for two minutes, then the ledger alone; the provider's come in one go an hour later,
    but for every `lost`th. After that both go on as before."""
    payments = [(begin + number * SECOND, "ledger", number) for number in range(120)]
    payments += [(begin + number * SECOND + 500, "stripe", number) for number in range(120)]
    for number in range(120, 120 + count):
        at = (number - 120) * 50 * MINUTE // count
        payments.append((begin + 2 * MINUTE + at, "ledger", number))
        if number % lost:
            payments.append((begin + HOUR + at // 20, "stripe", number))
    for number in range(1_000_000, 1_000_360):
        at = begin + HOUR + 3 * MINUTE + (number - 1_000_000) * 30 * SECOND
        payments += [(at, "ledger", number), (at + 500, "stripe", number)]
    return payments


def test_a_silent_feed_of_ten_thousand_waiting_records_is_one_discrepancy() -> None:
    """Over several partitions; back again all heal, and only what was lost is raised."""
    running = Running([PAYMENTS, STRIPE], partitions=4)
    payments = outage(10_000, lost=100)
    running.run([one for one in payments if one[0] < BEGIN + HOUR], BEGIN + HOUR - SECOND)
    (silent,) = running.revisions
    assert (silent.type, silent.key, silent.severity, silent.state) == ("FeedSilent", "stripe", "high", "raised")
    assert silent.explanation == (
        "stripe has sent nothing since 2026-03-02 10:01:59 UTC; its rule expects something every 15 min. "
        "Records missing from it are held back until it sends again."
    )
    assert silent.raised_at == from_milliseconds(BEGIN + 119_500 + 15 * MINUTE + 1)
    # Those of the last minutes are not due yet, the others wait, in every partition.
    assert 9_000 < running.waiting() <= 10_000
    assert {one.log.partition for one in running.statuses if one.waiting} == {0, 1, 2, 3}

    running.run([one for one in payments if one[0] >= BEGIN + HOUR], BEGIN + 3 * HOUR)
    assert [(one.type, one.state, one.resolution) for one in running.revisions[:2]] == [
        ("FeedSilent", "raised", None),
        ("FeedSilent", "resolved", "late_arrival"),
    ]
    raised = running.found(MISSING)
    lost = {f"p{number}" for number in range(120, 10_120) if not number % 100}
    assert {one.key for one in raised} == lost
    assert all(one.state == "raised" for one in raised)
    assert running.waiting() == 0
    back = from_milliseconds(BEGIN + HOUR)
    released = [one.raised_at for one in raised]
    assert min(released) > back + (back - from_milliseconds(BEGIN + 2 * MINUTE)) * 0.99
    # In the order of their deadlines within a partition, and not all in one instant.
    assert len(set(released)) > 90
    again = Running([PAYMENTS, STRIPE], partitions=4)
    again.run(payments, BEGIN + 3 * HOUR)
    assert len(again.found(MISSING)) == 100


def test_what_is_due_at_one_instant_is_released_apart() -> None:
    """Thousands of groups that were opened in one instant do not all fire at once."""
    running = Running([PAYMENTS, STRIPE], partitions=1)
    payments = [(BEGIN, "stripe", -1), *((BEGIN + SECOND, "ledger", number) for number in range(2000))]
    alive = [(BEGIN + HOUR + n * MINUTE, "stripe", 10_000 + n) for n in range(120)]
    running.run([*payments, *alive], BEGIN + 3 * HOUR, every=10 * SECOND)
    instants = [one.raised_at for one in running.found(MISSING)]
    assert len(instants) == 2000
    assert max(instants.count(instant) for instant in set(instants)) < 20


def test_what_is_due_before_the_feed_is_called_silent_waits_as_well() -> None:
    """A deadline of 10 minutes passes before the 15 that make a feed silent: a third of them is enough to be in doubt."""
    running = Running([PAYMENTS, STRIPE])
    running.run([(BEGIN, "stripe", 0), (BEGIN, "ledger", 0), (BEGIN + SECOND, "ledger", 1)], BEGIN + 14 * MINUTE)
    assert running.revisions == []
    assert running.waiting() == 1


def test_a_short_pause_only_delays() -> None:
    """A feed that was quiet and never silent: no FeedSilent, and the missing record is raised a little later."""
    running = Running([PAYMENTS, STRIPE])
    payments = [(BEGIN, "stripe", 0), (BEGIN, "ledger", 0), (BEGIN + SECOND, "ledger", 1)]
    payments += [(BEGIN + 12 * MINUTE + n * 30 * SECOND, "stripe", 1000 + n) for n in range(80)]
    running.run(payments, BEGIN + 45 * MINUTE)
    assert [one.type for one in running.revisions if one.key == "p1"] == [MISSING]
    assert not running.found("FeedSilent")


def test_a_live_feed_delays_nothing() -> None:
    """A record that is missing while its feed sends is raised at its deadline, to the millisecond."""
    running = Running([PAYMENTS, STRIPE])
    payments = [(BEGIN + n * 30 * SECOND, "stripe", 1000 + n) for n in range(60)]
    running.run([*payments, (BEGIN + MINUTE, "ledger", 1)], BEGIN + 25 * MINUTE)
    (raised,) = [one for one in running.revisions if one.key == "p1"]
    assert raised.raised_at == from_milliseconds(BEGIN + 11 * MINUTE + 1)


def test_the_other_side_is_not_held() -> None:
    """While stripe is silent, what is missing in the ledger is raised: the ledger sends."""
    running = Running([PAYMENTS, STRIPE])
    payments = [(BEGIN, "stripe", 1), *((BEGIN + n * MINUTE, "ledger", 100 + n) for n in range(60))]
    running.run(payments, BEGIN + HOUR)
    assert [one.type for one in running.revisions] == ["MissingInternalRecord", "FeedSilent"]


def test_without_counts_nothing_changes() -> None:
    """An ingest that counts nothing: no feed is known, none is silent, every deadline holds."""
    running = Running([PAYMENTS, STRIPE], counts=False)
    running.run(outage(50, lost=1000), BEGIN + 3 * HOUR, every=5 * SECOND)
    assert not running.found("FeedSilent")
    assert len([one for one in running.found(MISSING) if one.state == "raised"]) > 40
    assert running.statuses == []


def test_a_stalled_ingest_is_no_silent_feed() -> None:
    """No ticks for hours, then all at once: log time comes with the counts of what came meanwhile."""
    running = Running([PAYMENTS, STRIPE])
    for number in range(120):
        running.take("ledger", number, BEGIN + number * 2 * MINUTE)
        running.take("stripe", number, BEGIN + number * 2 * MINUTE + SECOND)
    assert running.revisions == []
    running.tick(BEGIN + 4 * HOUR - 2 * MINUTE)
    running.tick(BEGIN + 4 * HOUR)
    assert running.revisions == []


def test_one_inbox_partition_that_lags_says_nothing() -> None:
    """The events of a feed may be in the part of the inbox that nobody has read yet."""
    running = Running([PAYMENTS, STRIPE], inboxes=2)
    running.take("stripe", 0, BEGIN)
    running.tick(BEGIN)
    for minute in range(60):
        running.tick(BEGIN + minute * MINUTE, inboxes=[0])
    assert running.revisions == []
    for number in range(1, 60, 2):
        running.take("stripe", number, BEGIN + number * MINUTE)
    running.tick(BEGIN + 59 * MINUTE)
    assert not running.found("FeedSilent")
    running.tick(BEGIN + 2 * HOUR)
    assert len(running.found("FeedSilent")) == 1


def test_only_the_owner_speaks() -> None:
    """Every partition holds back; one says why, whichever it is."""
    for partitions in (1, 2, 5, 12):
        running = Running([PAYMENTS, STRIPE], partitions=partitions)
        running.run([(BEGIN, "stripe", 0)], BEGIN + HOUR, every=30 * SECOND)
        (silent,) = running.found("FeedSilent")
        assert silent.rule == "billing.feeds"


def test_every_silence_is_a_discrepancy_of_its_own() -> None:
    """Two outages: two ids, each raised and resolved once."""
    running = Running([PAYMENTS, STRIPE])
    running.run([(BEGIN + n * HOUR, "stripe", n) for n in range(3)], BEGIN + 2 * HOUR + MINUTE, every=30 * SECOND)
    said = [(one.state, one.revision) for one in running.found("FeedSilent")]
    assert said == [("raised", 1), ("resolved", 2)] * 2
    assert len({one.id for one in running.found("FeedSilent")}) == 2


def test_events_that_are_counted_again_end_no_silence() -> None:
    """An ingest that starts anew reads its last second once more: nothing new came of the feed."""
    running = Running([PAYMENTS, STRIPE])
    running.run([(BEGIN, "stripe", 0)], BEGIN + 20 * MINUTE)
    running.take("stripe", 0, BEGIN)
    running.run([], BEGIN + HOUR, every=MINUTE)
    assert [one.state for one in running.found("FeedSilent")] == ["raised"]


# ---- rules


def test_a_shadow_feed_rule_says_so_and_holds_nothing() -> None:
    running = Running([PAYMENTS, {**STRIPE, "shadow": True}])
    running.run([(BEGIN, "stripe", 0), (BEGIN, "ledger", 0), (BEGIN + MINUTE, "ledger", 1)], BEGIN + HOUR)
    assert [(one.type, one.shadow) for one in running.revisions] == [(MISSING, False), ("FeedSilent", True)]


def test_a_longer_silence_allowed_resolves_what_is_raised() -> None:
    running = Running([PAYMENTS, STRIPE])
    running.run([(BEGIN, "stripe", 0)], BEGIN + 20 * MINUTE)
    running.put_in_force([PAYMENTS, {**STRIPE, "silent_after": "1h"}], 1)
    assert [(one.state, one.resolution) for one in running.found("FeedSilent")] == [
        ("raised", None),
        ("resolved", "rule_changed"),
    ]
    running.run([], BEGIN + 59 * MINUTE)
    assert len(running.found("FeedSilent")) == 2
    running.tick(BEGIN + 61 * MINUTE)
    assert [one.state for one in running.found("FeedSilent")] == ["raised", "resolved", "raised"]


def test_a_withdrawn_feed_rule_resolves_and_releases() -> None:
    running = Running([PAYMENTS, STRIPE])
    running.run([(BEGIN, "stripe", 0), (BEGIN, "ledger", 0), (BEGIN + MINUTE, "ledger", 1)], BEGIN + 20 * MINUTE)
    running.to_all(RuleRecord(ORG, "billing.feeds", "", 1, ""))
    assert [one.resolution for one in running.found("FeedSilent")] == [None, "rule_withdrawn"]
    running.tick(BEGIN + HOUR)
    assert [one.key for one in running.found(MISSING)] == ["p1"]


# ---- learned


def weeks(count: int, every: int, *, nights: bool = False) -> list[tuple[int, str, int]]:
    """The provider's payments of some weeks; with `nights` it sends nothing from 22:00 to 06:00."""
    times = range(BEGIN, BEGIN + count * 7 * DAY, every)
    return [
        (at, "stripe", number) for number, at in enumerate(times) if not nights or 6 <= from_milliseconds(at).hour < 22
    ]


def learned(payments: list[tuple[int, str, int]], until: int, rules: list[dict[str, Any]]) -> Running:
    """One partition, with a tick per payment and then one a minute; the ledger's side is not needed."""
    running = Running([{**PAYMENTS, "deadline": "90d"}, *rules], partitions=1)
    for at, source, number in payments:
        running.tick(at - 1)
        running.take(source, number, at)
        running.tick(at)
    for at in range(payments[-1][0], until, MINUTE):
        running.tick(at)
    return running


def test_nothing_is_guessed_before_two_weeks() -> None:
    payments = weeks(1, 10 * MINUTE)
    assert learned(payments, payments[-1][0] + 3 * DAY, []).revisions == []


def test_a_feed_without_a_rule_is_silent_after_three_times_what_is_usual() -> None:
    """Built in, for sources that rules select: a payment every ten minutes for three weeks, then none."""
    payments = weeks(3, 10 * MINUTE)
    running = learned(payments, payments[-1][0] + 2 * HOUR, [])
    (silent,) = running.revisions
    assert silent.rule == "feed.builtin"
    assert silent.raised_at == from_milliseconds(payments[-1][0] + 30 * MINUTE + 1)
    assert "it is usually not silent for longer than 10 min" in silent.explanation


def test_nights_are_learned() -> None:
    """Silent from 22:00 to 06:00 every night: nothing is said; nothing in the morning either: it is said then."""
    payments = weeks(4, 10 * MINUTE, nights=True)
    usual = learned(payments, payments[-1][0] + MINUTE, [])
    assert usual.revisions == []
    last_evening = max(at for at, _, _ in payments if from_milliseconds(at).hour == 21)
    gone = learned([one for one in payments if one[0] <= last_evening], last_evening + DAY, [])
    (silent,) = gone.revisions
    assert from_milliseconds(last_evening).day != silent.raised_at.day
    assert (silent.raised_at.hour, silent.raised_at.minute) == (6, 10)


def test_one_outage_is_not_learned() -> None:
    """A day without anything in one of five weeks does not make such days usual."""
    payments = weeks(5, 10 * MINUTE)
    tuesday = BEGIN + 22 * DAY
    payments = [one for one in payments if not tuesday <= one[0] < tuesday + DAY]
    running = learned(payments, payments[-1][0] + 2 * DAY, [])
    assert [(one.state, one.resolution) for one in running.revisions] == [
        ("raised", None),
        ("resolved", "late_arrival"),
        ("raised", None),
    ]
    assert running.revisions[2].raised_at <= from_milliseconds(payments[-1][0] + HOUR)


def test_factor_and_least_silence_are_the_rules() -> None:
    rule = {**STRIPE, "silent_after": {"learned": {"factor": 6, "at_least": "2h"}}, "zone": "Europe/Berlin"}
    payments = weeks(3, 10 * MINUTE)
    running = learned(payments, payments[-1][0] + DAY, [rule])
    (silent,) = running.revisions
    # Six times ten minutes is less than two hours; the last payment was at 09:50, so the next hours' beginnings count for nothing.
    assert silent.raised_at == from_milliseconds(payments[-1][0] + 2 * HOUR + 1)


# ---- laws


def test_the_same_log_gives_the_same_bytes_with_a_restart_anywhere() -> None:
    """Snapshot and deltas carry the feeds: what is known, what is silent, what waits."""
    running = Running([PAYMENTS, STRIPE], partitions=1)
    running.run(outage(60, lost=10), BEGIN + 3 * HOUR, every=20 * SECOND)
    log = running.logs[0]
    whole = Core(0)
    expected = drive(whole, log)
    assert len(expected.discrepancies) == 8
    for cut in range(0, len(log), max(1, len(log) // 25)):
        first = Core(0)
        before = drive(first, log[:cut], each=bool(cut % 2))
        second = Core(0)
        second.restore(before.state if cut % 2 else list(first.snapshot()))
        after = drive(second, log[cut:], cut)
        assert results(before) + results(after)
        assert before.discrepancies + after.discrepancies == expected.discrepancies
        assert before.feeds + after.feeds == expected.feeds
        assert whole_state(second) == whole_state(whole)


@pytest.mark.parametrize("every", [SECOND, 7 * SECOND, 50 * SECOND])
def test_however_ticks_are_cut_the_same_is_open_at_the_end(every: int) -> None:
    running = Running([PAYMENTS, STRIPE], partitions=2, inboxes=2)
    running.run(outage(120, lost=7), BEGIN + 4 * HOUR, every=every)
    assert {one.key for one in running.open if one.type == MISSING} == {
        f"p{number}" for number in range(120, 240) if not number % 7
    }


def test_another_number_of_partitions_knows_the_same_feeds() -> None:
    """Three partitions become two in the middle of an outage: nothing is said twice, what waits still waits."""
    payments = outage(120, lost=7)
    running = Running([PAYMENTS, STRIPE], partitions=3)
    running.run([one for one in payments if one[0] < BEGIN + HOUR], BEGIN + HOUR - SECOND, every=10 * SECOND)
    waited = running.waiting()
    assert waited > 90
    laid_out = repartition([dict(core.snapshot()) for core in running.cores], 2, 10_000_000, partition_of)
    running.become(laid_out)
    running.run([one for one in payments if one[0] >= BEGIN + HOUR], BEGIN + 4 * HOUR, every=10 * SECOND)
    assert [(one.state, one.revision) for one in running.found("FeedSilent")] == [("raised", 1), ("resolved", 2)]
    assert {one.key for one in running.found(MISSING)} == {f"p{number}" for number in range(120, 240) if not number % 7}
    assert max(one.waiting for one in running.statuses if one.log.offset >= 10_000_000) > waited / 3
    assert running.waiting() == 0


def test_what_was_matched_without_a_key_waits_as_well() -> None:
    """A bank line that finds no invoice is not missing one while the invoices do not come."""
    rule = {
        "name": "billing.bank",
        "kind": "match",
        "sides": {
            "internal": {"source": "ledger", "type": "payment.*"},
            "provider": {"source": "stripe", "type": "payment.*"},
        },
        "partition_by": ["currency"],
        "score": {
            "amount": {"weight": 40},
            "date": {"within": "2d", "weight": 15},
            "reference": {"fields": ["refs.payment_id"], "weight": 45},
        },
        "decide_after": "1m",
        "deadline": "10m",
    }
    running = Running([rule, STRIPE], partitions=1)
    running.run([(BEGIN, "stripe", 0), (BEGIN, "ledger", 0)], BEGIN + MINUTE)
    running.take("ledger", 7777, BEGIN + MINUTE, amount="333.00")
    running.run([], BEGIN + HOUR)
    assert [one.type for one in running.revisions] == ["FeedSilent"]
    assert running.waiting() == 1
    again = Core(0)
    again.restore(running.cores[0].snapshot())
    assert whole_state(again) == whole_state(running.cores[0])
    for number in range(120):
        running.take("stripe", 100 + number, BEGIN + HOUR + number * MINUTE)
        running.tick(BEGIN + HOUR + number * MINUTE)
    assert [one.key for one in running.found(MISSING)] == [["EUR", "record:ledger/ledger-7777"]]
    assert running.waiting() == 0
