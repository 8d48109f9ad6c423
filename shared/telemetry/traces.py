"""Traces whose context travels in Kafka headers, from the request to the outgoing webhook.

A message carries `traceparent` only when its trace is sampled, so an unsampled record costs one look at an empty
list. Hot loops make one span per batch, linked to the sampled messages in it, and pass each message's own context on
with `forward_headers`: so one trace leads through all services, and no span is made per record.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from pydantic import AnyHttpUrl, SecretStr

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

Headers = Sequence[tuple[str, bytes | None]]
"""Headers as Kafka clients give them."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACEPARENT_BYTES_MAX: Final = 512
"""Version 00 has 55 bytes; later versions may append, but not without end."""

LINKS_PER_BATCH_MAX: Final = 32
"""A batch of thousands keeps its span small; the traces beyond still go on, without this link."""

EXPORT_QUEUE_SPANS_MAX: Final = 8_192
"""Spans waiting for a collector that is slow or away; more are dropped, never waited for."""
EXPORT_DELAY_MS: Final = 2_000
EXPORT_TIMEOUT_MS: Final = 5_000


class TraceSettings(Protocol):
    """The part of `ServiceSettings` that tracing needs."""

    @property
    def environment(self) -> str: ...
    @property
    def otel_endpoint(self) -> AnyHttpUrl | None: ...
    @property
    def otel_headers(self) -> SecretStr | None: ...
    @property
    def otel_sample_ratio(self) -> float: ...


class _Tracing:
    """What is configured in this process. OTel's own global can be set only once, which tests and demos cannot use."""

    provider: "TracerProvider | None" = None


def configure_tracing(
    service: str, settings: TraceSettings, exporter: "SpanExporter | None" = None
) -> Callable[[], None]:
    """Start tracing when a collector (or `exporter`) is given; returns what ends it and sends the rest.

    The returned function blocks up to `EXPORT_TIMEOUT_MS` while the collector is away. Nothing here raises when
    the collector cannot be reached.
    """
    if settings.otel_endpoint is None and exporter is None:
        return _stop
    # The SDK takes a while to import; a process without a collector does not need it.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {"service.name": f"tieout-{service}", "deployment.environment.name": settings.environment}
    )
    provider = TracerProvider(resource=resource, sampler=_sampler(settings.otel_sample_ratio), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter or _otlp_exporter(settings),
            max_queue_size=EXPORT_QUEUE_SPANS_MAX,
            schedule_delay_millis=EXPORT_DELAY_MS,
            export_timeout_millis=EXPORT_TIMEOUT_MS,
        )
    )
    _stop()
    _Tracing.provider = provider
    return _stop


def _stop() -> None:
    provider, _Tracing.provider = _Tracing.provider, None
    if provider is not None:
        provider.shutdown()


def _otlp_exporter(settings: TraceSettings) -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    endpoint = str(settings.otel_endpoint).rstrip("/")
    secret = settings.otel_headers
    return OTLPSpanExporter(
        endpoint=endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces",
        headers=_pairs(secret.get_secret_value()) if secret is not None else None,
        timeout=EXPORT_TIMEOUT_MS / 1000,
    )


