"""One job's life, from the queue's hand to the queue's hand.  Read it from top to bottom.

1. consumer  BullMQ hands over a job (`worker.consumer` calls `JobRunner.run`).
2. contract  The payload becomes an `AvatarJob`, or is refused.
3. storage   A completion marker?  Then report it again and stop.  Otherwise photos are read.
4. engine    The engine process builds the avatar in the job's folder.
5. storage   Outputs are published; the marker, last.
6. reporter  The API is told.
7. consumer  The job completes in BullMQ with the same result.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from worker.consumer.worker import Delivery
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
from worker.errors import ApiUnavailable, AvatarError, EngineError, PayloadInvalid
from worker.observability.logs import get_logger
from worker.observability.summary import JobSummary
from worker.progress import JobProgress
from worker.reporter.client import ApiClient
from worker.reporter.reports import JobReports
from worker.storage.bucket import Bucket
from worker.storage.outputs import MARKER, CompletionMarker, Outputs
from worker.storage.photos import fetch_photo

log = get_logger("worker.job")

FRONT_PHOTO: Final = "photo_front"
SIDE_PHOTO: Final = "photo_side"


class Engine(Protocol):
    """What builds avatars; `worker.engine.supervisor.Engine` is one."""

    async def run(
        self, job: RunJob, advance: Callable[[str, float], None], *, timeout_s: float
    ) -> Built:
        """Build one avatar."""


class JobRunner:
    """Runs jobs, one call each.

    Args:
        bucket: photos in.
        outputs: avatars out.
        engine: builds them.
        api: is told.
        timeout_s: longest time that one attempt may compute.
        publish_inspection: whether files that show the person are published too.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        outputs: Outputs,
        engine: Engine,
        api: ApiClient,
        timeout_s: float,
        publish_inspection: bool,
    ) -> None:
        self._bucket = bucket
        self._outputs = outputs
        self._engine = engine
        self._api = api
        self._timeout_s = timeout_s
        self._publish_inspection = publish_inspection

    # ------------------------------------------------------------ 1. the queue hands over a job
    async def run(self, delivery: Delivery) -> dict[str, Any]:
        """Do one attempt at one job, and write its summary line.

        Returns:
            BullMQ's return value: the result that the API was told.

        Raises:
            AvatarError: the attempt failed; whether another follows is the consumer's business.
        """
        summary = JobSummary(attempt=delivery.attempt, queue_wait_s=delivery.queue_wait_s)
        with structlog.contextvars.bound_contextvars(
            job_id=claimed_job_id(delivery.data),
            queue_job_id=delivery.queue_job_id,
            attempt=delivery.attempt,
        ):
            try:
                return await self._attempt(delivery, summary)
            except asyncio.CancelledError:
                summary.outcome = "aborted"
                raise
            except AvatarError as error:
                summary.failed("failed" if _is_final(error, delivery) else "to_be_retried", error)
                raise
            finally:
                summary.write()

    async def _attempt(self, delivery: Delivery, summary: JobSummary) -> dict[str, Any]:
        # -------------------------------------------------------- 2. the payload
        try:
            job = AvatarJob.parse(delivery.data)
        except PayloadInvalid as refusal:
            await self._tell_failed(claimed_job_id(delivery.data), failure_text(refusal))
            raise

        was_started_before = delivery.starts > 1 or delivery.attempt > 1
        async with (
            JobReports(self._api, job.job_id, maybe_reported=was_started_before) as reports,
            JobProgress(delivery.progress, reports.progress) as progress,
        ):
            try:
                # ------------------------------------------------ 3. – 5. to a finished avatar
                marker = await self._find_finished(job, reports, summary)
                if marker is None:
                    marker = await self._make(job, progress, summary)
                # ------------------------------------------------ 6. the API is told
                with summary.stage("report"):
                    await reports.completed(marker.result)
                progress.reach(ProgressMark.COMPLETED)
            except Exception as error:  # noqa: BLE001 - whatever it is, the job must be settled
                failure = _named(error)
                if _is_final(failure, delivery) and not isinstance(failure, ApiUnavailable):
                    # (After ApiUnavailable the avatar is published and perhaps even reported:
                    # `failed` would be untrue.)
                    await _report_failure(reports, failure_text(failure))
                raise failure from (None if failure is error else error)
        # -------------------------------------------------------- 7. the queue has the result
        return marker.result.to_wire()

    # ------------------------------------------------------------ 3. is it finished already?
    async def _find_finished(
        self, job: AvatarJob, reports: JobReports, summary: JobSummary
    ) -> CompletionMarker | None:
        with summary.stage("look_up"):
            marker = await self._outputs.find_marker(job.job_id)
        if marker is not None:
            summary.outcome = "reported_again"
            reports.expect_earlier_report()
        return marker

    async def _make(
        self, job: AvatarJob, progress: JobProgress, summary: JobSummary
    ) -> CompletionMarker:
        """Photos in, avatar out.  A lease on the job's id (its own issue) belongs around this."""
        # Not before the look-up: `processing` after a completion would take it back.
        progress.reach(ProgressMark.ACCEPTED)
        with tempfile.TemporaryDirectory(prefix="avatar-job-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            with summary.stage("download"):
                await self._fetch_photos(job, folder)
            progress.reach(ProgressMark.PHOTOS_READ)

            # ---------------------------------------------------- 4. the engine builds it
            with summary.stage("engine"):
                built = await self._engine.run(
                    _engine_job(job, folder), progress.advance, timeout_s=self._timeout_s
                )
            summary.engine(built.stage_seconds)

            # ---------------------------------------------------- 5. outputs; the marker, last
            with summary.stage("publish"):
                hidden = frozenset() if self._publish_inspection else built.inspection_files
                marker = await self._outputs.publish(
                    job.job_id,
                    folder,
                    set(built.files) - hidden - {MARKER},
                    result=self._result(job, built),
                    sources=built.sources,
                )
            progress.reach(ProgressMark.UPLOADED)
        summary.outcome = "completed"
        summary.facts |= {"confidence": built.confidence, "view_iou": built.view_iou}
        return marker

    async def _fetch_photos(self, job: AvatarJob, folder: Path) -> None:
        photos = {FRONT_PHOTO: job.front_photo_url, SIDE_PHOTO: job.side_photo_url}
        await asyncio.gather(
            *(fetch_photo(self._bucket, url, folder / name) for name, url in photos.items() if url)
        )

    def _result(self, job: AvatarJob, built: Built) -> AvatarResultPayload:
        return AvatarResultPayload(
            user_id=job.user_id or DEFAULT_USER_ID,
            glb_url=self._outputs.glb_url(job.job_id),
            measurements=Measurements.model_validate(
                {name: round(value, 1) for name, value in built.measurements_cm.items()}
            ),
            quality_report=QualityReport(
                confidence=built.confidence, warnings=built.warnings or None
            ),
        )

    # ------------------------------------------------------------ jobs that never ran
    async def gave_up(self, delivery: Delivery, error: AvatarError) -> None:
        """Tell the API of a job that is failed without us: stalled too often, or cancelled."""
        log.error("job.gave_up", queue_job_id=delivery.queue_job_id, why=str(error))
        await self._tell_failed(claimed_job_id(delivery.data), failure_text(error))

    async def _tell_failed(self, job_id: str | None, text: str) -> None:
        if job_id is None:
            return  # nobody but the queue can be told
        async with JobReports(self._api, job_id, maybe_reported=True) as reports:
            await _report_failure(reports, text)


async def _report_failure(reports: JobReports, text: str) -> None:
    try:
        await reports.failed(text)
    except ApiUnavailable as error:
        log.warning("failure.not_delivered", why=error.message)


def _engine_job(job: AvatarJob, folder: Path) -> RunJob:
    return RunJob(
        job_id=job.job_id,
        folder=str(folder),
        front=FRONT_PHOTO,
        side=SIDE_PHOTO if job.side_photo_url else None,
        height_m=job.height_cm / 100.0,
        weight_kg=job.weight_kg,
        gender=job.gender,
    )


def _is_final(error: AvatarError, delivery: Delivery) -> bool:
    """Whether nobody will try this job again after `error`."""
    return delivery.is_last_attempt or not error.retryable


def _named(error: Exception) -> AvatarError:
    if isinstance(error, AvatarError):
        return error
    log.error("job.unexpected", exc_info=error)
    return EngineError(f"{type(error).__name__}: {error}")
