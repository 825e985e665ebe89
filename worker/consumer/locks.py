"""BullMQ's locks, renewed so that neither a slow Redis nor a wrong clock loses one unnoticed.

The package's loop goes by the wall clock, so that a clock that is set back by an hour stops
renewals for an hour; it asks once per quarter of the lock and says nothing when the question
fails.  This loop goes by the monotonic clock, asks again a second after a failure, and treats a
lock that was not confirmed for as long as it lasts as lost: by then somebody else may hold it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from bullmq.lock_manager import LockManager

from worker import tasks

TICK_S: Final = 0.5
RENEW_SHARE: Final = 0.25
"""A lock is renewed when this share of its life is over."""
RENEW_TIMEOUT_S: Final = 5.0
"""For one try; a connection that is dead is then left for a new one."""
RENEW_AGAIN_S: Final = 1.0
"""After a try that failed."""


class LockKeeper(LockManager):  # type: ignore[misc]  # the package has no types
    """Renews the locks of the jobs that are tracked; emits what the package's own emits.

    `locksRenewed` with `{"count", "jobIds"}`, `lockRenewalFailed` with the ids of jobs whose lock
    is, or must be taken to be, somebody else's, and `error`.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.taken_at: dict[str, float] = {}
        """Monotonic time at which Redis was asked for a job that is about to be tracked."""
        self._renewing: asyncio.Task[None] | None = None

    def track_job(
        self, job_id: str, token: str, ts: int, should_create_controller: bool = False
    ) -> Any:
        """Renew this job's lock from now on; see the package's own."""
        earlier = self.tracked_jobs.get(job_id, {})
        controller = super().track_job(job_id, token, ts, should_create_controller)
        if job_id in self.tracked_jobs:
            same = earlier.get("token") == token
            asked_at = earlier["renewed_at"] if same else self.taken_at.pop(job_id, None)
            self.tracked_jobs[job_id]["renewed_at"] = asked_at or time.monotonic()
        return controller

    async def close(self) -> None:
        """Stop renewing; nothing is released."""
        await tasks.end(self._renewing)
        await super().close()

    async def _renewal_loop(self) -> None:
        while not self.closed:
            await asyncio.sleep(TICK_S)
            self._drop_expired()
            due = self._older_than(self.lock_duration / 1000.0 * RENEW_SHARE)
            if due and (self._renewing is None or self._renewing.done()):
                self._renewing = asyncio.create_task(self._extend_locks(due), name="renew locks")

    def _older_than(self, age_s: float) -> list[str]:
        now = time.monotonic()
        return [
            job_id
            for job_id, tracked in self.tracked_jobs.items()
            if now - tracked["renewed_at"] >= age_s
        ]

    def _drop_expired(self) -> None:
        if expired := self._older_than(self.lock_duration / 1000.0):
            self._drop(expired)

    def _drop(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self.untrack_job(job_id)
        self.worker.emit("lockRenewalFailed", list(job_ids))

    async def _extend_locks(self, job_ids: list[str]) -> None:
        held = {job: self.tracked_jobs[job] for job in job_ids if job in self.tracked_jobs}
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(RENEW_TIMEOUT_S):
                failed = await self.worker.scripts.extendJobLocks(
                    list(held), [tracked["token"] for tracked in held.values()], self.lock_duration
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self.worker.emit("error", error)
            await asyncio.sleep(RENEW_AGAIN_S - TICK_S)
            return
        # What ended in the meantime, or was taken anew, is no longer what was asked about.
        ours = [job for job, tracked in held.items() if self.tracked_jobs.get(job) is tracked]
        lost = [job for job in ours if job in set(failed or ())]
        renewed = [job for job in ours if job not in lost]
        for job in renewed:
            self.tracked_jobs[job]["renewed_at"] = asked_at
        if renewed:
            self.worker.emit("locksRenewed", {"count": len(renewed), "jobIds": renewed})
        if lost:
            self._drop(lost)
