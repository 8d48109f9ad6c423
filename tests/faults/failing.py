"""A service with a fail-point or a planted fault: `python -m tests.faults.failing SERVICE`.

The product is not changed for it: the named place is replaced in this process only, before the service starts.

- `TIEOUT_TEST_DIE_AT=PLACE:COUNT` kills the process (SIGKILL, from itself) when the matcher passes PLACE for the COUNT-th
  time. PLACE: `applied` (the state has changed, nothing is sent), `sent` (a transaction's records are at the broker),
  `asked` (its commit is on its way), `committed` (its commit was answered and nothing noted).
- `TIEOUT_TEST_PLANTED=no-fencing|no-await` puts a fault into the product.
"""

import asyncio
import os
import runpy
import signal
import sys
from typing import Any

PLACES = ("applied", "sent", "asked", "committed")


class _FailPoint:
    def __init__(self, place: str, count: int) -> None:
        assert place in PLACES, place
        self.place = place
        self.left = count

    def passed(self, place: str) -> None:
        if place != self.place:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _with_fail_point(point: _FailPoint) -> None:
    from services.matcher.adapters import transaction
    from services.matcher.use_cases.partition import Partition

    apply, make = Partition.apply, transaction.producer

    def applied(self: Partition, records: Any) -> None:
        apply(self, records)
        point.passed("applied")

    def made(*args: Any, **options: Any) -> Any:
        found = make(*args, **options)
        commit = found.commit_transaction

        async def committed() -> None:
            point.passed("sent")
            ending = asyncio.ensure_future(commit())
            if point.place == "asked":
                await asyncio.sleep(0.001)  # whether it gets through is left to chance
            point.passed("asked")
            await ending
            point.passed("committed")

        found.commit_transaction = committed
        return found

    Partition.apply = applied  # type: ignore[method-assign]
    transaction.producer = made


def _with_planted(name: str) -> None:
    from services.matcher.adapters import transaction

    make = transaction.producer
    if name == "no-fencing":

        def made(*args: Any, transactional_id: str, **options: Any) -> Any:
            return make(*args, transactional_id=f"{transactional_id}-{os.getpid()}", **options)

        transaction.producer = made
    else:
        assert name == "no-await", name

        async def unawaited(futures: Any) -> list[Any]:
            for future in futures:
                future.add_done_callback(transaction._forget)
            return []

        transaction.await_sent = unawaited


def main() -> None:
    service = sys.argv[1]
    if where := os.environ.get("TIEOUT_TEST_DIE_AT"):
        place, _, count = where.partition(":")
        _with_fail_point(_FailPoint(place, int(count)))
    if planted := os.environ.get("TIEOUT_TEST_PLANTED"):
        _with_planted(planted)
    sys.argv = [f"services.{service}", *sys.argv[2:]]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
