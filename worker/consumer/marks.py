"""What the workers remember of a job between its attempts, in Redis beside the queue."""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import RedisError

from worker.consumer.keys import own_key
from worker.consumer.lease import Lease
from worker.consumer.said import unavailable

REMEMBERED_S: Final = 24 * 3600
"""Longer than any retry takes."""


class JobMarks:
    """Lease, kills and the wish for a fresh run, by `data.jobId`.

    Args:
        client: redis.asyncio client; not closed here.
        prefix: BullMQ's prefix.
        queue: the queue's name.
        holder: this worker's name in leases.
    """

    def __init__(self, client: Any, *, prefix: str, queue: str, holder: str) -> None:
        self._client = client
        self._where = (prefix, queue)
        self._holder = holder

    def lease(self, job_id: str) -> Lease:
        """Return the lease on a job, not yet taken."""
        return Lease(self._client, own_key(*self._where, "lease", job_id), holder=self._holder)

    async def note_kill(self, job_id: str) -> int:
        """Note that the job ended the process that computed it; return how often it did so.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        key = own_key(*self._where, "kills", job_id)
        try:
            kills = int(await self._client.incr(key))
            await self._client.expire(key, REMEMBERED_S)
        except (RedisError, OSError) as error:
            raise unavailable("The kill could not be noted", error) from None
        return kills

    async def wants_fresh(self, job_id: str) -> bool:
        """Whether somebody asked that the job be computed anew (`queue rerun --fresh`).

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        try:
            return bool(await self._client.exists(own_key(*self._where, "fresh", job_id)))
        except (RedisError, OSError) as error:
            raise unavailable("The wish for a fresh run could not be read", error) from None

    async def forget(self, job_id: str, mark: str) -> None:
        """Forget `kills` or `fresh`.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        try:
            await self._client.delete(own_key(*self._where, mark, job_id))
        except (RedisError, OSError) as error:
            raise unavailable(f"The mark {mark!r} could not be removed", error) from None
