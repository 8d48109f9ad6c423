"""An outage that libraries tell a thousand times a second stays readable, and nothing else is held back."""

import io
import json
import logging
from dataclasses import dataclass

import pytest
import structlog

from shared.settings import LogFormat, LogLevel
from shared.telemetry import repeats
from shared.telemetry.logs import configure_logging
from shared.telemetry.repeats import LINES_MAX, Repeats

KAFKA = "aiokafka.client"


@dataclass
class LogSettings:
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"


def _record(text: str, level: int = logging.ERROR, name: str = KAFKA) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, None, None)


def test_a_minute_of_one_line_is_seven_lines_that_count_all_of_it() -> None:
    """Nothing is lost from the figures: what was written and what was left out is what was said."""
    now = 0.0
    told = Repeats(lambda: now)
    written = []
    for number in range(60_000):
        now = number / 1000
        record = _record("Unable connect to node with id 1")
        if told.filter(record):
            written.append(getattr(record, "left_out", 0))
    assert written == [0] + [9_999] * 5
    now = 60.0
    last = _record("Unable connect to node with id 1")
    assert told.filter(last)
    assert len(written) + sum(written) + vars(last)["left_out"] == 60_000


def test_lines_that_differ_in_text_level_or_logger_do_not_hide_each_other() -> None:
    told = Repeats(lambda: 0.0)
    different = [
        _record("node 1 is away"),
        _record("node 2 is away"),
        _record("node 1 is away", logging.WARNING),
        _record("node 1 is away", name="aiokafka.conn"),
    ]
    assert [told.filter(one) for one in different] == [True] * 4


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_what_somebody_asked_to_see_is_never_left_out(level: int) -> None:
    told = Repeats(lambda: 0.0)
    assert [told.filter(_record("polled", level)) for _ in range(3)] == [True] * 3


def test_a_traceback_is_never_left_out() -> None:
    told = Repeats(lambda: 0.0)
    record = _record("Unexpected error in coordinator routine")
    record.exc_info = (ValueError, ValueError("x"), None)
    assert [told.filter(record) for _ in range(3)] == [True] * 3


def test_memory_has_a_limit() -> None:
    told = Repeats(lambda: 0.0)
    for number in range(LINES_MAX * 3):
        told.filter(_record(f"offset {number} is gone"))
    assert len(told._told) <= LINES_MAX


def test_in_a_service_libraries_are_summed_up_and_our_own_lines_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    configure_logging("ingest", LogSettings(), stream)
    try:
        for _ in range(3):
            logging.getLogger(KAFKA).error("Unable connect to node with id %s", 1)
            structlog.get_logger("services.ingest").warning("kafka does not acknowledge")
        monkeypatch.setattr(repeats, "REPEAT_S", 0.0)
        logging.getLogger(KAFKA).error("Unable connect to node with id %s", 1)
    finally:
        for handler in [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is stream]:
            logging.getLogger().removeHandler(handler)
        structlog.reset_defaults()
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    ours = "kafka does not acknowledge"
    assert [one["event"] for one in found if one["event"] == ours] == [ours] * 3
    assert [one.get("left_out") for one in found if one["event"] != ours] == [None, 2]
