"""BullMQ's worker as this project uses it: the only module that reaches into the package.

What is reached into is pinned by tests/contract.  Five defaults of the package break production,
and each has its answer here: connections that notice death (`connection.py`), a processor from
which no CancelledError escapes, work in another process so that locks are always renewed, a ping
at start and `last_round_trip_s` after it, and the client name that Node looks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import bullmq
from bullmq.custom_errors import UnrecoverableError, WaitingChildrenError
from bullmq.redis_connection import RedisConnection, loadScript
from bullmq.scripts import Scripts

from worker.consumer.connection import client_name, connect
from worker.contract import failure_text
from worker.errors import AvatarError, EngineError, InputError, JobAborted
from worker.observability.logs import get_logger

if TYPE_CHECKING:
    from worker.settings import QueueSettings

log = get_logger("worker.consumer")

LOCK_MS: Final = 60_000
STALLED_INTERVAL_MS: Final = 15_000
MAX_STALLED_COUNT: Final = 3
RUN_RETRY_DELAY_MS: Final = 1_000
LONGEST_POLL_S: Final = 1.0
"""A blocking read for a job never lasts longer, so that stopping does not either."""
CLOSE_TIMEOUT_S: Final = 1.0
"""For one last word with a Redis that may not answer."""
BACKOFF: Final = {"type": "exponential", "delay": 2_000}
"""Between attempts, when the producer asked for none: 2 s, 4 s, 8 s, …"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt at one BullMQ job, as the rest of the worker sees it."""

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

    @property
    def is_last_attempt(self) -> bool:
        """Whether nobody will try again after this."""
        return self.attempt >= self.attempts


Handler = Callable[[Delivery], Awaitable[dict[str, Any]]]
"""Does the job and returns its return value; raises AvatarError."""
GaveUp = Callable[[Delivery, str], Awaitable[None]]
"""Told of a job that BullMQ fails without handing it over, and of the reason."""


