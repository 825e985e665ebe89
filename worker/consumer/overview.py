"""What `avatar-worker queue` shows: a queue at one moment, and what is wrong with it.

Plain data with names as the JSON has them; `worker.consumer.survey` fills it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

STATES: Final = (
    "waiting", "prioritized", "delayed", "active", "waiting-children", "completed", "failed",
)  # fmt: skip
LATE_REPORT_S: Final = 300.0
"""A report that the API has not taken for so long is worth a look; it is tried for a day."""
OVERDUE_S: Final = 60.0
"""Workers move a delayed job within seconds of its time."""


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class WorkerView(_View):
    """A worker that waits for jobs of this queue, by its connection's name."""

    name: str
    address: str
    connected_s: float


class RunningView(_View):
    """A job in `active`."""

    queue_job_id: str
    job_id: str | None
    """`data.jobId`; None when the data does not hold a usable one."""
    processed_by: str | None
    running_s: float
    attempts_made: int
    starts: int
    stalls: int
    lock_s: float | None
    """For how long the lock holds without a renewal; None: nobody holds it."""


class FailedView(_View):
    """A job in `failed`."""

    queue_job_id: str
    job_id: str | None
    reason: str
    failed_s: float
    """How long ago."""


class OrphanView(_View):
    """A job that exists and that no list of the queue names: no worker will ever take it."""

    queue_job_id: str
    job_id: str | None
    added_s: float
    """How long ago."""


class LeaseView(_View):
    """Who may write the results of a job, and for how long without a renewal."""

    job_id: str
    holder: str
    expires_s: float


class MarkView(_View):
    """What the workers were told, or remember, of a job."""

    kind: Literal["cancel", "fresh", "kills"]
    job_id: str
    expires_s: float


class ReportView(_View):
    """A final report that the API does not have yet."""

    job_id: str
    status: str
    parked: bool
    """Given up after a day; nobody tries it again until it is brought back."""
    age_s: float
    tries: int
    last_error: str | None


class ScanView(_View):
    """How much of Redis was looked through for orphans, leases and marks."""

    keys: int
    complete: bool


class Trouble(_View):
    """Something that will not mend itself, or not soon, and what to do about it."""

    kind: str
    text: str
    advice: str


class Overview(_View):
    """A queue at one moment."""

    prefix: str
    queue: str
    paused: bool
    counts: dict[str, int]
    workers: tuple[WorkerView, ...] | None
    """None: this user of Redis may not list connections."""
    running: tuple[RunningView, ...]
    failed: tuple[FailedView, ...]
    """The latest."""
    overdue: int
    """Delayed jobs whose time was over a minute ago."""
    orphans: tuple[OrphanView, ...]
    leases: tuple[LeaseView, ...]
    marks: tuple[MarkView, ...]
    reports: tuple[ReportView, ...]
    scan: ScanView

    def troubles(self) -> list[Trouble]:
        """What to do something about, the most urgent first."""
        return [
            *self._about_workers(),
            *self._about_jobs(),
            *self._about_reports(),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values, troubles included."""
        return self.model_dump(mode="json", by_alias=True) | {
            "troubles": [trouble.model_dump(by_alias=True) for trouble in self.troubles()]
        }

    def _about_workers(self) -> Iterator[Trouble]:
        if self.paused:
            yield Trouble(
                kind="PAUSED",
                text="The queue is paused: no job is taken.",
                advice="Resume it in Bull Board, or with BullMQ's queue.resume().",
            )
        ready = self.counts["waiting"] + self.counts["prioritized"]
        if self.workers == () and (ready or self.running or self.overdue):
            yield Trouble(
                kind="NO_WORKER",
                text=f"No worker is connected. Waiting jobs: {ready}.",
                advice="Start a worker, or read the log and /ready of one that should be there.",
            )
        if self.overdue:
            yield Trouble(
                kind="OVERDUE",
                text=f"Delayed jobs that are overdue: {self.overdue}.",
                advice="A worker takes them when it next asks; is one running and not full?",
            )

    def _about_jobs(self) -> Iterator[Trouble]:
        for job in self.running:
            if job.lock_s is not None:
                continue
            helped = "wait half a minute for a worker" if self.workers else "start a worker"
            yield Trouble(
                kind="STALLED",
                text=f"{_name(job.queue_job_id, job.job_id)} is active and no worker holds it.",
                advice=f"Either {helped}, or avatar-worker queue requeue {job.queue_job_id}",
            )
        for orphan in self.orphans:
            yield Trouble(
                kind="ORPHAN",
                text=f"{_name(orphan.queue_job_id, orphan.job_id)} is in no list of the queue.",
                advice=f"avatar-worker queue requeue {orphan.queue_job_id}",
            )
        if failed := self.counts["failed"]:
            yield Trouble(
                kind="FAILED",
                text=f"Failed jobs: {failed}.",
                advice="Read why; then avatar-worker queue retry ID, or --failed for all that "
                "another attempt can help.",
            )

    def _about_reports(self) -> Iterator[Trouble]:
        for report in self.reports:
            if report.parked:
                yield Trouble(
                    kind="REPORT_PARKED",
                    text=f"The API never took the final report of {report.job_id}.",
                    advice=f"Mend the API; then avatar-worker queue report {report.job_id}",
                )
            elif report.age_s > LATE_REPORT_S:
                yield Trouble(
                    kind="REPORT_LATE",
                    text=f"The API has not taken the final report of {report.job_id} for "
                    f"{report.age_s / 60:.0f} min: {report.last_error or 'no try yet'}",
                    advice="Look at the API; workers go on trying for a day.",
                )


def _name(queue_job_id: str, job_id: str | None) -> str:
    return f"Job {queue_job_id}" + (f" (jobId {job_id})" if job_id else "")
