"""Bad input is a finding or a clear error, never a pass."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import UsageError
from shared.packs.bots.thresholds import ThresholdsInvalid
from tests.support.bot_files import GOOD, Bot, write_exchange, write_thresholds
from tests.unit.tieout.bots.conftest import Desk


def checks_of(desk: Desk, bot: str = "bot1") -> dict[str, str]:
    """How the checks of a bot stand in the last report."""
    (found,) = [one for one in desk.latest()["bots"] if one["bot"] == bot]
    return dict(found["checks"])


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", '"NaN"', '"half"', "true", "[]", '{"a": 1}', "1e999"]
)
@pytest.mark.parametrize(
    ("field", "severity", "unknown"),
    [
        ("equity_quote", "critical", {"balance"}),
        ("base_pct", "critical", {"balance", "inventory"}),
        ("target_base_pct", "warning", {"inventory"}),
        ("fees_paid", "warning", {"accounting"}),
        ("turnover", "warning", {"accounting"}),
    ],
)
def test_what_is_no_number_leaves_its_checks_unknown(
    desk: Desk, field: str, value: str, severity: str, unknown: set[str]
) -> None:
    bot = desk.bot().filled(1)
    fields = {name: json.dumps(said) for name, said in GOOD.items()} | {field: value}
    bot.snapshot_file.write_text("{" + ", ".join(f'"{name}": {said}' for name, said in fields.items()) + "}")
    (found,) = desk.cycle().report.findings
    assert (found.name, found.severity) == ("not_a_number", severity)
    assert field in found.message
    assert {check for check, standing in checks_of(desk).items() if standing == "unknown"} == unknown


@pytest.mark.parametrize("field", ["equity_quote", "base_pct", "target_base_pct", "fees_paid", "turnover"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_field_that_is_not_there_leaves_its_checks_unknown(desk: Desk, field: str, value: Any) -> None:
    desk.bot().snapshot(**{field: value}).filled(1)
    (found,) = desk.cycle().report.findings
    assert found.name == "field_missing"
    assert field in found.message


def test_a_finding_stays_open_while_its_field_is_unreadable(desk: Desk) -> None:
    desk.bot().snapshot(equity_quote=-1).filled(1)
    desk.cycle()
    desk.bot().snapshot(ts="2026-11-20T10:05:00Z", equity_quote="?")
    assert desk.open() == {("bot1", "equity_not_positive"), ("bot1", "not_a_number")}
    desk.bot().snapshot(ts="2026-11-20T10:10:00Z")
    assert desk.open() == set()


@pytest.mark.parametrize(
    "content", [b"", b"  \n", b'{"ts": "2026-11-20T10:00:00Z", "equ', b"[]", b"\xff\xfe\x00", b"null"]
)
def test_a_snapshot_that_cannot_be_read(desk: Desk, content: bytes) -> None:
    desk.bot().filled(1).snapshot_file.write_bytes(content)
    (found,) = desk.cycle().report.findings
    assert (found.name, found.severity) == ("snapshot_unreadable", "critical")
    assert checks_of(desk)["balance"] == "unknown"
    assert desk.latest()["problems"][0]["file"] == "data/bot1/snapshot.json"


def test_a_file_too_large_for_a_snapshot_is_not_read_into_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tieout.bots.reading.FILE_BYTES_MAX", 200)
    desk.bot().snapshot(note="x" * 200).filled(1)
    write_exchange(desk.root, **{f"bot{number}": {"account_probe_status": "disabled"} for number in range(9)})
    assert desk.open() >= {("bot1", "snapshot_unreadable"), ("*", "exchange_snapshot_missing")}


def test_a_bot_without_a_snapshot(desk: Desk) -> None:
    desk.bot().filled(1)
    (found,) = desk.cycle().report.findings
    assert (found.name, found.severity, checks_of(desk)["balance"]) == ("snapshot_missing", "critical", "unknown")


def test_a_bot_that_has_gone_is_not_forgotten(desk: Desk) -> None:
    desk.bot("bot1").snapshot().filled(1)
    desk.bot("bot2").snapshot().filled(1)
    assert desk.open() == set()
    shutil.rmtree(desk.root / "data/bot2")
    gone = {("bot2", "snapshot_missing"), ("bot2", "fills_missing"), ("bot2", "events_missing")}
    assert desk.open() == gone
    write_thresholds(desk.root, bot2={"enabled": False})
    assert desk.open() == set()


def test_a_bot_of_the_thresholds_that_wrote_nothing(desk: Desk) -> None:
    desk.bot("bot1").snapshot().filled(1)
    write_thresholds(desk.root, bot2={"inventory_warn": 0.1})
    assert ("bot2", "snapshot_missing") in desk.open()


def test_no_bot_at_all_is_no_pass(desk: Desk) -> None:
    report = desk.cycle().report
    assert ([one.name for one in report.findings], report.status) == (["no_bots"], "warning")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_missing_and_empty_files_of_fills(desk: Desk, how: str) -> None:
    bot = desk.bot().snapshot()
    if how == "empty":
        bot.fills.touch()
        bot.events.touch()
    assert desk.open() == {("bot1", "fills_missing"), ("bot1", "events_missing")}
    assert checks_of(desk)["fill_parity"] == "unknown"


def test_a_table_with_nothing_but_its_header_has_no_rows(desk: Desk) -> None:
    desk.bot().snapshot().rows(0).orders(1)
    assert desk.open() == {("bot1", "fill_count_mismatch")}


def test_lines_that_end_in_the_middle(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(2)
    with bot.fills.open("a") as file:
        file.write("2026-11-20T09:00:00Z,o9,bu")
    with bot.events.open("a") as file:
        file.write('{"ts": "2026-11-20T09:00:00Z", "type": "order_fil')
    assert desk.open() == {("bot1", "line_incomplete")}
    with bot.fills.open("a") as file:
        file.write("y,1,1,0\n")
    with bot.events.open("a") as file:
        file.write('led"}\n')
    assert desk.open() == set()


def test_a_whole_last_line_without_its_end_counts_once(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(2)
    bot.fills.write_text(bot.fills.read_text().removesuffix("\n"))
    bot.events.write_text(bot.events.read_text().removesuffix("\n"))
    assert desk.open() == set()
    with bot.fills.open("a") as file:
        file.write("\n")
    with bot.events.open("a") as file:
        file.write("\n")
    bot.filled(1, first=2)
    done = desk.cycle()
    assert (done.report.findings, done.report.accounting_snapshots[0].fills) == ([], 3)


def test_a_torn_line_in_the_middle_is_told_and_the_counts_differ(desk: Desk) -> None:
    bot = desk.bot().snapshot().filled(1)
    with bot.events.open("a") as file:
        file.write('{"type": "order_fi{"type": "order_filled"}\n')
    bot.rows(1, first=1)
    assert desk.open() == {("bot1", "lines_unreadable"), ("bot1", "fill_count_mismatch")}
    (problem,) = desk.latest()["problems"]
    assert (problem["file"], problem["offset"]) == ("data/bot1/events.jsonl", "86")


def test_a_clock_that_goes_back(desk: Desk) -> None:
    desk.bot().snapshot(ts="2026-11-20T10:00:00Z", fees_paid=2).filled(1)
    assert desk.open() == set()
    desk.bot().snapshot(ts="2026-11-20T09:00:00Z", equity_quote=0)
    assert desk.open() == {("bot1", "clock_went_back")}
    assert checks_of(desk)["balance"] == "unknown"
    assert desk.open() == {("bot1", "clock_went_back")}
    desk.bot().snapshot(ts="2026-11-20T10:01:00Z", fees_paid=2)
    assert desk.open() == set()


def test_a_clock_that_is_ahead(desk: Desk) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    desk.bot().snapshot(ts=ahead.isoformat()).filled(1)
    assert desk.open() == {("bot1", "snapshot_unreadable")}
    assert "check the bot's clock" in desk.latest()["problems"][0]["reason"]


def test_this_machines_clock_going_back_is_told_and_judges_on(desk: Desk) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    desk.bot().snapshot().rows(2).orders(1)
    desk.cycle(now=now)
    desk.bot().orders(1, first=1)
    assert desk.open(now=now - timedelta(hours=1)) == {("*", "clock_went_back")}
    assert desk.open(now=now + timedelta(hours=1)) == set()


def test_negative_fees(desk: Desk) -> None:
    desk.bot().snapshot(fees_paid="-0.000000000000000001").filled(1)
    assert desk.open() == {("bot1", "fees_paid_negative")}


def test_an_exchange_snapshot_that_cannot_be_read(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    path = write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": 0.5})
    path.write_text(path.read_text()[:40])
    assert desk.open() == {("*", "exchange_snapshot_missing")}
    path.unlink()
    assert desk.open() == set()
    desk.variables["RECON_EXCHANGE_SNAPSHOT_PATH"] = str(path)
    assert desk.open() == {("*", "exchange_snapshot_missing")}


def test_an_exchange_figure_that_is_no_number(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": "lots"})
    assert desk.open() == {("bot1", "not_a_number")}


def test_unknown_keys_of_thresholds_end_the_command(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    write_thresholds(desk.root, bot1={"inventory_warm": 1})
    with pytest.raises(ThresholdsInvalid, match=r"bots\.bot1\.inventory_warm"):
        desk.cycle()
    assert not (desk.root / "reports").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECON_SETTLE_SECONDS", "soon"),
        ("RECON_INTERVAL_SECONDS", "0"),
        ("RECON_COUNTERS_RESET", "weekly"),
        ("RECON_ZONE", "Mars/Base"),
        ("RECON_REPORTS_KEPT", "-1"),
        ("RECON_ALERT_MIN_SEVERITY", "low"),
        ("RECON_ALERT_WEBHOOK_URL", "ftp://example.org"),
        ("RECON_SNAPSHOT_FILES", "snapshot.json"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(desk: Desk, variable: str, value: str) -> None:
    desk.variables[variable] = value
    with pytest.raises(UsageError, match=variable):
        desk.cycle()


def test_shared_stores_name_their_bots_and_their_own_problems(desk: Desk) -> None:
    store = desk.root / "reports/event_store/events_20261120.jsonl"
    store.parent.mkdir(parents=True)
    for name in ("bot1", "bot2"):
        desk.bot(name).snapshot().rows(1)
    events = [
        {"event_type": "order_filled", "instance_name": name, "ts": "2026-11-20T09:00:00Z"} for name in ("bot1", "bot2")
    ]
    store.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert desk.open() == set()
    with store.open("a") as file:
        file.write('{"event_type": "order_filled"}\n{"event_type"')
    assert desk.open() == {("*", "lines_unreadable"), ("*", "line_incomplete")}


def test_a_file_that_must_not_be_read_is_told(desk: Desk) -> None:
    if os.geteuid() == 0:
        path = desk.bot().snapshot().filled(1).fills
        path.unlink()
        (desk.root / "loop").symlink_to("loop")
        path.symlink_to(desk.root / "loop")
        assert ("bot1", "fills_missing") in desk.open()
        return
    Bot(desk.root, "bot1").snapshot().filled(1).fills.chmod(0)
    assert ("bot1", "lines_unreadable") in desk.open()
