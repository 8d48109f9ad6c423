"""The health check of the images, against a real HTTP server."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shared.telemetry.probe import probe


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_service_that_is_ready_is_healthy() -> None:
    with answering(200, b"{}") as port:
        assert probe(port) is None


def test_one_that_is_not_ready_says_what_is_missing() -> None:
    body = json.dumps({"status": "failing", "checks": {"sink": "not yet", "database": "ok"}}).encode()
    with answering(503, body) as port:
        assert probe(port) == "sink: not yet"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_an_answer_that_is_no_health_page_is_named_by_its_status(body: bytes) -> None:
    with answering(500, body) as port:
        assert probe(port) == "answers 500"


@pytest.mark.parametrize(("given", "says"), [("", "TIEOUT_HTTP_PORT is not a port"), ("1", "port 1 does not answer")])
def test_the_program_ends_with_1_and_a_reason(given: str, says: str) -> None:
    command = [sys.executable, "-m", "shared.telemetry.probe"]
    environment = {**os.environ, "TIEOUT_HTTP_PORT": given}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
