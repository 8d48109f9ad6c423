"""Goal: what bots write reaches ingest once, in order and whole, whatever stops on the way.

Method: real files, and an HTTP server that acknowledges, refuses or is busy as a test says.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.errors import DependencyAway, UsageError
from shared.packs.bots.places import Places, read_places
from shared.packs.bots.thresholds import ThresholdsFile
from tieout.bots.alone import alone
from tieout.bots.feed.position import POSITION_FILE, read_position
from tieout.bots.feed.reader import FIND_EVERY, PATIENCE, QUIET, BotsReader
from tieout.bots.feed.run import LOCK, Feed
from tieout.cli import build
from tieout.ingest_api import IngestApi

STATE = {"equity_quote": 1000.5, "base_pct": 0.5, "target_base_pct": 0.5, "fees_paid": 1, "turnover": 10}


@dataclass
class Ingest:
    """Takes `POST /v1/events`."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    refuse: Callable[[dict[str, Any]], bool] = lambda _: False
    busy: int = 0
    """How many of the next requests are answered 503."""
    unauthorised: bool = False

    def of(self, *types: str) -> list[tuple[str, str]]:
        """Account and what the event says, in order."""
        return [(one["account"], one.get("amount") or one["id"]) for one in self.events if one["type"] in types]


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    state = Ingest()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
            if state.unauthorised:
                self._say(401, {"detail": "The API key is unknown or revoked."})
                return
            if state.busy:
                state.busy -= 1
                self._say(503, {"detail": "no broker"})
                return
            events = [json.loads(row) for row in rows]
            answers = [
                {"index": at, "status": "refused", "error": "not this one"}
                if state.refuse(event)
                else {"index": at, "status": "accepted"}
                for at, event in enumerate(events)
            ]
            state.events += [event for event in events if not state.refuse(event)]
            self._say(200, {"results": answers})

        def _say(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A working directory with one bot's folder."""
    monkeypatch.chdir(tmp_path)
    Path("data/bot1").mkdir(parents=True)
    return read_places({})


def feed(places: Places, ingest: Ingest, told: list[str] | None = None) -> Feed:
    lines = [] if told is None else told
    return Feed(places, IngestApi(ingest.url, "tk_a_b", retry_timeout_s=0.1), ThresholdsFile({}), None, lines.append)


def write_snapshot(bot: str = "bot1", **fields: Any) -> None:
    folder = Path("data") / bot
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "snapshot.json").write_text(json.dumps(STATE | fields))


def append(name: str, text: str) -> None:
    with Path("data/bot1", name).open("a") as file:
        file.write(text)


def fill(number: int) -> str:
    return json.dumps({"type": "order_filled", "ts": "2026-11-20T10:00:00Z", "order": number}) + "\n"


def test_everything_once(places: Places, ingest: Ingest) -> None:
    """A snapshot, its fills, their count and how well all was read; nothing of it a second time."""
    write_snapshot()
    append("fills.csv", "ts,price\n1,2.5\n2,2.6\n")
    append("events.jsonl", fill(1) + '{"type": "order_created"}\n' + fill(2))
    feed(places, ingest).once()
    assert [one["type"] for one in ingest.events] == [
        "order_filled",
        "order_filled",
        "snapshot.state",
        "balance.fills",
        "snapshot.input",
    ]
    assert ingest.of("balance.fills") == [("bot1", "2")]
    assert ingest.events[2]["attrs"]["equity_quote"] == "1000.5"
    feed(places, ingest).once()
    assert len(ingest.events) == 5
    append("events.jsonl", fill(3))
    feed(places, ingest).once()
    assert [one["type"] for one in ingest.events[5:]] == ["order_filled", "balance.fills"]
    assert len({event["id"] for event in ingest.events}) == 7


def test_idle_look_writes_nothing(places: Places, ingest: Ingest) -> None:
    """Many looks a second must not wear the disk."""
    write_snapshot()
    append("events.jsonl", fill(1))
    running = feed(places, ingest)
    running.once()
    path = places.reports / POSITION_FILE
    path.unlink()
    running._look(BotsReader(places, read_position(path), tuple, print))
    assert path.exists()
    reader = BotsReader(places, read_position(path), tuple, print)
    running._look(reader)
    path.unlink()
    running._look(reader)
    assert not path.exists()


