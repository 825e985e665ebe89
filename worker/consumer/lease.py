"""A lease in Redis on `data.jobId`: who holds it is the only one who writes that job's results.

BullMQ's lock is on BullMQ's job, and two of those can carry one `data.jobId`; a lock can also be
lost to a stall while its first holder still computes.  The lease is asked again before every
write (`check`), and scripts that write to Redis compare it in the same step (`guard`).

What it cannot do: stop a request that is already on its way to MinIO.  Whoever publishes looks at
the stored files once more after the marker, and whoever finds a marker verifies them.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from types import TracebackType
from typing import Any, Final, Self

from redis.exceptions import RedisError

from worker import tasks
from worker.consumer.said import said, unavailable
from worker.errors import JobHeldElsewhere
from worker.observability.logs import get_logger

log = get_logger("worker.consumer")

LEASE_MS: Final = 45_000
"""Shorter than BullMQ's lock, so that whoever takes up a stalled job finds the lease free."""
RENEW_EVERY_S: Final = 5.0
RELEASE_TIMEOUT_S: Final = 1.0

_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Lease:
    """The lease, held while its block lasts.

    When it is lost, the task that entered the block is cancelled, and the block raises
    JobHeldElsewhere.

    Args:
        client: redis.asyncio client; not closed here.
        key: the lease's key; `worker.consumer.keys.own_key(..., "lease", job_id)`.
        holder: who to name in logs; a random part is added.
        lease_ms: how long it lasts without a renewal.
        renew_every_s: how often it is renewed.
    """

    def __init__(
        self,
        client: Any,
        key: str,
        *,
        holder: str,
        lease_ms: int | None = None,
        renew_every_s: float | None = None,
    ) -> None:
        self._client = client
        self._key = key
        self._owner = f"{holder}:{uuid.uuid4().hex[:12]}"
        self._lease_ms = lease_ms or LEASE_MS
        self._renew_every_s = renew_every_s or RENEW_EVERY_S
        self._good_until = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._cancellations = 0
        self.lost = False

    @property
    def guard(self) -> tuple[str, str]:
        """Key and value that a script compares before it writes."""
        return self._key, self._owner

    async def __aenter__(self) -> Self:
        """Take the lease.

        Raises:
            JobHeldElsewhere: another holds it.
            QueueUnavailable: Redis did not answer.
        """
        asked_at = time.monotonic()
        try:
            taken = await self._client.set(self._key, self._owner, nx=True, px=self._lease_ms)
            if not taken:
                # Ours after all, when the answer to a first try was lost on the way.
                taken = await self._client.get(self._key) == self._owner
        except (RedisError, OSError) as error:
            raise unavailable("The lease could not be taken", error) from None
        except asyncio.CancelledError:
            # Redis may have given it to us all the same.
            await tasks.to_the_end(self._release())
            raise
        if not taken:
            raise JobHeldElsewhere
        self._good_until = asked_at + self._lease_ms / 1000.0
        self._task = asyncio.current_task()
        self._keeper = asyncio.create_task(self._keep(), name="lease")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back; turn the cancellation of a lost one into its error."""
        if self._keeper is not None:
            tasks.cancel(self._keeper)
        if not self.lost:
            self._task = None
            await tasks.to_the_end(self._release())
            return
        # As `asyncio.timeout` does it: was it only we who asked for the cancellation?
        for _ in range(self._cancellations):
            left = self._task.uncancel() if self._task is not None else 0
        self._task = None
        ours = self._cancellations > 0 and left == 0
        if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise JobHeldElsewhere from error

    async def check(self) -> None:
        """Make sure that the lease is still held, by asking Redis.

        Raises:
            JobHeldElsewhere: it is not, or Redis did not say so in the time that was left.
        """
        try:
            async with asyncio.timeout(max(self._good_until - time.monotonic(), 0.0)):
                if await self._renew():
                    return
        except (RedisError, OSError, TimeoutError):
            # Unknown is not held: another may have it by the time Redis is back.
            raise JobHeldElsewhere("The lease could not be confirmed.") from None
        raise JobHeldElsewhere

    async def _renew(self) -> bool:
        asked_at = time.monotonic()
        held = await self._client.eval(_RENEW, 1, self._key, self._owner, self._lease_ms)
        if held:
            self._good_until = max(self._good_until, asked_at + self._lease_ms / 1000.0)
        return bool(held)

    async def _keep(self) -> None:
        """Renew until it is lost: taken by another, or not confirmed until it has run out."""
        while True:
            left_s = self._good_until - time.monotonic()
            await asyncio.sleep(max(0.0, min(self._renew_every_s, left_s)))
            try:
                async with asyncio.timeout(max(self._good_until - time.monotonic(), 0.0)):
                    if await self._renew():
                        continue
                log.error("lease.lost", key=self._key)
                break
            except (RedisError, OSError, TimeoutError) as error:
                if time.monotonic() >= self._good_until:
                    log.error("lease.expired", key=self._key, why=said(error))  # noqa: TRY400 - no trace needed
                    break
                await asyncio.sleep(min(1.0, self._renew_every_s))
        self.lost = True
        while self._task is not None:  # until the block is left: one may be swallowed (tasks.py)
            self._task.cancel()
            self._cancellations += 1
            await asyncio.sleep(tasks.AGAIN_S)

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._client.eval(_RELEASE, 1, self._key, self._owner)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("lease.not_released", key=self._key, why=said(error))
