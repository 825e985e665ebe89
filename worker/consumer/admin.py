"""Repairs a queue by hand: what `avatar-worker queue …`, `cancel` and `enqueue` do.

Looking changes nothing.  A repair is one step of Redis that checks its own condition, so that an
operator and a worker who act on one job at one moment cannot both be right.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import bullmq
from bullmq.redis_connection import loadScript

from worker.consumer.cancellation import request_cancel, withdraw_cancellation
from worker.consumer.connection import connect, ping
from worker.consumer.keyspace import Advance, Keyspace, quietly
from worker.consumer.marks import REMEMBERED_S
from worker.consumer.overview import Overview, ReportView
from worker.consumer.search import EVERYWHERE, Found, find
from worker.consumer.survey import survey
from worker.contract import AvatarJob, claimed_job_id
from worker.errors import AvatarError, Cancelled, InputError
from worker.reporter.outbox_store import OutboxEntry, OutboxStore

if TYPE_CHECKING:
    from worker.settings import QueueSettings

JOB_NAME: Final = "avatar_build"
_PAGE: Final = 500
MOST_REPORTS: Final = 1_000
REPORT_FOR_S: Final = 24 * 3600.0
"""For how long a report that was brought back is tried before it is parked again."""

_REQUEUE_GUARD: Final = """
-- KEYS[1] to KEYS[8] and ARGV as reprocessJob-8.lua takes them, which follows this.
-- KEYS[9] lock, [10] stalled, [11] completed, [12] delayed, [13] prioritized,
-- [14] waiting-children
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if redis.call('EXISTS', KEYS[9]) == 1 then return -2 end
for _, key in ipairs({KEYS[3], KEYS[11], KEYS[12], KEYS[13], KEYS[14]}) do
  if redis.call('ZSCORE', key, ARGV[1]) then return -3 end
