"""When a process that works is replaced all the same: age, growth, lack of memory, a lost GPU.

The new process is loaded after the old one has gone, not before: two of them would need twice the
memory just when there is too little.  It costs the seconds of a start, between two jobs.
"""

from __future__ import annotations

from worker.engine.limits import EngineLimits
from worker.engine.messages import Beat, Built, Failed
from worker.errors import OutOfMemory

MIB = 1024**2


def is_out_of_memory(answer: Built | Failed) -> bool:
    """Whether a job ended because memory ran out."""
    return isinstance(answer, Failed) and answer.code == OutOfMemory.code


class Wear:
    """What one process has been through."""

    def __init__(self, limits: EngineLimits) -> None:
        self._limits = limits
        self._jobs = 0
        self._warm: Beat | None = None

    def after(self, answer: Built | Failed, memory: Beat) -> str | None:
        """Note a job that was answered; say why the process should not do another, if so.

        Args:
            answer: how the job ended, at lower cost if it ran out of memory before.
            memory: what the process held then.
        """
        self._jobs += 1
        if isinstance(answer, Failed) and answer.leaving:
            return "its CUDA context is lost"
        if is_out_of_memory(answer):
            return "it ran out of memory at lower cost too"
        if self._jobs >= self._limits.jobs_per_child:
            return f"it has done {self._jobs} jobs"
        if self._warm is not None:
            return self._growth_since(self._warm, memory)
        if isinstance(answer, Built):
            # Kernels and arenas come with the first avatar; only growth beyond them is a leak.
            self._warm = memory
        return None

    def _growth_since(self, warm: Beat, memory: Beat) -> str | None:
        grown = memory.rss_bytes - warm.rss_bytes
        if grown > self._limits.rss_growth_bytes:
            return f"its memory has grown by {grown / MIB:.0f} MiB"
        grown = memory.cuda_reserved_bytes - warm.cuda_reserved_bytes
        if grown > self._limits.cuda_growth_bytes:
            return f"its CUDA memory has grown by {grown / MIB:.0f} MiB"
        return None
