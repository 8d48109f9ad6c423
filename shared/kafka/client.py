"""The one place where Kafka clients are made, so that every service has the same guarantees.

The clients bind to the running event loop: call these functions inside it. None of them connects yet;
`start()` does.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from shared.kafka.errors import KafkaAway, SendFailed
from shared.kafka.partitioner import by_crc32
from shared.kafka.settings import KafkaSettings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient
    from faststream.kafka import KafkaBroker
    from faststream.security import BaseSecurity

_Sent = TypeVar("_Sent")
Isolation = Literal["read_committed", "read_uncommitted"]
OffsetReset = Literal["earliest", "latest", "none"]

# One batch is one append on the broker; below the broker's own limit for a batch (1,048,588 bytes).
MAX_BATCH_BYTES = 1_000_000
# The largest single record: a raw webhook body of 1 MiB, encoded, with its envelope.
MAX_RECORD_BYTES = 2_000_000
# The coordinator answers "still working" to the first call after a commit; waiting 100 ms (the
# default) for the second costs a third of the commit's p99.
TRANSACTION_RETRY_BACKOFF_MS = 10
# Elsewhere a retry means that a broker is away: asking ten times a second is enough.
RETRY_BACKOFF_MS = 100
# Send at once: batches form by themselves while a request is under way.
LINGER_MS = 0
# For consumers that live on throughput: the default of 1 byte makes the fetch loop spin (double CPU at
# 5,000 records/s); 10 ms is the most that it may add to a record's latency.
BULK_FETCH = {"fetch_min_bytes": 1_000_000, "fetch_max_wait_ms": 10}
# Pause between two attempts to reach a broker that does not answer yet.
CONNECT_RETRY_PAUSE_S = 0.2


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """What every client needs: address, name, time-out, TLS and SASL.

    Raises `ValueError` when a certificate or password file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security_protocol": settings.security_protocol,
    }
    if settings.uses_tls:
        options["ssl_context"] = settings.ssl_context()
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.password()
    return options


def producer_options(
    settings: KafkaSettings, *, idempotent: bool = True, transactional_id: str | None = None, **overrides: Any
) -> dict[str, Any]:
    """The keyword arguments of `producer`, as data."""
    options = connection_options(settings) | {
        "acks": "all",
        "enable_idempotence": idempotent or transactional_id is not None,
        "linger_ms": LINGER_MS,
        "max_batch_size": MAX_BATCH_BYTES,
        "max_request_size": MAX_RECORD_BYTES,
        "partitioner": by_crc32,
    }
    if transactional_id is not None:
        options["transactional_id"] = transactional_id
        options["transaction_timeout_ms"] = settings.transaction_timeout_ms
        options["retry_backoff_ms"] = TRANSACTION_RETRY_BACKOFF_MS
    return options | overrides


def producer(
    settings: KafkaSettings, *, idempotent: bool = True, transactional_id: str | None = None, **overrides: Any
) -> "AIOKafkaProducer":
    """A producer whose acknowledged records are on every in-sync replica.

    With `transactional_id`, `start()` fences the previous owner of that id and aborts what it left open.
    After any failure throw it away and make a new one with the same id: its sequence numbers are off.
    """
    from shared.kafka.producer import Producer, TransactionalProducer
    from shared.kafka.reconnect import calm_reconnects

    calm_reconnects()
    options = producer_options(settings, idempotent=idempotent, transactional_id=transactional_id, **overrides)
    # A transaction's owner decides itself how long its end may take.
    return Producer(**options) if transactional_id is None else TransactionalProducer(**options)


def consumer_options(
    settings: KafkaSettings,
    *,
    auto_offset_reset: OffsetReset,
    group: str | None = None,
    group_instance_id: str | None = None,
    isolation: Isolation = "read_committed",
    **overrides: Any,
) -> dict[str, Any]:
    """The keyword arguments of `consumer`, as data."""
    options = connection_options(settings) | {
        "group_id": group,
        "auto_offset_reset": auto_offset_reset,
        "isolation_level": isolation,
        "check_crcs": settings.check_crcs,
        # The place of a consumer is stored with its results, never by a timer.
        "enable_auto_commit": False,
    }
    if group_instance_id is not None:
        options["group_instance_id"] = group_instance_id
    return options | overrides


