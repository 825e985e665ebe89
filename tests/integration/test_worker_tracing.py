"""Spans reach a collector over OTLP and continue the trace that Node handed on with the job."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import NodeClient, StartWorker
from tests.producer import Producer

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes what an OpenTelemetry collector takes on /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> dict[str, Span]:
        """By name."""
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


async def test_a_job_that_node_added_is_one_trace_from_the_api_to_each_stage(
    node: NodeClient,
    producer: Producer,
    start_worker: StartWorker,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # OpenTelemetry reads its own variables from the process.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector")
    # 5.25.0 calls it telemetryMetadata.
    option = "telemetryMetadata" if node.flavour == "bullmq5min" else "telemetry"
    carrier = json.dumps({"traceparent": f"00-{TRACE}-{CALLER}-01"})
    value = carrier if option == "telemetryMetadata" else {"metadata": carrier}
    async with start_worker(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint):
        job_id = await node("add", producer.name, data=producer.payload(), opts={option: value})
        await node("wait", producer.name, id=job_id, ttlMs=15_000)
    spans = collector.spans()  # the last ones were sent when the worker ended
    whole = spans.pop("process avatar job")
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == CALLER
    assert spans
    assert {span.parent_span_id for span in spans.values()} == {whole.span_id}
    assert all(headers["authorization"] == "Bearer collector" for headers in collector.headers)
