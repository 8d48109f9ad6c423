"""AsyncAPI 3.0 of tieout's topics, made from the topic declarations and the record schemas."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import yaml

from shared.kafka.topics import TOPICS, TopicDeclaration

JSON = "application/json"
PACKED = "application/vnd.tieout.packed+msgpack"
"""One version byte, then msgpack."""


class Message(NamedTuple):
    """One kind of record on a topic."""

    schema: str | None
    """File name without `.schema.json`; None for what only tieout itself can read."""
    content_type: str
    headers: Mapping[str, str] = {}


CLOUD_EVENT_HEADERS = {
    "ce_id": "<discrepancy id>/<revision>: unique, the same when it is sent again",
    "ce_type": "Kind of change, e.g. tieout.discrepancy.raised",
    "ce_source": "The rule that made it",
    "ce_specversion": "1.0",
    "ce_time": "Log time of the revision, RFC 3339",
    "content-type": JSON,
}
FEED_STATUS = Message("feed-status", JSON, {"kind": "feed: tells the record apart without reading its value"})
PROGRESS = Message("progress", JSON, {"kind": "progress: tells the record apart without reading its value"})

MESSAGES: Mapping[str, tuple[Message, ...]] = {
    "inbox": (Message("inbox-record", PACKED),),
    "events": (Message("event", JSON),),
    "not-reconciled": (Message("not-reconciled", JSON),),
    "legs": (Message("leg-record", PACKED),),
    "rules": (Message("rule-set", JSON),),
    "directory": (Message("directory-entry", JSON),),
    "matcher-state": (Message(None, PACKED),),
    "matcher-checkpoints": (Message(None, PACKED),),
    "discrepancies": (Message("discrepancy", JSON, CLOUD_EVENT_HEADERS), PROGRESS),
    "matches": (Message("matched-pair", PACKED), Message("item", JSON), PROGRESS),
    "checks": (Message("check", JSON), FEED_STATUS, PROGRESS),
    "dead-letters": (Message("dead-letter", JSON),),
}
WRITERS: Mapping[str, tuple[str, ...]] = {
    "ingest": ("inbox", "events", "not-reconciled", "legs", "dead-letters"),
    "matcher": ("matcher-state", "matcher-checkpoints", "discrepancies", "matches", "checks", "dead-letters"),
    "alerts": ("directory", "inbox"),
    "cli": ("rules",),
}
READERS: Mapping[str, tuple[str, ...]] = {
    "ingest": ("inbox", "rules", "directory"),
    "matcher": ("legs", "matcher-state"),
    "alerts": ("events", "discrepancies", "matches", "checks", "not-reconciled", "dead-letters"),
}


def document() -> dict[str, Any]:
    """Return the AsyncAPI document as plain data."""
    channels = {topic.name: _channel(topic) for topic in TOPICS}
    messages = {
        _message_name(topic.name, message): _message(message) for topic in TOPICS for message in MESSAGES[topic.name]
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tieout topics",
            "version": version("tieout"),
            "description": "Topic names carry the prefix TIEOUT_KAFKA_TOPIC_PREFIX (default `tieout.`). "
            "Keys are spread by CRC-32 (IEEE) modulo the number of partitions.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {
                    "bootstrap": {"default": "127.0.0.1:9092", "description": "TIEOUT_KAFKA_BOOTSTRAP_SERVERS"}
                },
            }
        },
        "channels": channels,
        "operations": _operations(),
        "components": {"messages": messages},
    }


def _channel(topic: TopicDeclaration) -> dict[str, Any]:
    names = [_message_name(topic.name, message) for message in MESSAGES[topic.name]]
    known = _binding(topic)
    others = {name: value for name, value in topic.config.items() if name not in known}
    return {
        "address": "{prefix}" + topic.name,
        "title": topic.name,
        "description": f"{_sentence(topic.carries)} Kept: {topic.kept}. Key: {topic.key}.",
        "parameters": {"prefix": {"default": "tieout.", "description": "TIEOUT_KAFKA_TOPIC_PREFIX"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"kafka": {"topicConfiguration": known, "bindingVersion": "0.5.0"}},
        **({"x-kafka-topic-settings": others} if others else {}),
    }


def _binding(topic: TopicDeclaration) -> dict[str, Any]:
    """Return the topic settings that AsyncAPI's Kafka binding has a word for."""
    known: dict[str, Any] = {"cleanup.policy": topic.config["cleanup.policy"].split(",")}
    for name in ("retention.ms", "retention.bytes", "max.message.bytes"):
        if name in topic.config:
            known[name] = int(topic.config[name])
    return known


def _message_name(topic: str, message: Message) -> str:
    return message.schema or topic


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"contentType": message.content_type}
    if message.content_type == PACKED:
        body["description"] = "One version byte (1), then msgpack of what the schema says."
    if message.headers:
        properties = {name: {"type": "string", "description": text} for name, text in message.headers.items()}
        body["headers"] = {"type": "object", "properties": properties}
    if message.schema is None:
        opaque = "Internal to the matcher: its form changes without notice."
        return body | {"payload": {"description": opaque}}
    return body | {"payload": {"$ref": f"./{message.schema}.schema.json"}}


def _operations() -> dict[str, Any]:
    operations = {}
    for action, parts in (("send", WRITERS), ("receive", READERS)):
        verb = "writes" if action == "send" else "reads"
        for part, topics in parts.items():
            for topic in topics:
                operations[f"{part}-{verb}-{topic}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{topic}"},
                    "summary": f"{part} {verb} {topic}",
                }
    return operations


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def render_asyncapi() -> str:
    """Return the text of docs/contracts/asyncapi.yaml."""
    header = "# Generated by `python -m shared.contracts.schema` from the topic declarations: do not edit.\n"
    return header + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110)
