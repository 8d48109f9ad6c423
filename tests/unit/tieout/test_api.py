"""What a command says about an answer that is not one of alerts, or that goes nowhere."""

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from shared.errors import DependencyAway
from tieout.api import AlertsApi, ApiRefused

NO_PAGE = b'{"type": "urn:tieout:problem:no-such-page", "detail": "There is no such page: see /docs."}'


class Other(BaseHTTPRequestHandler):
    """Ingest under /ingest, a report under /whole, one that breaks off under /half, some web server elsewhere."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path in {"/whole", "/half"}:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"4\r\nrow\n\r\n" + (b"0\r\n\r\n" if self.path == "/whole" else b"9\r\nr"))
            self.close_connection = True
            return
        self.send_response(404)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(NO_PAGE if self.path.startswith("/ingest") else b"<html>nothing here</html>")

    def log_message(self, *_args: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["/ingest", "/else"])
def test_an_address_that_is_not_alerts_is_named(url: str, place: str):
    """The person learns which variable is wrong."""
    with pytest.raises(ApiRefused, match="set TIEOUT_API_URL to where it runs") as refused:
        AlertsApi(url + place, "tk_a_b").get("/v1/discrepancies")
    assert refused.value.exit_code == 2


class Closed(io.RawIOBase):
    """A pipe whose reader has gone, as `tieout … | head` leaves it."""

    def write(self, _: object) -> int:
        raise BrokenPipeError


def test_a_report_is_passed_on_as_it_came(url: str):
    """Whole, or not at all."""
    target = io.BytesIO()
    AlertsApi(url, "tk_a_b").download("/whole", {}, target)
    assert target.getvalue() == b"row\n"


def test_an_answer_that_breaks_off_is_told(url: str):
    """Half a report is none, written to a file or taken as a text."""
    with pytest.raises(DependencyAway, match="broke off in the middle"):
        AlertsApi(url, "tk_a_b").download("/half", {}, io.BytesIO())
    with pytest.raises(DependencyAway, match="broke off in the middle"):
        AlertsApi(url, "tk_a_b").get_text("/half", accept="text/csv")


def test_a_reader_that_leaves_is_not_blamed_on_alerts(url: str):
    """`| head` has all it wants: the command ends in silence instead of naming a service that is well."""
    with pytest.raises(BrokenPipeError):
        AlertsApi(url, "tk_a_b").download("/whole", {}, Closed())


def test_a_port_that_speaks_no_http_is_named():
    """Such as Kafka's, or PostgreSQL's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(b"R\0\0\0\x08 not http\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(DependencyAway, match="set TIEOUT_API_URL to where it runs"):
            AlertsApi(f"http://127.0.0.1:{server.getsockname()[1]}", "tk_a_b").get("/v1/orgs")
