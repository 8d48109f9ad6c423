"""The state of all partitions, laid out anew over another number of partitions. Pure.

Cells go to the partition that the legs of their group will go to; what every partition has of its own (log time, rules)
goes to each.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from services.matcher.domain.account import head_key
from services.matcher.domain.core import (
    CLOCK_ENTRY,
    RULE_ENTRY,
    _Clock,
    _decode_clock,
    _decode_rule,
    _encode,
    _RuleState,
)
from services.matcher.domain.feed import is_feed_entry, merged
from services.matcher.domain.moment import UNKNOWN
from shared.ids import canonical
from shared.rules.candidate_rule import CandidateRuleModel
from shared.rules.compiled import read_rule

Entries = dict[bytes, bytes]
"""The state of one partition: the last value by key, without what was forgotten."""

FROM_THE_START = -1
"""Version of a rule that anything which comes through the log replaces: places in the topic `rules` begin anew."""

_decode_key = msgspec.json.Decoder(list[str | None]).decode


class StillDeriving(ValueError):
    """A rule's events are being derived anew: its legs would go on in the old partitions."""


def base_of(partition: Mapping[bytes, bytes]) -> int:
    """Return what a partition adds to its offsets."""
    return _decode_clock(partition[CLOCK_ENTRY]).base if CLOCK_ENTRY in partition else 0


def repartition(
    partitions: Sequence[Mapping[bytes, bytes]], count: int, base: int, partition_of: Callable[[bytes, int], int]
) -> list[Entries]:
    """Return the state of `count` partitions made of `partitions`.

    Args:
        partitions: entries as a restore reads them.
        count: how many there are to be.
        base: what the new partitions add to their offsets; not below any place in the old log.
        partition_of: which of how many partitions a leg's key goes to.

    Raises:
        StillDeriving: wait until the derivation is done.
    """
    rules = _rules(partitions)
    clock = _clock(partitions, base)
    by_record = {name for name, state in rules.items() if _is_by_record(state)}
    made: list[Entries] = [{CLOCK_ENTRY: clock} for _ in range(count)]
    for (org, rule), state in rules.items():
        key = RULE_ENTRY + canonical([org, rule])
        for entries in made:
            entries[key] = _encode(state)
    feeds = merged(partitions, lambda key: partition_of(key, count))
    for entries in made:
        entries.update(feeds)
    for partition in partitions:
        for key, value in partition.items():
            if key == CLOCK_ENTRY or key.startswith(RULE_ENTRY) or is_feed_entry(key):
                continue
            begin = key.find(b"[")
            if begin < 0:  # of the partition as a whole
                for entries in made:
                    entries[key] = value
            else:
                made[partition_of(leg_key(key[begin:], by_record), count)][key] = value
    return made


def leg_key(key: bytes, by_record: set[tuple[str, str]]) -> bytes:
    """Return the Kafka key of the legs of a cell: it decides the partition.

    `by_record`: (org, rule) of rules that keep a cell for each record of a group.
    """
    head = head_key(key)
    org, rule, *rest = _decode_key(head)
    if (org, rule) in by_record and rest[:1] != [None]:
        return canonical([org, rule, *rest[:-1]])
    return head


def _rules(partitions: Sequence[Mapping[bytes, bytes]]) -> dict[tuple[str, str], _RuleState]:
    """Return every rule as the partition that heard of it last knows it."""
    newest: dict[tuple[str, str], _RuleState] = {}
    generations: dict[tuple[str, str], dict[str, None]] = {}
    for partition in partitions:
        for key, value in partition.items():
            if not key.startswith(RULE_ENTRY):
                continue
            state = _decode_rule(value)
            name = (state.record.org, state.record.rule)
            if state.record.deriving:
                msg = f"rule {state.record.rule} of {state.record.org}: its events are being derived anew"
                raise StillDeriving(msg)
            if name not in newest or newest[name].record.version < state.record.version:
                newest[name] = state
            generations.setdefault(name, {}).update(dict.fromkeys(state.generations + state.retired))
    for name, state in newest.items():
        known = {*state.generations, *state.retired}
        state.retired += [one for one in generations[name] if one not in known]
        state.record = msgspec.structs.replace(state.record, version=FROM_THE_START)
    return newest


def _clock(partitions: Sequence[Mapping[bytes, bytes]], base: int) -> bytes:
    """Return the latest that any partition has heard: the whole log was applied, so all of it is true of each."""
    made = _Clock(0, {}, UNKNOWN, base)
    for partition in partitions:
        if CLOCK_ENTRY not in partition:
            continue
        clock = _decode_clock(partition[CLOCK_ENTRY])
        made.partitions = max(made.partitions, clock.partitions)
        made.log_time = max(made.log_time, clock.log_time)
        for number, time in clock.times.items():
            made.times[number] = max(made.times.get(number, UNKNOWN), time)
    if made.log_time != UNKNOWN:
        # Log time is the slowest inbox partition's time, also here: the core waits for that one to move on.
        slowest = min(made.times, key=lambda number: (made.times[number], number))
        made.times[slowest] = min(made.times[slowest], made.log_time)
    return _encode(made)


def _is_by_record(state: _RuleState) -> bool:
    if not state.record.specification:
        return False
    return isinstance(read_rule(msgspec.json.decode(state.record.specification)["rule"]), CandidateRuleModel)
