"""Faults that the product does not have: each is put in for a run, to see that the run finds it."""

from typing import Any

from services.matcher.adapters import transaction

NO_FENCING = "no-fencing"
"""Every process has a transactional id of its own, so nobody fences his predecessor."""
NO_AWAIT = "no-await"
"""Nobody waits for the acknowledgements before a commit."""
NO_PLACES = "no-places"
"""The database takes a batch wherever its places are."""
NO_DOUBT = "no-doubt"
"""A producer is used on though a late request may end its next transaction."""
ALL = (NO_FENCING, NO_AWAIT, NO_PLACES, NO_DOUBT)


async def _unawaited(futures: Any) -> list[Any]:
    for future in futures:
        future.add_done_callback(transaction._forget)
    return []


def patches(name: str) -> list[tuple[Any, str, Any]]:
    """What to replace by what, so that the product has this fault. Two of them are in `world.py`, where ids are given."""
    found: dict[str, list[tuple[Any, str, Any]]] = {
        NO_AWAIT: [(transaction, "await_sent", _unawaited)],
        NO_DOUBT: [(transaction.ProducerTransactions, "_refuse_doubt", lambda _: None)],
    }
    return found.get(name, [])
