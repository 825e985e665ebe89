"""Spans for jobs, continuing the trace of whoever added them; off unless an endpoint is set.

BullMQ's telemetry hands the trace on as `opts.tm`: a JSON object of W3C headers (`traceparent`,
`tracestate`), as npm `bullmq-otel` writes it.  The worker's spans become its children, so that the
API's request, the wait in the queue and each stage here are one picture.

OpenTelemetry is imported only when an endpoint is set.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from worker.observability.logs import get_logger

log = get_logger("worker.tracing")

SERVICE = "avatar-worker"
FLUSH_S = 1.0
"""For the last spans on the way out; a collector that is down must not hold up the end."""


class Tracer:
    """Makes spans; without an exporter it makes none."""

    def __init__(self, exporter: Any = None, *, version: str = "") -> None:
        """Export to `exporter`, an `opentelemetry.sdk.trace.export.SpanExporter`."""
        self._provider: Any = None
        if exporter is None:
            return
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - only when asked for
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - same
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - same

        resource = Resource.create({"service.name": SERVICE, "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("worker")

    @contextmanager
    def job(self, carrier: str | None, **attributes: str | int) -> Iterator[None]:
        """Span one attempt at a job, as a child of the trace in `carrier` (`opts.tm`)."""
        if self._provider is None:
            yield
            return
        from opentelemetry.propagate import extract  # noqa: PLC0415 - only when asked for
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - same

        with self._tracer.start_as_current_span(
            "process avatar job",
            context=extract(_headers(carrier)),
            kind=SpanKind.CONSUMER,
            attributes={f"avatar.{name}": value for name, value in attributes.items()},
        ):
            yield

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Span one stage of the job whose span is current."""
        if self._provider is None:
            yield
            return
        with self._tracer.start_as_current_span(name):
            yield

    def close(self) -> None:
        """Send what is left; blocks for at most a second, whatever the collector does."""
        if self._provider is not None:
            # Its own timeouts add up to more than a pod has between SIGTERM and SIGKILL.
            last_words = threading.Thread(target=self._provider.shutdown, daemon=True)
            last_words.start()
            last_words.join(FLUSH_S)


def otlp_tracer(endpoint: str | None, *, version: str) -> Tracer:
    """Make a tracer that exports by OTLP over HTTP, or one that does nothing without `endpoint`.

    Headers, sampling and the rest follow OpenTelemetry's own variables (OTEL_*).
    """
    if endpoint is None:
        return Tracer()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - only when asked for
        OTLPSpanExporter,
    )

    return Tracer(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"), version=version)


def _headers(carrier: str | None) -> Mapping[str, str]:
    """Read `opts.tm`; anything else than a JSON object of strings starts a new trace."""
    if not carrier:
        return {}
    try:
        found = json.loads(carrier)
    except ValueError:
        log.warning("trace.unreadable", carrier=carrier[:200])
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}
