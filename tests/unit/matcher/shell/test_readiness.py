"""When a matcher says that it is ready, and what it says else."""

import pytest

from services.matcher.app import _trouble
from services.matcher.ports import PartitionStatus, Status

RESTORED = PartitionStatus(0, restored=True, lag=0, steps=1)
RESTORING = PartitionStatus(3, restored=False, lag=0, steps=0)
ANOTHER = PartitionStatus(1, restored=False, lag=0, steps=0)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (Status(joined=False, partitions=[]), "waiting for the consumer group"),
        (Status(joined=True, partitions=[RESTORED, RESTORING, ANOTHER]), "restoring partitions [1, 3]"),
        (Status(joined=True, partitions=[RESTORED]), None),
        (Status(joined=True, partitions=[]), None),
        (Status(joined=True, partitions=[RESTORED], halted="the state is full"), "the state is full"),
        (Status(joined=True, partitions=[RESTORING], halted="the state is full"), "the state is full"),
    ],
)
def test_ready_is_who_has_restored_all_that_the_group_gave_it(status: Status, trouble: str | None) -> None:
    assert _trouble(status) == trouble
