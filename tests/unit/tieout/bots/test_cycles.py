"""From cycle to cycle: state, positions, artifacts, the drill; and the command as people call it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import UsageError
from tests.support.bot_files import GOOD, write_thresholds
from tests.unit.tieout.bots.conftest import Desk
from tieout.bots import report as reports_module

ROOT = Path(__file__).parents[4]
PLACE = Path("reports/reconciliation")


def names(desk: Desk) -> list[str]:
    return sorted(path.name for path in (desk.root / PLACE).glob("reconciliation_*.json"))


def test_three_cycles_with_a_fee_counter_that_falls_and_comes_back(desk: Desk) -> None:
    bot = desk.bot().snapshot(fees_paid=10).filled(1)
    assert desk.open() == set()
    bot.snapshot(ts="2026-11-20T10:05:00Z", fees_paid=9.9)
    assert desk.open() == {("bot1", "fees_counter_decreased_warning")}
    since = desk.latest()["findings"][0]["since"]
    bot.snapshot(ts="2026-11-20T10:10:00Z", fees_paid=9.7)
    assert desk.open() == {("bot1", "fees_counter_decreased_critical")}
    (found,) = desk.latest()["findings"]
    assert (found["expected"], found["actual"], found["difference"], found["since"]) == ("10", "9.7", "-0.3", since)
    bot.snapshot(ts="2026-11-20T10:15:00Z", fees_paid=9.95)
    assert desk.open() == {("bot1", "fees_counter_decreased_critical")}, "until it is back at what it fell from"
    bot.snapshot(ts="2026-11-20T10:20:00Z", fees_paid=10)
    assert desk.open() == set()


SNAPSHOT = st.fixed_dictionaries(
    {
        "fees_paid": st.sampled_from([1, 1.02, 1.06, 1.3, 0.9, -1, "x"]),
        "turnover": st.sampled_from([10, 10.04, 10.06, 11, 5]),
        "base_pct": st.sampled_from([0.5, 0.8, 0.99, 1.1]),
    }
)


@settings(max_examples=15, deadline=None)
@given(history=st.lists(SNAPSHOT, min_size=1, max_size=6), cuts=st.sets(st.integers(0, 6)))
def test_however_a_history_is_cut_into_cycles_the_same_is_open_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, object]], cuts: set[int]
) -> None:
    """The state between two cycles loses nothing: one cycle over everything is the measure."""
    found = []
    for cut in (set(range(len(history))), cuts, set[int]()):
        root = tmp_path_factory.mktemp("history")
        desk = Desk(root)
        with chdir(root):
            bot = desk.bot().filled(1)
            for minute, snapshot in enumerate(history):
                event = {"type": "snapshot", "payload": GOOD | {"ts": f"2026-11-20T10:0{minute}:00Z"} | snapshot}
                with bot.events.open("a") as file:
                    file.write(json.dumps(event) + "\n")
                if minute in cut:
                    desk.cycle()
            report = desk.cycle().report
        found.append([(one.name, one.expected, one.actual) for one in report.findings])
    assert found[0] == found[2]
    assert found[1] == found[2]


def test_counters_that_reset_daily_may_fall_over_midnight_of_the_zone(desk: Desk) -> None:
    desk.variables |= {"RECON_COUNTERS_RESET": "daily", "RECON_ZONE": "Europe/Berlin"}
    bot = desk.bot().snapshot(ts="2026-11-19T22:59:00Z", fees_paid=10).filled(1)
    desk.cycle()
    bot.snapshot(ts="2026-11-19T23:01:00Z", fees_paid=0, turnover=0)
    assert desk.open() == set()
    bot.snapshot(ts="2026-11-20T22:59:00Z", fees_paid=5, turnover=0)
    desk.cycle()
    bot.snapshot(ts="2026-11-20T22:59:30Z", fees_paid=4, turnover=0)
    assert desk.open() == {("bot1", "fees_counter_decreased_critical")}


def test_a_counter_that_began_again_for_a_good_reason_is_accepted_by_switching_its_check_off_and_on(desk: Desk) -> None:
    bot = desk.bot().snapshot(fees_paid=10).filled(1)
    desk.cycle()
    bot.snapshot(ts="2026-11-20T10:05:00Z", fees_paid=0)
    assert desk.open() == {("bot1", "fees_counter_decreased_critical")}
    write_thresholds(desk.root, bot1={"accounting_check_enabled": False})
    assert desk.open() == set()
    write_thresholds(desk.root)
    bot.snapshot(ts="2026-11-20T10:10:00Z", fees_paid="0.5")
    assert desk.open() == set()
    bot.snapshot(ts="2026-11-20T10:15:00Z", fees_paid=0)
    assert desk.open() == {("bot1", "fees_counter_decreased_critical")}


def test_a_later_cycle_reads_only_new_lines(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(100)
    assert desk.cycle().report.lines_read == 201
    assert desk.cycle().report.lines_read == 0
    bot.filled(2, first=100)
    report = desk.cycle().report
    assert (report.lines_read, report.accounting_snapshots[0].fills, report.status) == (4, 102, "ok")


def test_counts_go_on_through_rotation_of_both_files(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(3)
    desk.cycle()
    bot.filled(2, first=3)
    bot.events.rename(bot.folder / "events.jsonl.1")
    shutil.copy(bot.fills, bot.folder / "fills.csv.1")
    bot.fills.write_bytes(b"")
    bot.filled(1, first=5)
    report = desk.cycle().report
    assert (report.findings, report.accounting_snapshots[0].fills, report.accounting_snapshots[0].order_filled) == (
        [],
        6,
        6,
    )


def test_a_file_that_was_replaced_unread_is_told(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(3)
    desk.cycle()
    bot.events.unlink()
    bot.orders(1, first=7)
    bot.rows(1, first=3)
    assert desk.open() == {("bot1", "lines_lost")}


def test_rows_that_disappear_from_fills_are_a_mismatch(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(200)
    assert desk.open() == set()
    lines = bot.fills.read_text().splitlines(keepends=True)
    bot.fills.write_text("".join(lines[:-5]))
    assert desk.open() == {("bot1", "fill_count_mismatch")}


def test_the_artifacts_are_the_report_under_its_time_and_as_latest(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    done = desk.cycle()
    (name,) = names(desk)
    assert name == f"reconciliation_{done.report.ts_utc:%Y%m%dT%H%M%SZ}.json"
    assert (desk.root / PLACE / name).read_bytes() == (desk.root / PLACE / "latest.json").read_bytes()
    desk.cycle()
    assert (len(names(desk)), desk.latest()["previous_report"]) == (2, name)
    assert not [path for path in (desk.root / PLACE).iterdir() if "tmp" in path.name or path.name.startswith(".latest")]


def test_latest_is_the_old_one_or_the_new_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when the machine stops while it is written."""
    desk.bot().snapshot().filled(1)
    desk.cycle()
    before = (desk.root / PLACE / "latest.json").read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    desk.bot().snapshot(equity_quote=0, ts="2026-11-20T10:05:00Z")
    with monkeypatch.context() as stopping:
        stopping.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            desk.cycle()
    assert (desk.root / PLACE / "latest.json").read_bytes() == before
    assert desk.open() == {("bot1", "equity_not_positive")}


