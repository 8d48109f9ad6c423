"""Settings read from the environment, and the clients' options made of them."""

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.kafka.client import (
    BULK_FETCH,
    connection_options,
    consumer_options,
    faststream_broker,
    faststream_security,
    producer_options,
)
from shared.kafka.partitioner import by_crc32
from shared.kafka.settings import KafkaSettings

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    import os

    for name in [name for name in os.environ if name.startswith("TIEOUT_KAFKA_")]:
        monkeypatch.delenv(name)


def with_sasl(**changes) -> KafkaSettings:
    values = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "tieout",
        "sasl_password": PASSWORD,
    }
    return KafkaSettings(**(values | changes))


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIEOUT_KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("TIEOUT_KAFKA_TOPIC_PREFIX", "blue.")

    settings = KafkaSettings()

    assert (settings.bootstrap_servers, settings.topic_prefix) == ("a:1,b:2", "blue.")


def test_a_local_broker_ignores_the_security_meant_for_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIEOUT_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("TIEOUT_KAFKA_SASL_USERNAME", "tieout")
    monkeypatch.setenv("TIEOUT_KAFKA_SASL_PASSWORD", PASSWORD)
    monkeypatch.setenv("TIEOUT_KAFKA_TOPIC_PREFIX", "blue.")

    settings = KafkaSettings.local("127.0.0.1:1")

    assert (settings.security_protocol, settings.password(), settings.topic_prefix) == ("PLAINTEXT", None, "blue.")


def test_plain_connection_has_neither_tls_nor_sasl():
    options = connection_options(KafkaSettings(bootstrap_servers="a:1"))

    assert options == {
        "bootstrap_servers": "a:1",
        "client_id": "tieout",
        "request_timeout_ms": 15_000,
        "retry_backoff_ms": 100,
        "security_protocol": "PLAINTEXT",
    }


def test_sasl_over_tls_reaches_the_client():
    options = connection_options(with_sasl())

    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("tieout", PASSWORD)
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname is True


def test_password_file_is_read_anew_without_its_line_end(tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("first\n")
    settings = with_sasl(sasl_password=None, sasl_password_file=file)
    first = connection_options(settings)["sasl_plain_password"]
    file.write_text("second\r\n")

    assert (first, settings.password()) == ("first", "second")


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_unusable_password_file_is_named(tmp_path: Path, content: str | None):
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ValueError, match=str(file)):
        with_sasl(sasl_password=None, sasl_password_file=file).password()


def test_unusable_certificates_are_named(tmp_path: Path):
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")

    with pytest.raises(ValueError, match=r"ssl_cafile .*ca\.pem cannot be loaded"):
        KafkaSettings(security_protocol="SSL", ssl_cafile=broken).ssl_context()
    with pytest.raises(ValueError, match=r"ssl_certfile .*ca\.pem with ssl_keyfile none"):
        KafkaSettings(security_protocol="SSL", ssl_certfile=broken).ssl_context()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"security_protocol": "SASL_SSL"}, "needs sasl_username and sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "x"}, "needs sasl_username and sasl_password"),
        ({"sasl_username": "x", "sasl_password": PASSWORD}, "set it to SASL_SSL or SASL_PLAINTEXT"),
        ({"ssl_cafile": "ca.pem"}, "set it to SSL or SASL_SSL"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, "ssl_keyfile is given without ssl_certfile"),
        ({"topic_prefix": "a/b"}, "topic_prefix"),
        ({"bootstrap_servers": ""}, "bootstrap_servers"),
    ],
)
def test_contradictions_are_refused(values: dict, says: str):
    with pytest.raises(ValidationError, match=says):
        KafkaSettings(**values)


def test_password_and_password_file_together_are_refused(tmp_path: Path):
    with pytest.raises(ValidationError, match="not both"):
        with_sasl(sasl_password_file=tmp_path / "password")


def test_password_stands_in_no_text():
    settings = with_sasl()
    with pytest.raises(ValidationError) as refused:
        with_sasl(security_protocol="PLAINTEXT")

    assert PASSWORD not in repr(settings) + settings.model_dump_json() + str(refused.value)


def test_producer_is_idempotent_and_waits_for_all_replicas():
    options = producer_options(KafkaSettings())

    assert options["acks"] == "all"
    assert options["enable_idempotence"] is True
    assert options["max_batch_size"] == 1_000_000
    assert options["partitioner"] is by_crc32
    assert "transactional_id" not in options


def test_transactional_producer_retries_fast_and_is_bounded():
    options = producer_options(KafkaSettings(), idempotent=False, transactional_id="matcher-3")

    assert options["transactional_id"] == "matcher-3"
    assert options["enable_idempotence"] is True
    assert (options["transaction_timeout_ms"], options["request_timeout_ms"]) == (30_000, 15_000)
    assert options["retry_backoff_ms"] == 10


def test_overrides_win():
    assert producer_options(KafkaSettings(), linger_ms=5)["linger_ms"] == 5


def test_consumer_reads_committed_and_never_commits_by_itself():
    options = consumer_options(KafkaSettings(), auto_offset_reset="none", group="matcher", **BULK_FETCH)

    assert options["isolation_level"] == "read_committed"
    assert options["enable_auto_commit"] is False
    assert (options["auto_offset_reset"], options["group_id"]) == ("none", "matcher")
    assert (options["fetch_min_bytes"], options["fetch_max_wait_ms"]) == (1_000_000, 10)
    assert "group_instance_id" not in options


def test_static_membership_is_passed_on():
    options = consumer_options(
        KafkaSettings(), auto_offset_reset="earliest", group="matcher", group_instance_id="matcher-0"
    )

    assert options["group_instance_id"] == "matcher-0"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_faststream_connects_as_the_other_clients_do(mechanism: str, protocol: str):
    from faststream.kafka.security import parse_security

    settings = with_sasl(sasl_mechanism=mechanism, security_protocol=protocol)
    ours = connection_options(settings)
    theirs = parse_security(faststream_security(settings))

    for name in ("security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
        assert theirs[name] == ours[name]
    assert (theirs["ssl_context"] is None) == (protocol == "SASL_PLAINTEXT")


def test_faststream_uses_tls_without_sasl():
    from faststream.kafka.security import parse_security

    parsed = parse_security(faststream_security(KafkaSettings(security_protocol="SSL")))

    assert parsed["security_protocol"] == "SSL"
    assert parsed["ssl_context"].check_hostname is True


async def test_faststream_broker_is_made_from_the_same_settings():
    broker = faststream_broker(KafkaSettings(bootstrap_servers="a:1"))

    assert broker.specification.url == ["a:1"]
