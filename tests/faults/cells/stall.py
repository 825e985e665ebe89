"""The worker's parent is frozen (SIGSTOP), as a virtual machine is paused; then it wakes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.proxy import Hold
from tests.faults.site import Site
from tests.faults.stages import Stage
from tests.faults.times import LONGER_S, SHORTER_S

FAMILY: Final = "Event loop stalled"


async def shorter(site: Site, stage: Stage) -> Expected:
    """Less than the lock: nothing is lost."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    pod.signal(signal.SIGSTOP)
    await asyncio.sleep(SHORTER_S)
    pod.signal(signal.SIGCONT)
    point.release()
    site.fault_over()
    return Expected(job, attempts=1)


async def alone(site: Site, stage: Stage) -> Expected:
    """More than the lock, and nobody else is there: it finds its own job stalled."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    pod.signal(signal.SIGSTOP)
    await asyncio.sleep(LONGER_S)
    pod.signal(signal.SIGCONT)
    point.release()
    site.fault_over()
    return Expected(job, put_right=True)


async def zombie(site: Site, stage: Stage, *, word: str | None = None) -> Expected:
    """More than the lock: another finishes the job, and then the first wakes in the middle of it.

    What it was sending when it froze arrives late: that nobody can stop.
    """
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(2), word=word)
    pod.signal(signal.SIGSTOP)
    site.fault_over()
    if stage in stages.ENGINE:
        point.release()
    await site.settled(job)
    point.release()
    if isinstance(point, Hold):
        await point.arrived.wait()
    pod.signal(signal.SIGCONT)
    await pod.until_ready()
    await pod.until_idle()
    return Expected(
        job,
        put_right=True,
        markers=2 if stage is stages.BEFORE_MARKER else 1,
        refused=1 if stage is stages.BEFORE_REPORT else 0,
    )


async def zombie_with_other_bytes(site: Site, stage: Stage) -> Expected:
    """The same, where computing twice gives two different avatars."""
    return await zombie(site, stage, word="random")


def _cells() -> Iterator[Cell]:
    observe = stages.ENGINE[1]
    yield _cell(f"{SHORTER_S:g} s, less than the lock", observe, shorter)
    yield _cell(f"{SHORTER_S:g} s, less than the lock", stages.BEFORE_COMPLETED, shorter)
    yield _cell(f"{LONGER_S:g} s, more than the lock, alone", observe, alone)
    yield _cell(f"{LONGER_S:g} s, more than the lock, alone", stages.BEFORE_COMPLETED, alone)
    for stage in (stages.TAKEN, stages.DOWNLOAD, *stages.ENGINE, *stages.PARENT_STAGES[2:]):
        if stage is not stages.AFTER_COMPLETED:
            yield _cell("until another has done the job", stage, zombie)
    for stage in (stages.PUBLISH, stages.BEFORE_MARKER):
        yield _cell("the same, bytes differ", stage, zombie_with_other_bytes)


def _cell(fault: str, stage: Stage, do) -> Cell:  # type: ignore[no-untyped-def]  # one of the above
    async def inject(site: Site) -> Expected:
        return await do(site, stage)

    return Cell(FAMILY, fault, stage.name, inject, quick=(do, stage) == (zombie, stages.ENGINE[1]))


CELLS: Final = tuple(_cells())
