"""Composition root of alerts: makes the adapters, gives them to handlers and use cases, runs the parts of each role.

To add a router: make it in `routers`. To add a loop: add a `Part` in `parts`.
"""

import asyncio
import random
import secrets
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

import structlog
from fastapi import APIRouter

from services.alerts.adapters.anomaly_store import PostgresAnomalies
from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.check_store import PostgresChecks
from services.alerts.adapters.correction_file import FilePolicies, read_policies
from services.alerts.adapters.correction_store import PostgresCorrections
from services.alerts.adapters.counts_store import PostgresCounts
from services.alerts.adapters.cuts import KafkaCuts
from services.alerts.adapters.database import Database, wait_for_database
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.adapters.delivery.endpoints import PostgresEndpoints
from services.alerts.adapters.delivery.outbox import LEASE, PostgresOutbox
from services.alerts.adapters.delivery.sender import WebhookSender
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.explanation_store import PostgresExplanations
from services.alerts.adapters.feed_store import PostgresFeeds
from services.alerts.adapters.inbox_reader import KafkaInbox
from services.alerts.adapters.ledger_client import HttpLedgers
from services.alerts.adapters.report_rows import PostgresReportRows
from services.alerts.adapters.rule_topic import RuleTopic
from services.alerts.adapters.run_requests_store import PostgresRunRequests
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.topic_outbox import TopicOutbox
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.adapters.watched_rules import TopicLimits
from services.alerts.domain.address import UrlRefused
from services.alerts.domain.schedule import ScheduleRefused, parse_daily_time
from services.alerts.domain.signature import SecretInvalid, secret_key
from services.alerts.handlers import web
from services.alerts.handlers.anomaly_watcher import show_anomalies, watch_anomalies
from services.alerts.handlers.corrector import correct, declare_corrections, show_ratio
from services.alerts.handlers.dead_letters import DEAD_LETTERS_TOPIC, DeadLetterLoop
from services.alerts.handlers.dispatcher import Dispatcher
from services.alerts.handlers.explainer import explain
from services.alerts.handlers.http import admin, billing, checks, counts, create_app, feeds, runs_v1, v1
from services.alerts.handlers.http import anomalies as anomalies_http
from services.alerts.handlers.http import budget as budget_http
from services.alerts.handlers.http import corrections as corrections_http
from services.alerts.handlers.http import dead_letters as dead_letters_http
from services.alerts.handlers.http import endpoints as endpoints_http
from services.alerts.handlers.http import runs as runs_http
from services.alerts.handlers.scheduler import Scheduler, complete_runs, declare_counters, show_gauges
from services.alerts.handlers.sink import STORED_TOPICS, SinkLoop, calm_collector
from services.alerts.handlers.usage import EVENTS_TOPIC, UsageLoop
from services.alerts.settings import AlertsSettings
from services.alerts.use_cases import dead_letters
from services.alerts.use_cases.alert_targets import SETTING, AlertTargets, target_urls
from services.alerts.use_cases.anomalies import Anomalies
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.corrections import Corrections
from services.alerts.use_cases.dead_letters import DeadLetters
from services.alerts.use_cases.dispatch import Dispatch
from services.alerts.use_cases.endpoints import Endpoints
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.requested_runs import RequestedRuns
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.runs import Runs
from services.alerts.use_cases.schedule import Schedule
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.tracked_events import TrackedEvents
from services.alerts.use_cases.triage import Triage
from shared.contracts.dead_letter import REASONS
from shared.contracts.discrepancy import SEVERITIES
from shared.errors import DependencyAway, UsageError
from shared.kafka.client import wait_for_kafka
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of
from shared.telemetry.health import Health
from shared.telemetry.metrics import gauge
from shared.telemetry.ops import AsgiApp, listen, ops_app, serve_ops

if TYPE_CHECKING:
    from services.alerts.handlers.mcp import McpTools

Role = Literal["sink", "api", "dispatcher", "scheduler", "explainer"]
ROLES: tuple[Role, ...] = get_args(Role)

LOOP_STALL_S_MAX = 30.0
"""A loop that does not come round for longer is stuck."""

CLAIMED_ROUNDS_MAX = 3
"""Messages taken for each place of an endpoint: while two rounds go out, the outcomes of the one before are stored."""

TARGETS_S = 15.0
"""Between two looks for organisations that lack the operators' alert targets."""

STATISTICS_S = 15.0
"""Between two counts of corrections and anomalies: a scrape looks every 15 s or so."""

