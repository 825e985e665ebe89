"""The clocks of one child: its last sign of life, the running stage, the running job.

Pure bookkeeping on times that it is given, in seconds of one monotonic clock, so that it can be
tested without waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.engine.limits import EngineLimits
from worker.errors import AvatarError, EngineCrashed, EngineTimeout


@dataclass(slots=True)
class _Span:
    name: str
    since_s: float
    limit_s: float | None

    def is_over(self, now_s: float) -> bool:
        return self.limit_s is not None and now_s - self.since_s > self.limit_s


class Watch:
    """Says whether a child must be killed, and why.

    Ask it every `tick_s`.  A question that comes late means that *we* were not running: a stalled
    event loop, a frozen container.  The child's signs of life then lie unread in the pipe, or it
    was frozen too, so the time that was lost counts for nobody.
    """

    def __init__(self, limits: EngineLimits, now_s: float) -> None:
        self._limits = limits
        self._asked_s = now_s
        self._beat_s: float | None = None
        self._job: _Span | None = None
        self._stage: _Span | None = None
        shortest_s = min(limits.heartbeat_timeout_s, *limits.stage_timeout_s.values(), 4.0)
        self.tick_s = shortest_s / 4

    def beat(self, now_s: float) -> None:
        """Note a sign of life; the first one begins the watch over silence."""
        self._beat_s = now_s

    def silence_s(self, now_s: float) -> float:
        """Tell for how long there was no sign of life; 0 before the first."""
        return 0.0 if self._beat_s is None else now_s - self._beat_s

    def begin_job(self, timeout_s: float, now_s: float) -> None:
        """Begin the job's clock."""
        self._job = _Span("job", now_s, timeout_s)
        self._stage = None

    def enter(self, stage: str, now_s: float) -> None:
        """Note progress in a stage; a new stage's clock begins."""
        if self._job is not None and (self._stage is None or self._stage.name != stage):
            self._stage = _Span(stage, now_s, self._limits.stage_timeout_s.get(stage))

    def end_job(self) -> None:
        """Stop the clocks of job and stage."""
        self._job = self._stage = None

    def verdict(self, now_s: float) -> AvatarError | None:
        """Say why the child must be killed; None: it may go on."""
        self._forgive(now_s)
        if self._job is not None and self._job.is_over(now_s):
            where = f"; it was in stage {self._stage.name!r}" if self._stage else ""
            return EngineTimeout(f"The job took longer than {self._job.limit_s:g} s{where}.")
        if self._stage is not None and self._stage.is_over(now_s):
            return EngineTimeout(
                f"Stage {self._stage.name!r} took longer than {self._stage.limit_s:g} s."
            )
        if self.silence_s(now_s) > self._limits.heartbeat_timeout_s:
            return EngineCrashed(
                f"The engine process was silent for more than "
                f"{self._limits.heartbeat_timeout_s:g} s and was killed."
            )
        return None

    def _forgive(self, now_s: float) -> None:
        late_s = now_s - self._asked_s - self.tick_s
        self._asked_s = now_s
        if late_s <= self.tick_s:
            return
        for span in (self._job, self._stage):
            if span is not None:
                span.since_s += late_s
        if self._beat_s is not None:
            self._beat_s += late_s
