"""The JVM broker: the same address and data after a kill; clear words when it cannot run."""

import asyncio

import pytest
from aiokafka import TopicPartition

from shared.kafka.client import consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tieout.local import kafka_jvm
from tieout.local.choose import choose_kafka, running_kafka
from tieout.local.errors import LocalUnavailable
from tieout.local.kafka_jvm import JvmKafka, fetch_jars

pytestmark = pytest.mark.kafka


async def test_acknowledged_records_outlive_kill_and_restart(own_kafka: JvmKafka):
    settings = KafkaSettings.local(own_kafka.bootstrap_servers)
    await apply_topics(settings, 1, 1)
    place = TopicPartition(Topics(settings.topic_prefix).events, 0)
    async with producer(settings) as sender:
        await sender.send_and_wait(place.topic, b"kept", partition=0)

    await asyncio.to_thread(own_kafka.kill)
    assert not own_kafka.is_running()
    await asyncio.to_thread(own_kafka.restart)

    assert KafkaSettings.local(own_kafka.bootstrap_servers) == settings
    async with consumer(settings, auto_offset_reset="earliest") as reader:
        reader.assign([place])
        assert (await asyncio.wait_for(reader.getone(), 30)).value == b"kept"


async def test_settings_that_kafka_refuses_are_shown(real_kafka, tmp_path):
    if real_kafka.kind != "jvm":
        pytest.skip("needs the JVM")
    broker = JvmKafka(tmp_path, {"log.retention.hours": "soon"})

    with pytest.raises(LocalUnavailable, match=r"log\.retention\.hours"):
        await asyncio.to_thread(broker.start)

    assert not broker.is_running()


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_jvm.shutil, "which", lambda program: None)

    with pytest.raises(LocalUnavailable, match="Java is not installed: install a JRE 17"):
        fetch_jars()


def test_missing_maven_is_named_only_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("TIEOUT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kafka_jvm.shutil, "which", lambda program: "/bin/java" if program == "java" else None)

    with pytest.raises(LocalUnavailable, match="Maven is not installed"):
        fetch_jars()

    jars = tmp_path / f"kafka-{kafka_jvm.kafka_version()}"
    jars.mkdir()
    assert fetch_jars() == jars


async def test_embedded_kafka_carries_the_whole_path_of_a_record():
    async with running_kafka(choose_kafka("embedded")) as settings:
        applied = await apply_topics(settings)
        topics = Topics(settings.topic_prefix)
        assert {(topic.action, topic.partitions) for topic in applied} == {("embedded", 4)}

        async with producer(settings, transactional_id="matcher-0") as sender, sender.transaction():
            await sender.send_and_wait(topics.matches, b"match", key=b"pay_1")
        async with consumer(settings, topics.matches, group="sink", auto_offset_reset="earliest") as reader:
            assert (await asyncio.wait_for(reader.getone(), 30)).value == b"match"
