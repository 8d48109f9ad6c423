"""The matcher's metrics: counters told at each event, gauges looked up now and then."""

import time

from services.matcher.ports import Batch, Status
from shared.telemetry.metrics import counter, gauge, histogram


class PrometheusMeter:
    """Keeps what happened for `/metrics`."""

    def __init__(self) -> None:
        self._restore = histogram("tieout_matcher_restore_seconds")
        self._commit = histogram("tieout_matcher_commit_seconds")
        self._records = counter("tieout_matcher_records_total")
        self._discrepancies = counter("tieout_matcher_discrepancies_total")
        self._shown: set[int] = set()

    def restored(self, seconds: float) -> None:
        """Tell of a state that was restored."""
        self._restore.observe(seconds)

    def committed(self, batch: Batch, seconds: float) -> None:
        """Tell of a transaction that was committed."""
        self._commit.observe(seconds)
        for kind, count in batch.kinds.items():
            self._records.labels(kind).inc(count)
        for found in batch.changes.discrepancies:
            self._discrepancies.labels(found.type, found.state).inc()

    def observe(self, status: Status) -> None:
        """Set the gauges; those of partitions that went elsewhere disappear."""
        gauge("tieout_matcher_partitions_owned").set(sum(one.restored for one in status.partitions))
        now_ms = time.time() * 1000
        held = [one for one in status.partitions if one.restored]
        for one in held:
            label = str(one.number)
            gauge("tieout_matcher_lag_records").labels(label).set(one.lag)
            gauge("tieout_matcher_items_open").labels(label).set(one.open_items)
            gauge("tieout_matcher_items_settled").labels(label).set(one.settled_items)
            gauge("tieout_matcher_state_bytes").labels(label).set(one.state_bytes)
            if one.log_time >= 0:
                gauge("tieout_matcher_log_time_lag_seconds").labels(label).set((now_ms - one.log_time) / 1000)
        self._hide(self._shown - {one.number for one in held})
        self._shown = {one.number for one in held}

    @staticmethod
    def _hide(numbers: set[int]) -> None:
        for number in numbers:
            for name in (
                "tieout_matcher_lag_records",
                "tieout_matcher_items_open",
                "tieout_matcher_items_settled",
                "tieout_matcher_state_bytes",
                "tieout_matcher_log_time_lag_seconds",
            ):
                gauge(name).remove_by_labels({"partition": str(number)})
