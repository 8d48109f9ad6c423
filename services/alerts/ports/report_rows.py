"""What a report shows beside its figures: the items it counted, and how readings drifted."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.alerts.domain.drift import Drift
from services.alerts.ports.runs import Run
from shared.contracts.item import Item


class ReportRows(Protocol):
    """Rows of one organisation, as they stood at the run's `at`."""

    def items(self, run: Run) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Give the period's items, each as it stood at the run's `at`, by rule, time and id.

        Read as they are asked for: of however many only some are in memory. They come from one moment of the database.

        Raises:
            UnreadableItem: what is stored cannot be read; the message names it.
        """

    async def drift(self, run: Run) -> Sequence[Drift]:
        """Return the readings of the period, per rule and currency."""


class UnreadableItem(ValueError):
    """A stored item cannot be read."""
