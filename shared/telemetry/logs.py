"""Logs: one line per record, the same shape for our own records and those of libraries.

Every record carries time (RFC 3339, UTC), level, service, event, and trace_id and span_id inside a span. What looks
like a secret is replaced before anything is written. What a library repeats is summed up (`repeats.py`).
"""

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any, Final, Protocol, TextIO
from uuid import UUID

import msgspec
import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.settings import LogFormat, LogLevel
from shared.telemetry.repeats import Repeats

REDACTED: Final = "[redacted]"

TEXT_CHARS_MAX: Final = 16_384
"""Longer texts are cut: one record must not fill a disk. A deep traceback still fits."""
NESTING_MAX: Final = 8
"""Deeper structures are not walked: a log record is no place for documents."""

_SECRET_KEY: Final = re.compile(
    r"authorization|api_?key|token|passw(?:or)?d|signature|secret|credential|cookie|private_?key",
    re.IGNORECASE,
)
_SECRET_IN_TEXT: Final = re.compile(
    r"""(?P<key>(?:[\w-]*(?:authorization|api[_-]?key|token|passw(?:or)?d|signature|secret|cookie))["']?\s*[=:]\s*)"""
    r"""(?P<scheme>["']?(?:bearer\s+|basic\s+)?)(?P<value>[^\s"'&,;)}\]]+)""",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_PASSWORD_IN_URL: Final = re.compile(r"""(?P<scheme>[a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s"']+@""", re.IGNORECASE)

# They tell about every request or poll at INFO; ours is one line per decision.
_CHATTY: Final = ("aiokafka", "uvicorn.access", "sqlalchemy.engine", "httpx", "opentelemetry", "faststream.access")
# Libraries that bring their own handlers; theirs go, so that each record is written once and in our shape.
_OWN_HANDLERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "faststream", "faststream.access.kafka")


class LogSettings(Protocol):
    """The part of `ServiceSettings` that logging needs."""

    @property
    def log_level(self) -> LogLevel: ...
    @property
    def log_format(self) -> LogFormat: ...


class _ServiceHandler(logging.StreamHandler[TextIO]):
    """Marks the handler that this module installed, so that a second call replaces it."""


def configure_logging(service: str, settings: LogSettings, stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging to `stream` (standard error by default).

    Standard output stays free for what a command prints. A second call replaces the first.

    Call it after the imports: FastStream puts a handler of its own on its logger when it is imported, and on its
    broker's when that starts, unless the broker is given one (`KafkaBroker(..., logger=logging.getLogger("..."))`).
    """
    target = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    before_formatting: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_trace,
    ]
    structlog.configure(
        processors=[
            *before_formatting,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A cached logger would keep the level of the first call.
        cache_logger_on_first_use=False,
    )
    handler = _ServiceHandler(target)
    handler.addFilter(Repeats())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before_formatting, structlog.stdlib.ExtraAdder(allow=["left_out"])],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _adder_of(service),
                structlog.processors.format_exc_info,
                redact,
                _renderer(settings.log_format, target),
            ],
        )
    )
    _install(handler, level)


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for former in [known for known in root.handlers if isinstance(known, _ServiceHandler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))


def _renderer(log_format: LogFormat, target: TextIO) -> Processor:
    terminal = target.isatty()
    if log_format == "console" or (log_format == "auto" and terminal):
        return structlog.dev.ConsoleRenderer(
            colors=terminal, timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    return _render_json


def _adder_of(service: str) -> Processor:
    def add_service(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
        record["service"] = service
        return record

    return add_service


def _add_trace(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        record["trace_id"] = trace.format_trace_id(span.trace_id)
        record["span_id"] = trace.format_span_id(span.span_id)
    return record


_FIRST: Final = ("time", "level", "service", "event")


def _render_json(_logger: WrappedLogger, _method: str, record: EventDict) -> str:
    ordered = {name: record[name] for name in _FIRST if name in record}
    ordered.update(record)
    try:
        return msgspec.json.encode(ordered, enc_hook=str).decode()
    except UnicodeEncodeError:
        # Lone surrogates, from bytes that were no text: the standard library escapes them.
        return json.dumps(ordered, default=str, ensure_ascii=True)


def redact(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Replace what looks like a secret, by key and inside texts, at every depth; also bounds the record's size."""
    return {name: _clean_entry(name, value, 0) for name, value in record.items()}


def _clean_entry(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return _clean(value, depth)  # `signature_valid=False` or `tokens=3` tell, and give nothing away
    if _SECRET_KEY.search(name.replace("-", "_")):
        return REDACTED
    return _clean(value, depth)


def _clean(value: Any, depth: int) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping() | list() | tuple() | set() | frozenset():
            return _clean_nested(value, depth + 1)
        case _:
            return redact_text(_text_of(value))


def _text_of(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.decode(errors="backslashreplace")
        case date() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case _:
            return repr(value)


def _clean_nested(value: Any, depth: int) -> Any:
    if depth > NESTING_MAX:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _clean_entry(str(key), inner, depth) for key, inner in value.items()}
    return [_clean_pair(inner, depth) for inner in value]


def _clean_pair(value: Any, depth: int) -> Any:
    """Headers travel as (name, value) pairs: a secret's name redacts the value beside it."""
    match value:
        case (str() | bytes() as name, str() | bytes()) if isinstance(value, tuple):
            text = _text_of(name)
            return [text, _clean_entry(text, value[1], depth)]
        case _:
            return _clean(value, depth)


def redact_text(text: str) -> str:
    """`text` without `token=…`, `Authorization: …`, bearer tokens and passwords in URLs; cut when very long."""
    if len(text) > TEXT_CHARS_MAX:
        text = f"{text[:TEXT_CHARS_MAX]}… ({len(text) - TEXT_CHARS_MAX} more)"
    if not _may_hold_secret(text):
        return text
    text = _PASSWORD_IN_URL.sub(rf"\g<scheme>:{REDACTED}@", text)
    text = _SECRET_IN_TEXT.sub(rf"\g<key>\g<scheme>{REDACTED}", text)
    return _BEARER.sub(rf"\g<1> {REDACTED}", text)


_may_hold_secret: Final[Callable[[str], Any]] = re.compile(r"[=:]|bearer|basic", re.IGNORECASE).search
