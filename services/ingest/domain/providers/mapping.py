"""What every provider's mapping takes and gives."""

from typing import NamedTuple

import msgspec

from shared.contracts.event import EventRefused, PostedEvent

DEFAULT_PAYMENT_ID_FIELD = "payment_id"


class MappingOptions(NamedTuple):
    """What differs between accounts of one provider."""

    payment_id_field: str = DEFAULT_PAYMENT_ID_FIELD
    """Metadata field in which the producer keeps its own payment id: becomes `refs.payment_id`."""


class Unmapped(ValueError):
    """The body should be understood and is not; `hint` says what to do."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint


class Mapped(msgspec.Struct, gc=False):
    """What a body says. No events and nothing refused: it is about no money movement, `kind` names what it is."""

    kind: str
    events: list[PostedEvent]
    refused: list[EventRefused]
