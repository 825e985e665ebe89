"""The stages of a job at which a fault can be injected, and how a worker is stopped at each.

A worker is stopped from outside: a request of it to MinIO, the API or Redis is not passed on, or
passed on and not answered; an engine process waits for a file.  So the fault hits at that stage in
every run, however fast the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.faults.pod import Pod
from tests.faults.proxy import Hold, Request
from tests.faults.site import Job, Site

ENGINE_STAGES: Final = ("photo", "observe", "fit", "measure", "export")


class Point(Protocol):
    """A worker that is stopped at a stage, or will be."""

    async def wait_reached(self, timeout_s: float = 30.0) -> None:
        """Wait until it is there."""

    def release(self) -> None:
        """Let it go on."""


@dataclass(frozen=True)
class Stage:
    """A stage, and how to stop a worker at it.

    Attributes:
        arm: makes `pod` stop when it comes there with `job`; called before the job is enqueued.
        word: what the fake engine does, with the path of a file filled in for `{gate}`.
    """

    name: str
    arm: Callable[[Pod, Job], Point]
    word: str = "ok"

    async def stop(
        self, site: Site, pod: Pod, *, word: str | None = None, **options: Any
    ) -> tuple[Job, Point]:
        """Give `pod`, the only worker, a job, and wait until it is stopped here.

        Args:
            site: where.
            pod: the worker.
            word: a further one for the fake engine.
            options: BullMQ's, for the job.
        """
        job, point, _, _ = await self.stop_one(site, [pod], word=word, **options)
        return job, point

    async def stop_one(
        self, site: Site, pods: Sequence[Pod], *, word: str | None = None, **options: Any
    ) -> tuple[Job, Point, Pod, list[Pod]]:
        """Give several workers a job; one of them comes here and is stopped.

        Returns:
            The job, the point, the worker that is stopped, and the others.
        """
        job = await site.prepare(self.word if word is None else f"{self.word} {word}")
        points = [self.arm(pod, job) for pod in pods]
        await site.enqueue(job, **options)
        waits = [asyncio.create_task(point.wait_reached()) for point in points]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in done:
            await wait
        for wait in waits:
            wait.cancel()
        index = next(i for i, wait in enumerate(waits) if wait in done)
        if not isinstance(points[index], Hold):  # an engine's file does not say whose engine
            pid = (await site.processed_by(job)).rpartition(":")[2]
            index = next(i for i, pod in enumerate(pods) if str(pod.process.pid) == pid)
        point, holder = points[index], pods[index]
        for other in points:
            if isinstance(other, Hold) and other is not point:
                other.release()
        return job, point, holder, [pod for pod in pods if pod is not holder]


class EngineHold:
    """The fake engine, waiting for the file that its word names.

    Args:
        file: which is not there; the engine makes `FILE.reached` when it comes there.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reached = file.with_name(f"{file.name}.reached")

    async def wait_reached(self, timeout_s: float = 30.0) -> None:
        """Wait until an engine process is there."""
        async with asyncio.timeout(timeout_s):
            while not self._reached.exists():  # noqa: ASYNC110 - a file tells of itself by no event
                await asyncio.sleep(0.005)

    def release(self) -> None:
        """Let this one and all later ones through."""
        self._file.touch()


def _marker(pod: Pod, job: Job, method: str, *, answered: bool) -> Hold:
    return pod.storage.hold(
        lambda r: r.method == method and f"/avatars/{job.id}/result.json" in r.path,
        answered=answered,
    )


def _put(pod: Pod, job: Job, name: str) -> Hold:
    return pod.storage.hold(lambda r: r.method == "PUT" and f"{job.id}/{name}" in r.path)


def _download(pod: Pod, job: Job) -> Hold:
    key = job.payload["frontPhotoUrl"].partition("/uploads/")[2]
    return pod.storage.hold(lambda r: r.method == "GET" and f"/uploads/{key}" in r.path)


def is_final_report(request: Request) -> bool:
    """Whether it tells the API that a job is over."""
    return request.method == "PATCH" and b'"processing"' not in request.body


def _report(pod: Pod, job: Job, *, answered: bool) -> Hold:
    return pod.api.hold(lambda r: is_final_report(r) and job.id in r.path, answered=answered)


def is_completion(command: bytes) -> bool:
    """Whether a Redis command is BullMQ's moveToFinished for a completed job."""
    return b":metrics:completed" in command


def _engine(stage: str) -> Stage:
    def arm(_pod: Pod, job: Job) -> Point:
        assert job.gate is not None
        return EngineHold(job.gate)

    return Stage(f"engine: {stage}", arm, f"hold-{stage}:{{gate}}")


ENGINE: Final = tuple(_engine(stage) for stage in ENGINE_STAGES)
TAKEN: Final = Stage("job taken", lambda p, j: _marker(p, j, "GET", answered=False))
DOWNLOAD: Final = Stage("download", _download)
PUBLISH: Final = Stage("publish", lambda p, j: _put(p, j, "avatar.glb"))
BEFORE_MARKER: Final = Stage("before the marker", lambda p, j: _marker(p, j, "PUT", answered=False))
AFTER_MARKER: Final = Stage("after the marker", lambda p, j: _marker(p, j, "PUT", answered=True))
BEFORE_REPORT: Final = Stage("report, not stored", lambda p, j: _report(p, j, answered=False))
AFTER_REPORT: Final = Stage("report, stored", lambda p, j: _report(p, j, answered=True))
BEFORE_COMPLETED: Final = Stage(
    "before BullMQ has it",
    lambda p, _: p.redis.hold_bytes(is_completion, answered=False),
)
AFTER_COMPLETED: Final = Stage(
    "after BullMQ has it",
    lambda p, _: p.redis.hold_bytes(is_completion, answered=True),
)

PARENT_STAGES: Final = (
    *(TAKEN, DOWNLOAD, PUBLISH, BEFORE_MARKER, AFTER_MARKER),
    *(BEFORE_REPORT, AFTER_REPORT, BEFORE_COMPLETED, AFTER_COMPLETED),
)
ALL: Final = (TAKEN, DOWNLOAD, *ENGINE, *PARENT_STAGES[2:])
