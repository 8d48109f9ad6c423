"""One line per record, in one shape, without secrets."""

import importlib
import io
import json
import logging
import re
from decimal import Decimal
from types import SimpleNamespace

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from shared.telemetry.logs import REDACTED, TEXT_CHARS_MAX, configure_logging, redact_text


@pytest.fixture
def log():
    """A configured stream; `log.records()` parses what was written."""
    stream = io.StringIO()
    configure_logging("ingest", SimpleNamespace(log_level="info", log_format="json"), stream)
    yield SimpleNamespace(stream=stream, records=lambda: [json.loads(line) for line in stream.getvalue().splitlines()])
    for handler in [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is stream]:
        logging.getLogger().removeHandler(handler)
    structlog.reset_defaults()


def test_record_has_time_level_service_event_first(log):
    structlog.get_logger("services.ingest").info("webhook accepted", source="stripe", rows=3)
    (record,) = log.records()
    assert list(record)[:4] == ["time", "level", "service", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("time"))
    assert record == {
        "level": "info",
        "service": "ingest",
        "event": "webhook accepted",
        "logger": "services.ingest",
        "source": "stripe",
        "rows": 3,
    }


def test_record_inside_a_span_names_its_trace(log):
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        structlog.get_logger().info("x")
        logging.getLogger("uvicorn.error").warning("y")
    context = span.get_span_context()
    expected = (trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
    assert [(r["trace_id"], r["span_id"]) for r in log.records()] == [expected, expected]


@pytest.mark.parametrize("name", ["uvicorn.error", "aiokafka.consumer", "faststream", "sqlalchemy.pool", "any"])
def test_library_records_come_out_once_in_the_same_shape(log, name):
    logging.getLogger(name).warning("lost %s of %d", "b1", 2)
    (record,) = log.records()
    assert (record["event"], record["level"], record["service"], record["logger"]) == (
        "lost b1 of 2",
        "warning",
        "ingest",
        name,
    )


def test_library_that_brings_its_own_handler_is_written_once(log):
    own = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(own))
    logging.getLogger("uvicorn").propagate = False
    configure_logging("ingest", SimpleNamespace(log_level="info", log_format="json"), log.stream)
    logging.getLogger("uvicorn").warning("once")
    assert ([r["event"] for r in log.records()], own.getvalue()) == (["once"], "")


def test_faststream_brings_its_own_handler_at_import_and_still_writes_in_our_shape(log, capfd):
    importlib.import_module("faststream._internal.logger")
    configure_logging("ingest", SimpleNamespace(log_level="info", log_format="json"), log.stream)
    logging.getLogger("faststream").info("started")
    assert [r["event"] for r in log.records()] == ["started"]
    assert capfd.readouterr() == ("", "")


def test_below_the_level_nothing_is_written(log):
    structlog.get_logger().debug("no")
    logging.getLogger("x").debug("no")
    logging.getLogger("aiokafka").info("chatty")
    assert log.records() == []


def test_second_configuration_replaces_the_first(log):
    other = io.StringIO()
    configure_logging("matcher", SimpleNamespace(log_level="debug", log_format="json"), other)
    structlog.get_logger().debug("yes")
    assert (log.stream.getvalue(), json.loads(other.getvalue())["service"]) == ("", "matcher")


def test_auto_is_json_where_there_is_no_terminal(log):
    configure_logging("ingest", SimpleNamespace(log_level="info", log_format="auto"), log.stream)
    structlog.get_logger().info("x")
    assert log.records()[0]["event"] == "x"


def test_console_is_for_people(log):
    configure_logging("ingest", SimpleNamespace(log_level="info", log_format="console"), log.stream)
    structlog.get_logger().info("hello", source="stripe", api_key="sk_live_1")
    line = log.stream.getvalue()
    assert "hello" in line
    assert "source=stripe" in line
    assert "sk_live_1" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "key",
    ["authorization", "api_key", "Api-Key", "token", "password", "signature", "client_secret", "stripe-signature"],
)
def test_value_under_a_secret_key_is_redacted_at_every_depth(log, key):
    nested = {"headers": {key: "hunter2"}, "pairs": [(key, "hunter2"), (key.encode(), b"hunter2")]}
    structlog.get_logger().info("x", **{key: "hunter2"}, **nested)
    assert "hunter2" not in log.stream.getvalue()
    assert log.records()[0]["headers"] == {key: REDACTED}


def test_what_is_said_about_a_secret_stays(log):
    structlog.get_logger().info("x", signature_valid=False, tokens=3, key="pay_1", org="acme")
    (record,) = log.records()
    assert [record[k] for k in ("signature_valid", "tokens", "key", "org")] == [False, 3, "pay_1", "acme"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /x?token=abc&page=2", f"GET /x?token={REDACTED}&page=2"),
        ("postgresql://u:pw@db/x", f"postgresql://u:{REDACTED}@db/x"),
        ("postgresql://u:p@ss@db/x", f"postgresql://u:{REDACTED}@db/x"),
        ("Authorization: Bearer abcdefgh1", f"Authorization: Bearer {REDACTED}"),
        ('{"client_secret": "abc", "a": 1}', f'{{"client_secret": "{REDACTED}", "a": 1}}'),
        ("refused bearer abcdefgh.ijk", f"refused bearer {REDACTED}"),
        ("at http://127.0.0.1:8080/x for pay_1: fine", "at http://127.0.0.1:8080/x for pay_1: fine"),
    ],
)
def test_secrets_inside_texts_are_redacted(text, clean):
    assert redact_text(text) == clean


def test_secret_in_an_exception_is_redacted(log):
    away = ConnectionError("cannot reach postgresql://tieout:hunter2@db/tieout")
    structlog.get_logger().error("store is away", exc_info=away)
    (record,) = log.records()
    assert "ConnectionError" in record["exception"]
    assert "hunter2" not in log.stream.getvalue()


def test_any_value_ends_in_one_line_of_valid_json(log):
    class Odd:
        def __repr__(self):
            return "Odd(password='hunter2')"

    structlog.get_logger().info(
        "two\nlines", amount=Decimal("1.10"), odd=Odd(), raw=b"\xff", bad="\ud800", nan=float("nan"), map={1: {2}}
    )
    (record,) = log.records()
    assert record["amount"] == "1.10"
    assert record["odd"] == f"Odd(password='{REDACTED}')"
    assert record["map"] == {"1": [2]}
    assert record["nan"] == "nan"


def test_endless_texts_and_structures_are_bounded(log):
    loop = {}
    loop["self"] = loop
    structlog.get_logger().info("x" * (TEXT_CHARS_MAX + 7), loop=loop)
    (record,) = log.records()
    assert record["event"].endswith("… (7 more)")
