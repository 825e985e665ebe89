"""What the API is told about one job, in an order that it cannot misunderstand.

Two facts of the API decide this module.  It notes whatever status comes last, so a late
`processing` would overwrite `completed`: progress is drained before a final report and nothing
follows one.  And it may be down: so a final report goes to the outbox, where it survives this
process, and is waited for only a moment, so that normally BullMQ's `completed` means that the API
knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Final, Self

from worker import tasks
from worker.contract import AvatarResultPayload, JobStatus, ProgressMark, StatusUpdate
from worker.errors import ApiUnavailable
from worker.observability.logs import get_logger
from worker.reporter.client import ApiClient, ApiTransient
from worker.reporter.delivery import BARE_COMPLETED
from worker.reporter.outbox import Outbox

log = get_logger("worker.reporter")

PROGRESS_INTERVAL_S: Final = 1.0
DELIVERY_WAIT_S: Final = 4.0
"""For how long a job waits until the outbox has delivered its report."""
_MARKS: Final = frozenset(ProgressMark)


class JobReports:
    """The reports about one job, while its block lasts.

    Args:
        api: the API.
        job_id: the API's id of the job.
        maybe_reported: an earlier attempt may already have sent a final report.
        outbox: takes the final report.
        guard: key and value of the job's lease, without which no final report is put.
    """

    def __init__(
        self,
        api: ApiClient,
        job_id: str,
        *,
        maybe_reported: bool,
        outbox: Outbox,
        guard: tuple[str, str] | None = None,
    ) -> None:
        self._api = api
        self._job_id = job_id
        self._maybe_reported = maybe_reported
        self._outbox = outbox
        self._guard = guard
        self._unanswered = False
        self._latest: int | None = None
        self._news = asyncio.Event()
        self._draining = False
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._outbox.begin(self._job_id)
        self._sender = asyncio.create_task(self._send_progress(), name="progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._cut_off()
        else:
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
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                pause = sent_at + PROGRESS_INTERVAL_S - time.monotonic()
            if self._draining:
                return
            self._news.clear()
            update = StatusUpdate(status=JobStatus.PROCESSING, progress=self._latest)
            sent_at = time.monotonic()
            try:
                await self._api.patch(self._job_id, update)
            except ApiUnavailable as error:
                # The API may act on it even so, and after the final report.
                self._unanswered |= isinstance(error, ApiTransient) and error.may_still_act
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

    async def _cut_off(self) -> None:
        """Send nothing more, and wait for nothing: the job is being taken away.

        Whoever takes it up will send its own progress after this.
        """
        self._draining = True
        if self._sender is not None:
            await tasks.end(self._sender)
            self._sender = None

    # ------------------------------------------------------------ once
    async def completed(self, result: AvatarResultPayload) -> None:
        """Hand over the completion.

        Raises:
            JobHeldElsewhere: the lease is another's; nothing was handed over.
            QueueUnavailable: the outbox could not take it.
        """
        await self._report(BARE_COMPLETED.model_copy(update={"result": result}))

    async def failed(self, text: str) -> None:
        """Hand over the failure, which counts unless the API has a completion.

        Raises:
            JobHeldElsewhere, QueueUnavailable: as `completed`.
        """
        await self._report(StatusUpdate(status=JobStatus.FAILED, error=text))

    async def _report(self, update: StatusUpdate) -> None:
        await self._drain()
        await self._outbox.put(
            self._job_id,
            update,
            maybe_reported=self._maybe_reported,
            guard=self._guard,
            check=self._unanswered,
        )
        try:
            delivered = await self._outbox.wait_delivered(self._job_id, DELIVERY_WAIT_S)
        except asyncio.CancelledError:
            # The outbox has it, so the job is as good as done: let it be settled, not done again.
            delivered = False
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        if not delivered:
            log.warning("report.left_in_outbox", status=update.status.value)
