"""The project's own images, where an engine and the images are: `make test-containers` sees to both."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import containers

TARGETS = ("ingest", "matcher", "alerts")
REGISTRY = os.environ.get("TIEOUT_TEST_IMAGES", "localhost")
TAG = os.environ.get("TIEOUT_TEST_IMAGES_TAG", "dev")


def image(target: str) -> str:
    return f"{REGISTRY}/tieout-{target}:{TAG}"


@pytest.fixture(scope="session", autouse=True)
def engine() -> Any:
    """The engine that answers, with every image there; skips the folder otherwise, with the reason."""
    refusal = containers.engine_answers()
    if refusal and os.environ.get("TIEOUT_TEST_CONTAINERS") == "required":
        pytest.fail(refusal)
    if refusal:
        pytest.skip(f"{refusal}: run `make test-containers`, which also takes Podman")
    import docker
    from docker.errors import ImageNotFound

    client = docker.from_env()
    for target in TARGETS:
        try:
            client.images.get(image(target))
        except ImageNotFound:
            pytest.fail(f"{image(target)} is not there: `make images` builds it")
    return client


@pytest.fixture
def run(engine: Any) -> Iterator[Callable[..., Any]]:
    """Start an image as it is deployed: read-only root, no capabilities, on the host's network."""
    with ExitStack() as stack:

        def start(target: str, *command: str, environment: dict[str, str] | None = None, **options: Any) -> Any:
            given = {"read_only": True, "cap_drop": ["ALL"], "tmpfs": {"/tmp": ""}, "network_mode": "host", **options}
            one = engine.containers.create(image(target), list(command) or None, environment=environment or {}, **given)
            stack.callback(one.remove, force=True)
            one.start()
            return one

        yield start
