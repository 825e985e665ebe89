"""Takes jobs from the queue and settles each of them; what it does by hand, BullMQ cannot.

How an attempt ends:

    the handler returns             completed, with what it returned
    AvatarError, retryable          tried again while attempts are left
    AvatarError, not retryable      failed now, whatever attempts are left
    JobAborted                      put off for a few seconds, no attempt burned
    stopping (SIGTERM)              back at the head of wait, no attempt burned
    the lock is lost                aborted and left to its new owner
    cancelled, stalled too often    `gave_up` is told, then failed

BullMQ delivers at least once, and so does every line of this table.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import bullmq

from worker import tasks
from worker.consumer.bull import LOCK_MS as LOCK_MS  # noqa: PLC0414 - others read it here
from worker.consumer.bull import LONGEST_POLL_S, BullWorker, failure
from worker.consumer.cancellation import cancelled
from worker.consumer.delivery import Delivery as Delivery  # noqa: PLC0414 - same
from worker.consumer.delivery import GaveUp, Handler
from worker.consumer.pulse import Pulse, SeldomLogged
from worker.consumer.retries import named, settle_retry_policy
from worker.consumer.running import RunningJob, Why
from worker.consumer.said import said
from worker.consumer.scripts import LeaveAlone
from worker.contract import claimed_job_id
from worker.errors import AvatarError, EngineError, JobAborted
from worker.observability.logs import get_logger

if TYPE_CHECKING:
    from worker.settings import QueueSettings

log = get_logger("worker.consumer")

SETTLE_S: Final = LONGEST_POLL_S + 0.3
"""For the last poll and the last settling, when the worker stops."""
DISCONNECT_S: Final = 0.3
CLOSE_TIMEOUT_S: Final = 1.0
"""For one last word with a Redis that may not answer."""
HELD_DELAY_MS: Final = 5_000
"""How long a job is put off whose id another worker is busy with."""


class Consumer:
    """Takes jobs from the queue and settles each of them.

    Args:
        settings: where the queue is.
        handle: does a job.
        gave_up: told of jobs that the handler did not fail itself.
        concurrency: how many jobs at a time; one per GPU.
    """

    def __init__(
        self, settings: QueueSettings, handle: Handler, gave_up: GaveUp, *, concurrency: int = 1
    ) -> None:
        self._settings = settings
        self._handle = handle
        self._gave_up = gave_up
        self._concurrency = concurrency
        self._worker: BullWorker | None = None
        self._run: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None
        self._beating: asyncio.Task[None] | None = None
        self._jobs: dict[str, RunningJob] = {}
        self._stopping = False
        self._errors = SeldomLogged()
        self.locks_lost = 0
        """Of running jobs, because they could not be renewed in time."""

    # ------------------------------------------------------------ life
    async def start(self) -> asyncio.Task[None]:
        """Begin to take jobs, once `open`; the task returned ends only when taking has ended.

        Raises:
            RedisError, OSError: Redis did not answer.
        """
        worker = BullWorker(
            self._settings, self._process, self._stalled_out, concurrency=self._concurrency
        )
        worker.on("error", self._errors)
        worker.on("lockRenewalFailed", self._lost_locks)
        try:
            await worker.prepare()
        except BaseException:
            await worker.close(force=True)
            raise
        self._worker = worker
        self._pulse = Pulse(self._settings, worker, self._jobs)
        self._beating = asyncio.create_task(self._pulse.beat(self._errors), name="pulse")
        self._run = asyncio.create_task(worker.run(), name="consumer")
        return self._run

    def open(self, slots: int | None = None) -> None:
        """Take jobs.

        Args:
            slots: how many at a time, from now on: as many as engines are usable.  More than
                `concurrency` is that; None is `concurrency`.
        """
        if self._worker is not None and not self._stopping:
            self._worker.set_slots(self._concurrency if slots is None else slots)

    def close_gate(self) -> None:
        """Take no further jobs until `open`."""
        if self._worker is not None:
            self._worker.set_slots(0)

    @property
    def active_jobs(self) -> int:
        """How many jobs are being done."""
        return len(self._jobs)

    @property
    def is_taking(self) -> bool:
        """Whether the loop runs and the gate is open."""
        running = self._run is not None and not self._run.done()
        return running and self._worker is not None and self._worker.slots > 0

    @property
    def last_round_trip_s(self) -> float:
        """Seconds since the queue last answered; asked every second, busy or idle."""
        return self._pulse.silence_s if self._pulse else 0.0

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Take nothing more, settle what is running, close the connections.

        A job that is running may finish within `drain_s`; after that it is aborted and put back
        at the head of the queue, with its attempt unburned.
        """
        if self._worker is None or self._run is None:
            return
        self._stopping = True
        # Not yet closing: the package's loop would end, and the renewal of locks with it.
        self._worker.set_slots(0)
        running = [job.work for job in self._jobs.values()]
        if running and drain_s > 0:
            log.info("consumer.draining", jobs=len(running), seconds=drain_s)
            await asyncio.wait(running, timeout=drain_s)
        self._worker.take_no_more()
        for job in self._jobs.values():
            job.abort(Why.STOPPING)
        settling = asyncio.create_task(self._worker.nothing_in_hand(), name="settling")
        await asyncio.wait({self._run, settling}, timeout=SETTLE_S)
        await tasks.end(self._run, self._beating, settling)
        with contextlib.suppress(Exception):
            # Forced: what is still there hangs on a Redis that does not answer.
            async with asyncio.timeout(DISCONNECT_S):
                await self._worker.close(force=True)

    # ------------------------------------------------------------ one job
    async def _process(self, job: bullmq.Job, token: str) -> dict[str, Any]:
        """What BullMQ calls.  Never lets a CancelledError out: it would end the run loop."""
        settle_retry_policy(job, self._settings.max_retries)
        running = RunningJob(claimed_job_id(job.data))
        delivery = self._delivery(job, commit=running.commit)
        if job.cancelled is not None:
            running.taken_back = cancelled(job.cancelled)
        running.work = asyncio.create_task(self._work(delivery, running), name=f"job {job.id}")
        self._jobs[job.id] = running
        try:
            if self._stopping:
                running.abort(Why.STOPPING)
            await running.over()
            return await self._settle(job, token, delivery, running)
        finally:
            del self._jobs[job.id]

    async def _work(self, delivery: Delivery, running: RunningJob) -> dict[str, Any]:
        """Do the job, unless it is cancelled already."""
        if running.taken_back is not None:
            raise running.taken_back
        return await self._handle(delivery)

    async def _settle(
        self, job: bullmq.Job, token: str, delivery: Delivery, running: RunningJob
    ) -> dict[str, Any]:
        """Return the work's result, or raise what BullMQ makes the right thing of."""
        if running.was_taken_back and running.taken_back is not None:
            log.info("job.cancelled", queue_job_id=job.id, why=running.taken_back.message)
            if not await self._tell(delivery, running.taken_back):
                raise LeaveAlone
            raise failure(running.taken_back)
        if running.work.cancelled():
            if running.why is Why.STOPPING:
                await self._put_back(job, token)
            if running.why is not None:
                raise LeaveAlone
            raise failure(EngineError("The work was cancelled from inside."))
        error = running.work.exception()
        if error is None:
            return running.work.result()
        if isinstance(error, JobAborted):
            await self._put_off(job, token, error)
            raise LeaveAlone
        raise failure(named(error)) from None

    async def _put_back(self, job: bullmq.Job, token: str) -> None:
        assert self._worker is not None  # noqa: S101 - it called us
        with self._or_left_to_stall("job.requeue_failed", job):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                was_ours = await self._worker.put_back(job, token)
            log.info("job.requeued" if was_ours else "job.not_requeued", queue_job_id=job.id)

    async def _put_off(self, job: bullmq.Job, token: str, error: AvatarError) -> None:
        assert self._worker is not None  # noqa: S101 - it called us
        with self._or_left_to_stall("job.put_off_failed", job):
            await self._worker.put_off(job, token, HELD_DELAY_MS)
            log.info("job.put_off", queue_job_id=job.id, why=error.message, delay_ms=HELD_DELAY_MS)

    @staticmethod
    @contextlib.contextmanager
    def _or_left_to_stall(event: str, job: bullmq.Job) -> Any:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - then it stalls, and is taken up again
            log.warning(event, queue_job_id=job.id, why=said(error))

    # ------------------------------------------------------------ what others are told
    def _delivery(self, job: bullmq.Job, *, commit: Callable[[], None] = lambda: None) -> Delivery:
        async def quietly(telling: Awaitable[object], event: str) -> None:
            try:
                await telling
            except Exception as error:  # noqa: BLE001 - nobody's work depends on it
                log.warning(event, queue_job_id=job.id, why=said(error))

        trace = job.opts.get("tm")
        return Delivery(
            queue_job_id=job.id,
            data=job.data,
            attempt=job.attemptsMade + 1,
            attempts=job.opts["attempts"],
            starts=max(job.attemptsStarted, 1),
            queue_wait_s=max(0.0, time.time() - job.timestamp / 1000.0),
            progress=lambda percent: quietly(job.updateProgress(percent), "progress.not_noted"),
            note=lambda text: quietly(job.log(text), "note.not_noted"),
            commit=commit,
            trace=trace if isinstance(trace, str) else None,
        )

    async def _stalled_out(self, job: bullmq.Job) -> bool:
        settle_retry_policy(job, self._settings.max_retries)
        return await self._tell(self._delivery(job), EngineError(str(job.deferredFailure)))

    async def _tell(self, delivery: Delivery, error: AvatarError) -> bool:
        """Call `gave_up`; whether it took note, so that the job may be failed."""
        telling = asyncio.ensure_future(self._gave_up(delivery, error))
        try:
            await asyncio.wait({telling})
        except asyncio.CancelledError:
            telling.cancel()
            return False
        if telling.cancelled() or telling.exception() is not None:
            trouble = None if telling.cancelled() else telling.exception()
            log.error("gave_up.failed", queue_job_id=delivery.queue_job_id, exc_info=trouble)
            return False
        return True

    # ------------------------------------------------------------ what comes from outside
    def _lost_locks(self, job_ids: list[str]) -> None:
        """Abort work on jobs whose lock somebody else may hold by now."""
        for job_id in job_ids:
            if job_id in self._jobs and self._jobs[job_id].abort(Why.LOCK_LOST):
                self.locks_lost += 1
                log.error("job.lock_lost", queue_job_id=job_id)
