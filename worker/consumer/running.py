"""The work on one job, and why it was aborted."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

from worker import tasks
from worker.errors import Cancelled


class Why(Enum):
    """Why work on a job was aborted; a later member overrules an earlier one."""

    CANCELLED = auto()
    """Somebody who may has taken the job back: it fails."""
    STOPPING = auto()
    """This worker stops: the job goes back to the head of the queue."""
    LOCK_LOST = auto()
    """Somebody else may have the job: it is left alone."""


class RunningJob:
    """The work on one job, and why it was aborted.

    Args:
        job_id: `data.jobId`; None when the data names none.
    """

    work: asyncio.Task[dict[str, Any]]

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self.why: Why | None = None
        self.taken_back: Cancelled | None = None
        self._is_committed = False

    def commit(self) -> None:
        """Note that the job can no longer be taken back: its result is about to be visible."""
        self._is_committed = True

    async def over(self) -> None:
        """Wait until the work has ended; its error stays in it, and nothing is raised.

        When whoever waits is cancelled, so is the work, because this worker stops.
        """
        try:
            # Not `asyncio.wait`: that is one turn of the event loop more for every job.
            await self.work
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if waiting is not None and waiting.cancelling():
                # It is heard: a task that stays marked cannot wait with a timeout (`tasks.py`).
                waiting.uncancel()
                if self._is_better(Why.STOPPING):
                    self.why = Why.STOPPING
        except Exception:  # noqa: BLE001, S110 - it is read where the job is settled
            pass

    def _is_better(self, why: Why) -> bool:
        return self.why is None or self.why.value < why.value

    def abort(self, why: Why) -> bool:
        """Cancel the work; whether it was not over, and not aborted for as good a reason, yet."""
        if not self._is_better(why) or not tasks.cancel(self.work):
            return False
        self.why = why
        return True

    def take_back(self, why: Cancelled) -> None:
        """Cancel the work because somebody who may has asked for it."""
        if self.taken_back is None and not self._is_committed:
            self.taken_back = why
            self.abort(Why.CANCELLED)

    @property
    def was_taken_back(self) -> bool:
        """Whether it ended because it was taken back, before it began or while it ran."""
        if self.taken_back is None:
            return False
        if self.work.cancelled():
            return self.why is Why.CANCELLED
        return self.work.exception() is self.taken_back
