"""Kafka and PostgreSQL in containers, where a Docker engine answers."""

import os
from contextlib import ExitStack

from tieout.local.kafka_jvm import kafka_version
from tieout.local.places import free_ports

# Where somebody names an engine it is there, however busy; elsewhere one is only looked for.
ENGINE_TIMEOUT_S = 20 if os.environ.get("DOCKER_HOST") else 2
# Images that stand in for the official ones where no registry can be reached: see tests/containers/images.
KAFKA_IMAGE = os.environ.get("TIEOUT_TEST_KAFKA_IMAGE") or f"apache/kafka:{kafka_version()}"
POSTGRES_IMAGE = os.environ.get("TIEOUT_TEST_POSTGRES_IMAGE") or "postgres:18.4"


def engine_answers() -> str | None:
    """None when a Docker engine answers (or Podman, under DOCKER_HOST), else why not."""
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=ENGINE_TIMEOUT_S).ping()
    except (DockerException, OSError) as error:  # requests' errors are OSErrors
        return f"no Docker engine ({type(error).__name__})"
    return None


def start_kafka(stack: ExitStack) -> str:
    """The address of Apache's own image, of the same version as the JVM broker."""
    from testcontainers.core.container import DockerContainer

    from shared.kafka.client import wait_for_kafka
    from shared.kafka.settings import KafkaSettings

    (port,) = free_ports(1)
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    host = container.get_container_host_ip()
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:29093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:29093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    for name, value in environment.items():
        container.with_env(name, value)
    stack.enter_context(container)
    address = f"{host}:{port}"
    import asyncio

    asyncio.run(wait_for_kafka(KafkaSettings.local(address), 60))
    return address


def start_postgres(stack: ExitStack) -> str:
    """The superuser's URL of the official image."""
    from testcontainers.community.postgres import PostgresContainer

    container = stack.enter_context(PostgresContainer(POSTGRES_IMAGE, driver="asyncpg"))
    return str(container.get_connection_url())
