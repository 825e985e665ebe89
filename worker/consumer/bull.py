"""The bullmq package's worker, mended; with `scripts` and `locks` all that reaches into it.

What is reached into is pinned by tests/contract.  Defaults of the package that break production,
and their answers: connections that do not notice death (`connection`), a run loop that ends when
a CancelledError escapes a processor (`worker` lets none out), locks that go by the wall clock
(`locks`), names that Node does not find (`connection.client_name`, `processedBy`), a reason for
failure in quotation marks, and polls too long to stop in time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import bullmq
from bullmq.custom_errors import UnrecoverableError
from bullmq.redis_connection import RedisConnection, loadScript

from worker.consumer.connection import client_name, connect
from worker.consumer.line import Line
from worker.consumer.locks import LockKeeper
from worker.consumer.scripts import BullScripts, LeaveAlone
from worker.consumer.taking import CANCELLED
from worker.contract import failure_text
from worker.errors import AvatarError, InputError

if TYPE_CHECKING:
    from worker.settings import QueueSettings

LOCK_MS: Final = 60_000
STALLED_INTERVAL_MS: Final = 15_000
MAX_STALLED_COUNT: Final = 3
RUN_RETRY_DELAY_MS: Final = 1_000
LONGEST_POLL_S: Final = 1.0
"""A blocking read for a job never lasts longer, so that stopping does not either."""
RETURN_TIMEOUT_S: Final = 1.0
"""For giving back a job that came when no more were wanted."""

Processor = Callable[[bullmq.Job, str], Awaitable[dict[str, Any]]]
"""Does a job, given its token; raises what `failure` returns, or LeaveAlone."""


def failure(error: AvatarError) -> Exception:
    """Return what a processor raises for `error`: whether BullMQ tries again is its class's."""
    if error.retryable and not isinstance(error, InputError):
        return error
    final: Exception = UnrecoverableError(failure_text(error))
    return final


