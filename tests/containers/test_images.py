"""Goal: each target of the Dockerfile runs as it is deployed, and holds only what its service needs.

Method: containers of the built images beside Kafka and PostgreSQL in containers, all by way of a Docker API.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from services.alerts.adapters.database import migrate
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.containers.conftest import TARGETS
from tieout.local.places import free_ports

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
FOREIGN = {
    "matcher": ("sqlalchemy", "asyncpg", "aiohttp", "cryptography", "mcp", "ccxt"),
    "ingest": ("sqlalchemy", "asyncpg", "mcp", "ccxt"),
    "alerts": ("ccxt",),
}
"""Packages of other services' extras, by the image that must not have them."""

Run = Callable[..., Any]


def environment(kafka: KafkaSettings, url: str, port: int) -> dict[str, str]:
    prefix = kafka.topic_prefix
    return {
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": prefix,
        "TIEOUT_DATABASE_URL": url,
        "TIEOUT_INGEST_GROUP": f"{prefix}ingest",
        "TIEOUT_MATCHER_GROUP": f"{prefix}matcher",
        "TIEOUT_SINK_GROUP": f"{prefix}sink",
        "TIEOUT_HTTP_HOST": "127.0.0.1",
        "TIEOUT_HTTP_PORT": str(port),
        "TIEOUT_CONNECT_TIMEOUT_S": "2",
        "TIEOUT_KAFKA_CONNECT_TIMEOUT_S": "2",
    }


def ask(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError as error:
        return 0, str(error)


def wait_ready(container: Any, port: int) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    while (found := ask(port, "/health/ready"))[0] != 200:
        container.reload()
        assert container.status == "running", container.logs().decode()
        assert time.monotonic() < until, (found, container.logs().decode())
        time.sleep(0.2)


def end(container: Any) -> tuple[int, str]:
    """Wait for a container that ends by itself."""
    code = container.wait(timeout=READY_TIMEOUT_S)["StatusCode"]
    return code, container.logs().decode()


@pytest.mark.parametrize("target", TARGETS)
async def test_a_service_is_ready_as_nobody_on_a_read_only_root_and_drains_on_sigterm(
    target: str, run: Run, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    await migrate(database_url)
    (port,) = free_ports(1)
    service = run(target, environment=environment(kafka_settings, database_url, port))

    wait_ready(service, port)

    assert service.exec_run(["id", "-u"]).output.decode().strip() == "10001"
    assert service.exec_run(["touch", "/opt/app/x"]).exit_code != 0
    assert service.exec_run(["python3", "-m", "shared.telemetry.probe"]).exit_code == 0
    begun = time.monotonic()
    service.stop(timeout=STOP_TIMEOUT_S)
    assert service.wait()["StatusCode"] == 0, service.logs().decode()
    assert time.monotonic() - begun < STOP_TIMEOUT_S


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_only_its_own_service_s_packages(target: str, run: Run, engine: Any) -> None:
    code = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    found = run(target, "-c", code, *FOREIGN[target], "pip", "setuptools", entrypoint=["python3"])
    assert end(found) == (0, "[]\n")
    labels = engine.images.get(found.image.id).labels
    assert labels["org.opencontainers.image.title"] == f"tieout {target}"


def test_the_topics_job_makes_topics_and_refuses_another_count(run: Run, kafka_settings: KafkaSettings) -> None:
    given = environment(kafka_settings, "", 0)
    counts = ("--partitions=2", "--inbox-partitions=1")
    assert end(run("matcher", "topics", "apply", *counts, environment=given))[0] == 0
    code, said = end(run("matcher", "topics", "apply", "--partitions=3", "--inbox-partitions=1", environment=given))
    assert code == 2
    assert "error: " in said
    assert "Traceback" not in said


async def test_the_migration_job_makes_the_tables_and_alerts_refuses_to_start_without(
    run: Run, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    (port,) = free_ports(1)
    given = environment(kafka_settings, database_url, port)
    code, said = end(run("alerts", environment=given))
    assert (code, "run `tieout migrate`" in said) == (2, True), said
    assert end(run("alerts", "migrate", environment=given))[0] == 0
    assert end(run("alerts", "migrate", "--check", environment=given))[0] == 0


@pytest.mark.parametrize(
    ("target", "wrong", "code", "says"),
    [
        ("ingest", {"TIEOUT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        ("matcher", {"TIEOUT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        ("alerts", {"TIEOUT_DATABASE_URL": "postgresql://nobody:hush@127.0.0.1:1/x"}, 3, "127.0.0.1:1/x"),
        ("alerts", {"TIEOUT_DATABASE_URL": "", "TIEOUT_DATABASE_URL_FILE": "/run/secrets/url"}, 2, "/run/secrets/url"),
        ("ingest", {"TIEOUT_WEBHOOK_SECRETS_FILE": "/run/secrets/hooks"}, 2, "/run/secrets/hooks"),
        ("matcher", {"TIEOUT_COMMIT_INTERVAL_MS": "soon"}, 2, "TIEOUT_COMMIT_INTERVAL_MS"),
        ("matcher", {}, 2, "tieout topics apply"),
    ],
    ids=["ingest-kafka", "matcher-kafka", "alerts-database", "missing-secret", "missing-hooks", "setting", "no-topics"],
)
def test_bad_input_is_one_line_and_an_exit_code(
    target: str, wrong: dict[str, str], code: int, says: str, run: Run, kafka_settings: KafkaSettings
) -> None:
    (port,) = free_ports(1)
    ended, said = end(
        run(target, environment=environment(kafka_settings, "postgresql://x@127.0.0.1:1/x", port) | wrong)
    )

    last = said.strip().splitlines()[-1]
    assert (ended, says in last, "Traceback" in said) == (code, True, False), said
    assert "hush" not in said