def test_ingest_that_is_away_loses_nothing(places: Places, ingest: Ingest) -> None:
    """The position moves only after the acknowledgement; what was sent and not stored comes again under its id."""
    append("events.jsonl", "".join(map(fill, range(2500))))
    ingest.busy = 10**6
    with pytest.raises(DependencyAway):
        feed(places, ingest).once()
    assert read_position(places.reports / POSITION_FILE).files == {}
    ingest.busy = 0
    running = feed(places, ingest)
    posts = 0
    real = running.ingest.post

    def post(rows: Any) -> Any:
        nonlocal posts
        posts += 1
        if posts == 2:
            raise DependencyAway("killed between two requests")
        return real(rows)

    object.__setattr__(running, "ingest", type("Api", (), {"post": staticmethod(post)})())
    with pytest.raises(DependencyAway):
        running.once()
    feed(places, ingest).once()
    fills = [number for _, number in ingest.of("order_filled")]
    assert len(fills) == 3500
    assert len(set(fills)) == 2500


def test_feed_goes_on_when_ingest_is_back(places: Places, ingest: Ingest) -> None:
    """It says once that it waits, and once that it goes on."""
    write_snapshot()
    told: list[str] = []
    running = feed(places, ingest, told)
    ingest.busy = 3

    def stop() -> None:
        while not ingest.of("snapshot.state"):
            running.stop.wait(0.05)
        running.stop.wait(0.3)
        running.stop.set()

    watcher = threading.Thread(target=stop)
    watcher.start()
    running.forever(0.05)
    watcher.join()
    waiting = [line for line in told if line.startswith("waiting: ingest at")]
    assert len(waiting) == 1
    assert "goes on" in told


def test_key_that_ingest_refuses_ends_the_feed(places: Places, ingest: Ingest) -> None:
    """Waiting does not mend it, and nothing counts as posted."""
    write_snapshot()
    ingest.unauthorised = True
    with pytest.raises(UsageError, match="answers 401"):
        feed(places, ingest).forever(0.05)
    assert not (places.reports / POSITION_FILE).exists()


def test_broken_thresholds_leave_the_last_good_ones(places: Places, ingest: Ingest) -> None:
    """It is told once, and once that they are fine again."""
    path = Path("config/reconciliation_thresholds.json")
    path.parent.mkdir()
    path.write_text("{}")
    told: list[str] = []
    running = feed(places, ingest, told)
    reader = BotsReader(places, read_position(Path("none")), tuple, told.append)
    for text in (
        '{"bots": {"bot1": {"inventory_wran": 1}}}',
        '{"bots": {"bot1": {"inventory_wran": 1}}} ',
        '{"bots": {}}',
    ):
        path.write_text(text)
        running._look(reader)
        running._look(reader)
    assert [line.splitlines()[-1] for line in told] == [
        "the thresholds before stay in force",
        "the thresholds are fine again",
    ]
    assert "config/reconciliation_thresholds.json: bots.bot1.inventory_wran" in told[0]


def test_row_that_ingest_refuses_is_told_and_becomes_a_finding(places: Places, ingest: Ingest) -> None:
    """Its line counts as one that could not be used."""
    append("events.jsonl", fill(1) + fill(2))
    ingest.refuse = lambda event: event["type"] == "order_filled" and event["id"].endswith("-0")
    told: list[str] = []
    feed(places, ingest, told).once()
    assert any("ingest refuses order_filled" in line and "not this one" in line for line in told)
    assert ingest.events[-1]["attrs"]["lines_unreadable"] == "1"


def test_lines_that_are_none_are_told_with_their_place(places: Places, ingest: Ingest) -> None:
    """What is readable around them is posted."""
    append("events.jsonl", fill(1) + "no json\n" + fill(2))
    append("fills.csv", "ts,price\n1,2\n2,x\n3\n")
    told: list[str] = []
    feed(places, ingest, told).once()
    assert len(ingest.of("order_filled")) == 2
    assert ingest.of("balance.fills") == [("bot1", "2")]
    assert ingest.events[-1]["attrs"]["lines_unreadable"] == "3"
    assert len(told) == 3
    assert told[0].startswith("data/bot1/events.jsonl, byte ")


def test_rotated_file_is_read_to_its_end_first(places: Places, ingest: Ingest) -> None:
    append("events.jsonl", fill(1))
    feed(places, ingest).once()
    append("events.jsonl", fill(2))
    Path("data/bot1/events.jsonl").rename("data/bot1/events.jsonl.1")
    append("events.jsonl", fill(3))
    feed(places, ingest).once()
    assert len({one for _, one in ingest.of("order_filled")}) == 3


