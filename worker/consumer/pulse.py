"""Asks Redis every second, so that its silence and a job's cancellation are noticed.

An idle queue is asked for jobs as often, and its answers count.  While jobs run, nothing else
would ask for as long as a quarter of a lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

import bullmq
from redis.exceptions import RedisError, ResponseError

from worker.consumer.bull import BullWorker
from worker.consumer.cancellation import find_cancelled
from worker.consumer.running import RunningJob
from worker.consumer.said import said
from worker.errors import Cancelled
from worker.observability.logs import get_logger

if TYPE_CHECKING:
    from worker.settings import QueueSettings

log = get_logger("worker.consumer")

PULSE_S: Final = 1.0
"""Half of the 2 s within which a running job stops that was cancelled."""
PULSE_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 5.0
"""After so long without an answer the log says so."""
SAME_ERROR_EVERY_S: Final = 30.0


class Pulse:
    """Asks whether Redis is there, and which of the running jobs are cancelled.

    Args:
        settings: where the queue is.
        worker: whose connection is used, and told of each answer.
        jobs: those that are running, by BullMQ's id; looked at each time.
    """

    def __init__(
        self, settings: QueueSettings, worker: BullWorker, jobs: Mapping[str, RunningJob]
    ) -> None:
        self._where = (settings.prefix, settings.queue)
        self._worker = worker
        self._jobs = jobs

    @property
    def silence_s(self) -> float:
        """Seconds since the queue last answered."""
        return time.monotonic() - self._worker.answered_at

    async def find_cancelled(self, job_ids: Collection[str]) -> dict[str, Cancelled]:
        """Return those of `job_ids` that are cancelled.

        Raises:
            RedisError, OSError: Redis did not answer.
        """
        return await find_cancelled(self._worker.client, *self._where, job_ids)

    async def beat(self, on_error: Callable[[Exception], None]) -> None:
        """Ask until this task is cancelled; silence is logged once, and its end."""
        silent = False
        while True:
            await asyncio.sleep(PULSE_S)
            self._worker.line.poke()
            try:
                async with asyncio.timeout(PULSE_TIMEOUT_S):
                    await self._ask()
                self._worker.line.leave_if_silent(PULSE_TIMEOUT_S)
            except ResponseError as error:  # it is there, and refuses
                self._worker.note_round_trip()
                on_error(error)
            except (RedisError, OSError, TimeoutError) as error:
                if not silent and self.silence_s > SILENCE_S:
                    silent = True
                    log.warning("queue.silent", why=said(error))
            except Exception as error:  # noqa: BLE001 - the pulse must go on
                on_error(error)
            if silent and self.silence_s < PULSE_S:
                silent = False
                log.info("queue.answers_again")

    async def _ask(self) -> None:
        ids = {job.job_id for job in self._jobs.values() if job.job_id is not None}
        if ids:
            cancelled = await self.find_cancelled(ids)
            for job in self._jobs.values():
                if job.job_id is not None and job.job_id in cancelled:
                    job.take_back(cancelled[job.job_id])
        elif self.silence_s > PULSE_S:
            await self._worker.client.ping()
        else:
            return
        self._worker.note_round_trip()


class SeldomLogged:
    """Writes the package's errors to the log; one that repeats itself, twice a minute."""

    def __init__(self) -> None:
        self._last = ""
        self._at = 0.0

    def __call__(self, error: Exception, job: bullmq.Job | None = None) -> None:
        """Listen to the package's `error` event."""
        text, now = said(error), time.monotonic()
        if text != self._last or now - self._at > SAME_ERROR_EVERY_S:
            self._last, self._at = text, now
            log.warning("queue.error", why=text, queue_job_id=job.id if job else None)
