"""Final reports, delivered at least once by whichever worker lives, and accepted once.

`put` writes a report to Redis; from then on the job may complete and this process may die.  Every
worker of the queue looks for reports that are due, takes a few of them for `claim_s`, and brings
them to the API as `delivery.py` does it.  Who put a report is woken at once, so that normally the
API has it before BullMQ's `completed`.

What an answer of the API makes of a report:

    2xx                            delivered
    nothing, 5xx, 408 409 425 429  tried again, Retry-After honoured, after GET
    401 403, a redirect            tried again about once a minute; `warnings` says what to do
    404                            dropped: nobody waits for this job any more
    another 4xx                    parked: kept and listed, until `retry` or a new report
    anything, for 24 hours         parked
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import Any, Final

import tenacity
from pydantic import ValidationError

from worker import tasks
from worker.contract import StatusUpdate
from worker.errors import ApiUnavailable, QueueUnavailable
from worker.observability.logs import get_logger
from worker.reporter.client import (
    REQUEST_DEADLINE_S,
    ApiClient,
    ApiMisconfigured,
    ApiTransient,
    JobUnknown,
)
from worker.reporter.delivery import deliver, put_right
from worker.reporter.outbox_store import OutboxEntry, OutboxStore, Verdict

log = get_logger("worker.outbox")

CLAIM_S: Final = 2 * REQUEST_DEADLINE_S + 5.0
"""Longer than GET and PATCH can take; a dead worker's report is taken over after this."""
POLL_S: Final = 2.0
"""How often a worker with nothing to do looks for what others left."""
KEEP_FOR_S: Final = 24 * 3600.0
"""A report that the API did not take for so long is parked."""
LONGEST_RETRY_AFTER_S: Final = 3600.0
SETTLING_S: Final = 3.0
"""After a request that was sent and not answered: time for the API to finish it before GET."""
CHECK_AFTER_S: Final = 90.0
"""When a delivered report is looked at again: BullMQ's lock has run out for any other worker."""
CONCURRENCY: Final = 4
STOP_S: Final = 0.5
"""What is on its way to the API may arrive within this, when the worker stops."""
RELEASE_TIMEOUT_S: Final = 0.5
MAX_LISTED: Final = 1000

_backoff = tenacity.wait_random_exponential(multiplier=0.5, min=0.2, max=60.0)
_slowly = tenacity.wait_random(45.0, 75.0)


