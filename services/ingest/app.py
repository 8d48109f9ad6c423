"""The composition root of ingest: which parts run, how they start, how they end."""

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import structlog

from services.ingest.adapters.certificates import SnsCertificates
from services.ingest.adapters.followed_topic import FollowedTopic
from services.ingest.adapters.inbox import KafkaInbox
from services.ingest.adapters.pollers.file import Configured, read_pollers
from services.ingest.adapters.pollers.source import balance_session, balance_source
from services.ingest.adapters.secrets import FileSecrets
from services.ingest.adapters.turn import KafkaTurn
from services.ingest.domain.directory import Directory
from services.ingest.domain.normalise import Normaliser
from services.ingest.domain.providers import MappingOptions
from services.ingest.domain.rule_book import RuleBook
from services.ingest.handlers.copier import Copier
from services.ingest.handlers.http import Ingest, http_app
from services.ingest.handlers.normaliser import CONDITION, NormaliserLoop, Parts, Stalled
from services.ingest.handlers.poller import Polled, Pollers
from services.ingest.handlers.rederiver import Rederiver
from services.ingest.settings import IngestSettings, Role
from shared.contracts.directory import PollEntry, decode_entry
from shared.contracts.rule_set import RuleSetRecord, decode_rule_derived, decode_rule_set, read_key
from shared.errors import DependencyAway, UsageError
from shared.kafka.client import wait_for_kafka
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import RulesInvalid
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.telemetry.ops import listen, ops_app, serve_ops
from shared.telemetry.traces import configure_tracing

SERVICE = "ingest"
RULES_READ = "rules read"
DIRECTORY_READ = "directory read"
DIRECTORY_LOOP = "directory"
INBOX_CONNECTED = "inbox connected"
DRAIN_TIMEOUT_S = 8.0
"""A round ends within a second; below the 10 s after which `docker stop` kills."""
GC_THRESHOLD = 50_000
"""Objects made between two looks for garbage: about one batch."""

log = structlog.get_logger(__name__)


