"""Every kind of client reaches a broker that demands TLS and a password, and nobody else does."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from shared.kafka.client import consumer, faststream_broker, producer, wait_for_kafka
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support.servers import remembered
from tieout.local.kafka_jvm import JvmKafka, missing_programs
from tieout.local.places import free_ports

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(bool(missing_programs()), reason="needs a JVM broker with listeners of its own"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate"),
]
PASSWORD = "correct horse"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    chain, key = folder / "broker.pem", folder / "broker.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", chain, "-keyout", key], check=True, capture_output=True)
    return chain, key


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[KafkaSettings]:
    chain, key = certificate(tmp_path)
    keystore = tmp_path / "keystore.pem"
    keystore.write_text(key.read_text() + chain.read_text())
    (port,) = free_ports(1)
    inner = "PLAINTEXT://127.0.0.1:{port}"
    properties = {
        "listeners": f"{inner},CONTROLLER://127.0.0.1:{{controller_port}},OUTER://127.0.0.1:{port}",
        "advertised.listeners": f"{inner},OUTER://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTER:SASL_SSL",
        "listener.name.outer.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.outer.plain.sasl.jaas.config": f'{LOGIN} required user_tieout="{PASSWORD}";',
        "listener.name.outer.ssl.keystore.type": "PEM",
        "listener.name.outer.ssl.keystore.location": str(keystore),
    }
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    async with JvmKafka(tmp_path / "kafka", properties) as broker:
        with remembered(broker.pid):
            yield KafkaSettings(
                bootstrap_servers=f"127.0.0.1:{port}",
                security_protocol="SASL_SSL",
                sasl_username="tieout",
                sasl_password_file=password,
                ssl_cafile=chain,
            )


async def test_every_client_gets_in_and_a_stranger_does_not(
    secured: KafkaSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    await apply_topics(secured, 1, 1)
    place = TopicPartition(Topics(secured.topic_prefix).events, 0)

    async with producer(secured, transactional_id="matcher-0") as sender, sender.transaction():
        await sender.send_and_wait(place.topic, b"by aiokafka", partition=0)
    async with faststream_broker(secured) as broker:
        await broker.publish(b"by faststream", place.topic, partition=0)

    async with consumer(secured, auto_offset_reset="earliest") as reader, asyncio.timeout(30):
        reader.assign([place])
        assert [(await reader.getone()).value for _ in range(2)] == [b"by aiokafka", b"by faststream"]

    wrong = tmp_path / "wrong"
    wrong.write_text("battery staple")
    with pytest.raises(KafkaAway, match="or it refuses our SASL_SSL: the log above says why") as refused:
        await wait_for_kafka(secured.model_copy(update={"sasl_password_file": wrong}), 2)
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert "Invalid username or password" in logged
    for secret in ("battery staple", PASSWORD):
        assert secret not in logged + str(refused.value)


async def test_a_broker_with_an_unknown_certificate_is_not_trusted(
    secured: KafkaSettings, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(KafkaAway, match="or it refuses our SASL_SSL"):
        await wait_for_kafka(secured.model_copy(update={"ssl_cafile": None}), 2)

    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
