"""Every metric of every service, with its meaning: the one place where a metric is declared.

`python -m shared.telemetry.catalogue` prints `docs/metrics.md`. Labels have few values by design: an org, a key or a
record never is one.
"""

import sys
from dataclasses import dataclass
from typing import Final, Literal

MetricKind = Literal["counter", "gauge", "histogram"]
Unit = Literal["1", "seconds", "bytes", "records"]

REQUEST_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From one local write to the longest wait we allow a request."""
DELIVERY_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
"""Other people's endpoints are slower than Kafka."""
RUN_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""From an hour with nothing in it to a large month."""
RESTORE_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From an empty partition to one with millions of items."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as Prometheus sees it; `meaning` is its help text and its row in the docs."""

    name: str
    kind: MetricKind
    unit: Unit
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def service(self) -> str:
        # The stack pack's names, which people use already, name no service: runs belong to alerts.
        return self.name.split("_")[1] if self.name.startswith("tieout_") else "alerts"


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "tieout_ingest_requests_total",
        "counter",
        "1",
        "HTTP requests answered, by route and by what became of them: accepted, partial, refused, unavailable.",
        ("route", "outcome"),
    ),
    Metric(
        "tieout_ingest_rows_total",
        "counter",
        "records",
        "Event rows received over HTTP and Kafka: accepted (in the inbox) or refused.",
        ("outcome",),
    ),
    Metric(
        "tieout_ingest_webhooks_total",
        "counter",
        "1",
        "Webhooks by source and by the verdict on their signature: valid, invalid, stale, unknown_source.",
        ("source", "verdict"),
    ),
    Metric(
        "tieout_ingest_inbox_append_seconds",
        "histogram",
        "seconds",
        "Time from handing a request's rows to Kafka until all of them are acknowledged in the inbox.",
        buckets=REQUEST_SECONDS,
    ),
    Metric(
        "tieout_ingest_normalised_records_total",
        "counter",
        "records",
        "Inbox records turned into an event, by source and event type.",
        ("source", "type"),
    ),
    Metric(
        "tieout_ingest_dead_letters_total",
        "counter",
        "records",
        "Inbox records that could not be understood and went to dead-letters, by source, event type and reason.",
        ("source", "type", "reason"),
    ),
    Metric(
        "tieout_ingest_not_reconciled_total",
        "counter",
        "records",
        "Events that no rule selects, by source and event type: money that nobody compares.",
        ("source", "type"),
    ),
    Metric(
        "tieout_ingest_legs_total",
        "counter",
        "records",
        "Legs written for the matcher, by rule.",
        ("rule",),
    ),
    Metric(
        "tieout_ingest_normaliser_lag_records",
        "gauge",
        "records",
        "Inbox records not yet normalised, by inbox partition.",
        ("partition",),
    ),
    Metric(
        "tieout_ingest_derivation_remaining_records",
        "gauge",
        "records",
        "Events still to be read for a rule whose events are derived anew (`rules apply --rederive`).",
        ("rule",),
    ),
    Metric(
        "tieout_ingest_polls_total",
        "counter",
        "1",
        "Looks at a provider's balances, by source and by what became of them: ok, empty, unauthorised, refused, "
        "rate_limited, unavailable, timeout, not_whole, unknown_currency, stale, unreadable, not_published.",
        ("source", "result"),
    ),
    Metric(
        "tieout_ingest_poll_seconds",
        "histogram",
        "seconds",
        "Time that one look at a provider's balances took, retries included, by source.",
        ("source",),
        buckets=RESTORE_SECONDS,
    ),
    Metric(
        "tieout_ingest_poll_accounts",
        "gauge",
        "1",
        "Accounts or wallets that the last whole read of a source returned.",
        ("source",),
    ),
    Metric(
        "tieout_ingest_poll_last_success_seconds",
        "gauge",
        "seconds",
        "When the balances of a source were last read and published, in seconds since 1970.",
        ("source",),
    ),
    Metric(
        "tieout_matcher_lag_records",
        "gauge",
        "records",
        "Legs not yet applied, by partition.",
        ("partition",),
    ),
    Metric(
        "tieout_matcher_log_time_lag_seconds",
        "gauge",
        "seconds",
        "Clock minus log time, by partition: by how much deadlines fire late. Grows while ingest stands still.",
        ("partition",),
    ),
    Metric(
        "tieout_matcher_items_open",
        "gauge",
        "records",
        "Groups that wait for a side, a deadline or a correction, by partition.",
        ("partition",),
    ),
    Metric(
        "tieout_matcher_items_settled",
        "gauge",
        "records",
        "Settled groups still remembered, by partition.",
        ("partition",),
    ),
    Metric(
        "tieout_matcher_state_bytes",
        "gauge",
        "bytes",
        "Size of the state held in memory, by partition; the process stops consuming at its limit.",
        ("partition",),
    ),
    Metric(
        "tieout_matcher_restore_seconds",
        "histogram",
        "seconds",
        "Time from being given a partition until its state is restored and reading goes on.",
        buckets=RESTORE_SECONDS,
    ),
    Metric(
        "tieout_matcher_commit_seconds",
        "histogram",
        "seconds",
        "Time of one transaction, from its first send to its commit.",
        buckets=REQUEST_SECONDS,
    ),
    Metric(
        "tieout_matcher_records_total",
        "counter",
        "records",
        "Records applied and committed, by kind: leg, tick, rules, cut, withdraw.",
        ("kind",),
    ),
    Metric(
        "tieout_matcher_discrepancies_total",
        "counter",
        "records",
        "Revisions of discrepancies published, by type and state (raised, resolved).",
        ("type", "state"),
    ),
    Metric(
        "tieout_matcher_partitions_owned",
        "gauge",
        "1",
        "Partitions this process holds and has restored.",
    ),
    Metric(
        "tieout_alerts_sink_rows_total",
        "counter",
        "records",
        "Rows stored in PostgreSQL, by topic.",
        ("topic",),
    ),
    Metric(
        "tieout_alerts_sink_batch_seconds",
        "histogram",
        "seconds",
        "Time of one sink transaction in PostgreSQL.",
        buckets=REQUEST_SECONDS,
    ),
    Metric(
        "tieout_alerts_sink_lag_records",
        "gauge",
        "records",
        "Results not yet stored, by topic and partition.",
        ("topic", "partition"),
    ),
    Metric(
        "tieout_alerts_deliveries_total",
        "counter",
        "1",
        "Attempts to deliver an outgoing webhook, by outcome: delivered, refused, timeout, unreachable, disabled.",
        ("outcome",),
    ),
    Metric(
        "tieout_alerts_delivery_seconds",
        "histogram",
        "seconds",
        "Time of one attempt to deliver an outgoing webhook.",
        buckets=DELIVERY_SECONDS,
    ),
    Metric(
        "tieout_alerts_deliveries_pending",
        "gauge",
        "records",
        "Outgoing webhooks that wait for their first or next attempt.",
    ),
    Metric(
        "tieout_alerts_discrepancies_open",
        "gauge",
        "records",
        "Discrepancies raised and not resolved, by severity.",
        ("severity",),
    ),
    Metric(
        "tieout_alerts_dead_letters_open",
        "gauge",
        "records",
        "Dead letters that nobody has replayed or dismissed, by reason.",
        ("reason",),
    ),
    Metric(
        "reconciliation_runs_total",
        "counter",
        "1",
        "Runs that came to a status, of every pack: completed, provisional, incomplete, failed.",
        ("status",),
    ),
    Metric(
        "reconciliation_checks_total",
        "counter",
        "1",
        "Checks of runs, each counted once, when everything of the run's period is stored.",
    ),
    Metric(
        "reconciliation_checks_passed_total",
        "counter",
        "1",
        "Of these, the checks that held.",
    ),
    Metric(
        "reconciliation_checks_failed_total",
        "counter",
        "1",
        "Of these, the checks that did not hold or could not be judged.",
    ),
    Metric(
        "reconciliation_exceptions_unresolved",
        "gauge",
        "records",
        "Discrepancies that neither a person nor the engine has resolved, by severity; the same from every replica.",
        ("severity",),
    ),
    Metric(
        "reconciliation_discrepancy_amount",
        "gauge",
        "1",
        "Largest discrepancy of any currency in the last run, by check; for alerts and pictures, figures are in reports.",
        ("check_type",),
    ),
    Metric(
        "reconciliation_run_duration_seconds",
        "histogram",
        "seconds",
        "Time of computing a run once, from reading what is stored to its report.",
        buckets=RUN_SECONDS,
    ),
    Metric(
        "reconciliation_corrections_total",
        "counter",
        "1",
        "Attempts of auto-correction that have finished, by action (refetch, adjust) and outcome: resolved is a success; "
        "still_differs, no_fresh_reading, read_failed, refused, unavailable, changed, left_to_people are not.",
        ("action", "outcome"),
    ),
    Metric(
        "reconciliation_correction_success_ratio",
        "gauge",
        "1",
        "Share of the attempts of auto-correction of the last 30 days that helped, by action; the same from every replica. "
        "NaN where none has finished.",
        ("action",),
    ),
    Metric(
        "reconciliation_anomalies_open",
        "gauge",
        "records",
        "Anomalies that are open, by kind: unusual, level_shift, and trend, which leads to a breach; the same from every "
        "replica.",
        ("kind",),
    ),
    Metric(
        "reconciliation_baselines",
        "gauge",
        "records",
        "Accounts and checks whose drift is followed, by state: learning (too little history yet) or watched.",
        ("state",),
    ),
    Metric(
        "reconciliation_anomaly_round_seconds",
        "histogram",
        "seconds",
        "Time of looking once at every history that changed.",
        buckets=RUN_SECONDS,
    ),
)


_TITLES: Final = {"ingest": "Ingest", "matcher": "Matcher", "alerts": "Alerts"}


def as_markdown() -> str:
    """`docs/metrics.md`, whole."""
    lines = [
        "# Metrics",
        "",
        "Every service shows its metrics in the Prometheus format at `/metrics`. This page is generated from",
        "`shared/telemetry/catalogue.py` by `python -m shared.telemetry.catalogue`.",
    ]
    for service, title in _TITLES.items():
        lines += ["", f"## {title}", ""]
        lines += ["| metric | kind | unit | labels | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(metric) for metric in METRICS if metric.service == service]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    unit = "-" if metric.unit == "1" else metric.unit
    return f"| `{metric.name}` | {metric.kind} | {unit} | {labels} | {metric.meaning} |"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
