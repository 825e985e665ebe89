# ruff: noqa: INP001 - a program of this folder, in no package
"""Write dashboard.json for Grafana: `python docker/monitoring/dashboard.py`.

A row a question, in the order in which an operator asks them.  tests/integration/test_monitoring.py
holds the file against this program and every query against what a worker really tells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("dashboard.json")
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
COLUMNS: Final = 3
WIDTH: Final = 24 // COLUMNS
HEIGHT: Final = 7


@dataclass(frozen=True)
class Panel:
    """One graph: what it shows, in which unit, and its queries with their legends."""

    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]


BY_STAGE: Final = (
    "sum by (le, stage) (rate(avatar_job_stage_duration_seconds_bucket[$__rate_interval]))"
)
WAITS: Final = "sum by (le) (rate(avatar_job_queue_wait_seconds_bucket[$__rate_interval]))"
FAILED: Final = 'avatar_job_attempts_total{outcome="failed"}'
PANELS: Final = (
    Panel(
        "Workers that take jobs",
        "0: its /ready says why.",
        "none",
        (("avatar_worker_ready", "{{instance}}"),),
    ),
    Panel(
        "Jobs in hand",
        "Running jobs beside the engines that can run one.",
        "none",
        (
            ("sum(avatar_active_jobs)", "running"),
            ("sum(avatar_engines_usable)", "engines usable"),
            ("sum(avatar_engines)", "engines wanted"),
        ),
    ),
    Panel(
        "Which code runs",
        "One line a commit: two of them while an update is under way.",
        "none",
        (("sum by (version, commit) (avatar_worker_build_info)", "{{version}} {{commit}}"),),
    ),
    Panel(
        "Attempts per minute, by outcome",
        "An attempt, not a job: what was put back is counted again when it ends.",
        "none",
        (
            (
                "60 * sum by (outcome) (rate(avatar_job_attempts_total[$__rate_interval]))",
                "{{outcome}}",
            ),
        ),
    ),
    Panel(
        "Why attempts fail, per minute",
        "docs/reference/errors.md, by the code.",
        "none",
        (
            (
                f"60 * sum by (code) (rate({FAILED}[$__rate_interval]))",
                "{{code}}",
            ),
        ),
    ),
    Panel(
        "From added to begun",
        "What a person waits before anything happens; more pods shorten it.",
        "s",
        (
            (f"histogram_quantile(0.5, {WAITS})", "half"),
            (f"histogram_quantile(0.9, {WAITS})", "one in ten longer"),
        ),
    ),
    Panel(
        "Where the time goes, median of each stage",
        "Seconds that a stage of an attempt took.",
        "s",
        ((f"histogram_quantile(0.5, {BY_STAGE})", "{{stage}}"),),
    ),
    Panel(
        "Slowest tenth of each stage",
        "Seconds that one attempt in ten exceeds.",
        "s",
        ((f"histogram_quantile(0.9, {BY_STAGE})", "{{stage}}"),),
    ),
    Panel(
        "Memory of the engines",
        "Resident, and what torch holds on the GPU.",
        "bytes",
        (
            ("avatar_engine_resident_bytes", "{{instance}} engine {{engine}}, resident"),
            ("avatar_engine_cuda_reserved_bytes", "{{instance}} engine {{engine}}, GPU"),
        ),
    ),
    Panel(
        "Reports that the API does not have",
        "Waiting ones are tried again; parked ones want a person: avatar-worker queue.",
        "none",
        (
            ("max(avatar_reports_waiting)", "waiting"),
            ("max(avatar_reports_parked)", "parked"),
            (
                "60 * sum(rate(avatar_reports_retried_total[$__rate_interval]))",
                "retries per minute",
            ),
        ),
    ),
    Panel(
        "Redis",
        "Seconds since it answered; after 60 of them every lock is lost.",
        "s",
        (
            ("avatar_redis_silence_seconds", "{{instance}}, silent for"),
            ("sum(increase(avatar_job_locks_lost_total[$__rate_interval]))", "locks lost"),
        ),
    ),
    Panel(
        "Weights",
        "The last sync: fetched, of all that was missing.",
        "bytes",
        (
            ("avatar_weights_fetched_bytes", "{{instance}}, fetched"),
            ("avatar_weights_wanted_bytes", "{{instance}}, wanted"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "title": "avatar-worker",
        "uid": "avatar-worker",
        "tags": ["avatar-worker"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "title": panel.title,
        "description": panel.about,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": name,
            }
            for index, (query, name) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
