"""One job's life, from the queue's hand to the queue's hand.  Read it from top to bottom.

1. consumer  BullMQ hands over a job (`worker.consumer` calls `JobRunner.run`).
2. contract  The payload becomes an `AvatarJob`, or is refused.
3. storage   With the lease on `data.jobId`: is there a completion marker?  Then report it again
             and stop.  Otherwise photos are read, and what an earlier attempt had computed.
4. engine    An engine process builds the avatar in the job's folder.
5. storage   Outputs are published; the marker, last.
6. reporter  The final report goes into the outbox, which delivers it.
7. consumer  The job completes in BullMQ with the same result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from worker import tasks
from worker.consumer.delivery import Delivery
from worker.consumer.lease import Lease
from worker.consumer.marks import JobMarks
from worker.contract import (
    DEFAULT_USER_ID,
    AvatarJob,
    AvatarResultPayload,
    Measurements,
    ProgressMark,
    QualityReport,
    claimed_job_id,
    failure_text,
)
from worker.engine.messages import Built, RunJob
from worker.errors import (
    AvatarError,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    JobAborted,
    JobKillsEngine,
    PayloadInvalid,
    QueueUnavailable,
)
from worker.jobfolder import JobFolder
from worker.observability.journal import Journal
from worker.observability.logs import get_logger
from worker.observability.summary import JobSummary
from worker.observability.tracing import Tracer
from worker.progress import JobProgress
from worker.reporter.client import ApiClient
from worker.reporter.outbox import Outbox
from worker.reporter.reports import JobReports
from worker.storage.bucket import Bucket
from worker.storage.outputs import MARKER, CompletionMarker, Outputs
from worker.storage.work import WorkStore

log = get_logger("worker.job")

FORGET_S: Final = 5.0
"""For cleaning up after a job that is over; what it does not manage goes by age."""
KILLS_UNTIL_REFUSED: Final = 2
"""So many engine processes may one job end before it is given up."""


class Engine(Protocol):
    """What builds avatars; `worker.engine.pool.EnginePool` is one."""

    @property
    def fingerprint(self) -> str | None:
        """Names code, weights and configuration; None until they are loaded."""

    async def run(
        self,
        job: RunJob,
        advance: Callable[[str, float], None],
        *,
        timeout_s: float,
        checkpoint: Callable[[str, tuple[str, ...]], None],
    ) -> Built:
        """Build one avatar."""


class JobRunner:
    """Runs jobs, one call each.

    Args:
        bucket: photos in.
        outputs: avatars out.
        work: keeps what was computed until the job is done.
        engine: builds them.
        api: is told of progress.
        outbox: delivers final reports.
        marks: leases, and what is remembered of a job between its attempts.
        timeout_s: longest time that one attempt may compute.
        publish_inspection: whether files that show the person are published too.
        journal: is told of every attempt.
        tracer: makes spans of jobs and stages.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        outputs: Outputs,
        work: WorkStore,
        engine: Engine,
        api: ApiClient,
        outbox: Outbox,
        marks: JobMarks,
        timeout_s: float,
        publish_inspection: bool,
        journal: Journal,
        tracer: Tracer,
    ) -> None:
        self._bucket = bucket
        self._outputs = outputs
        self._work = work
        self._engine = engine
        self._api = api
        self._outbox = outbox
        self._marks = marks
        self._timeout_s = timeout_s
        self._publish_inspection = publish_inspection
        self._journal = journal
        self._tracer = tracer

    # ------------------------------------------------------------ 1. the queue hands over a job
    async def run(self, delivery: Delivery) -> dict[str, Any]:
        """Do one attempt at one job, and write its summary line.

        Returns:
            BullMQ's return value: the result that the API was told.

        Raises:
            JobAborted: neither finished nor failed; the job is to be handed over again.
            AvatarError: the attempt failed; whether another follows is the consumer's business.
        """
        job_id = claimed_job_id(delivery.data)
        with (
            self._journal.attempt(
                job_id, delivery.queue_job_id, delivery.attempt, delivery.queue_wait_s
            ) as entry,
            structlog.contextvars.bound_contextvars(
                job_id=job_id, queue_job_id=delivery.queue_job_id, attempt=delivery.attempt
            ),
            self._tracer.job(delivery.trace, job_id=job_id or "", attempt=delivery.attempt),
        ):
            summary = JobSummary(
                attempt=delivery.attempt,
                queue_wait_s=delivery.queue_wait_s,
                entry=entry,
                journal=self._journal,
                tracer=self._tracer,
            )
            try:
                return await self._attempt(delivery, summary)
            except asyncio.CancelledError:
                summary.outcome = "aborted"
                raise
            except JobAborted as error:
                summary.failed("left_to_others", error)
                raise
            except QueueUnavailable as error:
                # Without Redis nothing can be settled: the job is handed over again.
                summary.failed("left_to_others", error)
                raise JobAborted(error.message) from error
            except AvatarError as error:
                summary.failed("failed" if _is_final(error, delivery) else "to_be_retried", error)
                await delivery.note(failure_text(error))
                raise
            finally:
                summary.write()

    async def _attempt(self, delivery: Delivery, summary: JobSummary) -> dict[str, Any]:
        # -------------------------------------------------------- 2. the payload
        try:
            job = AvatarJob.parse(delivery.data)
        except PayloadInvalid as refusal:
            await self._tell_failed(claimed_job_id(delivery.data), refusal)
            raise

        def tell(percent: int) -> None:
            summary.percent = percent
            reports.progress(percent)

        was_started_before = delivery.starts > 1 or delivery.attempt > 1
        async with (
            self._marks.lease(job.job_id) as lease,
            self._reports(job.job_id, lease, maybe_reported=was_started_before) as reports,
            JobProgress(delivery.progress, tell) as progress,
        ):
            try:
                # ------------------------------------------------ 3. – 5. to a finished avatar
                marker = await self._find_finished(job, delivery, lease, reports, summary)
                if marker is None:
                    marker = await self._make(job, delivery, lease, progress, summary)
                # ------------------------------------------------ 6. the API is told
                with summary.stage("report"):
                    await reports.completed(marker.result)
                progress.reach(ProgressMark.COMPLETED)
            except (JobAborted, QueueUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the job must be settled
                failure = _named(error)
                if _is_final(failure, delivery):
                    await reports.failed(failure_text(failure))
                    await self._outputs.discard(job.job_id)
                    await self._forget(job.job_id, once_more=was_started_before)
                raise failure from (None if failure is error else error)
            await tasks.to_the_end(self._forget(job.job_id, once_more=was_started_before))
        # -------------------------------------------------------- 7. the queue has the result
        return marker.result.to_wire()

    def _reports(self, job_id: str, lease: Lease | None, *, maybe_reported: bool) -> JobReports:
        return JobReports(
            self._api,
            job_id,
            maybe_reported=maybe_reported,
            outbox=self._outbox,
            guard=lease.guard if lease else None,
        )

    # ------------------------------------------------------------ 3. is it finished already?
    async def _find_finished(
        self,
        job: AvatarJob,
        delivery: Delivery,
        lease: Lease,
        reports: JobReports,
        summary: JobSummary,
    ) -> CompletionMarker | None:
        with summary.stage("look_up"):
            has_marker = await self._outputs.has_marker(job.job_id)
            if has_marker:
                # Whatever becomes of it: whoever wrote it has reported it, or is about to.
                reports.expect_earlier_report()
            if await self._marks.wants_fresh(job.job_id):
                log.info("job.fresh_run")
                reports.expect_earlier_report()
                await self._work.clean(job.job_id)
                await self._outputs.remove_marker(job.job_id)
                await self._marks.forget(job.job_id, "fresh")
                return None
            if not has_marker:
                return None
            marker = await self._outputs.find_marker(job.job_id, check=lease.check)
        if marker is not None:
            summary.outcome = "reported_again"
            delivery.commit()
        return marker

    async def _make(
        self,
        job: AvatarJob,
        delivery: Delivery,
        lease: Lease,
        progress: JobProgress,
        summary: JobSummary,
    ) -> CompletionMarker:
        # Not before the look-up: `processing` after a completion would take it back.
        progress.reach(ProgressMark.ACCEPTED)
        async with JobFolder(
            job, bucket=self._bucket, work=self._work, check=lease.check
        ) as folder:
            with summary.stage("download"):
                await folder.fetch_photos()
            progress.reach(ProgressMark.PHOTOS_READ)
            with summary.stage("resume"):
                await folder.restore(self._engine.fingerprint)

            # ---------------------------------------------------- 4. the engine builds it
            built = folder.finished
            if built is None:
                with summary.stage("engine"):
                    built = await self._build(job, folder, progress, summary)
                summary.engine(built.stage_seconds)

            # ---------------------------------------------------- 5. outputs; the marker, last
            hidden = frozenset() if self._publish_inspection else built.inspection_files
            names = set(built.files) - hidden - {MARKER}
            with summary.stage("publish"):
                await folder.save_outputs(built, names)
                marker = await self._outputs.publish(
                    job.job_id,
                    folder.path,
                    names,
                    result=self._result(job, built),
                    sources=built.sources,
                    check=lease.check,
                    commit=delivery.commit,
                )
                if hidden:  # an earlier run may have shown what this one does not
                    await self._outputs.discard(job.job_id, hidden)
            progress.reach(ProgressMark.UPLOADED)
        summary.outcome = "completed"
        summary.facts |= {"confidence": built.confidence, "view_iou": built.view_iou}
        return marker

    async def _build(
        self, job: AvatarJob, folder: JobFolder, progress: JobProgress, summary: JobSummary
    ) -> Built:
        def advance(stage: str, fraction: float) -> None:
            summary.entered(stage)
            progress.advance(stage, fraction)

        try:
            return await self._engine.run(
                folder.engine_job(),
                advance,
                timeout_s=self._timeout_s,
                checkpoint=folder.checkpoint,
            )
        except EngineUnavailable as error:
            raise JobAborted(error.message) from error  # not the job's fault: put off
        except EngineCrashed as crash:
            kills = await self._marks.note_kill(job.job_id)
            if kills < KILLS_UNTIL_REFUSED:
                raise
            raise JobKillsEngine(
                f"This job has ended the process that computes {kills} times: {crash.message}"
            ) from crash

    def _result(self, job: AvatarJob, built: Built) -> AvatarResultPayload:
        return AvatarResultPayload(
            user_id=job.user_id or DEFAULT_USER_ID,
            glb_url=self._outputs.glb_url(job.job_id),
            measurements=Measurements.model_validate(
                {name: round(value, 1) for name, value in built.measurements_cm.items()}
            ),
            measurement_intervals_cm={
                name: (round(low, 1), round(high, 1))
                for name, (low, high) in built.measurement_intervals_cm.items()
            },
            quality_report=QualityReport(
                confidence=built.confidence, warnings=built.warnings or None
            ),
        )

    # ------------------------------------------------------------ jobs that did not end here
    async def gave_up(self, delivery: Delivery, error: AvatarError) -> None:
        """Tell the API of a job that BullMQ fails without us: cancelled, or stalled too often.

        Raises:
            AvatarError: it could not be noted; the job is to be handed over again.
        """
        job_id = claimed_job_id(delivery.data)
        log.error("job.gave_up", queue_job_id=delivery.queue_job_id, job_id=job_id, why=str(error))
        await self._tell_failed(job_id, error)

    async def _tell_failed(self, job_id: str | None, error: AvatarError) -> None:
        if job_id is None:
            return  # nobody but the queue can be told
        async with (
            self._marks.lease(job_id) as lease,
            self._reports(job_id, lease, maybe_reported=True) as reports,
        ):
            await reports.failed(failure_text(error))
            await self._outputs.discard(job_id)
            await self._forget(job_id, once_more=True)

    async def _forget(self, job_id: str, *, once_more: bool) -> None:
        """Leave nothing behind of a job that is over; what stays after all goes by age.

        Args:
            job_id: the API's id of the job.
            once_more: whether another worker had begun it, and may still be saving.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORGET_S):
                await self._work.clean(job_id)
        if once_more:
            self._work.clean_later(job_id)
        with contextlib.suppress(QueueUnavailable):
            await self._marks.forget(job_id, "kills")


def _is_final(error: AvatarError, delivery: Delivery) -> bool:
    """Whether nobody will try this job again after `error`."""
    return delivery.is_last_attempt or not error.retryable


def _named(error: Exception) -> AvatarError:
    if isinstance(error, AvatarError):
        return error
    if isinstance(error, ExceptionGroup):  # of photos that are read side by side
        return _named(error.exceptions[0])
    log.error("job.unexpected", exc_info=error)
    return EngineError(f"{type(error).__name__}: {error}")
