"""Short, stable names of what has no id of its own."""

import hashlib

from shared.contracts.discrepancy import Key
from shared.ids import canonical


def name_id(*parts: str) -> str:
    """Return a name of `parts`, the 32 digits of a UUID: narrow in indexes, fast to make."""
    return hashlib.md5(canonical(parts), usedforsecurity=False).hexdigest()


def group_id(org: str, rule: str, key: Key) -> str:
    """Return the name of the group that items and discrepancies of one key share."""
    return name_id(org, rule, key) if isinstance(key, str) else name_id(org, rule, "", *key)