end
if redis.call('LPOS', KEYS[4], ARGV[1]) or redis.call('LPOS', KEYS[6], ARGV[1]) then return -3 end
redis.call('LREM', KEYS[7], 0, ARGV[1])
redis.call('SREM', KEYS[10], ARGV[1])
redis.call('HDEL', KEYS[1], 'defa', 'stc')
redis.call('ZADD', KEYS[3], 0, ARGV[1])
"""
"""Makes sure that nobody has the job; then the package's own script moves it as from `failed`."""
_MOVE_KEYS: Final = ("events", "failed", "wait", "meta", "paused", "active", "marker")
_GUARD_KEYS: Final = ("stalled", "completed", "delayed", "prioritized", "waiting-children")
_REFUSALS: Final = {
    -1: "is not there",
    -2: "is held by a worker",
    -3: "is where it belongs: nothing to mend",
}


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one request."""

    asked: str
    """The id that was given."""
    done: bool
    what: str
    """The end of a sentence that begins with the job: "waits again", "is not there"."""
    queue_job_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "asked": self.asked,
            "queueJobId": self.queue_job_id,
            "done": self.done,
            "what": self.what,
        }


@asynccontextmanager
async def open_queue(settings: QueueSettings) -> AsyncIterator[QueueAdmin]:
    """Connect for as long as the block lasts.

    Raises:
        QueueUnavailable: Redis does not answer or is not right.
    """
    await ping(settings)
    queue = bullmq.Queue(
        settings.queue, {"connection": connect(settings), "prefix": settings.prefix}
    )
    try:
        yield QueueAdmin(queue, Keyspace(queue.client, settings.prefix, settings.queue))
    finally:
        await queue.close()


class QueueAdmin:
    """A queue as an operator handles it; `open_queue` makes one."""

    def __init__(self, queue: Any, keys: Keyspace) -> None:
        self._queue = queue
        self._keys = keys
        self._client = keys.client
        self._where = (keys.client, keys.prefix, keys.queue)
        self._outbox = OutboxStore(keys.client, prefix=keys.prefix, queue=keys.queue)
        self._requeue_script = self._client.register_script(
            _REQUEUE_GUARD + loadScript("reprocessJob-8.lua")
        )

    # ------------------------------------------------------------ looking
    async def overview(self, *, scan_keys: int, advance: Advance = quietly) -> Overview:
        """Look at everything."""
        entries = await self._outbox.entries(MOST_REPORTS)
        reports = tuple(_report_view(entry) for entry in entries)
        return await survey(self._keys, reports, scan_keys=scan_keys, advance=advance)

    async def find(self, name: str, *structures: str, advance: Advance = quietly) -> list[Found]:
        """Find jobs by BullMQ's id or `data.jobId`; see `worker.consumer.search`."""
        return await find(self._keys, name, structures=structures or EVERYWHERE, advance=advance)

    async def find_unheld(
        self, name: str, *, scan_keys: int, advance: Advance = quietly
    ) -> list[Found]:
        """Find a job that may need `requeue`: by either id, in `active` or in no list at all."""
        if found := await self.find(name, "active", advance=advance):
            return found
        seen = await self.overview(scan_keys=scan_keys, advance=advance)
        return [
            Found(orphan.queue_job_id, orphan.job_id, "unknown")
            for orphan in seen.orphans
            if orphan.job_id == name
        ]

    async def find_retryable(self) -> tuple[list[Found], int]:
        """Return the failed jobs that another attempt can help, oldest first, and how many not.

        No attempt helps one whose photos must be taken again, or that was cancelled.
        """
        hopeless = _codes(InputError) | _codes(Cancelled)
        found: list[Found] = []
        left_out = 0
        for start in range(0, await self._keys.size("failed"), _PAGE):
            ids = await self._keys.newest("failed", start, _PAGE)
            rows = await self._keys.fields(ids, "failedReason")
            for queue_job_id, row in zip(ids, rows, strict=True):
                code = ((row and row[0]) or "").partition(":")[0]
                if code in hopeless:
                    left_out += 1
                else:
                    found.append(Found(queue_job_id, None, "failed"))
        return found[::-1], left_out

    # ------------------------------------------------------------ repairing
    async def retry(self, job: Found) -> Repair:
        """Let a failed job wait again, with all its attempts and stalls before it."""
        if job.state != "failed":
            return Repair(job.queue_job_id, False, f"is {job.state}, not failed", job.queue_job_id)
        return await self._run_again(job)

    async def requeue(self, job: Found) -> Repair:
        """Put a job that nobody has, an orphan or one without a lock, at the head of the queue."""
        key = self._keys.job(job.queue_job_id)
        moved = [self._keys[name] for name in _MOVE_KEYS]
        guarded = [self._keys[name] for name in _GUARD_KEYS]
        answer = await self._requeue_script(
            keys=[key, *moved, f"{key}:lock", *guarded],
            args=[job.queue_job_id, "RPUSH", "failedReason", "failed", "0", "0"],
        )
        what = _REFUSALS.get(answer, "waits at the head of the queue")
        return Repair(job.queue_job_id, answer == 1, what, job.queue_job_id)

    async def rerun_fresh(self, job_id: str, *, advance: Advance = quietly) -> Repair:
        """Have a job computed anew, although its results are published.

        The API keeps the measurements of the first completion: it makes one avatar for a job.
        """
        found = await self.find(job_id, advance=advance)
        known = next((job.job_id for job in found if job.job_id), None)
        if known is None:
            return Repair(job_id, False, "is not in the queue any more; avatar-worker enqueue it")
        if any(job.state == "active" for job in found):
            return Repair(job_id, False, "is running; cancel it first, or wait")
        await self.mark_fresh(known)
        for job in found:
            if job.state not in {"completed", "failed", "unknown"}:
                what = "will be computed anew when it is taken"
                return Repair(job_id, True, what, job.queue_job_id)
        return await self._run_again(found[0], asked=job_id)

    async def report(self, job_id: str) -> Repair:
        """Have a final report that the API never took delivered now, by any worker."""
        done = await self._outbox.retry(job_id, keep_for_s=REPORT_FOR_S)
        what = "is reported by the next worker that looks" if done else "has no report to deliver"
        return Repair(job_id, done, what)

    async def cancel(self, name: str, reason: str, *, advance: Advance = quietly) -> Repair:
        """Have a job stopped within 2 s where it runs, or refused where it is taken."""
        found = await self.find(name, advance=advance)
        over = [job for job in found if job.state in {"completed", "failed"}]
        if found and len(over) == len(found):
            return Repair(name, False, f"is {over[0].state} already", over[0].queue_job_id)
        job_id = next((job.job_id for job in found if job.job_id), name)
        await request_cancel(*self._where, job_id, reason)
        state = next((job.state for job in found if job not in over), "not in the queue now")
        queue_job_id = found[0].queue_job_id if found else None
        return Repair(name, True, f"is cancelled; it is {state}", queue_job_id)

    async def mark_fresh(self, job_id: str) -> None:
        """Have the next run of `data.jobId` pass by what is published; holds for a day."""
        await self._client.set(self._keys.own("fresh", job_id), "1", ex=REMEMBERED_S)

    async def enqueue(self, payload: dict[str, Any], *, fresh: bool = False) -> Repair:
        """Add a job as the API does; `fresh` computes it even if its results are published.

        Raises:
            PayloadInvalid: the job would be refused.
        """
        job_id = AvatarJob.parse(payload).job_id
        await withdraw_cancellation(*self._where, job_id)
        if fresh:
            await self.mark_fresh(job_id)
        job = await self._queue.add(JOB_NAME, payload, {})
        return Repair(job_id, True, "waits", str(job.id))

    async def _run_again(self, job: Found, *, asked: str | None = None) -> Repair:
        asked = asked or job.queue_job_id
        raw = await bullmq.Job.fromId(self._queue, job.queue_job_id)
        if raw is None:
            return Repair(asked, False, "is not there any more", job.queue_job_id)
        if job.state == "unknown":
            return await self.requeue(job)
        # First: a worker may take the job in the very moment that it waits.
        if job_id := (job.job_id or claimed_job_id(raw.data)):
            await withdraw_cancellation(*self._where, job_id)
            await self._client.delete(self._keys.own("kills", job_id))
        await self._client.hdel(self._keys.job(job.queue_job_id), "stc")
        try:
            await raw.retry(job.state, {"resetAttemptsMade": True})
        except TypeError as error:  # the package's way to say that the job is elsewhere by now
            return Repair(asked, False, f"could not be moved: {error}", job.queue_job_id)
        return Repair(asked, True, "waits again", job.queue_job_id)


def _report_view(entry: OutboxEntry) -> ReportView:
    return ReportView(
        job_id=entry.job_id,
        status=entry.status,
        parked=entry.parked,
        age_s=max(0.0, time.time() - entry.first_put_ms / 1000),
        tries=entry.attempts,
        last_error=entry.last_error or None,
    )


def _codes(kind: type[AvatarError]) -> set[str]:
    return {kind.code}.union(*(_codes(child) for child in kind.__subclasses__()))