class Outbox:
    """The queue's final reports that the API does not have yet.

    Args:
        client: redis.asyncio client; not closed here.
        api: where reports go; not closed here.
        prefix: BULLMQ_PREFIX.
        queue: AVATAR_QUEUE.
        owner: names this worker in claims; unique.
        claim_s: for how long a report is this worker's once it has taken it.
        poll_s: how often it looks for reports that others left.
        keep_for_s: after so long an undelivered report is parked.
        check_after_s: when a delivered report is looked at once more, if it has to be.

    Attributes:
        waiting: how many reports waited when this worker last looked.
        parked: how many were given up.
    """

    def __init__(
        self,
        client: Any,
        api: ApiClient,
        *,
        prefix: str,
        queue: str,
        owner: str,
        claim_s: float = CLAIM_S,
        poll_s: float = POLL_S,
        keep_for_s: float = KEEP_FOR_S,
        check_after_s: float = CHECK_AFTER_S,
    ) -> None:
        self._store = OutboxStore(client, prefix=prefix, queue=queue)
        self._api = api
        self._owner = owner
        self._claim_s = claim_s
        self._poll_s = poll_s
        self._keep_for_s = keep_for_s
        self._check_after_s = check_after_s
        self._numbers = itertools.count(1)
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._silent = False
        self._stopping = False
        self._trouble: str | None = None
        self.waiting = 0
        self.parked = 0
        self.retried = 0
        """Deliveries by this worker that failed and are tried again."""

    # ------------------------------------------------------------ for the job's reports
    async def begin(self, job_id: str) -> None:
        """Note that the job is run, before the API hears of it: `processing` is true now.

        Never raises; at worst the API is told of an earlier failure once more, until this run ends.
        """
        try:
            await self._store.forget_failure(job_id)
        except QueueUnavailable as error:
            log.warning("report.failure_not_forgotten", job_id=job_id, why=error.message)

    async def put(
        self,
        job_id: str,
        update: StatusUpdate,
        *,
        maybe_reported: bool,
        guard: tuple[str, str] | None,
        check: bool = False,
    ) -> None:
        """Take over a final report.  When this returns, it will be delivered.

        Putting it again changes nothing.  A completion replaces a failure that is not delivered
        yet; a failure never replaces a completion.

        Args:
            job_id: the API's id of the job.
            update: `completed` with its result, or `failed`.
            maybe_reported: an earlier attempt may have sent a final report.
            guard: key and value of the lease; it is written only if they still agree.
            check: a late `processing` may follow, so look once more after delivery; implied by
                `maybe_reported`.

        Raises:
            JobHeldElsewhere: the lease is another's.
            QueueUnavailable: Redis did not answer; the report may or may not be there.
        """
        await self._store.put(
            job_id,
            update,
            maybe_reported=maybe_reported,
            check=check or maybe_reported,
            keep_for_s=self._keep_for_s,
            guard=guard,
        )
        self._news.set()

    async def wait_delivered(self, job_id: str, timeout_s: float) -> bool:
        """Wait until a report has left the outbox; False when it has not in time, or is parked."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError, QueueUnavailable):
            async with asyncio.timeout(timeout_s):
                # Both bounds: redis-py may swallow the first, as `stop` says.
                while (left_s := deadline - time.monotonic()) > 0:
                    self._settled.clear()
                    state = await self._store.state(job_id)
                    if state != "waiting":
                        return state is None
                    # Ours settle the event; another worker's are seen by looking again.
                    await _until(self._settled, min(0.5, left_s))
        return False

    # ------------------------------------------------------------ for the operator
    async def entries(self) -> tuple[OutboxEntry, ...]:
        """List what the API does not have: what waits, by when it is due, then what is parked.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        return await self._store.entries(MAX_LISTED)

    def warnings(self) -> list[str]:
        """Say, for the status page, what somebody should do something about."""
        said = []
        if self._trouble is not None:
            said.append(f"{self._trouble} Final reports that wait: {self.waiting}.")
        if self.parked:
            said.append(
                f"Final reports that the API never took: {self.parked}. See `avatar-worker queue`."
            )
        return said

    async def retry(self, job_id: str) -> bool:
        """Try a report again now, a parked one too; False when there is none for this job.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        found = await self._store.retry(job_id, keep_for_s=self._keep_for_s)
        self._news.set()
        return found

    async def remove(self, job_id: str) -> bool:
        """Throw a report away; False when there is none for this job.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        return await self._store.remove(job_id)

    # ------------------------------------------------------------ life
    def start(self) -> None:
        """Begin to deliver what is due, whoever put it."""
        if self._loop is None:
            self._stopping = False
            self._loop = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Let what is on its way arrive, for a moment; leave the rest to others, at once."""
        if self._loop is not None:
            # Cancelling alone is not enough: before Python 3.12 `asyncio.wait_for`, through which
            # redis-py sends, swallows a cancellation that comes at the moment when it is done.
            self._stopping = True
            self._news.set()
            self._loop.cancel()
            await asyncio.wait({self._loop}, timeout=STOP_S)
            self._loop = None
        if self._working:
            await asyncio.wait(self._working, timeout=STOP_S)
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working, timeout=RELEASE_TIMEOUT_S + 0.1)

    async def _run(self) -> None:
        while not self._stopping:
            self._news.clear()
            wait_s = self._poll_s
            if len(self._working) < CONCURRENCY:
                try:
                    wait_s = await self._take(CONCURRENCY - len(self._working))
                    self._silent = False
                except QueueUnavailable as error:
                    if not self._silent:
                        log.warning("outbox.unreachable", why=error.message)
                    self._silent = True
                except Exception:
                    log.exception("outbox.unexpected")
            # Spread, so that many workers do not ask in step.
            await _until(self._news, wait_s * random.uniform(0.9, 1.1))  # noqa: S311 - no secret

    async def _take(self, room: int) -> float:
        """Begin to deliver what is due; return in how many seconds to look again."""
        token = f"{self._owner}:{next(self._numbers)}"
        claim = await self._store.claim(token, claim_s=self._claim_s, entries=room, checks=room)
        self.waiting, self.parked = claim.waiting, claim.parked
        for entry in claim.entries:
            self._begin(asyncio.create_task(self._bring(entry, token), name="report"))
        for job_id in claim.checks:
            self._begin(asyncio.create_task(self._look_again(job_id), name="check"))
        return min(self._poll_s, claim.next_in_s if claim.next_in_s is not None else self._poll_s)

    def _begin(self, task: asyncio.Task[None]) -> None:
        self._working.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._settled.set()
        self._news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("outbox.unexpected", exc_info=error)

    # ------------------------------------------------------------ one report
    async def _bring(self, entry: OutboxEntry, token: str) -> None:
        """Deliver a claimed report and note what became of it."""
        try:
            verdict, wait_s, error = await self._attempt(entry)
        except asyncio.CancelledError:
            await tasks.to_the_end(self._release(entry, token))
            raise
        try:
            done = await self._store.settle(
                entry,
                token,
                verdict,
                wait_s=wait_s,
                error=error,
                check_after_s=self._check_after_s,
            )
        except QueueUnavailable as unknown:
            # It becomes due again when the claim runs out, and GET then says what was done.
            log.warning("report.not_settled", job_id=entry.job_id, why=unknown.message)
            return
        if done == "parked":
            log.error("report.parked", job_id=entry.job_id, status=entry.status, why=error)

    async def _release(self, entry: OutboxEntry, token: str) -> None:
        """Leave a report whose delivery was cut off to others."""
        with contextlib.suppress(QueueUnavailable, TimeoutError):
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                # The API may still act on what was cut off: a successor asks a little later.
                await self._store.settle(entry, token, "released", wait_s=1.0)

    async def _attempt(self, entry: OutboxEntry) -> tuple[Verdict, float, str]:
        """Try once; return what becomes of the entry, in how many seconds, and why."""
        try:
            how = await deliver(
                self._api,
                entry.job_id,
                entry.parsed(),
                ask_first=entry.maybe_reported or entry.attempts > 1,
                message_id=f"{entry.job_id}:{entry.status}:{entry.first_put_ms}.{entry.version}",
            )
        except JobUnknown as error:
            # What was computed stays in the bucket.
            log.warning("report.job_unknown", job_id=entry.job_id, why=error.message)
            return "dropped", 0.0, error.message
        except (ApiTransient, ApiMisconfigured) as error:
            self.retried += 1
            wait_s = _wait_s(error, entry.attempts)
            self._note_trouble(error)
            log.warning(
                "report.retried",
                job_id=entry.job_id,
                attempt=entry.attempts,
                again_in_s=round(wait_s, 1),
                why=error.message,
            )
            return "retry", wait_s, error.message
        except (ApiUnavailable, ValidationError) as error:
            return "parked", 0.0, str(error)
        self._trouble = None
        log.info(
            "report.delivered",
            job_id=entry.job_id,
            status=entry.status,
            attempt=entry.attempts,
            how=how.value,
        )
        return "delivered", 0.0, ""

    def _note_trouble(self, error: ApiUnavailable) -> None:
        if isinstance(error, ApiMisconfigured) and self._trouble != error.message:
            log.error("outbox.refused", why=error.message)
        self._trouble = error.message

    # ------------------------------------------------------------ one delivered report
    async def _look_again(self, job_id: str) -> None:
        try:
            if await put_right(self._api, job_id, self._store.failure):
                log.warning("report.put_right", job_id=job_id)
        except (ApiTransient, ApiMisconfigured):
            with contextlib.suppress(QueueUnavailable):
                await self._store.check_later(job_id, self._check_after_s)
            return
        except QueueUnavailable:  # it becomes due again when the claim runs out
            return
        except (ApiUnavailable, ValidationError) as error:  # unknown, refused: nothing can be done
            log.warning("report.not_checked", job_id=job_id, why=str(error))
        with contextlib.suppress(QueueUnavailable):
            await self._store.checked(job_id)


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


def _wait_s(error: ApiUnavailable, attempts: int) -> float:
    """Wait as Retry-After says, up to a bound; else slowly or with backoff, always with jitter."""
    if isinstance(error, ApiTransient) and error.retry_after_s is not None:
        # Never sooner than asked; spread, because all that wait were asked the same.
        return min(error.retry_after_s, LONGEST_RETRY_AFTER_S) + random.uniform(0.0, 1.0)  # noqa: S311 - no secret
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempts
    if isinstance(error, ApiMisconfigured):
        return _slowly(state)
    settling_s = SETTLING_S if isinstance(error, ApiTransient) and error.may_still_act else 0.0
    return settling_s + _backoff(state)