class BullWorker(bullmq.Worker):  # type: ignore[misc]  # the package has no types
    """The package's worker with slots, short polls, and connections and locks of our making.

    Args:
        settings: where the queue is.
        processor: does a job.
        stalled_out: called with a job that stalled too often, before it is failed; False leaves
            the job alone.
        concurrency: how many jobs at a time at most; `set_slots` says how many, at first none.
    """

    def __init__(
        self,
        settings: QueueSettings,
        processor: Processor,
        stalled_out: Callable[[bullmq.Job], Awaitable[bool]],
        *,
        concurrency: int = 1,
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
                "concurrency": concurrency,
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
        self.line = Line(self.client.connection_pool.make_connection())
        self.scripts = BullScripts(
            settings.prefix,
            settings.queue,
            self.redisConnection,
            self.line,
            lock_ms=self.opts["lockDuration"],
        )
        self.lockManager = LockKeeper(
            self,
            lock_renew_time=self.opts["lockRenewTime"],
            lock_duration=self.opts["lockDuration"],
            worker_id=self.id,
            worker_name=name,
        )
        self._put_back = self.client.register_script(loadScript("moveJobFromActiveToWait-9.lua"))
        self._stalled_out = stalled_out
        self._in_hand: dict[str, asyncio.Event] = {}
        self.slots = 0
        """How many jobs may be in hand at once; 0 takes none."""
        self._tokens: set[str] = set()
        self._numbers = itertools.count()
        self._room_changed = asyncio.Event()
        self.answered_at = time.monotonic()
        self.on("locksRenewed", lambda _renewed: self.note_round_trip())

    async def prepare(self) -> None:
        """Ask both connections for the server's version; without it, delays are whole seconds.

        Raises:
            RedisError, OSError: Redis did not answer.
        """
        await self.redisConnection.getRedisVersion()
        await self.blockingRedisConnection.getRedisVersion()
        self.note_round_trip()

    def set_slots(self, slots: int) -> None:
        """Take jobs while fewer than `slots` are in hand; those in hand are left alone."""
        self.slots = slots
        self._room_changed.set()

    def take_no_more(self) -> None:
        """Begin to close: nothing more is taken, and the loop ends with the last job."""
        self.closing = True
        self._room_changed.set()

    async def nothing_in_hand(self) -> None:
        """Wait until every job that was taken is settled, in Redis too."""
        while self._tokens:
            self._room_changed.clear()
            await self._room_changed.wait()

    def note_round_trip(self) -> None:
        """Note that Redis answered just now."""
        self.answered_at = time.monotonic()

    # ------------------------------------------------------------ a job goes elsewhere
    async def put_back(self, job: bullmq.Job, token: str) -> bool:
        """Put a job at the head of wait, or of those of its priority; its attempt is unburned.

        Returns:
            Whether it was ours to put back.

        Raises:
            RedisError, OSError: Redis did not answer.
        """
        names = "active wait stalled paused meta limiter prioritized marker events"
        keys = self.scripts.getKeys(names.split())
        answer = await self._put_back(keys=keys, args=[job.id, token, self.scripts.toKey(job.id)])
        return bool(answer >= 0)

    async def put_off(self, job: bullmq.Job, token: str, delay_ms: int) -> None:
        """Put a job aside for `delay_ms`; its attempt is unburned.

        Raises:
            TypeError: its lock is not ours (the package's way of saying so).
            RedisError, OSError: Redis did not answer.
        """
        now_ms = round(time.time() * 1000)
        await self.scripts.moveToDelayed(job.id, now_ms, delay_ms, token, {"skipAttempt": True})

    # ------------------------------------------------------------ what the package calls
    def getBlockTimeout(self, block_until: int) -> float:  # noqa: N802 - the package's name
        """Poll in short turns."""
        return min(float(super().getBlockTimeout(block_until)), LONGEST_POLL_S)

    async def moveToActive(self, token: str) -> bullmq.Job | None:  # noqa: N802 - same
        """Take the next job, when there is room for it."""
        # Closing, it waits for what is in hand: with the loop, the renewal of locks ends.
        while self._tokens if self.closing else len(self._tokens) >= self.slots:
            self._room_changed.clear()
            await self._room_changed.wait()
        if self.closing:
            return None
        # The package's loop gives one token to several questions (its closure binds late).
        token = f"{token}:{next(self._numbers)}"
        self._tokens.add(token)
        job = None
        try:
            asked_at = time.monotonic()
            answer = await self.scripts.moveToActive(token, self.opts)
            job = self._taken(answer, token, asked_at)
        finally:
            if job is None:
                self._give_room(token)
        return job

    def _give_room(self, token: str) -> None:
        self._tokens.discard(token)
        self._room_changed.set()

    def nextJobFromJobData(  # noqa: N802 - the package's name
        self, job_data: dict[str, Any] | None = None, *more: Any
    ) -> bullmq.Job | None:
        """Make a job of what Redis gave, and note whether it is cancelled."""
        job = super().nextJobFromJobData(job_data, *more)
        if job is not None and job_data is not None:
            job.cancelled = job_data.get(CANCELLED)
        return job

    async def processJob(self, job: bullmq.Job, token: str) -> None:  # noqa: N802 - same
        """Do a job, and go on with the one that came with the answer to its completion."""
        following: bullmq.Job | None = job
        try:
            while following is not None:
                following = await self._do(following, token)
                if following is not None and not self._may_go_on():
                    await self._return(following, token)
                    following = None
        finally:
            self._give_room(token)

    def _may_go_on(self) -> bool:
        """Whether whoever has done a job may take another."""
        return not self.closing and len(self._tokens) <= self.slots

    async def _return(self, job: bullmq.Job, token: str) -> None:
        """Give back a job that came when jobs were no longer taken."""
        try:
            async with asyncio.timeout(RETURN_TIMEOUT_S):
                await self.put_back(job, token)
        except Exception as error:  # noqa: BLE001 - then it stalls, and is taken up again
            self.emit("error", error, job)

    async def _do(self, job: bullmq.Job, token: str) -> bullmq.Job | None:
        """Do one job; return the one that was taken in the step that completed it."""
        while earlier := self._in_hand.get(job.id):
            # It stalled in our own hands.  The package knows jobs by their id alone: the end of
            # the work on the first would stop the renewal of the second's lock.
            self.emit("lockRenewalFailed", [job.id])
            await earlier.wait()
        self._in_hand[job.id] = over = asyncio.Event()
        try:
            self.lockManager.track_job(job.id, token, round(time.time() * 1000))
            return await self._settle(job, token)
        finally:
            self.lockManager.untrack_job(job.id)
            del self._in_hand[job.id]
            over.set()

    async def _settle(self, job: bullmq.Job, token: str) -> bullmq.Job | None:
        """Do what the package's `processJob` does; return the job that follows."""
        try:
            value = await self._attempt(job, token)
            if self.forceClosing:
                return None
            asked_at = time.monotonic()
            answer = await self.scripts.complete(job, value, token, fetch=self._may_go_on())
        except LeaveAlone:
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails the job
            try:
                if not self.forceClosing:
                    await job.moveToFailed(error, token)
            except Exception as trouble:  # noqa: BLE001 - then it stalls, and is taken up again
                self.emit("error", trouble, job)
            return None
        return self._taken(answer, token, asked_at)

    async def _attempt(self, job: bullmq.Job, token: str) -> Any:
        if not job.deferredFailure:
            return await self.processor(job, token)
        if await self._stalled_out(job):
            raise UnrecoverableError(job.deferredFailure)
        raise LeaveAlone

    def _taken(self, answer: list[Any] | None, token: str, asked_at: float) -> bullmq.Job | None:
        """Make a job of what Redis gave when it was asked to take one, if any."""
        self.note_round_trip()
        if answer is None:
            return None
        data, queue_job_id, limit_until, delay_until = answer
        job = self.nextJobFromJobData(data, queue_job_id, limit_until or 0, delay_until or 0, token)
        if job is not None:
            self.lockManager.taken_at[job.id] = asked_at
        return job

    async def close(self, force: bool = False) -> None:
        """Close the connections; without `force`, when the jobs in hand are settled."""
        try:
            await super().close(force)
        finally:
            await self.line.close()
