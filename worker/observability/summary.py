"""One line per attempt at a job that says all that one would ask about it first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from worker.errors import AvatarError
from worker.observability.journal import Attempt, Journal
from worker.observability.logs import get_logger
from worker.observability.tracing import Tracer

log = get_logger("worker.job")


@dataclass(slots=True)
class JobSummary:
    """Collects what one attempt did, and writes it as one line."""

    attempt: int
    """1 for the first."""
    queue_wait_s: float
    """From the moment the producer added the job until this attempt began."""
    outcome: str = "unknown"
    code: str | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    entry: Attempt | None = field(default=None, repr=False)
    """The same attempt on the status page."""
    journal: Journal | None = field(default=None, repr=False)
    tracer: Tracer = field(default_factory=Tracer, repr=False)
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Bind the stage to every line inside the block, time it, and make a span of it."""
        began = time.monotonic()
        if self.entry is not None:
            self.entry.stage = name
        with structlog.contextvars.bound_contextvars(stage=name), self.tracer.stage(name):
            try:
                yield
            finally:
                spent = time.monotonic() - began
                self._took(name, spent)

    def entered(self, stage: str) -> None:
        """Show on the status page which of the pipeline's own stages runs."""
        if self.entry is not None:
            self.entry.stage = f"engine.{stage}"

    def engine(self, stage_seconds: Mapping[str, float]) -> None:
        """Note the times of the pipeline's own stages."""
        for name, spent in stage_seconds.items():
            self._took(f"engine.{name}", spent)

    @property
    def percent(self) -> int:
        """How far the attempt is."""
        return self.entry.percent if self.entry is not None else 0

    @percent.setter
    def percent(self, value: int) -> None:
        if self.entry is not None:
            self.entry.percent = value

    def _took(self, name: str, spent: float) -> None:
        self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + spent
        if self.journal is not None:
            self.journal.stage_took(name, spent)

    def failed(self, outcome: str, error: AvatarError) -> None:
        """Note how the attempt ended and why."""
        self.outcome = outcome
        self.code = error.code
        self.facts["reason"] = error.message

    def write(self) -> None:
        """Write the line, and the entry of the status page."""
        if self.entry is not None:
            self.entry.outcome, self.entry.code = self.outcome, self.code
            self.entry.reason = str(self.facts["reason"]) if "reason" in self.facts else None
        log.info(
            "job",
            outcome=self.outcome,
            code=self.code,
            attempt=self.attempt,
            queue_wait_s=round(self.queue_wait_s, 3),
            total_s=round(time.monotonic() - self._began, 3),
            stages_s={name: round(spent, 3) for name, spent in self.stage_seconds.items()},
            **self.facts,
        )
