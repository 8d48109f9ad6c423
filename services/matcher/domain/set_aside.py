"""Dead letters that only the matcher can tell, for it knows what was held."""

from shared.contracts.dead_letter import DeadLetter, Reason
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Leg, read_group_key
from shared.ids import dead_letter_id


def set_aside(key: bytes, leg: Leg, reason: Reason, detail: str, hint: str) -> DeadLetter:
    """Return the dead letter of a leg; its event as it came is in `inbox`. `key` is the leg's Kafka key."""
    name = read_group_key(key)
    return DeadLetter(
        id=dead_letter_id(reason, leg.inbox_partition, leg.inbox_offset, name.rule),
        org=name.org,
        source=leg.source,
        reason=reason,
        detail=detail,
        hint=hint,
        rule=name.rule,
        event=leg.id,
        inbox_partition=leg.inbox_partition,
        inbox_offset=leg.inbox_offset,
        received_at=from_milliseconds(leg.received_at),
        raw=b"",
    )
