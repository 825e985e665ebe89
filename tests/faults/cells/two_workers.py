"""Two workers on one job: by two BullMQ jobs, by a stolen lock, by a stolen lease."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.site import Site
from tests.faults.stages import Stage
from worker.consumer.keys import own_key

FAMILY: Final = "Two on one job"
THEFT_MS: Final = 1_500
THIEF: Final = "somebody-else"


async def two_jobs(site: Site, stage: Stage) -> Expected:
    """A second BullMQ job with the same `data.jobId` is taken by a second worker."""
    job, point, _pod, _ = await stage.stop_one(site, await site.some_pods(2))
    await site.enqueue(job)
    await site.until(lambda: bool(site.seen(job.queue_ids[1], "active")))
    site.fault_over()
    point.release()
    return Expected(job)


async def two_jobs_first_killed(site: Site, stage: Stage) -> Expected:
    """The same, and the worker that does it is killed."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(2))
    await site.enqueue(job)
    await site.until(lambda: bool(site.seen(job.queue_ids[1], "active")))
    await pod.kill()
    site.fault_over()
    point.release()
    return Expected(job)


async def again(site: Site) -> Expected:
    """The second BullMQ job comes when the first is over: it gets the same result."""
    await site.one_pod()
    job = await site.submit()
    await site.settled(job)
    await site.told(job)
    site.fault_over()
    await site.enqueue(job)
    await site.settled(job)
    results = [site.settled_by_id[queue_id][0].reason for queue_id in job.queue_ids]
    assert results[0] == results[1], f"the results differ: {results}"
    return Expected(job)


async def stolen_lock(site: Site, stage: Stage) -> Expected:
    """BullMQ's lock is another's: whoever has lost it lets go within a second or so."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    key = f"bull:{site.queue}:{job.queue_ids[0]}:lock"
    await site.redis.set(key, THIEF, px=THEFT_MS)
    site.fault_over()
    await pod.logged("job.lock_lost")
    point.release()
    return Expected(job)


async def stolen_lease(site: Site, stage: Stage) -> Expected:
    """The lease is another's, BullMQ's lock is not."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    await site.redis.set(own_key("bull", site.queue, "lease", job.id), THIEF, px=THEFT_MS)
    site.fault_over()
    await pod.logged("lease.lost")
    point.release()
    return Expected(job)


def _cells() -> Iterator[Cell]:
    observe = stages.ENGINE[1]
    for fault, do, at in (
        (
            "two BullMQ jobs, one data.jobId",
            two_jobs,
            (observe, stages.BEFORE_MARKER, stages.BEFORE_REPORT),
        ),
        (
            "the same, first worker SIGKILLed",
            two_jobs_first_killed,
            (observe, stages.BEFORE_MARKER, stages.BEFORE_REPORT),
        ),
        ("stolen lock", stolen_lock, (observe, stages.BEFORE_MARKER)),
        ("stolen lease", stolen_lease, (observe, stages.BEFORE_MARKER)),
    ):
        for stage in at:

            async def inject(site: Site, do=do, stage: Stage = stage) -> Expected:  # type: ignore[no-untyped-def]  # bound here
                return await do(site, stage)

            quick = stage is observe and do is two_jobs
            yield Cell(FAMILY, fault, stage.name, inject, quick=quick)
    yield Cell(FAMILY, "a second BullMQ job", "after the first is over", again)


CELLS: Final = tuple(_cells())
