"""One module per provider: a pure mapping from its webhook's body to events in tieout's words.

A mapping raises `Unmapped` for what it should understand and cannot, and returns no event for what is no money
movement, so that a provider's other notifications do not fill the dead letters.
"""

from collections.abc import Callable

import msgspec

from services.ingest.domain.providers import circle_notifications, standard, stripe
from services.ingest.domain.providers.mapping import Mapped, MappingOptions, Unmapped

Mapping = Callable[[bytes, str, MappingOptions], Mapped]

MAPPINGS: dict[str, Mapping] = {
    "stripe": stripe.read,
    "standard": standard.read,
    "circle": circle_notifications.read,
}
"""By the name that a source's entry in the directory carries."""

__all__ = ["MAPPINGS", "Mapped", "Mapping", "MappingOptions", "Unmapped", "delivery_id"]


class _Identified(msgspec.Struct):
    id: str


_identified = msgspec.json.Decoder(_Identified).decode


def delivery_id(body: bytes) -> str | None:
    """Return the `id` that a JSON body gives itself, for schemes that sign no delivery id."""
    try:
        return _identified(body).id or None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
