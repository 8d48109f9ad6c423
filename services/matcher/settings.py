"""Settings of the matcher: `TIEOUT_…` variables over the defaults below."""

import os
from typing import Any, Literal

from pydantic import Field

from shared.kafka.settings import KafkaSettings
from shared.settings import ServiceSettings, load_settings

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


class MatcherSettings(ServiceSettings):
    """How the matcher reads, commits and remembers."""

    http_port: int = Field(default=8082, ge=0, le=65535)
    """Health and metrics."""
    matcher_group: str = Field(default="tieout.matcher", pattern=r"^[A-Za-z0-9._\-]{1,100}$")
    """Consumer group, and the beginning of every transactional id: one installation per cluster has one."""
    group_instance_id: str | None = Field(default_factory=lambda: os.environ.get("POD_NAME") or None)
    """Keeps the membership over a restart; unique per process and stable, such as a StatefulSet's pod name."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000, le=300_000)
    """A process that is silent for longer loses its partitions to its peers."""
    commit_interval_ms: int = Field(default=20, ge=1, le=10_000)
    """Shortest time from a change to its transaction: what a lone discrepancy waits."""
    commit_interval_loaded_ms: int = Field(default=500, ge=1, le=10_000)
    """The same while a partition lags: larger transactions cost less per record."""
    commits_per_second_max: int = Field(default=200, ge=1, le=10_000)
    """Of this process. A transaction costs about 2 ms of CPU here and at the broker, however small it is."""
    compression: Literal["none", "snappy", "zstd", "gzip"] = "snappy"
    """Of results and state: snappy makes them a sixth for 0.2 us a record, less than sending the rest would take. (The
    client offers lz4 only at a level that takes ten times as long.)"""
    matches_as_json: bool = False
    """Write pairs that agree to `matches` as JSON items too, for consumers that do not read legs. It costs the matcher
    about a fifth of its throughput, where it is compiled, else a third."""
    compiled: bool = True
    """Take the compiled way of plain legs where it is built (`native/`); the results are the same to the byte. `tieout
    replay` heeds it too, for plain lines of large files."""
    snapshot_threshold_bytes: int = Field(default=32 * MEBIBYTE, ge=1)
    """Changes since the last snapshot below this are not worth a new one: a restore reads them in about a second."""
    snapshot_chunk_bytes: int = Field(default=512 * 1024, ge=1)
    """Of a snapshot per transaction: about 10 ms of work."""
    checkpoint_interval_s: int = Field(default=86_400, ge=1)
    """Of log time, between two checkpoints: what `tieout verify` begins at, so the most that it reads in vain."""
    state_bytes_max: int = Field(default=4 * GIBIBYTE, ge=1)
    """State of this process in memory; at the limit it stops consuming instead of forgetting early."""
    stall_timeout_s: float = Field(default=90.0, gt=0)
    """Lag without progress, or no assignment, for so long ends the process: a new one reads on. Longer than two
    attempts of a transaction."""


def load(**given: Any) -> tuple[MatcherSettings, KafkaSettings]:
    """Read the environment; `given` values of the matcher win.

    Raises:
        SettingsInvalid: one line per wrong variable.
    """
    return load_settings(MatcherSettings, **given), load_settings(KafkaSettings)
