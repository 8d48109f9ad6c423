"""What a console says is left: from a file, over HTTP with a token, by a plug-in; and what happens when it says nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from shared.errors import UsageError
from tieout.budget_consoles import Console, ConsoleAway, balance, read_consoles


class Provider(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(b'{"data": {"left": 12345678901234567890.10}}' if allowed else b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/balance"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_balance_over_http_is_read_by_its_text(url: str, monkeypatch: pytest.MonkeyPatch):
    """More digits than a float keeps; the token comes from the environment."""
    console = Console(url=url, field="data.left", token_variable="CONSOLE_TOKEN")
    with pytest.raises(ConsoleAway, match="set CONSOLE_TOKEN"):
        balance(console)
    monkeypatch.setenv("CONSOLE_TOKEN", "wrong")
    with pytest.raises(ConsoleAway, match="answers 401"):
        balance(console)
    monkeypatch.setenv("CONSOLE_TOKEN", "secret")
    assert str(balance(console)) == "12345678901234567890.10"


def test_a_file_is_the_amount_or_holds_it(tmp_path: Path):
    """Without a field the whole text counts."""
    file = tmp_path / "balance"
    file.write_text("19.54\n")
    assert str(balance(Console(file=file))) == "19.54"
    file.write_text('{"left": null, "lost": NaN}')
    for field, said in (("left", "no amount"), ("lost", "no amount"), ("other", "no field other")):
        with pytest.raises(ConsoleAway, match=said):
            balance(Console(file=file, field=field))


def test_a_plug_in_of_another_package_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By its entry point; what it raises is the reason."""
    package = tmp_path / "consoles-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: consoles\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[tieout.consoles]\nmine = consoles_1:left\nbroken = consoles_1:broken\n")
    code = "from decimal import Decimal\n\ndef left():\n    return Decimal('7.25')\n\ndef broken():\n    raise OSError('no network')\n"
    (tmp_path / "consoles_1.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(balance(Console(plugin="mine"))) == "7.25"
    with pytest.raises(ConsoleAway, match="'broken' failed: OSError: no network"):
        balance(Console(plugin="broken"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("consoles: {claude: {}}", "name one of file, url and plugin"),
        ("consoles: {claude: {file: a, plugin: b}}", "name one of file, url and plugin"),
        ("consoles: {claude: {url: 'ftp://x'}}", "consoles.claude.url"),
        ("console: {}", "consoles: Field required"),
    ],
)
def test_a_file_of_consoles_that_says_something_else_is_refused(tmp_path: Path, text: str, said: str):
    """With the place and the reason."""
    file = tmp_path / "consoles.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_consoles(file)
