"""What the API is told about one job, in an order that it cannot misunderstand.

Three facts of the API decide this module.  It notes whatever status comes last, so a late
`processing` would overwrite `completed`: progress is drained before a final report and nothing
follows one.  It creates the avatar before it notes the status, and creating it twice answers 500:
so before a final report is sent again, GET says what the API already has.  And it may be down: a
final report is tried again for a while, then the attempt fails with the outputs already
published, so that the next attempt only reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import tenacity

from worker.contract import AvatarResultPayload, JobStatus, ProgressMark, StatusUpdate
from worker.errors import ApiUnavailable
from worker.observability.logs import get_logger
from worker.reporter.client import ApiClient, ApiTransient, JobUnknown

log = get_logger("worker.reporter")

PROGRESS_INTERVAL_S: Final = 1.0
FINAL_REPORT_FOR_S: Final = 60.0
"""For how long a final report is tried before the attempt fails."""
LONGEST_WAIT_S: Final = 30.0
_MARKS: Final = frozenset(ProgressMark)


class JobReports:
    """The reports about one job, while its block lasts.

    Args:
        api: the API.
        job_id: the API's id of the job.
        maybe_reported: an earlier attempt may already have sent a final report.
    """

    def __init__(self, api: ApiClient, job_id: str, *, maybe_reported: bool) -> None:
        self._api = api
        self._job_id = job_id
        self._maybe_reported = maybe_reported
        self._latest: int | None = None
        self._news = asyncio.Event()
        self._draining = False
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send_progress(), name="progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._drain()

    def expect_earlier_report(self) -> None:
        """Note that the job was finished before, so that GET is asked first."""
        self._maybe_reported = True

    # ------------------------------------------------------------ while the job runs
    def progress(self, percent: int) -> None:
        """Note how far the job is.  Never waits; only the latest value is sent."""
        if not self._draining:
            self._latest = percent
            self._news.set()

    async def _send_progress(self) -> None:
        """Send the latest value, at most once a second unless it is one of the marks."""
        sent_at = -PROGRESS_INTERVAL_S
        while True:
            await self._news.wait()
            pause = sent_at + PROGRESS_INTERVAL_S - time.monotonic()
            while pause > 0 and self._latest not in _MARKS and not self._draining:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), pause)
                pause = sent_at + PROGRESS_INTERVAL_S - time.monotonic()
            if self._draining:
                return
            self._news.clear()
            update = StatusUpdate(status=JobStatus.PROCESSING, progress=self._latest)
            sent_at = time.monotonic()
            try:
                await self._api.patch(self._job_id, update)
            except ApiUnavailable as error:
                log.warning("progress.not_delivered", percent=update.progress, why=error.message)

    async def _drain(self) -> None:
        """Wait until no progress report is on the way; none is sent afterwards.

        A request under way is waited for, not cut off: the API may act on it even so, later.
        """
        self._draining = True
        self._news.set()
        if self._sender is not None:
            await self._sender
            self._sender = None

    # ------------------------------------------------------------ once
    async def completed(self, result: AvatarResultPayload) -> None:
        """Deliver the completion.

        Raises:
            ApiUnavailable: the API could not be told.
        """
        done = StatusUpdate(status=JobStatus.COMPLETED, progress=int(ProgressMark.COMPLETED))

        async def deliver() -> None:
            if self._maybe_reported:
                known = await self._api.get(self._job_id)
                if known.avatar is not None:
                    if known.status != JobStatus.COMPLETED:
                        await self._api.patch(self._job_id, done)
                    return
            self._maybe_reported = True
            await self._api.patch(self._job_id, done.model_copy(update={"result": result}))

        await self._finally(deliver)

    async def failed(self, text: str) -> None:
        """Deliver the failure, unless the API already has a completion.

        Raises:
            ApiUnavailable: the API could not be told.
        """
        update = StatusUpdate(status=JobStatus.FAILED, error=text)

        async def deliver() -> None:
            if self._maybe_reported:
                known = await self._api.get(self._job_id)
                if known.avatar is not None or known.status == JobStatus.COMPLETED:
                    log.warning("failure.not_reported", why="the API has this job's avatar")
                    return
            self._maybe_reported = True
            await self._api.patch(self._job_id, update)

        await self._finally(deliver)

    async def _finally(self, deliver: Callable[[], Awaitable[None]]) -> None:
        """Drain progress, then try until it is delivered or the time is over."""
        await self._drain()
        try:
            await tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(ApiTransient),
                wait=_wait,
                stop=tenacity.stop_after_delay(FINAL_REPORT_FOR_S),
                before_sleep=_tell,
                reraise=True,
            )(deliver)
        except JobUnknown as error:
            # Nobody waits for this job any more: what was computed stays in the bucket.
            log.warning("report.job_unknown", why=error.message)


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)


def _wait(state: tenacity.RetryCallState) -> float:
    """Wait as long as Retry-After says, up to a bound, else exponentially with jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ApiTransient) and error.retry_after_s is not None:
        return min(error.retry_after_s, LONGEST_WAIT_S)
    return _backoff(state)


def _tell(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("report.retried", attempt=state.attempt_number, why=str(error))
