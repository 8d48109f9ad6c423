"""The AsyncAPI document covers every declared topic and points only to what exists."""

from collections.abc import Iterator
from typing import Any

import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from shared.contracts.asyncapi import MESSAGES, READERS, WRITERS, document, render_asyncapi
from shared.contracts.schema import CONTRACTS
from shared.kafka.topics import TOPICS


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_topic_has_messages_a_writer_and_a_channel() -> None:
    names = {topic.name for topic in TOPICS}
    assert set(MESSAGES) == names
    assert {topic for topics in WRITERS.values() for topic in topics} == names
    assert {topic for topics in READERS.values() for topic in topics} <= names
    assert set(document()["channels"]) == names


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    files = {f"./{contract.file}" for contract in CONTRACTS}
    found = list(references(whole))
    assert len(found) > len(TOPICS)
    for reference in found:
        if reference in files:
            continue
        place: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


def test_it_is_an_asyncapi_3_document() -> None:
    read = yaml.safe_load(render_asyncapi())
    assert read == document()
    read["servers"]["kafka"]["pathname"] = ""  # optional in AsyncAPI, required by this model of it
    assert ApplicationSchema.model_validate(read).asyncapi == "3.0.0"