OPEN_COUNT_S = 10.0
"""Between two counts of what is open: a scrape looks every 15 s or so."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stores:
    """The adapters, made once per process."""

    database: Database
    directory: PostgresDirectory
    outbox: TopicOutbox
    sink: PostgresSink
    cuts: KafkaCuts
    rules: RuleTopic
    inbox: KafkaInbox


@dataclass(frozen=True, slots=True)
class Part:
    """A loop that runs in the roles named, until it is cancelled."""

    name: str
    roles: frozenset[Role]
    run: Callable[[], Awaitable[None]]


def routers(stores: Stores, settings: AlertsSettings) -> Sequence[APIRouter]:
    """Every router of the API."""
    triage = Triage(PostgresTriage(stores.database), stores.rules, _now)
    return [
        billing.router(triage),
        v1.discrepancies_router(triage),
        v1.items_router(triage),
        v1.directory_router(stores.directory, Keys(stores.directory, _now)),
        runs_http.router(_runs(stores), _reports(stores), settings.reconciliation_daily_token),
        runs_v1.router(_runs(stores), _reports(stores)),
        admin.router(_runs(stores), triage),
        anomalies_http.router(PostgresAnomalies(stores.database)),
        corrections_http.router(PostgresCorrections(stores.database), _now),
        endpoints_http.router(_endpoints(stores, settings)),
        counts.router(PostgresCounts(stores.database)),
        checks.router(PostgresChecks(stores.database)),
        feeds.router(PostgresFeeds(stores.database)),
        dead_letters_http.router(DeadLetters(PostgresDeadLetters(stores.database), stores.inbox, _now)),
        budget_http.router(Budgets(PostgresBudgets(stores.database), _now), _now),
        web.router(),
    ]


def _now() -> datetime:
    return datetime.now(UTC)


def parts(stores: Stores, settings: AlertsSettings, kafka: KafkaSettings, health: Health) -> Sequence[Part]:
    """Every loop of the service."""
    return [
        Part("sink", frozenset({"sink"}), _sink(stores, settings, kafka, health).run),
        Part("dead letters", frozenset({"sink"}), _dead_letters(stores, settings, kafka, health).run),
        Part("usage", frozenset({"sink"}), _usage(stores, settings, kafka, health).run),
        Part("open", frozenset({"sink"}), lambda: _count_open(stores.database, health)),
        Part("outbox", frozenset({"api", "sink"}), lambda: _publish(stores.outbox, settings.outbox_poll_s, health)),
        Part("dispatcher", frozenset({"dispatcher"}), lambda: _deliver(stores.database, settings, health)),
        Part("explainer", frozenset({"explainer"}), lambda: _explain(stores.database, settings, health)),
        Part("runs", frozenset({"scheduler"}), lambda: complete_runs(_scheduler(stores, settings), health)),
        Part("gauges", frozenset({"scheduler"}), lambda: show_gauges(PostgresRuns(stores.database), health)),
        Part("corrections", frozenset({"scheduler"}), lambda: _correct(stores, settings, health)),
        Part("anomalies", frozenset({"scheduler"}), lambda: _watch_anomalies(stores, settings, health)),
        Part("statistics", frozenset({"scheduler"}), lambda: _show_statistics(stores.database, health)),
        Part("targets", frozenset({"dispatcher"}), lambda: _keep_targets(_targets(stores, settings), health)),
    ]


async def _explain(database: Database, settings: AlertsSettings, health: Health) -> None:
    await explain(
        PostgresExplanations(database),
        health,
        poll_s=settings.explainer_poll_s,
        cluster_size_min=settings.cluster_size_min,
    )


def _endpoints(stores: Stores, settings: AlertsSettings) -> Endpoints:
    return Endpoints(
        PostgresEndpoints(stores.database),
        clock=_now,
        random_bytes=secrets.token_bytes,
        allow_private=settings.webhooks_allow_private,
    )


async def _deliver(database: Database, settings: AlertsSettings, health: Health) -> None:
    outbox = PostgresOutbox(database, cap=settings.webhooks_per_minute_max)
    sender = WebhookSender(allow_private=settings.webhooks_allow_private, total_timeout_s=settings.webhooks_timeout_s)
    health.watch("dispatcher", LOOP_STALL_S_MAX + settings.webhooks_poll_s)
    async with sender, asyncio.TaskGroup() as tasks:
        dispatch = Dispatch(
            outbox,
            sender,
            clock=_now,
            chance=random.random,
            attempt_max=timedelta(seconds=settings.webhooks_timeout_s),
        )
        dispatcher = Dispatcher(
            dispatch,
            places=settings.webhooks_places,
            claims_max=settings.webhooks_places * _rounds(settings.webhooks_timeout_s),
            poll_s=settings.webhooks_poll_s,
            on_round=lambda: health.heartbeat("dispatcher"),
        )
        tasks.create_task(outbox.listen(dispatcher.wake))
        await dispatcher.run()


def _rounds(timeout_s: float) -> int:
    """Return how many requests may follow each other in one place within a claim, even where each of them times out."""
    return max(1, min(CLAIMED_ROUNDS_MAX, int(LEASE.total_seconds() / timeout_s) - 1))


def _runs(stores: Stores) -> Runs:
    return Runs(
        store=PostgresRuns(stores.database),
        directory=stores.directory,
        cuts=stores.cuts,
        now=_now,
        rules=stores.rules,
    )


def _reports(stores: Stores) -> RunReports:
    return RunReports(PostgresRuns(stores.database), PostgresReportRows(stores.database))


def _scheduler(stores: Stores, settings: AlertsSettings) -> Scheduler:
    schedule = Schedule(
        PostgresRuns(stores.database),
        stores.directory,
        stores.rules,
        interval=timedelta(minutes=settings.reconciliation_hourly_interval_minutes),
        daily=parse_daily_time(settings.reconciliation_daily_run_time),
        now=_now,
    )
    if not settings.reconciliation_enabled:
        log.info("scheduled runs are off", setting="RECONCILIATION_ENABLED")
    return Scheduler(_runs(stores), schedule if settings.reconciliation_enabled else None)


async def _correct(stores: Stores, settings: AlertsSettings, health: Health) -> None:
    if not settings.reconciliation_auto_correct_low_severity:
        log.info("auto-correction is off", setting="RECONCILIATION_AUTO_CORRECT_LOW_SEVERITY")
        await asyncio.Event().wait()
    policies = _policies(settings)
    async with HttpLedgers(policies.addresses) as ledgers:
        corrections = Corrections(
            PostgresCorrections(stores.database),
            policies,
            stores.rules,
            ledgers,
            watched=policies.watched,
            now=_now,
            shortest=policies.shortest,
        )
        log.info("auto-correction is on", rules=policies.watched, ledgers=sorted(policies.addresses))
        await correct(corrections, health, poll_s=settings.corrections_poll_s)


def _policies(settings: AlertsSettings) -> FilePolicies:
    return read_policies(settings.corrections_file, allow_http=settings.webhooks_allow_private)


async def _watch_anomalies(stores: Stores, settings: AlertsSettings, health: Health) -> None:
    if not settings.anomalies_enabled:
        log.info("anomaly detection is off", setting="TIEOUT_ANOMALIES_ENABLED")
        await asyncio.Event().wait()
    store = PostgresAnomalies(stores.database)
    anomalies = Anomalies(store, TopicLimits(stores.rules), stores.directory, _now)
    await watch_anomalies(anomalies, health, poll_s=settings.anomalies_poll_s)


async def _show_statistics(database: Database, health: Health) -> None:
    """Keep the gauges that are counted in PostgreSQL, also where nothing is corrected or looked at any more."""
    corrections, anomalies = PostgresCorrections(database), PostgresAnomalies(database)
    health.watch("statistics", LOOP_STALL_S_MAX + STATISTICS_S)
    while True:
        health.heartbeat("statistics")
        with suppress(DependencyAway):
            await show_ratio(corrections, _now())
            await show_anomalies(anomalies)
        await asyncio.sleep(STATISTICS_S)


def _targets(stores: Stores, settings: AlertsSettings) -> AlertTargets:
    secret = settings.reconciliation_alert_webhook_secret
    return AlertTargets(
        PostgresEndpoints(stores.database),
        stores.directory,
        target_urls(settings.reconciliation_alert_webhook_url, allow_private=settings.webhooks_allow_private),
        secret=None if secret is None else secret.get_secret_value(),
        random_bytes=secrets.token_bytes,
        now=_now,
    )


async def _keep_targets(targets: AlertTargets, health: Health) -> None:
    """Organisations come while it runs."""
    health.watch("alert targets", LOOP_STALL_S_MAX + TARGETS_S)
    while True:
        health.heartbeat("alert targets")
        try:
            changed = await targets.apply()
            if changed:
                log.info("alert targets changed", setting=SETTING, endpoints=changed)
        except DependencyAway as error:
            log.warning("alert targets wait", reason=str(error))
        await asyncio.sleep(TARGETS_S)


def _require_settings(settings: AlertsSettings) -> None:
    """Raises `UsageError` for what cannot be read, before anything starts."""
    try:
        parse_daily_time(settings.reconciliation_daily_run_time)
    except ScheduleRefused as error:
        raise UsageError(f"RECONCILIATION_DAILY_RUN_TIME: {error}") from None
    try:
        target_urls(settings.reconciliation_alert_webhook_url, allow_private=settings.webhooks_allow_private)
    except UrlRefused as error:
        raise UsageError(f"{SETTING}: {error}") from None
    secret = settings.reconciliation_alert_webhook_secret
    try:
        if secret is not None:
            secret_key(secret.get_secret_value())
    except SecretInvalid as error:
        raise UsageError(f"RECONCILIATION_ALERT_WEBHOOK_SECRET: {error}") from None
    # A mistake in the file is told at the start, whether or not it is used yet.
    _policies(settings)


def _sink(stores: Stores, settings: AlertsSettings, kafka: KafkaSettings, health: Health) -> SinkLoop:
    return SinkLoop(
        kafka,
        stores.sink,
        lambda batch: store(stores.sink, batch, _now()),
        health,
        group=settings.sink_group,
        instance_id=settings.sink_instance_id,
        batch_records_max=settings.sink_batch_records_max,
        poll_ms=settings.sink_poll_ms,
        retry_pause_s=settings.sink_retry_pause_s,
        rebuild=settings.sink_rebuild,
    )


def _dead_letters(stores: Stores, settings: AlertsSettings, kafka: KafkaSettings, health: Health) -> DeadLetterLoop:
    letters = PostgresDeadLetters(stores.database)
    return DeadLetterLoop(
        kafka,
        lambda arrived: dead_letters.store(letters, arrived, _now()),
        health,
        # Beside the sinks' own, so that what sets installations apart sets these apart too.
        group=f"{settings.sink_group}-dead-letters",
        instance_id=settings.sink_instance_id,
    )


def _usage(stores: Stores, settings: AlertsSettings, kafka: KafkaSettings, health: Health) -> UsageLoop:
    budgets, letters = PostgresBudgets(stores.database), PostgresDeadLetters(stores.database)
    return UsageLoop(
        kafka,
        TrackedEvents(budgets, letters, _now),
        health,
        group=f"{settings.sink_group}-usage",
        instance_id=settings.sink_instance_id,
    )


async def _publish(outbox: TopicOutbox, poll_s: float, health: Health) -> None:
    health.watch("outbox", LOOP_STALL_S_MAX + poll_s)
    while True:
        health.heartbeat("outbox")
        try:
            sent = await outbox.publish_once()
        except DependencyAway as error:
            log.warning("the outbox waits", reason=str(error))
            sent = 0
        if not sent:
            await asyncio.sleep(poll_s)


def open_stores(settings: AlertsSettings, kafka: KafkaSettings) -> Stores:
    """Make the adapters; nothing connects yet.

    Raises:
        UsageError: the database URL or role is wrong.
    """
    database = Database(
        settings.database_url.get_secret_value(), role=settings.database_role, pool_size=settings.database_pool_size
    )
    return Stores(
        database=database,
        directory=PostgresDirectory(database),
        outbox=TopicOutbox(database, kafka),
        sink=PostgresSink(database),
        cuts=KafkaCuts(kafka),
        rules=RuleTopic(kafka),
        inbox=KafkaInbox(kafka),
    )


async def serve(settings: AlertsSettings, kafka: KafkaSettings, roles: Collection[Role] = ROLES) -> None:
    """Run `roles` until SIGTERM or SIGINT, or until a part fails.

    Raises:
        DependencyAway: PostgreSQL or Kafka did not answer at the start (exit 3). Later they are waited for.
        UsageError: a port in use, a database that is not migrated.
    """
    _require_settings(settings)
    if {"api", "scheduler"} & set(roles):
        declare_counters()
        declare_corrections()
    with listen(settings.http_host, settings.http_port) as listener:
        health = Health(["database", "sink"] if "sink" in roles else ["database"])
        async with AsyncExitStack() as closing:
            stores = open_stores(settings, kafka)
            closing.push_async_callback(stores.database.close)
            closing.push_async_callback(stores.outbox.close)
            closing.push_async_callback(stores.cuts.close)
            tools = _mcp(stores) if "api" in roles else None
            if tools is not None:
                await closing.enter_async_context(tools.serving())
            app = _application(stores, settings, health, roles, tools)
            stopped = asyncio.Event()
            _stop_on_signals(stopped)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(serve_ops(app, settings.http_host, settings.http_port, listener), name="http")
                ]
                await _until(stopped, _wait_for_dependencies(stores, settings, kafka, roles))
                if not stopped.is_set():
                    if "sink" in roles:
                        calm_collector()
                    log.info("alerts serves", roles=sorted(roles), address=_address(listener.getsockname()))
                    running += [
                        tasks.create_task(_forever(part), name=part.name)
                        for part in parts(stores, settings, kafka, health)
                        if part.roles & set(roles)
                    ]
                    running.append(tasks.create_task(_watch_database(stores.database, health), name="database"))
                await stopped.wait()
                log.info("alerts stops")
                for task in running:
                    task.cancel()


def _application(
    stores: Stores, settings: AlertsSettings, health: Health, roles: Collection[Role], tools: "McpTools | None"
) -> AsgiApp:
    if "api" not in roles:
        return ops_app(health)
    agents = [] if tools is None else [tools.router()]
    return create_app([*routers(stores, settings), *agents], stores.directory, health)


def _mcp(stores: Stores) -> "McpTools | None":
    """Return the tools for agents; None where the extra `mcp` is not installed."""
    try:
        from services.alerts.handlers.mcp import McpTools, UseCases
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mcp":
            raise
        log.info("MCP is off: the extra mcp is not installed")
        return None
    return McpTools(
        stores.directory,
        UseCases(
            budgets=Budgets(PostgresBudgets(stores.database), _now),
            triage=Triage(PostgresTriage(stores.database), stores.rules, _now),
            runs=RequestedRuns(_runs(stores), PostgresRunRequests(stores.database), _now),
            letters=DeadLetters(PostgresDeadLetters(stores.database), stores.inbox, _now),
        ),
    )


async def _wait_for_dependencies(
    stores: Stores, settings: AlertsSettings, kafka: KafkaSettings, roles: Collection[Role]
) -> None:
    await wait_for_database(stores.database, settings.connect_timeout_s)
    if set(roles) & {"sink", "api", "scheduler"}:
        await wait_for_kafka(kafka, settings.connect_timeout_s)
    if "sink" in roles:
        await _require_topics(kafka)


async def _require_topics(kafka: KafkaSettings) -> None:
    """Raises `UsageError`: without its topics the sink would wait in silence."""
    wanted = [kafka.topic_prefix + name for name in (*STORED_TOPICS, DEAD_LETTERS_TOPIC, EVENTS_TOPIC)]
    counts = await partitions_of(kafka, *wanted)
    missing = [name for name in wanted if name not in counts]
    if missing:
        raise UsageError(f"topics are missing: {', '.join(missing)}; create them with `tieout topics apply`")


async def _until(stopped: asyncio.Event, work: Awaitable[None]) -> None:
    """Wait for `work`, or leave it when the process is to stop."""
    task = asyncio.ensure_future(work)
    stop = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for pending in (task, stop):
            pending.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pending


async def _forever(part: Part) -> None:
    await part.run()
    raise RuntimeError(f"the part {part.name} ended by itself")


async def _count_open(database: Database, health: Health) -> None:
    """Keep the gauges of what is open; counted in PostgreSQL, since people close it too."""
    triage, letters = PostgresTriage(database), PostgresDeadLetters(database)
    health.watch("open discrepancies", LOOP_STALL_S_MAX + OPEN_COUNT_S)
    while True:
        health.heartbeat("open discrepancies")
        with suppress(DependencyAway):
            counted = await triage.count_open()
            for severity in SEVERITIES:
                gauge("tieout_alerts_discrepancies_open").labels(severity).set(counted.get(severity, 0))
            set_aside = await letters.count_open()
            for reason in REASONS:
                gauge("tieout_alerts_dead_letters_open").labels(reason).set(set_aside.get(reason, 0))
        await asyncio.sleep(OPEN_COUNT_S)


async def _watch_database(database: Database, health: Health, every_s: float = 2.0) -> None:
    while True:
        try:
            await database.ping()
            health.set_ready("database")
        except DependencyAway as error:
            health.set_not_ready("database", str(error))
        await asyncio.sleep(every_s)


def _stop_on_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)


def _address(name: tuple[str, int]) -> str:
    return f"http://{name[0]}:{name[1]}"
