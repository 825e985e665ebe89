"""Spans continue the producer's trace, and cost nothing when nobody wants them."""

import json
import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.observability.tracing import Tracer, otlp_tracer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(carrier: str | None) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    tracer = Tracer(exporter)
    with tracer.job(carrier, job_id="j1"), tracer.stage("engine"):
        pass
    tracer._provider.force_flush()
    return exporter


def test_a_job_is_a_child_of_the_trace_that_added_it() -> None:
    stage, job = traced(json.dumps({"traceparent": PARENT})).get_finished_spans()
    assert job.name == "process avatar job"
    assert format(job.context.trace_id, "032x") == PARENT.split("-")[1]
    assert format(job.parent.span_id, "016x") == PARENT.split("-")[2]
    assert stage.parent.span_id == job.context.span_id
    assert job.attributes == {"avatar.job_id": "j1"}


@pytest.mark.parametrize("carrier", [None, "", "not json", "[1]", '{"traceparent": 5}'])
def test_an_unreadable_trace_starts_a_new_one(carrier: str | None) -> None:
    assert traced(carrier).get_finished_spans()[1].parent is None


def test_without_an_endpoint_opentelemetry_is_not_even_imported() -> None:
    code = (
        "import sys; from worker.observability.tracing import otlp_tracer\n"
        "tracer = otlp_tracer(None, version='1')\n"
        "with tracer.job('{}'), tracer.stage('x'): pass\n"
        "tracer.close(); assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_collector_that_is_down_does_not_hold_up_the_end() -> None:
    tracer = otlp_tracer("http://127.0.0.1:9", version="1")
    with tracer.job(None):
        pass
    began = time.monotonic()
    tracer.close()
    assert time.monotonic() - began < 2
