"""Bringing one final report to the API, whatever an earlier try may have left there.

The API creates the avatar first, with a unique job id, and notes the status after it, whatever was
there before.  So a completion with its result must arrive once, and nothing may follow a final
status.  Before anything is sent a second time, GET says what the API has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from worker.contract import JobStatus, JobView, ProgressMark, StatusUpdate
from worker.reporter.client import ApiClient

LastFailure = Callable[[str], Awaitable[tuple[StatusUpdate, str] | None]]
"""Returns a job's delivered failure and a number of its own; None when a new run has begun."""

BARE_COMPLETED = StatusUpdate(status=JobStatus.COMPLETED, progress=int(ProgressMark.COMPLETED))
"""Puts the status right, and creates nothing."""


class Delivered(StrEnum):
    """How a report ended well."""

    SENT = "sent"
    KNOWN = "the API had it"
    PUT_RIGHT = "the API had the avatar, and now the status"
    OVERRULED = "the API has this job's avatar; it is no failure"


async def deliver(
    api: ApiClient, job_id: str, update: StatusUpdate, *, ask_first: bool, message_id: str
) -> Delivered:
    """Send a final report, once, or find that it is not needed.

    Args:
        api: the API.
        job_id: the API's id of the job.
        update: `completed` with its result, or `failed`.
        ask_first: whether this or another final report of the job may have arrived before.
        message_id: the same for every try at this report.

    Raises:
        ApiUnavailable, and its kinds: as `ApiClient.patch`.
    """
    if update.status is JobStatus.FAILED or ask_first:
        known = await api.get(job_id)
        if update.status is JobStatus.COMPLETED:
            if known.avatar is not None and known.status != JobStatus.COMPLETED:
                await api.patch(job_id, BARE_COMPLETED, message_id=f"{message_id}:bare")
                return Delivered.PUT_RIGHT
            # Without an avatar too: it was there once, or the status would be another, and
            # whoever removed it does not want it back.
            if known.status == JobStatus.COMPLETED:
                return Delivered.KNOWN
        elif known.avatar is not None or known.status == JobStatus.COMPLETED:
            return Delivered.OVERRULED
        elif _has_failure(known, update, was_sent=ask_first):
            return Delivered.KNOWN
    await api.patch(job_id, update, message_id=message_id)
    return Delivered.SENT


async def put_right(api: ApiClient, job_id: str, last_failure: LastFailure) -> bool:
    """Give a job whose status was overwritten its final one back; whether that was needed.

    Why: a worker that was frozen, or cut off from Redis, may wake after another has ended its
    job, and send one more `processing` before it finds that the lock is lost; or the API acts late
    on one that it never answered.  It notes it, and the app would wait for ever.  It happens only
    to jobs that were started more than once, that were given up, or whose last progress report was
    not answered, so it costs one GET for each of those.

    `processing` after a failure can be a new run as well.  That forgets the failure before it says
    anything, so the failure is asked for after the API was.

    Raises:
        ApiUnavailable, and its kinds: as `ApiClient.patch`.
        QueueUnavailable, pydantic.ValidationError: as `last_failure`.
    """
    known = await api.get(job_id)
    if known.avatar is not None:
        if known.status == JobStatus.COMPLETED:
            return False
        await api.patch(job_id, BARE_COMPLETED, message_id=f"{job_id}:completed:again")
        return True
    if known.status != JobStatus.PROCESSING or (failure := await last_failure(job_id)) is None:
        return False
    update, number = failure
    await api.patch(job_id, update, message_id=f"{job_id}:failed:{number}:again")
    return True


def _has_failure(known: JobView, update: StatusUpdate, *, was_sent: bool) -> bool:
    """Whether the API has this failure, and not that of an earlier run of the job."""
    return was_sent and known.status == JobStatus.FAILED and known.error in {None, update.error}