def consumer(
    settings: KafkaSettings,
    *topics: str,
    auto_offset_reset: OffsetReset,
    group: str | None = None,
    group_instance_id: str | None = None,
    isolation: Isolation = "read_committed",
    **overrides: Any,
) -> "AIOKafkaConsumer":
    """A consumer of full topic names (or of none yet: `assign` or `subscribe` later).

    `auto_offset_reset` has no default: what happens without a stored place is a decision of the caller;
    `"none"` raises `OffsetOutOfRangeError` instead of skipping. `**BULK_FETCH` is for hot topics.
    """
    from shared.kafka.consumer import Consumer
    from shared.kafka.reconnect import calm_reconnects

    calm_reconnects()
    options = consumer_options(
        settings,
        auto_offset_reset=auto_offset_reset,
        group=group,
        group_instance_id=group_instance_id,
        isolation=isolation,
        **overrides,
    )
    return Consumer(*topics, **options)


def admin(settings: KafkaSettings, **overrides: Any) -> "AIOKafkaAdminClient":
    """An admin client: topics, their settings, deletion of records."""
    from aiokafka.admin import AIOKafkaAdminClient

    from shared.kafka.reconnect import calm_reconnects

    calm_reconnects()
    return AIOKafkaAdminClient(**connection_options(settings) | overrides)


def faststream_security(settings: KafkaSettings) -> "BaseSecurity | None":
    """The same TLS and SASL in FastStream's words; None on a plain connection."""
    from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

    if settings.security_protocol == "PLAINTEXT":
        return None
    context = settings.ssl_context()
    if not settings.uses_sasl:
        return BaseSecurity(ssl_context=context, use_ssl=True)
    mechanisms = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return mechanisms[settings.sasl_mechanism](
        username=settings.sasl_username or "",
        password=settings.password() or "",
        ssl_context=context,
        use_ssl=settings.uses_tls,
    )


def faststream_broker(settings: KafkaSettings, **overrides: Any) -> "KafkaBroker":
    """A FastStream broker with the same connection, and the same guarantees for what it publishes.

    Subscribers still have to set `ack_policy`: FastStream's default acknowledges before the handler runs.
    """
    from faststream.kafka import KafkaBroker

    from shared.kafka.reconnect import calm_reconnects

    calm_reconnects()
    options: dict[str, Any] = {
        # A list: FastStream takes a text for one address, commas and all.
        "bootstrap_servers": [address.strip() for address in settings.bootstrap_servers.split(",")],
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
        "security": faststream_security(settings),
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": LINGER_MS,
        "max_batch_size": MAX_BATCH_BYTES,
        "max_request_size": MAX_RECORD_BYTES,
        "partitioner": by_crc32,
        "allow_auto_create_topics": False,
    }
    return KafkaBroker(**options | overrides)


async def await_sent(futures: Iterable[Awaitable[_Sent]]) -> list[_Sent]:
    """Wait for every record's acknowledgement; call it before each commit.

    A failed send inside a transaction fails only its own future: the commit would still report success
    and the record would be missing. Raises `SendFailed` when any failed, after all have ended.
    """
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if not failures:
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    for failure in failures:
        if isinstance(failure, asyncio.CancelledError):
            continue
        raise SendFailed(
            f"{len(failures)} of {len(outcomes)} records were not acknowledged; the first failed with "
            f"{type(failure).__name__}: {failure}"
        ) from failure
    raise SendFailed(f"{len(failures)} of {len(outcomes)} sends were cancelled by their producer")


async def wait_for_kafka(settings: KafkaSettings, timeout_s: float | None = None) -> None:
    """Return once a broker has answered a metadata request.

    Raises `KafkaAway` after `timeout_s` seconds (default: `settings.connect_timeout_s`).
    """
    from aiokafka.errors import KafkaError

    limit_s = settings.connect_timeout_s if timeout_s is None else timeout_s
    last: Exception | None = None
    try:
        async with asyncio.timeout(limit_s):
            while True:
                client = admin(settings)
                try:
                    await client.start()
                    await client.list_topics()
                except (KafkaError, OSError) as error:
                    last = error
                else:
                    return
                finally:
                    await client.close()
                await asyncio.sleep(CONNECT_RETRY_PAUSE_S)
    except TimeoutError:
        reason = f" ({type(last).__name__}: {last})" if last else ""
        # The client library logs why a broker refused it, and raises only that none was reached.
        security = (
            ""
            if settings.security_protocol == "PLAINTEXT"
            else f"; or it refuses our {settings.security_protocol}: the log above says why"
        )
        raise KafkaAway(
            f"no Kafka broker answered at {settings.bootstrap_servers} within {limit_s:g} s{reason}: "
            f"start it, or set TIEOUT_KAFKA_BOOTSTRAP_SERVERS to where it runs{security}"
        ) from last
