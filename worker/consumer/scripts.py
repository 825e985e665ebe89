"""The bullmq package's scripts, with what Node's worker writes and the package's does not.

The two that every job needs go over a line of their own.  With `bull` and `locks` the only module
that reaches into the package; pinned by tests/contract.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import bullmq
import msgpack  # type: ignore[import-untyped]  # it has no types; bullmq brings it
from bullmq.redis_connection import RedisConnection, loadScript
from bullmq.scripts import Scripts, raw2NextJobData
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.consumer.line import Line
from worker.consumer.said import said
from worker.consumer.taking import with_cancellation
from worker.observability.logs import get_logger

log = get_logger("worker.consumer")

SETTLE_AGAIN_S: Final = 1.0
"""Between tries to settle a job while Redis does not answer."""

T = TypeVar("T")
_TAKEN_FROM: Final = "wait active prioritized events stalled limiter delayed paused meta pc"
"""Keys of moveToActive-11.lua and moveToFinished-14.lua, in their order; each has others behind."""


class LeaveAlone(Exception):
    """Raised when a job is elsewhere, or may be: it is neither completed nor failed."""


class BullScripts(Scripts):  # type: ignore[misc]  # the package has no types
    """The package's scripts, with what Node's worker writes and the package's does not.

    A job that is over is settled even if Redis goes away just then: the write is repeated for as
    long as the lock can last.  A write that was made, and whose answer was lost, is refused when
    it is repeated, because the lock is gone with it.

    Args:
        prefix: BullMQ's prefix.
        queue: the queue's name.
        connection: the package's.
        line: to the same Redis.
        lock_ms: how long a lock lasts.
    """

    def __init__(
        self,
        prefix: str,
        queue: str,
        connection: RedisConnection,
        line: Line,
        *,
        lock_ms: int,
    ) -> None:
        super().__init__(prefix, queue, connection)
        take, finish = (
            connection.conn.register_script(with_cancellation(loadScript(name), prefix, queue))
            for name in ("moveToActive-11.lua", "moveToFinished-14.lua")
        )
        self.commands = connection.commands | {
            "moveToActive": lambda keys, args: line.run(take, keys, args),
            "moveToFinished": lambda keys, args: line.run(finish, keys, args),
        }
        self._lock_s = lock_ms / 1000.0
        self._taken_from = self.getKeys(_TAKEN_FROM.split())
        self._completed_to = [self.toKey(n) for n in ("completed", "metrics:completed", "marker")]

    async def complete(
        self, job: bullmq.Job, value: Any, token: str, *, fetch: bool
    ) -> list[Any] | None:
        """Complete a job and, with `fetch`, take the next in the same step, as Node does.

        Returns:
            What `moveToActive` returns; None without `fetch`.

        Raises:
            LeaveAlone: it could not be written.
            TypeError, ValueError: `value` is not JSON; nothing was written.
        """
        keys, args = self.completion(job, value, token, fetch=fetch)
        answer: list[Any] | None = await self.moveToFinished(job.id, keys, args)
        return answer if fetch else None

    def completion(
        self, job: bullmq.Job, value: Any, token: str, *, fetch: bool
    ) -> tuple[list[str], list[Any]]:
        """Return what `moveToCompletedArgs` does, with the worker's name for the next job."""
        options = {
            "token": token,
            "keepJobs": _kept(job.opts.get("removeOnComplete")),
            "limiter": None,
            "lockDuration": job.queue.opts["lockDuration"],
            "attempts": job.attempts,
            "attemptsMade": job.attemptsMade,
            "maxMetricsSize": "",
            "fpof": job.opts.get("failParentOnFailure", False),
            "cpof": job.opts.get("continueParentOnFailure", False),
            "idof": job.opts.get("ignoreDependencyOnFailure", False),
            "rdof": job.opts.get("removeDependencyOnFailure", False),
            "name": job.queue.opts["name"],
        }
        completed, metrics, marker = self._completed_to
        keys = [*self._taken_from, completed, f"{self.keys['']}{job.id}", metrics, marker]
        args = [
            job.id,
            round(time.time() * 1000),
            "returnvalue",
            json.dumps(value, separators=(",", ":"), allow_nan=False),
            "completed",
            "1" if fetch else "",
            self.keys[""],
            msgpack.packb(options),
        ]
        return keys, args

    async def moveToActive(self, token: str, opts: dict[str, Any]) -> list[Any] | None:  # noqa: N802 - the package's name
        """Take the next job as Node's worker does: with its name, which becomes `processedBy`."""
        fields = {
            "token": token,
            "lockDuration": opts["lockDuration"],
            "limiter": None,
            "name": opts["name"],
        }
        raw = await self.commands["moveToActive"](
            keys=[*self._taken_from, self.keys["marker"]],
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


def _kept(remove: Any) -> dict[str, Any]:
    """Read `removeOnComplete` as the package does."""
    if isinstance(remove, dict):
        return remove
    if isinstance(remove, int) and not isinstance(remove, bool):
        return {"count": remove}
    return {"count": 0 if remove else -1}
