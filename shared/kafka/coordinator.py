"""A member of a consumer group whose commits do not put it out of the group."""

from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import RebalanceInProgressError


class Coordinator(GroupCoordinator):  # type: ignore[misc]  # aiokafka has no types
    """The part of every aiokafka consumer that joins its group, heartbeats and commits.

    A broker answers the requests of a connection in turn. A commit that is sent while this member joins is answered
    after the join and refused for its old generation; the parent takes this for a refusal of the new one and joins
    again. With commits more frequent than a rebalance is long, it never stops joining and reads nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._joining = False
        super().__init__(*arguments, **options)

    async def _do_rejoin_group(self, subscription: Any) -> bool:
        self._joining = True
        try:
            joined: bool = await super()._do_rejoin_group(subscription)
        finally:
            self._joining = False
        return joined

    async def _on_join_complete(self, *joined: Any) -> None:
        self._joining = False  # the listener may commit
        await super()._on_join_complete(*joined)

    async def _do_commit_offsets(self, assignment: Any, offsets: Any) -> None:
        if self._joining:
            raise RebalanceInProgressError(self.group_id)  # `commit` makes a CommitFailedError of it
        await super()._do_commit_offsets(assignment, offsets)
