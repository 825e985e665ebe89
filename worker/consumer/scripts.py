"""The bullmq package's scripts, with what Node's worker writes and the package's does not.

With `bull` and `locks` the only module that reaches into the package; pinned by tests/contract.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import bullmq
import msgpack  # type: ignore[import-untyped]  # it has no types; bullmq brings it
from bullmq.custom_errors import WaitingChildrenError
from bullmq.redis_connection import RedisConnection, loadScript
from bullmq.scripts import Scripts, raw2NextJobData
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.consumer.said import said
from worker.consumer.taking import Together, with_cancellation
from worker.observability.logs import get_logger

log = get_logger("worker.consumer")

SETTLE_AGAIN_S: Final = 1.0
"""Between tries to settle a job while Redis does not answer."""

LeaveAlone = WaitingChildrenError
"""Raised by a processor whose job has been put elsewhere: BullMQ neither completes nor fails it."""

T = TypeVar("T")
_FINISH_OPTIONS: Final = 7
"""Where moveToFinished-14.lua has its packed options: ARGV[8]."""


class BullScripts(Scripts):  # type: ignore[misc]  # the package has no types
    """The package's scripts, with what Node's worker writes and the package's does not.

    A job that is over is settled even if Redis goes away just then: the write is repeated for as
    long as the lock can last.  A write that was made, and whose answer was lost, is refused when
    it is repeated, because the lock is gone with it.

    Args:
        prefix: BullMQ's prefix.
        queue: the queue's name.
        connection: the package's.
        lock_ms: how long a lock lasts.
        may_fetch: whether the next job may be taken with the completion of one.

    Attributes:
        fetched: by the job that was completed: when the next one was asked for, and the answer.
    """

    def __init__(
        self,
        prefix: str,
        queue: str,
        connection: RedisConnection,
        *,
        lock_ms: int,
        may_fetch: Callable[[], bool],
    ) -> None:
        super().__init__(prefix, queue, connection)
        take, finish = (
            connection.conn.register_script(with_cancellation(loadScript(name), prefix, queue))
            for name in ("moveToActive-11.lua", "moveToFinished-14.lua")
        )
        together = Together(connection.conn)
        self.commands = connection.commands | {
            "moveToActive": take,
            "moveToFinished": lambda keys, args: together.run(finish, keys, args),
        }
        self._lock_s = lock_ms / 1000.0
        self._may_fetch = may_fetch
        self.fetched: dict[str, tuple[float, list[Any] | None]] = {}

    async def moveToCompleted(  # noqa: N802 - the package's name
        self, job: bullmq.Job, value: Any, remove: Any, token: str, **_: Any
    ) -> None:
        """Complete a job and, when there is room, take the next in the same step, as Node does."""
        fetch = self._may_fetch()
        asked_at = time.monotonic()
        keys, args = self.moveToCompletedArgs(job, value, remove, token, fetch)
        answer = await self.moveToFinished(job.id, keys, args)
        if fetch:
            self.fetched[job.id] = asked_at, answer

    def moveToFinishedArgs(  # noqa: N802 - same
        self, job: bullmq.Job, *more: Any, **named: Any
    ) -> tuple[list[str], list[Any]]:
        """Give the worker's name, for the job that may be taken in the same step."""
        keys, args = super().moveToFinishedArgs(job, *more, **named)
        options = msgpack.unpackb(args[_FINISH_OPTIONS]) | {"name": job.queue.opts["name"]}
        args[_FINISH_OPTIONS] = msgpack.packb(options)
        return keys, args

    async def moveToActive(self, token: str, opts: dict[str, Any]) -> list[Any] | None:  # noqa: N802 - the package's name
        """Take the next job as Node's worker does: with its name, which becomes `processedBy`."""
        names = "wait active prioritized events stalled limiter delayed paused meta pc marker"
        fields = {
            "token": token,
            "lockDuration": opts["lockDuration"],
            "limiter": None,
            "name": opts["name"],
        }
        raw = await self.commands["moveToActive"](
            keys=self.getKeys(names.split()),
            args=[self.keys[""], round(time.time() * 1000), msgpack.packb(fields)],
        )
        found: list[Any] | None = raw2NextJobData(raw)
        return found

    async def moveToFinished(self, job_id: str, keys: list[str], args: list[Any]) -> Any:  # noqa: N802 - same
        """Complete or fail a job.

        Raises:
            LeaveAlone: it is over and could not be written.  The package would take that for a
                failure of the job, and run a finished job again.
        """
        try:
            return await self._insist(
                lambda: super(BullScripts, self).moveToFinished(job_id, keys, args)
            )
        except Exception as error:
            log.warning("job.not_settled", queue_job_id=job_id, why=said(error))
            raise LeaveAlone from error

    async def moveToDelayed(self, *args: Any) -> Any:  # noqa: N802 - the package's name
        """Put a job aside."""
        return await self._insist(lambda: super(BullScripts, self).moveToDelayed(*args))

    async def retryJob(self, *args: Any) -> Any:  # noqa: N802 - the package's name
        """Put a job at the end of wait."""
        return await self._insist(lambda: super(BullScripts, self).retryJob(*args))

    def moveToFailedArgs(  # noqa: N802 - the package's name
        self, job: bullmq.Job, failed_reason: str, *more: Any, **named: Any
    ) -> tuple[list[str], list[Any]]:
        """Give the reason as plain text; the package gives it as JSON, in quotation marks."""
        keys, args = super().moveToFailedArgs(job, failed_reason, *more, **named)
        args[3] = failed_reason
        return keys, args

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write that Redis did not answer, for as long as a lock lasts."""
        deadline = time.monotonic() + self._lock_s
        while True:
            try:
                return await write()
            except (RedisConnectionError, RedisTimeoutError, OSError):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(SETTLE_AGAIN_S)
