"""Goal: what operators look at says what is so, and never more than is known."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from shared.contracts.event import PostedEvent
from shared.errors import DependencyAway, UsageError
from shared.packs.bots.findings import Finding
from shared.packs.bots.thresholds import BotThresholds, Thresholds
from tieout.bots.feed.figures import FIGURES_FILE, keep_figures, read_figures
from tieout.bots.view.drift_chart import drift_html, drift_svg
from tieout.bots.view.live import LiveView, standing_of_alerts
from tieout.bots.view.reports import history_of_reports, standing_of_reports
from tieout.bots.view.standing import Figures, Standing, bots_of
from tieout.cli import build
from tieout.cli.bots_status import _tell_changes

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def finding(bot: str = "bot1", severity: Any = "warning", **fields: Any) -> Finding:
    given = {"check": "inventory", "name": "inventory_drift_warning", "code": "inventory_drift", "message": "drifts"}
    nothing = dict.fromkeys(("expected", "actual", "difference", "warn_threshold", "critical_threshold", "since"))
    return Finding(**{**nothing, **given, "bot": bot, "severity": severity, **fields})


def figures(minute: float, drift: str, exchange: str | None = None) -> Figures:
    base = Decimal("0.5") + Decimal(drift)
    external = None if exchange is None else base - Decimal(exchange)
    return Figures(NOW + timedelta(minutes=minute), base, Decimal("0.5"), external)


def standing(*findings: Finding, bots: tuple[str, ...] = ("bot1",), age_s: int = 0) -> Standing:
    found = bots_of(bots, findings, {})
    return Standing("here", NOW - timedelta(seconds=age_s), found, findings, timedelta(seconds=900))


def test_status_is_the_worst_and_never_ok_without_bots_or_when_stale() -> None:
    assert standing().status(NOW) == "ok"
    assert standing(finding(), finding(severity="critical")).status(NOW) == "critical"
    assert standing(age_s=901).status(NOW) == "warning"
    assert standing(age_s=-901).status(NOW) == "warning"
    assert standing(bots=()).status(NOW) == "warning"


def test_check_that_could_not_be_judged_is_unknown() -> None:
    """A snapshot that cannot be read says nothing of the balance: neither ok nor bad."""
    missing = finding(check="input", name="snapshot_unreadable", code="snapshot_unreadable", severity="critical")
    one = bots_of([], [missing], {})[0]
    assert (one.status, one.checks["balance"], one.checks["fill_parity"]) == ("critical", "unknown", "ok")


# ---- reports


def report(folder: Path, name: str, **fields: Any) -> None:
    snapshot = {"bot": "bot1", "as_of": "2026-11-21T12:00:00Z", "base_pct": 0.75, "target_base_pct": 0.5}
    line = {
        "severity": "warning",
        "check": "inventory",
        "name": "inventory_drift_warning",
        "bot": "bot1",
        "message": "bot1 drifts",
        "expected": 0.5,
        "actual": 0.75,
        "difference": 0.25,
        "warn_threshold": 0.25,
        "critical_threshold": 0.45,
        "since": "2026-11-21T12:00:00Z",
    }
    body = {
        "ts_utc": "2026-11-21T12:00:00Z",
        "status": "warning",
        "bots": [{"bot": "bot1", "status": "warning", "checks": {"inventory": "warning", "balance": "ok"}}],
        "findings": [line],
        "accounting_snapshots": [snapshot],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(body | fields))


def test_standing_of_the_last_report(tmp_path: Path) -> None:
    report(tmp_path, "latest.json")
    found = standing_of_reports(tmp_path, interval_s=300)
    assert (found.status(NOW), found.bots[0].checks["inventory"]) == ("warning", "warning")
    assert found.bots[0].figures is not None
    assert found.bots[0].figures.drift == Decimal("0.25")
    assert (found.findings[0].difference, found.findings[0].warn_threshold) == ("0.25", "0.25")
    assert not found.is_stale(NOW + timedelta(seconds=900))
    assert found.is_stale(NOW + timedelta(seconds=901))


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"bots": 7}'])
def test_report_that_is_none_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "latest.json").write_text(content)
    with pytest.raises(UsageError, match=r"latest\.json"):
        standing_of_reports(tmp_path, interval_s=300)


def test_history_of_reports_and_of_a_feed(tmp_path: Path) -> None:
    """Each figure once, in order, and only what is not too old; what cannot be read is counted."""
    report(tmp_path, "reconciliation_1.json")
    report(tmp_path, "reconciliation_2.json")
    (tmp_path / "reconciliation_3.json").write_text("{")
    events = [
        PostedEvent(
            source="bot",
            type="snapshot.state",
            id=f"s{minute}",
            account="bot1",
            occurred_at=NOW + timedelta(minutes=minute),
            attrs={"base_pct": "0.6", "target_base_pct": "0.5", "external_base_pct": "NaN"},
        )
        for minute in (2, 1, -60)
    ]
    keep_figures(tmp_path, events)
    with (tmp_path / FIGURES_FILE).open("a") as file:
        file.write('{"bot": "bot1", "at"')
    history, unreadable = history_of_reports(tmp_path, NOW)
    assert [(one.as_of.minute, one.drift, one.exchange_drift) for one in history["bot1"]] == [
        (0, Decimal("0.25"), None),
        (1, Decimal("0.1"), None),
        (2, Decimal("0.1"), None),
    ]
    assert unreadable == 1


def test_kept_figures_do_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tieout.bots.feed.figures.FIGURES_BYTES_MAX", 300)
    for number in range(50):
        at = NOW + timedelta(seconds=number)
        keep_figures(tmp_path, [PostedEvent(source="bot", type="snapshot.state", id="x", account="b", occurred_at=at)])
    kept = [line.at for line in read_figures(tmp_path)]
    assert 5 < len(kept) < 20
    assert kept == sorted(kept)
    assert kept[-1] == at


# ---- alerts


class Alerts:
    """Answers as alerts does."""

    url = "http://alerts"

    def __init__(self, checks: list[dict[str, Any]], discrepancies: list[dict[str, Any]]) -> None:
        self.checks, self.discrepancies = checks, discrepancies
        self.asked: list[dict[str, str]] = []

    def get(self, path: str, query: dict[str, str]) -> Any:
        if path == "/v1/checks" and "cursor" not in query:
            self.asked.append(query)
        rows = (
            self.checks if path == "/v1/checks" else [one for one in self.discrepancies if one["rule"] == query["rule"]]
        )
        at = int(query.get("cursor", 0))
        return {"data": rows[at : at + 2], "next_cursor": str(at + 2) if at + 2 < len(rows) else None}


def check(code: str | None, result: str, offset: int, **fields: Any) -> dict[str, Any]:
    at = (datetime.now(UTC) + timedelta(seconds=offset - 60)).isoformat()
    nothing = dict.fromkeys(("currency", "expected", "actual", "difference", "reason"))
    named = {"rule": "bots.state", "pack": "bots", "key": "bot1", "code": code, "result": result, "as_of": at}
    return nothing | named | {"log_partition": 0, "log_offset": offset, "log_time": at} | fields


def test_live_findings_are_what_is_open_and_what_could_not_be_judged() -> None:
    """One that a person has settled is theirs; a verdict `stale` is over once a newer snapshot was judged."""
    raised = {
        "id": "d1",
        "revision": 1,
        "state": "raised",
        "status": "open",
        "org": "acme",
        "rule": "bots.state",
        "pack": "bots",
        "type": "inventory_drift",
        "severity": "medium",
        "key": "bot1",
        "account": "bot1",
        "side": None,
        "sides": {"snapshot": {"unknown": 1}},
        "duplicate": None,
        "expected": "0.5",
        "actual": "0.8",
        "difference": "0.3",
        "currency": None,
        "raised_at": "2026-11-21T12:00:00Z",
        "resolved_at": None,
        "resolution": None,
        "expired": False,
        "explanation": "bot1 drifts",
        "log": {"partition": 0, "offset": 1, "time": "2026-11-21T12:00:00Z"},
        "reason": "a person's",
        "cause": None,
    }
    settled = raised | {"id": "d2", "key": "bot2", "account": "bot2", "status": "resolved"}
    checks = [
        check(None, "stale", 1),
        check("inventory_drift", "failed", 2, expected="0.5", actual="0.8", difference="0.3"),
        check("fees_paid_negative", "error", 2),
        check(None, "stale", 9, key="bot3"),
    ]
    found = standing_of_alerts(Alerts(checks, [raised, settled]), Thresholds())
    assert [(one.bot, one.name, one.warn_threshold) for one in found.findings] == [
        ("bot1", "inventory_drift_warning", "0.25"),
        ("bot1", "not_a_number", "1"),
        ("bot3", "clock_went_back", "1"),
    ]
    assert {one.bot: one.status for one in found.bots} == {"bot1": "warning", "bot3": "warning"}
    assert found.bots[0].figures is not None
    assert found.bots[0].figures.drift == Decimal("0.3")


def test_later_looks_ask_for_what_is_new_and_keep_what_was_there() -> None:
    """A verdict that is stored a little late is not missed; an older one changes nothing."""
    alerts = Alerts([check("base_pct_out_of_range", "passed", 5), check("fees_paid_negative", "error", 5)], [])
    view = LiveView(alerts)
    assert [one.name for one in view.standing(Thresholds()).findings] == ["not_a_number"]
    alerts.checks = [
        check("base_pct_out_of_range", "error", 4),
        check("base_pct_out_of_range", "passed", 5, key="bot2"),
    ]
    found = view.standing(Thresholds())
    assert [one.bot for one in found.bots] == ["bot1", "bot2"]
    assert [(one.name, one.about) for one in found.findings] == [("not_a_number", "fees_paid_negative")]
    first, second = (datetime.fromisoformat(query["judged_since"]) for query in alerts.asked)
    assert timedelta(hours=23) < second - first < timedelta(hours=24)


# ---- pictures


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def test_picture_has_a_panel_per_bot_with_both_lines_and_its_own_bands() -> None:
    own = Thresholds(bots={"bot2": BotThresholds(inventory_warn=Decimal("0.1"), inventory_critical=Decimal("0.2"))})
    history = {
        "bot1": [figures(at, "0.01", "0.02") for at in range(5)],
        "bot2": [figures(at, "-0.3") for at in range(5)],
    }
    root = drawn(drift_svg(history, own, NOW, NOW + timedelta(minutes=5)))
    panels = root.findall(f"{SVG}g")
    assert [panel.find(f"{SVG}title").text for panel in panels] == [
        "bot1: inventory drift +0.0100",
        "bot2: inventory drift -0.3000",
    ]
    lines = [[one.get("class") for one in panel.findall(f"{SVG}polyline")] for panel in panels]
    assert lines == [["exchange", "own"], ["own"]]
    # The line of bot2 runs within its critical band.
    band = [one for one in panels[1].findall(f"{SVG}rect") if one.get("class") == "crit"][1]
    own_line = panels[1].find(f"{SVG}polyline")
    assert own_line is not None
    y = float(own_line.get("points", "").split()[0].split(",")[1])
    assert float(band.get("y", "0")) <= y <= float(band.get("y", "0")) + float(band.get("height", "0"))


def test_pause_breaks_the_line() -> None:
    """Nothing is drawn where nothing is known."""
    history = {"bot1": [figures(at, "0.1") for at in (*range(10), *range(60, 70))]}
    root = drawn(drift_svg(history, Thresholds(), NOW, NOW + timedelta(hours=2)))
    assert len(root.findall(f".//{SVG}polyline")) == 2


def test_long_history_keeps_its_peak() -> None:
    """Fewer points than figures, and the one farthest away among them."""
    history = {"bot1": [figures(at / 60, "0.9" if at == 7_777 else "0.01") for at in range(20_000)]}
    root = drawn(drift_svg(history, Thresholds(), NOW, NOW + timedelta(seconds=20_000)))
    line = root.find(f".//{SVG}polyline")
    assert line is not None
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert len(heights) <= 601
    assert min(heights) < 50 < sorted(heights)[1]


def test_names_of_bots_are_text_and_never_markup() -> None:
    page = drift_html({"<b>&": [figures(0, "0.1")]}, Thresholds(), NOW, NOW + timedelta(minutes=1))
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page


# ---- commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEOUT_API_KEY", raising=False)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["bots", *words])
    if isinstance(result.exception, UsageError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def test_status_prints_plain_lines_and_can_fail(folder: Path) -> None:
    report(folder / "reports/reconciliation", "latest.json")
    code, output = run("status")
    lines = output.splitlines()
    assert code == 0
    assert lines[1].startswith("warning: 1 bots, 1 findings (stale: ")
    assert lines[2] == "bot1\twarning\tbase=0.7500 target=0.5000 drift=+0.2500 inventory=warning"
    assert lines[3] == "warning\tbot1\tinventory_drift_warning\tbot1 drifts"
    assert run("status", "--fail-on", "warning")[0] == 1
    assert run("status", "--fail-on", "critical")[0] == 0
    assert run("status", "--fail-on", "bad") == (2, "--fail-on: must be warning or critical (got 'bad')")


def test_watching_without_a_terminal_prints_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each state once, however often it is looked at; alerts that are away are told and do not end it."""
    stop, now = threading.Event(), datetime.now(UTC)
    bad = Standing("here", now, bots_of(["bot1"], [finding()], {}), [finding()])
    good = Standing("here", now, bots_of(["bot1"], [], {}), [])
    states: list[Any] = [good, good, DependencyAway("alerts is away"), bad, bad, good]

    def read() -> Standing:
        state = states.pop(0)
        if not states:
            stop.set()
        if isinstance(state, Exception):
            raise state
        return state

    _tell_changes(read, 0.01, stop)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.endswith("here, now")]
    assert lines == [
        "ok: 1 bots, 0 findings",
        "bot1\tok\tno figures",
        "error: alerts is away",
        "warning: 1 bots, 1 findings",
        "bot1\twarning\tno figures inventory=warning",
        "warning\tbot1\tinventory_drift_warning\tdrifts",
        "ok: 1 bots, 0 findings",
        "bot1\tok\tno figures",
    ]


def test_drift_writes_a_picture_or_says_why_not(folder: Path) -> None:
    assert "has no figures of the last 24h" in run("drift")[1]
    at = datetime.now(UTC).isoformat()
    snapshot = {"bot": "bot1", "as_of": at, "base_pct": 0.6, "target_base_pct": 0.5}
    report(folder / "reports/reconciliation", "reconciliation_1.json", accounting_snapshots=[snapshot])
    assert run("drift", "--out", "d.svg") == (0, "d.svg: 1 bots, 1 figures\n")
    assert re.search("target .0.1000", (folder / "d.svg").read_text())
    assert run("drift", "--out", "d.png")[0] == 2
    assert run("drift", "--since", "long")[0] == 2
    assert run("drift", "--bot", "bot7")[1] == "--bot: nothing is known of bot7; there are bot1"
