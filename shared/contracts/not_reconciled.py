"""Topic `not-reconciled`: events that no rule selects, so nothing compares their money. JSON. Kafka key: the event's uuid.

ingest decides when it reads an event, by the rules in force then; a rule that comes or goes later changes nothing about
it. ingest may repeat itself: readers count an org and event once.
"""

from datetime import datetime

import msgspec


class NotReconciledEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event that no rule selected."""

    org: str
    source: str
    type: str
    event_id: str
    """The event's uuid, as the topic `events` has it for a key."""
    occurred_at: datetime
    """Decides the period it belongs to."""
    received_at: datetime
    """The broker's time of its record in `inbox`."""