def test_stored_position_that_is_none_is_told(places: Places, ingest: Ingest) -> None:
    places.reports.mkdir(parents=True)
    (places.reports / POSITION_FILE).write_text("{")
    with pytest.raises(UsageError, match="remove it to read everything again"):
        feed(places, ingest).once()


def test_line_that_could_not_be_read_is_told_for_a_while(places: Places) -> None:
    """As long as a cycle lasts; a new one begins that time anew."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    append("events.jsonl", "no json\n")
    assert said(one)["snapshot.input"]["lines_unreadable"] == "1"
    clock.go(one.told_for)
    append("events.jsonl", "nor this\n")
    assert said(one)["snapshot.input"]["lines_unreadable"] == "2"
    clock.go(one.told_for + timedelta(seconds=1))
    assert said(one)["snapshot.input"]["lines_unreadable"] == "0"


def test_count_is_told_again_when_more_events_came(places: Places) -> None:
    """Rows alone would not be held against events that came after them."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    append("fills.csv", "1,2\n")
    said(one)
    clock.go(QUIET)
    assert said(one)["balance.fills"] == {"amount": "1"}
    append("events.jsonl", fill(1))
    clock.go(FIND_EVERY)
    assert set(said(one)) == {"order_filled", "snapshot.input"}
    clock.go(QUIET)
    assert said(one)["balance.fills"] == {"amount": "1"}
    clock.go(QUIET)
    assert said(one) == {}


