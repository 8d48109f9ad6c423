"""Settings of alerts, read from `TIEOUT_…` variables."""

from pathlib import Path

from pydantic import Field, SecretStr

from shared.settings import ServiceSettings


class AlertsSettings(ServiceSettings):
    """What the sink, the API, the dispatcher and the scheduler need."""

    http_port: int = Field(default=8081, ge=0, le=65535)
    database_url: SecretStr = SecretStr("postgresql+asyncpg://postgres@127.0.0.1:5432/tieout")
    """Any login that is a member of `database_role`; `tieout migrate` uses the owner of the tables."""
    database_role: str = "tieout_app"
    """Taken on by every connection, so that row-level security holds whoever logs in."""
    database_pool_size: int = Field(default=5, ge=1, le=100)
    """Connections kept per process; a request or batch uses one at a time."""
    connect_timeout_s: float = Field(default=30.0, gt=0)
    """How long a start waits for PostgreSQL and Kafka before it gives up with exit code 3."""
    sink_group: str = Field(default="tieout-alerts-sink", min_length=1)
    """Consumer group that shares the partitions among sinks; places are in PostgreSQL, not in the group."""
    sink_instance_id: str | None = None
    """Static membership, such as the pod's name: a restart then moves no partitions."""
    sink_batch_records_max: int = Field(default=4_000, ge=1, le=100_000)
    """Records per transaction: more hardly help PostgreSQL and make a batch's latency longer."""
    sink_poll_ms: int = Field(default=200, ge=1, le=10_000)
    """Longest wait for records; an idle sink beats its heart this often."""
    sink_retry_pause_s: float = Field(default=1.0, gt=0, le=60)
    """Between two tries while PostgreSQL or Kafka is away."""
    sink_rebuild: bool = False
    """Store what the topics hold at the first start on an empty database without telling any endpoint about it."""
    explainer_poll_s: float = Field(default=0.5, gt=0, le=60)
    """How often the explainer looks for changes to look at: people see near misses within a second."""
    cluster_size_min: int = Field(default=3, ge=2, le=10_000)
    """Open discrepancies of one cause from which they are shown as a cluster: two may be chance."""
    outbox_poll_s: float = Field(default=0.5, gt=0, le=60)
    """How often records for Kafka are looked for: a revoked key must reach ingest within 5 s."""
    webhooks_allow_private: bool = False
    """Let outgoing webhooks go to private addresses and over http; for demos and closed networks."""
    webhooks_timeout_s: float = Field(default=15.0, gt=0, le=45)
    """Longest duration of one request; a claim of a message holds 60 s, which leaves time to store the result."""
    webhooks_places: int = Field(default=8, ge=1, le=64)
    """Requests under way per endpoint and dispatcher: receivers hear of a burst quickly and are not flooded."""
    webhooks_per_minute_max: int = Field(default=600, ge=1, le=1_000_000)
    """Messages per endpoint for discrepancies of one minute; above it one summary, every record is kept."""
    webhooks_poll_s: float = Field(default=1.0, gt=0, le=60)
    """How often due retries are looked for; new messages are sent at once."""
    reconciliation_daily_token: SecretStr | None = Field(default=None, validation_alias="RECONCILIATION_DAILY_TOKEN")
    """Guards the daily run; not set: that endpoint is off."""
    reconciliation_enabled: bool = Field(default=True, validation_alias="RECONCILIATION_ENABLED")
    """Hourly and daily runs by the scheduler; runs that people ask for are made all the same."""
    reconciliation_hourly_interval_minutes: int = Field(
        default=60, ge=1, le=1440, validation_alias="RECONCILIATION_HOURLY_INTERVAL"
    )
    """Length of what an hourly run looks at, and so how often there is one."""
    reconciliation_daily_run_time: str = Field(default="02:00", validation_alias="RECONCILIATION_DAILY_RUN_TIME")
    """When the day before is run: `02:00` is UTC, `02:00 Europe/Berlin` is by the clock of that zone."""
    reconciliation_auto_correct_low_severity: bool = Field(
        default=False, validation_alias="RECONCILIATION_AUTO_CORRECT_LOW_SEVERITY"
    )
    """Try to mend low exceptions: ask their provider again, and ask the ledger to book where `corrections_file` allows."""
    corrections_file: Path | None = None
    """YAML or JSON: what may be tried and where ledgers take entries, see docs/stack.md. Without it: asking again."""
    corrections_poll_s: float = Field(default=5.0, gt=0, le=3600)
    """How often exceptions are looked at: an attempt itself takes from seconds to minutes to help."""
    anomalies_enabled: bool = True
    """Learn what drift is usual at each hour, and tell of what is not and of what leads to a breach."""
    anomalies_poll_s: float = Field(default=600.0, ge=1, le=86_400)
    """How often histories are looked at: they go by the hour."""
    reconciliation_alert_webhook_url: str = Field(default="", validation_alias="RECONCILIATION_ALERT_WEBHOOK_URL")
    """Endpoints of every organisation, with commas between; messages and signatures as of registered ones."""
    reconciliation_alert_webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="RECONCILIATION_ALERT_WEBHOOK_SECRET"
    )
    """Signs messages to them (`whsec_…`); not set: each gets a random one, to be rotated over the API."""
