"""Settings of ingest: `TIEOUT_…` variables over the defaults below."""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from shared.kafka.settings import KafkaSettings
from shared.settings import ServiceSettings, load_settings

KIBIBYTE = 1024


class Role(StrEnum):
    """What a process does; they scale apart."""

    ALL = "all"
    HTTP = "http"
    NORMALISER = "normaliser"
    POLLER = "poller"


class IngestSettings(ServiceSettings):
    """How ingest receives, acknowledges and normalises."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """Where producers and providers post."""
    ingest_role: Role = Role.ALL
    """What this process does: `http`, `normaliser`, `poller` or `all`."""
    webhook_secrets_file: Path | None = None
    """YAML or JSON: {org: {source: {provider: stripe, secrets: [...]}}}. Read again when it changes."""
    ingest_stripe_payment_id_field: str = Field(default="payment_id", min_length=1, max_length=40)
    """Metadata field of Stripe's objects that holds the producer's own payment id; Stripe's keys have 40 characters."""
    pollers_file: Path | None = None
    """YAML or JSON: which providers are asked for balances, see docs/stack.md. Without it none is. Of several processes
    of the roles `poller` and `all` that have it, one polls at a time."""
    ingest_webhook_bytes_max: int = Field(default=1024 * KIBIBYTE, ge=KIBIBYTE, le=1536 * KIBIBYTE)
    """Of a webhook's body; providers stay far below. With its envelope it must fit into one record of `inbox` (2 MB)."""
    ingest_body_bytes_max: int = Field(default=4096 * KIBIBYTE, ge=KIBIBYTE, le=64 * 1024 * KIBIBYTE)
    """Of a request to /v1/events: some thousand events. It is held in memory while its rows are checked."""
    ingest_rows_max: int = Field(default=5_000, ge=1, le=100_000)
    """Rows of one request: checking them takes about 10 us each, during which nothing else is answered."""
    ingest_ack_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long Kafka may take to acknowledge a request's records; then 503. Below the time-out of usual HTTP clients."""
    ingest_retry_after_s: int = Field(default=5, ge=1, le=3600)
    """What a 503 asks a producer to wait: a leader election takes seconds."""
    ingest_group: str = Field(default="tieout.ingest", pattern=r"^[A-Za-z0-9._\-]{1,100}$")
    """Consumer group of the normalisers: one installation per cluster has one."""
    group_instance_id: str | None = Field(default_factory=lambda: os.environ.get("POD_NAME") or None)
    """Keeps the membership over a restart; unique per process and stable, such as a StatefulSet's pod name."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000, le=300_000)
    """A normaliser that is silent for longer loses its partitions to its peers."""
    ingest_tick_interval_ms: int = Field(default=200, ge=10, le=1_000)
    """How often log time is written to every partition of `legs`; the contract is once a second."""
    ingest_idle_ms: int = Field(default=250, ge=10, le=1_000)
    """An inbox partition without records for so long gets one, so that broker time goes on."""
    ingest_batch_records_max: int = Field(default=4_000, ge=1, le=100_000)
    """Inbox records that one round takes: at 30,000 a second a round lasts 130 ms."""
    stall_timeout_s: float = Field(default=90.0, gt=0)
    """No acknowledgement, or no record of a partition that has some, for so long ends the process."""


def load() -> tuple[IngestSettings, KafkaSettings]:
    """Read the environment.

    Raises:
        SettingsInvalid: one line per wrong variable.
    """
    return load_settings(IngestSettings), load_settings(KafkaSettings)