class Consumer:
    """Takes jobs from the queue, one at a time, and settles each of them.

    Args:
        settings: where the queue is.
        handle: does a job.
        gave_up: told of jobs that stalled too often.
    """

    def __init__(self, settings: QueueSettings, handle: Handler, gave_up: GaveUp) -> None:
        self._settings = settings
        self._handle = handle
        self._gave_up = gave_up
        self._worker: _Worker | None = None
        self._run: asyncio.Task[None] | None = None
        self._jobs: dict[str, _RunningJob] = {}
        self._stopping = False

    # ------------------------------------------------------------ life
    async def start(self) -> asyncio.Task[None]:
        """Begin to take jobs; the task that is returned ends only when taking has ended."""
        self._worker = _Worker(self._settings, self._process, self._stalled_out)
        self._worker.on("error", _log_error)
        self._worker.on("lockRenewalFailed", self._lost_locks)
        # Until this was asked, the package rounds delays up to whole seconds.
        await self._worker.redisConnection.getRedisVersion()
        await self._worker.blockingRedisConnection.getRedisVersion()
        self._requeue_script = self._worker.client.register_script(
            loadScript("moveJobFromActiveToWait-9.lua")
        )
        self._run = asyncio.create_task(self._worker.run(), name="consumer")
        return self._run

    def open(self) -> None:
        """Take jobs."""
        if self._worker is not None:
            self._worker.may_take.set()
            self._worker.note_round_trip()

    def close_gate(self) -> None:
        """Take no further jobs until `open`."""
        if self._worker is not None and not self._stopping:
            self._worker.may_take.clear()

    @property
    def active_jobs(self) -> int:
        """How many jobs are being done."""
        return len(self._jobs)

    @property
    def is_taking(self) -> bool:
        """Whether the loop runs and the gate is open."""
        running = self._run is not None and not self._run.done()
        return running and self._worker is not None and self._worker.may_take.is_set()

    @property
    def last_round_trip_s(self) -> float:
        """Seconds since the queue last answered."""
        return time.monotonic() - self._worker.answered_at if self._worker else 0.0

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Take nothing more, settle what is running, close the connections.

        A job that is running may finish within `drain_s`; after that it is aborted and put back
        at the head of the queue, with its attempt unburned.
        """
        if self._worker is None or self._run is None:
            return
        self._stopping = True
        self._worker.closing = True
        self._worker.may_take.set()  # wakes whoever waits there, to find that all is over
        running = [job.work for job in self._jobs.values()]
        if running and drain_s > 0:
            log.info("consumer.draining", jobs=len(running), seconds=drain_s)
            await asyncio.wait(running, timeout=drain_s)
        settling = [asyncio.create_task(job.settled.wait()) for job in self._jobs.values()]
        for job in self._jobs.values():
            job.abort(requeue=True)
        await asyncio.wait({self._run, *settling}, timeout=LONGEST_POLL_S + 1.0)
        self._run.cancel()
        await asyncio.wait({self._run})
        with contextlib.suppress(Exception):
            # Forced: what is still there hangs on a Redis that does not answer.
            await asyncio.wait_for(self._worker.close(force=True), CLOSE_TIMEOUT_S)

    # ------------------------------------------------------------ one job
    async def _process(self, job: bullmq.Job, token: str) -> dict[str, Any]:
        """What BullMQ calls.  Never lets a CancelledError out: it would end the run loop."""
        _settle_retry_policy(job, self._settings.max_retries)
        running = _RunningJob(asyncio.ensure_future(self._handle(self._delivery(job))))
        self._jobs[job.id] = running
        try:
            if self._stopping:
                running.abort(requeue=True)
            await asyncio.wait({running.work})
        except asyncio.CancelledError:
            running.abort(requeue=True)
            await asyncio.wait({running.work})
        try:
            if running.aborted and running.work.cancelled():
                await self._give_back(job, token, requeue=running.requeue)
            return _outcome(running.work)
        finally:
            del self._jobs[job.id]
            running.settled.set()

    async def _give_back(self, job: bullmq.Job, token: str, *, requeue: bool) -> None:
        """Leave the job to others, and leave BullMQ nothing to settle.

        Raises:
            WaitingChildrenError: always; it is what makes BullMQ neither complete nor fail it.
        """
        if requeue and self._worker is not None:
            keys = self._worker.scripts.keys
            job_key = self._worker.scripts.toKey(job.id)
            names = "active wait stalled paused meta limiter prioritized marker events"
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    answer = await self._requeue_script(
                        keys=[keys[name] for name in names.split()], args=[job.id, token, job_key]
                    )
                if answer < 0:  # its key or its lock is gone: it is somebody else's already
                    log.warning("job.not_requeued", queue_job_id=job.id, answer=answer)
                else:
                    log.info("job.requeued", queue_job_id=job.id)
            except Exception as error:  # noqa: BLE001 - then it stalls, and is taken up again
                log.warning("job.requeue_failed", queue_job_id=job.id, why=repr(error))
        raise WaitingChildrenError

    def _delivery(self, job: bullmq.Job) -> Delivery:
        async def progress(percent: int) -> None:
            try:
                await job.updateProgress(percent)
            except Exception as error:  # noqa: BLE001 - nobody's work depends on it
                log.warning("progress.not_noted", percent=percent, why=repr(error))

        return Delivery(
            queue_job_id=job.id,
            data=job.data,
            attempt=job.attemptsMade + 1,
            attempts=job.opts["attempts"],
            starts=max(job.attemptsStarted, 1),
            queue_wait_s=max(0.0, time.time() - job.timestamp / 1000.0),
            progress=progress,
        )

    async def _stalled_out(self, job: bullmq.Job) -> None:
        await self._gave_up(self._delivery(job), str(job.deferredFailure))

    def _lost_locks(self, job_ids: list[str]) -> None:
        """Abort work on jobs whose lock somebody else may hold by now."""
        for job_id in job_ids:
            if job_id in self._jobs:
                log.error("job.lock_lost", queue_job_id=job_id)
                self._jobs[job_id].abort(requeue=False)


class _RunningJob:
    """The work on one job, and whether it was taken away."""

    def __init__(self, work: asyncio.Future[dict[str, Any]]) -> None:
        self.work = work
        self.aborted = False
        self.requeue = False
        self.settled = asyncio.Event()

    def abort(self, *, requeue: bool) -> None:
        """Cancel the work, unless it is done already."""
        if self.work.cancel():
            self.aborted, self.requeue = True, requeue


def _outcome(work: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    """Return the work's result, or raise what BullMQ makes the right thing of.

    Raises:
        UnrecoverableError: the job fails now, whatever attempts are left.
        AvatarError: the job is tried again while attempts are left.
    """
    if work.cancelled():
        raise JobAborted("The work was cancelled from inside.")
    error = work.exception()
    if error is None:
        return work.result()
    if not isinstance(error, AvatarError):
        log.error("job.unexpected", exc_info=error)
        error = EngineError(f"{type(error).__name__}: {error}")
    if isinstance(error, InputError) or not error.retryable:
        raise UnrecoverableError(failure_text(error)) from None
    raise error


def _settle_retry_policy(job: bullmq.Job, max_retries: int) -> None:
    """Give a job whose producer set no attempts MAX_RETRIES of them.

    Only this object is changed: the package decides about a retry from it, and every later
    attempt is given the same policy by the worker that takes it.
    """
    if not job.opts.get("attempts"):
        job.opts["attempts"] = max_retries
        if not job.opts.get("backoff"):
            job.opts["backoff"] = dict(BACKOFF)
    job.attempts = job.opts["attempts"]
    backoff = job.opts.get("backoff")
    if backoff and backoff.get("type") not in {"fixed", "exponential"}:
        # A strategy that lives in the producer's code.  Unknown here, it would leave the job
        # active for ever.
        job.opts["backoff"] = {**BACKOFF, "delay": backoff.get("delay") or BACKOFF["delay"]}


class _Worker(bullmq.Worker):  # type: ignore[misc]  # the package has no types
    """The package's worker with a gate, short polls, and connections of our making."""

    def __init__(
        self,
        settings: QueueSettings,
        processor: Callable[..., Awaitable[dict[str, Any]]],
        stalled_out: Callable[[bullmq.Job], Awaitable[None]],
    ) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        super().__init__(
            settings.queue,
            processor,
            {
                "connection": connect(settings),
                "prefix": settings.prefix,
                "name": name,
                "autorun": False,
                "concurrency": 1,
                "lockDuration": LOCK_MS,
                "stalledInterval": STALLED_INTERVAL_MS,
                "maxStalledCount": MAX_STALLED_COUNT,
                "runRetryDelay": RUN_RETRY_DELAY_MS,
            },
        )
        # Only the connection that waits for jobs carries the name: Node counts workers by it.
        self.blockingRedisConnection = RedisConnection(
            connect(settings, name=client_name(settings.prefix, settings.queue, name))
        )
        self.bclient = self.blockingRedisConnection.conn
        self._client_name_set = True
        self.scripts = _Scripts(settings.prefix, settings.queue, self.redisConnection)
        self._stalled_out = stalled_out
        self.may_take = asyncio.Event()
        self.answered_at = time.monotonic()
        self.on("locksRenewed", lambda _renewed: self.note_round_trip())

    def note_round_trip(self) -> None:
        """Note that Redis answered just now."""
        self.answered_at = time.monotonic()

    def getBlockTimeout(self, block_until: int) -> float:  # noqa: N802 - the package's name
        """Poll in short turns."""
        return min(float(super().getBlockTimeout(block_until)), LONGEST_POLL_S)

    async def moveToActive(self, token: str) -> bullmq.Job | None:  # noqa: N802 - same
        """Take the next job, when jobs may be taken."""
        await self.may_take.wait()
        if self.closing:
            return None
        job = await super().moveToActive(token)
        self.note_round_trip()
        return job

    async def processJob(self, job: bullmq.Job, token: str) -> None:  # noqa: N802 - same
        """Tell of a job that stalled too often before the package fails it."""
        if job.deferredFailure:
            with contextlib.suppress(Exception):
                _settle_retry_policy(job, 1)
                await self._stalled_out(job)
        await super().processJob(job, token)


class _Scripts(Scripts):  # type: ignore[misc]  # the package has no types
    """The package's scripts, with a failed job's reason stored as Node stores it."""

    def moveToFailedArgs(  # noqa: N802 - the package's name
        self, job: bullmq.Job, failed_reason: str, *more: Any, **named: Any
    ) -> tuple[list[str], list[Any]]:
        """Give the reason as plain text; the package gives it as JSON, in quotation marks."""
        keys, args = super().moveToFailedArgs(job, failed_reason, *more, **named)
        args[3] = failed_reason
        return keys, args


def _log_error(error: Exception, job: bullmq.Job | None = None) -> None:
    log.warning("queue.error", why=repr(error), queue_job_id=job.id if job else None)
