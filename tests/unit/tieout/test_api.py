"""What a command says about an answer that is not one of alerts."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tieout.api import AlertsApi, ApiRefused

NO_PAGE = b'{"type": "urn:tieout:problem:no-such-page", "detail": "There is no such page: see /docs."}'


class Other(BaseHTTPRequestHandler):
    """Ingest under /ingest, some web server elsewhere."""

    def do_GET(self) -> None:
        self.send_response(404)
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
