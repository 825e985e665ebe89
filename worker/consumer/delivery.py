"""One attempt at one job, as the rest of the worker sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from worker.errors import AvatarError


async def _say_nothing(_text: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt at one BullMQ job."""

    queue_job_id: str
    """BullMQ's id, which is not `data.jobId`."""
    data: Any
    attempt: int
    """1 for the first."""
    attempts: int
    """How many there may be in all."""
    starts: int
    """How often the job was handed to a worker, this time included; stalls and requeues count."""
    queue_wait_s: float
    progress: Callable[[int], Awaitable[None]] = field(repr=False)
    """Tells those who watch the queue; never raises."""
    note: Callable[[str], Awaitable[None]] = field(repr=False, default=_say_nothing)
    """Adds a line to the job's log, which Bull Board shows; never raises."""
    commit: Callable[[], None] = field(repr=False, default=lambda: None)
    """From here on the job is as good as finished: a cancellation comes too late."""
    trace: str | None = None
    """The producer's trace context, as its telemetry wrote it into `opts.tm`."""

    @property
    def is_last_attempt(self) -> bool:
        """Whether nobody will try again after this."""
        return self.attempt >= self.attempts


Handler = Callable[[Delivery], Awaitable[dict[str, Any]]]
"""Does the job and returns its return value.

Raises JobAborted to be asked again in a few seconds, no attempt burned; any other
AvatarError to fail this attempt, and with it the job when the error is not retryable.
"""
GaveUp = Callable[[Delivery, AvatarError], Awaitable[None]]
"""Told before BullMQ fails a job that the handler did not fail itself: stalled or cancelled.

When it raises, the job is left alone, stalls, and is told of again by whoever takes it up.
"""