class _RulesFeed:
    """What came in on `rules`, until the normaliser takes it between two batches."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book
        self._waiting: list[tuple[bytes, bytes | None, int]] = []

    def hold(self, key: bytes, value: bytes | None, offset: int) -> None:
        self._waiting.append((key, value, offset))

    def take(self) -> None:
        """Put everything that waits into the rule book."""
        waiting, self._waiting = self._waiting, []
        for key, value, offset in waiting:
            try:
                self._book.version = max(self._book.version, offset)
                org, pack, rule = read_key(key)
                if rule is not None:
                    self._take_note(value, offset)
                    continue
                rule_set: RuleSetRecord | None = decode_rule_set(value) if value else None
                self._book.apply(org, pack, rule_set, offset)
            except (msgspec.MsgspecError, RulesInvalid) as error:
                log.error("a rule set cannot be read; the former one stays in force", offset=offset, reason=str(error))  # noqa: TRY400 - the reason says it all
            else:
                log.info(
                    "rules in force", org=org, pack=pack, offset=offset, rules=len(rule_set.rules) if rule_set else 0
                )

    def _take_note(self, value: bytes | None, offset: int) -> None:
        if value is None:
            return
        note = decode_rule_derived(value)
        self._book.derived(note, offset)
        log.info("rule was derived anew", org=note.org, rule=note.rule, derivation=note.number)


def _directory_taker(directory: Directory) -> Callable[[bytes, bytes | None, int], None]:
    def take(key: bytes, value: bytes | None, offset: int) -> None:
        try:
            if value is None:
                directory.remove(key)
            else:
                directory.put(decode_entry(value))
        except msgspec.MsgspecError as error:
            log.error("a directory entry cannot be read", offset=offset, reason=str(error))  # noqa: TRY400 - as above

    return take


def _wish_taker(pollers: Pollers) -> Callable[[bytes, bytes | None, int], None]:
    def take(_: bytes, value: bytes | None, offset: int) -> None:
        try:
            entry = decode_entry(value) if value else None
        except msgspec.MsgspecError as error:
            log.error("a directory entry cannot be read", offset=offset, reason=str(error))  # noqa: TRY400 - the reason says it all
            return
        if isinstance(entry, PollEntry):
            pollers.wish(entry.org, entry.source, entry.at)

    return take


async def run(
    settings: IngestSettings, kafka: KafkaSettings, on_listening: Callable[[str], None] | None = None
) -> None:
    """Run ingest until SIGTERM or SIGINT, then let what is under way end.

    `on_listening` is given the address once requests are taken.

    Raises:
        PortInUse: before anything else starts.
        UsageError: the secrets' file, the pollers' file or a topic is not as it must be.
        DependencyAway: Kafka does not answer within `connect_timeout_s`, or stays stuck.
    """
    configure_logging(SERVICE, settings)
    stop_tracing = configure_tracing(SERVICE, settings)
    listener = listen(settings.http_host, settings.http_port)
    try:
        secrets = FileSecrets(settings.webhook_secrets_file)
        pollers = _configured_pollers(settings)
        await wait_for_kafka(kafka)
        await _Process(settings, kafka, secrets, pollers, listener).run(on_listening)
    finally:
        listener.close()
        stop_tracing()


class _Process:
    """The parts of one ingest process."""

    def __init__(
        self,
        settings: IngestSettings,
        kafka: KafkaSettings,
        secrets: FileSecrets,
        pollers: list[Configured],
        listener: socket.socket,
    ) -> None:
        topics = Topics(kafka.topic_prefix)
        self._settings = settings
        self._kafka = kafka
        self._secrets = secrets
        self._listener = listener
        self._pollers = pollers
        self._does_http = settings.ingest_role in (Role.ALL, Role.HTTP)
        self._normalises = settings.ingest_role in (Role.ALL, Role.NORMALISER)
        conditions = (
            ([DIRECTORY_READ] if self._does_http else [])
            + ([RULES_READ, CONDITION] if self._normalises else [])
            + ([INBOX_CONNECTED] if self._pollers else [])
        )
        self._health = Health(conditions)
        self._directory = Directory()
        self._book = RuleBook()
        self._feed = _RulesFeed(self._book)
        self._inbox = KafkaInbox(kafka, topics.inbox, settings.ingest_ack_timeout_s)
        self._rules_topic = FollowedTopic(kafka, topics.rules, self._feed.hold, lambda: None)
        self._directory_topic = FollowedTopic(
            kafka,
            topics.directory,
            _directory_taker(self._directory),
            lambda: self._health.heartbeat(DIRECTORY_LOOP),
        )
        self._normaliser = NormaliserLoop(
            Parts(
                settings,
                kafka,
                self._book,
                Normaliser(self._book, self._options_of),
                self._feed.take,
                self._health,
            )
        )

    def _options_of(self, org: str, source: str) -> MappingOptions:
        config = self._secrets.of(org, source)
        own = config.payment_id_field if config else None
        return MappingOptions(own or self._settings.ingest_stripe_payment_id_field)

    async def run(self, on_listening: Callable[[str], None] | None) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stopping.set)
        tasks = [asyncio.create_task(part, name=name) for name, part in self._always()]
        try:
            if not await _unless_stopped(stopping, self._start()):
                return
            # What is alive now stays; the default would look through a batch's events many times before they go.
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            tasks += [asyncio.create_task(part, name=name) for name, part in self._once_started()]
            host, port = self._listener.getsockname()[:2]
            log.info("ingest runs", role=str(self._settings.ingest_role), address=f"http://{host}:{port}")
            if on_listening is not None:
                on_listening(f"http://{host}:{port}")
            await _until_stopped(stopping, tasks)
        finally:
            await self._drain(tasks)
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)

    def _always(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Health is shown from the beginning, so that a slow start can be told from a broken one."""
        app: Any = ops_app(self._health)
        if self._does_http:
            self._health.check("kafka acknowledges", self._inbox.trouble)
            app = http_app(
                Ingest(
                    self._settings,
                    self._inbox,
                    self._directory,
                    self._secrets,
                    self._health,
                    certificates=SnsCertificates(),
                )
            )
        return [("http", serve_ops(app, self._settings.http_host, self._settings.http_port, self._listener))]

    async def _start(self) -> None:
        if self._does_http:
            await self._directory_topic.read_to_end()
            self._health.watch(DIRECTORY_LOOP)
            self._directory.complete = True
            self._health.set_ready(DIRECTORY_READ)
        if self._does_http or self._pollers:
            await self._inbox.start()
        if self._pollers:
            self._health.set_ready(INBOX_CONNECTED)
        if self._normalises:
            await self._rules_topic.read_to_end()
            self._feed.take()
            self._health.set_ready(RULES_READ)

    def _once_started(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        parts: list[tuple[str, Coroutine[Any, Any, None]]] = []
        if self._does_http:
            parts.append(("directory", self._directory_topic.follow()))
            parts.append(("copier", Copier(self._settings, self._kafka, self._inbox, self._directory).run()))
        if self._normalises:
            parts.append(("rules", self._rules_topic.follow()))
            parts.append(("normaliser", self._normaliser.run()))
            parts.append(("derivations", Rederiver(self._settings, self._kafka, self._book, self._normaliser).run()))
        if self._pollers:
            parts.append(("pollers", self._poll()))
        return parts

    async def _poll(self) -> None:
        async with balance_session() as session:
            sources = [
                Polled(one.poll, balance_source(one, session), one.interval.total_seconds()) for one in self._pollers
            ]
            topics = Topics(self._kafka.topic_prefix)
            group = f"{self._settings.ingest_group}.pollers"
            turn = KafkaTurn(self._kafka, topics.rules, group, self._settings.session_timeout_ms)
            pollers = Pollers(sources, self._inbox, turn.wait)
            wishes = FollowedTopic(self._kafka, topics.directory, _wish_taker(pollers), lambda: None)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(turn.run())
                    tasks.create_task(pollers.run())
                    tasks.create_task(wishes.follow())
            finally:
                await _quietly(wishes.close())

    async def _drain(self, tasks: list[asyncio.Task[None]]) -> None:
        """No new requests; open ones end; the normaliser ends its round and commits; then the connections go."""
        self._normaliser.stop()
        last = [task for task in tasks if task.get_name() == "normaliser"]
        for task in tasks:
            if task not in last:
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for close in (self._inbox.close, self._directory_topic.close, self._rules_topic.close):
            await _quietly(close())


def _configured_pollers(settings: IngestSettings) -> list[Configured]:
    if settings.ingest_role not in (Role.ALL, Role.POLLER):
        return []
    if settings.pollers_file is not None:
        return read_pollers(settings.pollers_file)
    if settings.ingest_role is Role.POLLER:
        raise UsageError("TIEOUT_POLLERS_FILE: is not set, so the role poller has nothing to do; see docs/stack.md")
    return []


async def _quietly(closing: Awaitable[None]) -> None:
    try:
        await closing
    except Exception as error:  # noqa: BLE001 - the process ends anyway; what failed is only a connection
        log.info("closing failed", error=f"{type(error).__name__}: {error}")


async def _unless_stopped(stopping: asyncio.Event, part: Coroutine[Any, Any, None]) -> bool:
    """Run `part` to its end and return True; cancel it and return False when asked to stop before."""
    waiting, running = asyncio.create_task(stopping.wait()), asyncio.create_task(part)
    await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
        return True
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return False


async def _until_stopped(stopping: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Return when asked to stop; a part that ends by itself takes the process with it."""
    waiting = asyncio.create_task(stopping.wait())
    try:
        ended, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    for task in ended - {waiting}:
        error = task.exception()
        if isinstance(error, Stalled):
            raise DependencyAway(f"Kafka: {error}") from error
        if error is not None:
            raise error