def test_second_feed_on_the_same_reports_is_refused(
    places: Places, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIEOUT_INGEST_URL", ingest.url)
    monkeypatch.setenv("TIEOUT_API_KEY", "tk_a_b")
    write_snapshot()
    with alone(places.reports / LOCK, "feed"):
        result = CliRunner().invoke(build(), ["bots", "feed", "--once"])
    assert str(result.exception) == "reports/reconciliation: another feed is running on these reports; let it end first"
    assert CliRunner().invoke(build(), ["bots", "feed", "--once"]).output == "2 events posted, 0 refused\n"


# ---- one reader over time


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go(self, by: timedelta) -> None:
        self.now += by


def reader(places: Places, clock: Clock, *named: str) -> BotsReader:
    return BotsReader(places, read_position(Path("none")), lambda: named, lambda _: None, clock)


def said(one: BotsReader) -> dict[str, dict[str, str]]:
    """What a look brings, by type: attrs, or the amount."""
    found = [event for events in one.look() for event in events]
    return {event.type: dict(event.attrs) or {"amount": str(event.amount)} for event in found}


def test_half_written_snapshot_is_waited_for_and_then_told(places: Places) -> None:
    """Nobody hears of a file that is whole a moment later; one that stays half is a finding, and heals."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    Path("data/bot1/snapshot.json").write_text('{"equity_quote": 10')
    assert said(one)["snapshot.input"]["snapshots_unreadable"] == "0"
    clock.go(PATIENCE)
    assert said(one)["snapshot.input"]["snapshots_unreadable"] == "1"
    write_snapshot()
    found = said(one)
    assert found["snapshot.state"]["base_pct"] == "0.5"
    assert found["snapshot.input"]["snapshots_unreadable"] == "0"


def test_half_written_line_is_waited_for_and_then_told(places: Places) -> None:
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    append("events.jsonl", fill(1) + fill(2)[:20])
    assert said(one)["snapshot.input"]["lines_incomplete"] == "0"
    clock.go(PATIENCE)
    assert said(one)["snapshot.input"]["lines_incomplete"] == "1"
    append("events.jsonl", fill(2)[20:])
    found = said(one)
    assert "order_filled" in found
    assert found["snapshot.input"]["lines_incomplete"] == "0"


def test_last_line_that_only_lacks_its_end_counts(places: Places) -> None:
    """As it does for `reconcile`; when its end comes it is the same event."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    append("fills.csv", "ts,price\n1,2\n2,3")
    append("events.jsonl", (fill(1) + fill(2)).rstrip("\n"))
    first = [event for events in one.look() for event in events if event.type == "order_filled"]
    clock.go(QUIET)
    assert said(one)["balance.fills"] == {"amount": "2"}
    append("events.jsonl", "\n")
    again = [event for events in one.look() for event in events]
    assert [event.id for event in again] == [first[1].id]
    assert len(first) == 2


def test_count_of_fills_is_told_once_it_is_quiet(places: Places) -> None:
    """A fill's own event may come a moment after its row; a file that never is quiet is told all the same."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    append("fills.csv", "ts,price\n1,2\n")
    assert "balance.fills" not in said(one)
    clock.go(QUIET)
    assert said(one)["balance.fills"] == {"amount": "1"}
    for number in range(20):
        append("fills.csv", f"{number},2\n")
        clock.go(QUIET / 2)
        if "balance.fills" in said(one):
            break
    else:
        pytest.fail("a busy file was never told")


def test_new_figure_of_the_exchange_is_held_against_the_same_snapshot(places: Places) -> None:
    """It is newer than the snapshot without it, and than the one with the figure before."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    write_snapshot(ts="2026-11-21T09:00:00Z")
    events = [next(event for events in one.look() for event in events if event.type == "snapshot.state")]
    places.exchange.parent.mkdir(parents=True)
    for figure in ("0.4", "0.3"):
        bots = {"bot1": {"account_probe_status": "ok", "base_pct": float(figure)}}
        clock.go(timedelta(minutes=1))
        places.exchange.write_text(json.dumps({"ts_utc": clock.now.isoformat(), "bots": bots}))
        events += [event for events in one.look() for event in events if event.type == "snapshot.state"]
    assert [dict(event.attrs).get("external_base_pct") for event in events] == [None, "0.4", "0.3"]
    assert len({event.occurred_at for event in events}) == 1
    assert events[0].sequence < events[1].sequence < events[2].sequence


def test_account_that_could_not_be_asked_is_no_figure(places: Places) -> None:
    """A wrong key is a finding of its own; a bot on paper lacks nothing."""
    clock = Clock(datetime.now(UTC))
    write_snapshot()
    found = []
    for status in ("wrong_key", "paper_only"):
        places.exchange.parent.mkdir(parents=True, exist_ok=True)
        places.exchange.write_text(json.dumps({"bots": {"bot1": {"account_probe_status": status, "base_pct": None}}}))
        found.append(said(reader(places, clock)))
    assert ["external_base_pct" in one["snapshot.state"] for one in found] == [False, False]
    assert [one["snapshot.input"]["exchange_probes_failed"] for one in found] == ["1", "0"]
    assert [one["snapshot.input"]["exchange_snapshots"] for one in found] == ["1", "1"]


@pytest.mark.parametrize(("minutes", "is_compared"), [(15, True), (16, False), (-600, True)])
def test_figure_from_long_before_the_snapshot_is_none(places: Places, minutes: int, is_compared: bool) -> None:
    """An exchange service that died must not pass the bots on and on; a bot that is late is held against the newest."""
    clock = Clock(datetime.now(UTC))
    write_snapshot(ts=clock.now.isoformat())
    places.exchange.parent.mkdir(parents=True)
    at = (clock.now - timedelta(minutes=minutes)).isoformat()
    bots = {"bot1": {"account_probe_status": "ok", "base_pct": 0.4}}
    places.exchange.write_text(json.dumps({"ts_utc": at, "bots": bots}))
    found = said(reader(places, clock))
    assert ("external_base_pct" in found["snapshot.state"]) is is_compared
    assert found["snapshot.input"]["exchange_probes_failed"] == str(int(not is_compared))


def test_bot_that_must_be_there_and_has_no_files(places: Places) -> None:
    assert said(reader(places, Clock(), "bot9"))["snapshot.input"]["snapshots"] == "0"


def test_snapshot_whose_clock_goes_back_is_posted_as_it_is(places: Places) -> None:
    """The engine calls it stale: it is never judged and never passes."""
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    times = []
    for at in ("2026-11-21T09:00:00Z", "2026-11-21T08:00:00Z"):
        write_snapshot(ts=at)
        os.utime("data/bot1/snapshot.json", ns=(0, len(times) + 1))
        times += [event.occurred_at for events in one.look() for event in events if event.type == "snapshot.state"]
    assert [time.hour for time in times] == [9, 8]


def test_snapshot_dated_in_the_future_is_unreadable(places: Places) -> None:
    clock = Clock(datetime.now(UTC))
    one = reader(places, clock)
    write_snapshot(ts=(clock.now + timedelta(hours=1)).isoformat())
    said(one)
    clock.go(PATIENCE)
    assert said(one)["snapshot.input"]["snapshots_unreadable"] == "1"