def test_a_cycle_that_stopped_before_its_state_was_kept_is_done_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = desk.bot().snapshot(fees_paid=10).filled(1)
    desk.cycle()
    bot.snapshot(ts="2026-11-20T10:05:00Z", fees_paid=9).filled(5, first=1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tieout.bots.service.save_memory", stop)
        with pytest.raises(KeyboardInterrupt):
            desk.cycle()
    report = desk.cycle().report
    assert [one.name for one in report.findings] == ["fees_counter_decreased_critical"]
    assert report.accounting_snapshots[0].fills == 6


def test_old_reports_go_when_only_some_are_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bot().snapshot().filled(1)
    desk.variables["RECON_REPORTS_KEPT"] = "2"
    for _ in range(4):
        desk.cycle()
    assert len(names(desk)) == 2
    monkeypatch.setattr(reports_module, "SAME_SECOND_MAX", 0)
    with pytest.raises(UsageError, match="running in a loop"):
        desk.cycle()


def test_a_broken_state_is_put_aside_and_told(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    desk.cycle()
    (desk.root / PLACE / "state.msgpack").write_bytes(b"half")
    done = desk.cycle()
    assert [(one.bot, one.name) for one in done.report.findings] == [("*", "state_lost")]
    assert "put aside" in done.notes[0]
    assert len(list((desk.root / PLACE).glob("state.msgpack.broken-*"))) == 1
    assert desk.open() == set()


def test_two_cycles_at_once_are_refused(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    desk.cycle()
    with (desk.root / PLACE / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another reconciliation"):
            desk.cycle()
    assert desk.open() == set()


def test_the_drill_is_critical_and_leaves_nothing_behind(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    report = desk.cycle(synthetic_drift=True).report
    assert (report.status, report.synthetic_drift) == ("critical", True)
    assert [(one.bot, one.name, one.synthetic) for one in report.findings] == [
        ("synthetic-drift", "inventory_drift_critical", True)
    ]
    assert (desk.open(), desk.latest()["synthetic_drift"]) == (set(), False)


def test_the_drill_is_critical_whatever_the_thresholds_say(desk: Desk) -> None:
    write_thresholds(desk.root, defaults={"enabled": False, "inventory_critical": 5})
    assert desk.cycle(synthetic_drift=True).report.critical_count == 1


def test_a_table_of_many_bots_shows_those_that_are_not_ok(desk: Desk) -> None:
    for number in range(reports_module.ROWS_MAX + 1):
        desk.bot(f"bot{number}").snapshot(base_pct=0.8 if number == 7 else 0.5).filled(1)
    lines = list(reports_module.table(desk.cycle().report))
    assert [line.split()[0] for line in lines[:3]] == ["BOT", "bot7", "(40"]
    assert lines[-1] == "warning: 41 bots checked, 0 critical, 1 warning"


def test_cycles_go_on_until_they_are_asked_to_stop_and_follow_the_thresholds(desk: Desk) -> None:
    desk.bot().snapshot(base_pct=0.6).filled(1)
    latest = desk.root / PLACE / "latest.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tieout", "bots", "reconcile"],
        cwd=desk.root,
        env=environment | {"PYTHONPATH": str(ROOT), "RECON_INTERVAL_SECONDS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(lambda: latest.exists() and desk.latest()["status"] == "ok")
        write_thresholds(desk.root, bot1={"inventory_warn": 0.05})
        _wait(lambda: desk.latest()["status"] == "warning")
        (desk.root / "config/reconciliation_thresholds.json").write_text('{"bots": {"bot1": {"inventory_wa')
        _wait(
            lambda: (
                {one["name"] for one in desk.latest()["findings"]} == {"thresholds_invalid", "inventory_drift_warning"}
            )
        )
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "config/reconciliation_thresholds.json: is not valid JSON" in said


def _wait(is_so: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def run(desk: Desk, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a command as people do: in their working directory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=desk.root,
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_runbooks_path_starts_the_same_command(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    script = str(ROOT / "services/reconciliation_service/main.py")
    clean = run(desk, script, "--once")
    assert (clean.returncode, clean.stdout.splitlines()[-2]) == (0, "ok: 1 bot checked, 0 critical, 0 warnings")
    drill = run(desk, script, "--once", "--synthetic-drift", "--fail-on", "critical")
    assert drill.returncode == 1
    assert "inventory_drift_critical" in drill.stdout
    assert desk.latest()["status"] == "critical"


def test_the_command_prints_the_report_as_json_and_errors_without_a_traceback(desk: Desk) -> None:
    desk.bot().snapshot(equity_quote=0).filled(1)
    done = run(desk, "-m", "tieout", "bots", "reconcile", "--once", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "critical")
    wrong = run(desk, "-m", "tieout", "bots", "reconcile", "--once", RECON_INVENTORY_WARN="x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: RECON_INVENTORY_WARN: must be a number")
