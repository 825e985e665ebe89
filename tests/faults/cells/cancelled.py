"""A job is cancelled while it waits or runs, and the worker dies of something else meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.site import Job, Site
from tests.faults.stages import Stage
from worker.consumer.cancellation import request_cancel

FAMILY: Final = "Cancelled"
REASON: Final = "CANCELLED"


async def _cancel(site: Site, job: Job) -> None:
    await request_cancel(site.redis, "bull", site.queue, job.id, "the shopper left")
    site.fault_over()


async def waiting(site: Site) -> Expected:
    """Nobody has taken it yet."""
    await site.clear_pods(none=True)
    job = await site.submit()
    await _cancel(site, job)
    await site.pod()
    return Expected(job, outcome="failed", reason=REASON)


async def running(site: Site, stage: Stage) -> Expected:
    """It runs, and is stopped."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    await _cancel(site, job)
    await site.settled(job)
    point.release()
    return Expected(job, outcome="failed", reason=REASON)


async def finished(site: Site, stage: Stage) -> Expected:
    """Its avatar is there already: whichever comes first counts, for everybody."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    await _cancel(site, job)
    point.release()
    return Expected(job, outcome="either")


async def running_and_killed(site: Site, stage: Stage) -> Expected:
    """The worker is killed before it has noticed; whoever takes the job refuses it."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(2))
    await pod.kill()
    await _cancel(site, job)
    point.release()
    return Expected(job, outcome="failed", reason=REASON)


def _cells() -> Iterator[Cell]:
    yield Cell(FAMILY, "by its key", "waiting", waiting)
    for fault, do, at in (
        ("by its key", running, (stages.DOWNLOAD, *stages.ENGINE, stages.PUBLISH)),
        (
            "by its key",
            finished,
            (stages.BEFORE_MARKER, stages.AFTER_MARKER, stages.BEFORE_REPORT, stages.AFTER_REPORT),
        ),
        ("by its key, worker SIGKILLed", running_and_killed, (stages.ENGINE[1], stages.PUBLISH)),
    ):
        for stage in at:

            async def inject(site: Site, do=do, stage: Stage = stage) -> Expected:  # type: ignore[no-untyped-def]  # bound here
                return await do(site, stage)

            yield Cell(
                FAMILY, fault, stage.name, inject, quick=(do, stage) == (running, stages.ENGINE[2])
            )


CELLS: Final = tuple(_cells())
