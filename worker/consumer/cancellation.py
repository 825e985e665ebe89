"""Taking a job back, from outside: a key in Redis says that nobody shall do it.

Whoever wants a job cancelled sets `{prefix}:{queue}-worker:cancel:{data.jobId}` to the reason; a
SET from any language is enough.  A worker asks for the key when it takes a job, and once a second
for the jobs that it is doing.  It asks rather than listens: a message that is published while a
connection is down is lost without a word, and the question also shows that Redis is there.

The key stays for a day.  Until then it also refuses a second BullMQ job with the same
`data.jobId`, and a retry; `withdraw_cancellation` allows them again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from redis.exceptions import RedisError

from worker.consumer.keys import own_key
from worker.consumer.said import unavailable
from worker.errors import Cancelled

CANCEL_TTL_S: Final = 24 * 3600
LONGEST_REASON: Final = 500
"""Characters; the reason goes into failedReason and into the API's `error`."""


def cancel_key(prefix: str, queue: str, job_id: str) -> str:
    """Return the key whose presence cancels the job; `job_id` is `data.jobId`."""
    return own_key(prefix, queue, "cancel", job_id)


async def request_cancel(client: Any, prefix: str, queue: str, job_id: str, reason: str) -> None:
    """Have the job stopped where it runs, within 2 s, or refused where it is taken.

    Args:
        client: redis.asyncio client.
        prefix: BULLMQ_PREFIX.
        queue: AVATAR_QUEUE.
        job_id: `data.jobId`.
        reason: for the person who looks at the failed job; may be empty.

    Raises:
        QueueUnavailable: Redis did not answer.
    """
    try:
        await client.set(
            cancel_key(prefix, queue, job_id), reason[:LONGEST_REASON], ex=CANCEL_TTL_S
        )
    except (RedisError, OSError) as error:
        raise unavailable("The job could not be cancelled", error) from None


async def withdraw_cancellation(client: Any, prefix: str, queue: str, job_id: str) -> bool:
    """Let the job be done again.

    Returns:
        Whether it was cancelled.

    Raises:
        QueueUnavailable: Redis did not answer.
    """
    try:
        return bool(await client.delete(cancel_key(prefix, queue, job_id)))
    except (RedisError, OSError) as error:
        raise unavailable("The job's cancellation stands", error) from None


async def find_cancelled(
    client: Any, prefix: str, queue: str, job_ids: Collection[str]
) -> dict[str, Cancelled]:
    """Return those of `job_ids` that are cancelled, with the error that says why.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    wanted = sorted(set(job_ids))
    if not wanted:
        return {}
    reasons = await client.mget([cancel_key(prefix, queue, job_id) for job_id in wanted])
    return {
        job_id: cancelled(reason)
        for job_id, reason in zip(wanted, reasons, strict=True)
        if reason is not None
    }


def cancelled(reason: str) -> Cancelled:
    """Return the error of a job that is cancelled for `reason`, which may be empty."""
    return Cancelled(f"The job was cancelled: {reason[:LONGEST_REASON]}") if reason else Cancelled()
