"""Alerts of cycles: what is sent, what is kept of it, what is not repeated, and receivers that are down."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.unit.tieout.bots.conftest import Desk


class Receiver(HTTPServer):
    """A real receiver on a free port."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.code = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.taken.append(json.loads(body))
                self.send_response(receiver.code)
                if receiver.code == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/secret"

    @property
    def names(self) -> list[list[str]]:
        """What each message told."""
        return [[f"{one['bot']}:{one['name']}" for one in message["findings"]] for message in self.taken]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def alerted(desk: Desk, receiver: Receiver) -> Desk:
    desk.variables |= {"RECON_ALERT_WEBHOOK_URL": receiver.url, "RECON_ALERT_MIN_SEVERITY": "warning"}
    return desk


def kept(desk: Desk, name: str = "last_webhook_sent.json") -> Any:
    path = desk.root / "reports/reconciliation" / name
    return json.loads(path.read_text()) if path.exists() else None


def test_nothing_is_sent_where_all_is_well(alerted: Desk, receiver: Receiver) -> None:
    alerted.bot().snapshot().filled(1)
    assert (alerted.cycle().notes, receiver.taken, kept(alerted)) == ((), [], None)


def test_what_was_sent_is_kept_with_when_and_the_answer(alerted: Desk, receiver: Receiver) -> None:
    alerted.bot().snapshot(equity_quote=0).filled(1)
    done = alerted.cycle()
    (message,) = receiver.taken
    assert (message["status"], message["critical_count"], message["report"]) == ("critical", 1, done.path.name)
    assert message["findings"][0]["critical_threshold"] == 0
    assert message["text"].splitlines() == [
        "Bots are critical: 1 finding new",
        "critical: bot1: equity_quote is 0, but it must be more than 0.",
    ]
    sent = kept(alerted)
    assert (sent["ok"], sent["status_code"], sent["answer"], sent["payload"]) == (True, 200, "thanks", message)
    assert sent["sent_at"] >= message["ts_utc"]
    assert "secret" not in json.dumps(sent), "the address may hold one"
    assert done.notes == ("webhook: 1 finding sent to 127.0.0.1 (HTTP 200)",)


def test_an_unchanged_finding_is_told_once_a_worse_one_and_one_that_came_back_again(
    alerted: Desk, receiver: Receiver
) -> None:
    bot = alerted.bot()
    for minute, base_pct in enumerate((0.8, 0.81, 0.97, 0.97, 0.5, 0.8)):
        bot.snapshot(ts=f"2026-11-20T10:0{minute}:00Z", base_pct=base_pct)
        if not minute:
            bot.filled(1)
        alerted.cycle()
    assert receiver.names == [
        ["bot1:inventory_drift_warning"],
        ["bot1:inventory_drift_critical"],
        ["bot1:inventory_drift_warning"],
    ]


def test_only_what_is_new_is_in_the_next_message(alerted: Desk, receiver: Receiver) -> None:
    alerted.bot("bot1").snapshot(base_pct=0.8).filled(1)
    alerted.cycle()
    alerted.bot("bot2").snapshot(base_pct=0.8).filled(1)
    alerted.cycle()
    assert receiver.names == [["bot1:inventory_drift_warning"], ["bot2:inventory_drift_warning"]]
    assert receiver.taken[1]["warning_count"] == 2


@pytest.mark.parametrize(("least", "told"), [("warning", 2), ("critical", 1), ("", 1)])
def test_the_least_severity_decides_and_is_critical_by_default(
    alerted: Desk, receiver: Receiver, least: str, told: int
) -> None:
    alerted.variables["RECON_ALERT_MIN_SEVERITY"] = least
    alerted.bot("bot1").snapshot(base_pct=0.8).filled(1)
    alerted.bot("bot2").snapshot(equity_quote=0).filled(1)
    alerted.cycle()
    assert len(receiver.taken[0]["findings"]) == told


def test_the_drill_is_sent_every_time_and_marked(alerted: Desk, receiver: Receiver) -> None:
    alerted.bot().snapshot().filled(1)
    for _ in range(2):
        alerted.cycle(synthetic_drift=True)
    alerted.cycle()
    assert receiver.names == [["synthetic-drift:inventory_drift_critical"]] * 2
    assert receiver.taken[0]["synthetic_drift"]
    assert receiver.taken[0]["findings"][0]["synthetic"]


@pytest.mark.parametrize("code", [500, 404, 302])
def test_a_receiver_that_refuses_loses_no_report_and_is_told_again(
    alerted: Desk, receiver: Receiver, code: int
) -> None:
    receiver.code = code
    alerted.bot().snapshot(equity_quote=0).filled(1)
    done = alerted.cycle()
    assert f"could not be sent to 127.0.0.1 (HTTP {code})" in done.notes[0]
    assert (kept(alerted), kept(alerted, "last_webhook_failed.json")["status_code"]) == (None, code)
    assert alerted.latest()["status"] == "critical"
    receiver.code = 204
    alerted.cycle()
    assert receiver.names == [["bot1:equity_not_positive"]] * 2
    assert kept(alerted)["status_code"] == 204


def test_a_receiver_that_is_down_loses_no_report(alerted: Desk) -> None:
    alerted.variables["RECON_ALERT_WEBHOOK_URL"] = "http://127.0.0.1:1/hook"
    alerted.bot().snapshot(equity_quote=0).filled(1)
    done = alerted.cycle()
    assert "could not be sent to 127.0.0.1 (Connection refused)" in done.notes[0]
    assert (alerted.latest()["status"], kept(alerted)) == ("critical", None)
    assert kept(alerted, "last_webhook_failed.json")["status_code"] is None


def test_without_an_address_nothing_is_sent_and_all_of_it_once_there_is_one(desk: Desk, receiver: Receiver) -> None:
    desk.bot().snapshot(equity_quote=0).filled(1)
    assert desk.cycle().notes == ()
    desk.variables["RECON_ALERT_WEBHOOK_URL"] = receiver.url
    desk.cycle()
    assert receiver.names == [["bot1:equity_not_positive"]]
