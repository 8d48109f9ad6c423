"""What can go wrong between tieout and Kafka, named for what the caller has to do about it."""

from shared.errors import DependencyAway, UsageError


class KafkaAway(DependencyAway):
    """No broker answered: wait and try again, or tell the person which address was tried."""


class TopicMismatch(UsageError):
    """A topic exists in a shape that data already depends on: do nothing, a person has to decide."""


class SendFailed(Exception):
    """At least one record of a batch was not acknowledged: do not commit, drop the producer, start again."""
