"""Trace context goes through Kafka headers, and costs nothing where nothing is sampled."""

import http.server
import threading
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import AnyHttpUrl, SecretStr

from shared.telemetry import traces
from shared.telemetry.traces import (
    LINKS_PER_BATCH_MAX,
    batch_span,
    configure_tracing,
    extract_context,
    extract_http_context,
    forward_headers,
    inject_headers,
    inject_http_headers,
    links_of,
    span,
)

SAMPLED = ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
UNSAMPLED = ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00")


def settings(ratio=1.0, endpoint=None, headers=None):
    return SimpleNamespace(environment="test", otel_endpoint=endpoint, otel_headers=headers, otel_sample_ratio=ratio)


@pytest.fixture
def traced():
    """Starts tracing into memory: `traced(ratio)` returns a function that ends it and gives the spans by name."""

    stops = []

    def start(ratio=1.0):
        exporter = InMemorySpanExporter()
        stop = configure_tracing("ingest", settings(ratio), exporter)
        stops.append(stop)

        def finished():
            traces._Tracing.provider.force_flush()
            return {done.name: done for done in exporter.get_finished_spans()}

        return finished

    yield start
    for stop in stops:
        stop()


def numbered(n, flags=b"01"):
    return [("traceparent", b"00-%032x-%016x-%s" % (n + 1, n + 1, flags))]


def position(headers):
    context = trace.get_current_span(extract_context(headers)).get_span_context()
    return context.trace_id, context.span_id


def test_context_survives_the_way_through_headers(traced):
    finished = traced()
    with span("request") as request:
        headers = inject_headers()
    with span("webhook", parent=extract_context(headers)):
        pass
    webhook = finished()["webhook"]
    assert [name for name, _ in headers] == ["traceparent"]
    assert (webhook.context.trace_id, webhook.parent.span_id) == (
        request.get_span_context().trace_id,
        request.get_span_context().span_id,
    )


def test_tracestate_travels_along():
    headers = [SAMPLED, ("tracestate", b"vendor=1")]
    with trace.use_span(trace.get_current_span(extract_context(headers))):
        assert inject_headers() == headers


def test_context_goes_out_with_an_http_request(traced):
    traced()
    with span("delivery"):
        headers = inject_http_headers()
        current = position(inject_headers())
        received = trace.get_current_span(extract_http_context(headers)).get_span_context()
        assert (received.trace_id, received.span_id) == current


def test_not_sampled_span_gives_no_headers(traced):
    traced(ratio=0.0)
    with span("request") as started:
        assert started.get_span_context().is_valid
        assert inject_headers() == []


def test_without_collector_nothing_is_traced():
    stop = configure_tracing("ingest", settings())
    with span("request"), batch_span("batch", [[SAMPLED]]) as started:
        assert (started, inject_headers(), inject_http_headers()) == (trace.INVALID_SPAN, [], {})
    stop()


def test_sampled_parent_is_followed_whatever_the_ratio(traced):
    finished = traced(ratio=0.0)
    with span("kept", parent=extract_context([SAMPLED])):
        pass
    with span("dropped", parent=extract_context([UNSAMPLED])):
        pass
    assert list(finished()) == ["kept"]


def test_batch_is_one_span_linked_to_its_sampled_messages_only(traced):
    finished = traced(ratio=0.0)
    batch = [(), numbered(1), numbered(2, b"00"), [("other", b"x")], numbered(3), numbered(1), None]
    with batch_span("normalise", batch, {"messages": 7}):
        pass
    normalise = finished()["normalise"]
    assert [link.context.span_id for link in normalise.links] == [2, 4]
    assert normalise.attributes == {"messages": 7}
    assert normalise.parent is None


def test_batch_without_a_sampled_message_follows_the_ratio(traced):
    finished = traced(ratio=0.0)
    with batch_span("normalise", [(), numbered(2, b"00")]):
        assert inject_headers() == []
    assert finished() == {}


def test_links_are_bounded():
    assert len(links_of(numbered(n) for n in range(LINKS_PER_BATCH_MAX * 3))) == LINKS_PER_BATCH_MAX


def test_message_passes_its_own_context_on_inside_a_batch():
    state = ("tracestate", b"vendor=1")
    assert forward_headers((("ce_id", b"1"), SAMPLED, state)) == [SAMPLED, state]


@pytest.mark.parametrize("headers", [None, (), [], [UNSAMPLED], [("ce_id", b"1")], [("traceparent", None)]])
def test_unsampled_message_passes_nothing_on(headers):
    assert forward_headers(headers) == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        b"\xff\xfe" * 30,
        b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"g" * 32 + b"-" + b"b" * 16 + b"-01",
        SAMPLED[1] + b"-" + b"x" * 600,
        None,
    ],
)
def test_broken_context_is_no_context(value):
    headers = [("traceparent", value)]
    assert (extract_context(headers), links_of([headers])) == (Context(), [])


def test_spans_reach_an_otlp_collector_with_its_token():
    received = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers["x-token"], ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = AnyHttpUrl(f"http://127.0.0.1:{server.server_port}")
        stop = configure_tracing("ingest", settings(1.0, endpoint, SecretStr("X-Token=abc==")))
        with span("request"):
            pass
        stop()
        server.shutdown()

    ((path, token, request),) = received
    resource = {a.key: a.value.string_value for a in request.resource_spans[0].resource.attributes}
    assert (path, token) == ("/v1/traces", "abc==")
    assert resource["service.name"] == "tieout-ingest"
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "request"
