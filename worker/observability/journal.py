"""What this worker is doing and has lately done: for the status page and the metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

REMEMBERED: Final = 20
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)


@dataclass(slots=True)
class Attempt:
    """One attempt at one job."""

    job_id: str | None
    queue_job_id: str
    attempt: int
    began_at: float = field(default_factory=time.time)
    """Seconds since 1970."""
    began_s: float = field(default_factory=time.monotonic)
    percent: int = 0
    stage: str = ""
    outcome: str = "running"
    code: str | None = None
    reason: str | None = None
    total_s: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """As the status page reads it."""
        began = datetime.fromtimestamp(self.began_at, UTC).isoformat(timespec="seconds")
        seconds = time.monotonic() - self.began_s if self.total_s is None else self.total_s
        return {
            "jobId": self.job_id,
            "queueJobId": self.queue_job_id,
            "attempt": self.attempt,
            "beganAt": began,
            "seconds": round(seconds, 1),
            "percent": self.percent,
            "stage": self.stage,
            "outcome": self.outcome,
            "code": self.code,
            "reason": self.reason,
        }


class Journal:
    """Running attempts, the last twenty that ended, and the counters that they add up to.

    No metric is labelled by job: that would be one time series a job.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.running: list[Attempt] = []
        self.ended: deque[Attempt] = deque(maxlen=REMEMBERED)
        self._attempts = Counter(
            "avatar_job_attempts",
            "Attempts at jobs that ended here.",
            ["outcome", "code"],
            registry=self.registry,
        )
        self._stages = Histogram(
            "avatar_job_stage_duration_seconds",
            "Time that a stage of an attempt took.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waits = Histogram(
            "avatar_job_queue_wait_seconds",
            "From the moment a job was added until an attempt at it began.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    @contextmanager
    def attempt(
        self, job_id: str | None, queue_job_id: str, number: int, queue_wait_s: float
    ) -> Iterator[Attempt]:
        """Keep an attempt among the running ones while the block lasts."""
        attempt = Attempt(job_id=job_id, queue_job_id=queue_job_id, attempt=number)
        self._waits.observe(queue_wait_s)
        self.running.append(attempt)
        try:
            yield attempt
        finally:
            attempt.total_s = time.monotonic() - attempt.began_s
            self.running.remove(attempt)
            self.ended.appendleft(attempt)
            self._attempts.labels(attempt.outcome, attempt.code or "").inc()

    def stage_took(self, stage: str, seconds: float) -> None:
        """Count the time of a stage."""
        self._stages.labels(stage).observe(seconds)
