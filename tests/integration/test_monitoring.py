"""What is watched is what a worker really tells: names and labels of alerts and dashboard."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer

MONITORING = Path(__file__).resolve().parents[2] / "docker" / "monitoring"
OF_THE_SCRAPE = {"instance", "job"}
LABELS_ASKED = re.compile(
    r"by \(([^)]*)\)|(\w+)(?:=~|!~|!=|=)\"|\{\{\s*\$?(?:labels\.)?(\w+)\s*\}\}"
)


def queries_of_the_dashboard() -> Iterator[str]:
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield f"{target['expr']} {target['legendFormat']}"


def queries_of_the_alerts() -> Iterator[str]:
    text = (MONITORING / "alerts.yaml").read_text()
    yield from re.findall(r"expr: (?:\|\n)?(.+?)\n +(?:for|labels):", text, flags=re.DOTALL)


def labels_asked(query: str) -> set[str]:
    found = (name for groups in LABELS_ASKED.findall(query) for name in groups if name)
    return {name.strip() for names in found for name in names.split(",")}


async def test_every_metric_and_label_of_alerts_and_dashboard_is_one_that_a_worker_tells(
    start_worker: StartWorker, producer: Producer
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        await producer.settled(await producer.add(producer.payload("no-person")))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.http.port}") as client:
            text = (await client.get("/metrics")).text
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    queries = [*queries_of_the_dashboard(), *queries_of_the_alerts()]
    assert len(queries) > 20
    for query in queries:
        names = set(re.findall(r"\bavatar_\w+", query))
        assert names or "up{" in query, query
        assert names <= told.keys(), query
        known = set().union(*(told[name] for name in names), OF_THE_SCRAPE)
        assert labels_asked(query) <= known, query


def test_the_dashboard_is_the_one_that_its_program_writes() -> None:
    program = runpy.run_path(str(MONITORING / "dashboard.py"))
    assert (MONITORING / "dashboard.json").read_text() == program["text"]()
    places = [tuple(panel["gridPos"].values()) for panel in program["dashboard"]()["panels"]]
    assert len(set(places)) == len(places)