def _pairs(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _sampler(ratio: float) -> "Sampler":
    """What came sampled stays sampled; a batch that links to a sampled message is sampled; the rest by `ratio`."""
    from opentelemetry.sdk.trace.sampling import (
        Decision,
        ParentBased,
        Sampler,
        SamplingResult,
        TraceIdRatioBased,
    )
    from opentelemetry.trace import TraceState
    from opentelemetry.util.types import Attributes

    by_ratio = TraceIdRatioBased(ratio)

    class LinkedOrRatio(Sampler):
        def should_sample(
            self,
            parent_context: Context | None,
            trace_id: int,
            name: str,
            kind: SpanKind | None = None,
            attributes: Attributes = None,
            links: Sequence[Link] | None = None,
            trace_state: TraceState | None = None,
        ) -> SamplingResult:
            if links and any(link.context.trace_flags.sampled for link in links):
                return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
            return by_ratio.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

        def get_description(self) -> str:
            return f"LinkedOrRatio{{{ratio}}}"

    return ParentBased(root=LinkedOrRatio())


@contextmanager
def span(
    name: str,
    *,
    parent: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] = (),
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Iterator[Span]:
    """A current span; without `parent` it is a child of the current one. Not for every record of a hot topic."""
    provider = _Tracing.provider
    if provider is None:
        yield trace.INVALID_SPAN
        return
    tracer = provider.get_tracer("tieout")
    with tracer.start_as_current_span(name, context=parent, kind=kind, links=links, attributes=attributes) as started:
        yield started


@contextmanager
def batch_span(
    name: str, batch: Iterable[Headers], attributes: Mapping[str, AttributeValue] | None = None
) -> Iterator[Span]:
    """One span for a batch of messages, linked to the sampled ones; costs nothing while tracing is off."""
    if _Tracing.provider is None:
        yield trace.INVALID_SPAN
        return
    with span(name, parent=Context(), kind=SpanKind.CONSUMER, links=links_of(batch), attributes=attributes) as started:
        yield started


def inject_headers() -> list[tuple[str, bytes]]:
    """Headers that carry the current span to Kafka; empty unless it is sampled."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid or not current.trace_flags.sampled:
        return []
    headers = [(TRACEPARENT, _traceparent(current).encode())]
    if current.trace_state:
        headers.append((TRACESTATE, current.trace_state.to_header().encode()))
    return headers


def inject_http_headers() -> dict[str, str]:
    """The same for an outgoing HTTP request."""
    return {name: value.decode() for name, value in inject_headers()}


def forward_headers(headers: Headers | None) -> list[tuple[str, bytes]]:
    """The context of one message, for what is produced because of it; empty unless that message is sampled.

    This is how a batch loop passes on the trace of a single record without making a span for it.
    """
    if not headers or _sampled_traceparent(headers) is None:
        return []
    return [(name, value) for name, value in headers if name in (TRACEPARENT, TRACESTATE) and value is not None]


def extract_context(headers: Headers | None) -> Context:
    """The context that a Kafka message carries; an empty one where it carries none, or a broken one."""
    if not headers:
        return Context()
    carrier = {
        name: value.decode(errors="replace")
        for name, value in headers
        if name in (TRACEPARENT, TRACESTATE) and value is not None and len(value) <= TRACEPARENT_BYTES_MAX
    }
    if TRACEPARENT not in carrier:
        return Context()
    return TraceContextTextMapPropagator().extract(carrier, Context())


def extract_http_context(headers: Mapping[str, str]) -> Context:
    """The context of an incoming request that we trust, such as one service's call to another."""
    found = headers.get(TRACEPARENT)
    return extract_context([(TRACEPARENT, found.encode())]) if found else Context()


def links_of(batch: Iterable[Headers | None]) -> list[Link]:
    """Links to the sampled messages of a batch, each trace position once, at most `LINKS_PER_BATCH_MAX`."""
    seen: dict[bytes, Link] = {}
    for headers in batch:
        if not headers:
            continue
        value = _sampled_traceparent(headers)
        if value is None or value in seen:
            continue
        linked = _span_context(value)
        if linked is None:
            continue
        seen[value] = Link(linked)
        if len(seen) >= LINKS_PER_BATCH_MAX:
            break
    return list(seen.values())


def _traceparent(context: SpanContext) -> str:
    trace_id, span_id = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return f"00-{trace_id}-{span_id}-{context.trace_flags:02x}"


_FLAGS: Final = slice(53, 55)
"""Where every version of `traceparent` has its flags."""


def _sampled_traceparent(headers: Headers) -> bytes | None:
    for name, value in headers:
        if name == TRACEPARENT:
            return value if value is not None and _is_sampled(value) else None
    return None


def _is_sampled(value: bytes) -> bool:
    try:
        return len(value) <= TRACEPARENT_BYTES_MAX and int(value[_FLAGS], 16) & TraceFlags.SAMPLED == 1
    except ValueError:
        return False


def _span_context(value: bytes) -> SpanContext | None:
    found = trace.get_current_span(extract_context([(TRACEPARENT, value)]))
    return found.get_span_context() if isinstance(found, NonRecordingSpan) and found is not trace.INVALID_SPAN else None
