"""Twelve typical mistakes against a real process: what a person sees, and that nothing acknowledged is lost."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.contracts.inbox import RowReceived, TickRequested, decode_inbox
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support.ingest import (
    KEY,
    REPOSITORY,
    STRIPE_SECRET,
    free_port,
    ledger_event,
    prepare,
    read_topic,
    running,
    signed,
    until,
)
from tieout.local.kafka_jvm import JvmKafka

pytestmark = pytest.mark.kafka

AUTHORIZED = {"authorization": f"Bearer {KEY}"}
JSON = AUTHORIZED | {"content-type": "application/json"}


async def test_every_mistake_gets_its_status_and_nothing_of_it_is_kept(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    body = b'{"id": "evt_1", "object": "event", "type": "customer.created"}'
    with running(kafka_settings, TIEOUT_INGEST_BODY_BYTES_MAX="4096") as ingest:
        table = [
            ("broken JSON", ingest.post("/v1/events", content=b"{broken", headers=JSON), 400),
            ("wrong types", ingest.post("/v1/events", json=ledger_event(refs=[]), headers=AUTHORIZED), 422),
            ("float amount", ingest.post("/v1/events", json=ledger_event(amount=1.5), headers=AUTHORIZED), 422),
            ("unknown currency", ingest.post("/v1/events", json=ledger_event(currency="XXQ"), headers=AUTHORIZED), 422),
            (
                "no zone",
                ingest.post("/v1/events", json=ledger_event(occurred_at="2026-11-20T10:00:00"), headers=AUTHORIZED),
                422,
            ),
            ("too large", ingest.post("/v1/events", content=b"[" + b" " * 5000 + b"]", headers=JSON), 413),
            ("no key", ingest.post("/v1/events", json=ledger_event()), 401),
            (
                "wrong signature",
                ingest.post("/webhooks/acme/stripe", content=body, headers=signed(body, "whsec_x")),
                401,
            ),
            (
                "stale signature",
                ingest.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=time.time() - 900)),
                401,
            ),
            ("unknown org", ingest.post("/webhooks/nobody/stripe", content=body, headers=signed(body)), 404),
            ("unknown source", ingest.post("/webhooks/acme/nothing", content=body, headers=signed(body)), 404),
            ("no secret", ingest.post("/webhooks/acme/unsigned", content=body, headers=signed(body)), 503),
        ]
        for mistake, answer, status in table:
            assert answer.status_code == status, mistake
            assert answer.headers["content-type"] == "application/problem+json", mistake
            assert answer.json()["detail"], mistake
        kept = [decode_inbox(record.value) for record in await read_topic(kafka_settings, topics.inbox)]
        assert [record for record in kept if not isinstance(record, TickRequested)] == []
        assert STRIPE_SECRET not in ingest.log()
        assert KEY not in ingest.log()


async def test_an_empty_key_is_accepted_and_set_aside_by_the_rule(kafka_settings: KafkaSettings, topics: Topics):
    await prepare(kafka_settings)
    with running(kafka_settings) as ingest:
        answer = ingest.post("/v1/events", json=ledger_event(refs={"payment_id": ""}), headers=AUTHORIZED)
        assert answer.status_code == 202

        async def set_aside() -> list[str]:
            return [json.loads(r.value)["reason"] for r in await read_topic(kafka_settings, topics.dead_letters)]

        assert await until(set_aside) == ["no match key"]


def test_kafka_away_at_the_start_is_one_line_and_exit_3():
    started = time.monotonic()
    ended = _run(TIEOUT_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}", TIEOUT_KAFKA_CONNECT_TIMEOUT_S="1.5")
    assert ended.returncode == 3
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "TIEOUT_KAFKA_BOOTSTRAP_SERVERS" in lines[0]
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - started < 15


def test_a_port_in_use_is_one_line_and_exit_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = _run(TIEOUT_HTTP_PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "in use" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_missing_topics_are_told_with_the_command_that_creates_them(kafka_settings: KafkaSettings):
    ended = _run(
        TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka_settings.bootstrap_servers,
        TIEOUT_KAFKA_TOPIC_PREFIX=kafka_settings.topic_prefix,
    )
    assert ended.returncode == 2
    assert "tieout topics apply" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_setting_names_its_variable():
    ended = _run(TIEOUT_INGEST_TICK_INTERVAL_MS="often")
    assert ended.returncode == 2
    assert "TIEOUT_INGEST_TICK_INTERVAL_MS" in ended.stderr


def test_a_broken_secrets_file_names_the_file_and_shows_no_secret(tmp_path: Path):
    file = tmp_path / "secrets.yaml"
    file.write_text("acme: {stripe: {secret: whsec_leak}}")
    ended = _run(TIEOUT_WEBHOOK_SECRETS_FILE=str(file))
    assert ended.returncode == 2
    assert str(file) in ended.stderr
    assert "whsec_leak" not in ended.stderr


async def test_while_kafka_is_away_requests_get_503_and_afterwards_nothing_acknowledged_is_missing(own_kafka: JvmKafka):
    """Goal: every 2xx is in the inbox, over an outage in the middle. Method: pause the broker, post on, resume."""
    settings = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers, topic_prefix="away.")
    await apply_topics(settings, 3, 2)
    await prepare(settings)
    accepted: set[str] = set()
    statuses: list[int] = []

    def post(number: int) -> None:
        answer = ingest.post("/v1/events", json=ledger_event(number), headers=AUTHORIZED)
        statuses.append(answer.status_code)
        if answer.status_code == 202:
            accepted.add(f"evt_{number}")
        else:
            assert answer.headers["retry-after"] == "5"

    with running(settings, TIEOUT_INGEST_ACK_TIMEOUT_S="1") as ingest:
        for number in range(20):
            post(number)
        own_kafka.pause()
        for number in range(20, 30):
            post(number)
        ready_meanwhile = ingest.is_ready()
        own_kafka.resume()

        async def back() -> bool:
            post(1000 + len(statuses))
            return statuses[-1] == 202

        await until(back, timeout_s=40)
        topics = Topics("away.")

        async def all_there() -> bool:
            events = {json.loads(r.value)["id"] for r in await read_topic(settings, topics.events)}
            return accepted <= events

        await until(all_there, timeout_s=40)
        inbox = [decode_inbox(record.value) for record in await read_topic(settings, topics.inbox)]
    assert statuses[:20] == [202] * 20
    assert 503 in statuses[20:30]
    assert not ready_meanwhile
    assert accepted <= {json.loads(record.row)["id"] for record in inbox if isinstance(record, RowReceived)}


def _run(**variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "TIEOUT_HTTP_PORT": str(free_port()), **variables}
    return subprocess.run(
        [sys.executable, "-m", "services.ingest"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
