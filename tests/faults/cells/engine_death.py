"""SIGKILL of the engine's process at each stage, and jobs that end it themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.site import Site
from tests.faults.stages import Stage

FAMILY: Final = "SIGKILL of the engine"


async def sigkill(site: Site, stage: Stage) -> Expected:
    """The process that computes vanishes: that attempt is lost, and only that."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    pod.kill_engine()
    site.fault_over()
    point.release()
    return Expected(job, attempts=2)


async def sigkill_idle(site: Site) -> Expected:
    """It vanishes while nobody uses it: the next job is not harmed."""
    pod = await site.one_pod()
    pod.kill_engine()
    site.fault_over()
    return Expected(await site.submit(), attempts=1)


async def poison(site: Site) -> list[Expected]:
    """A job kills it at every attempt: it fails with that reason, and the next job is done."""
    await site.one_pod()
    bad = await site.submit("kill-fit")
    good = await site.submit()
    return [
        Expected(bad, outcome="failed", reason="JOB_KILLS_ENGINE"),
        Expected(good, attempts=1),
    ]


async def out_of_memory(site: Site) -> Expected:
    """The first try at full cost runs out of memory, the second at lower cost does not."""
    await site.one_pod()
    return Expected(await site.submit("oom-once"))


async def always_out_of_memory(site: Site) -> Expected:
    """Neither does: the job fails once all attempts are made."""
    await site.one_pod()
    return Expected(await site.submit("oom"), outcome="failed", reason="OUT_OF_MEMORY")


def _cells() -> Iterator[Cell]:
    for stage in stages.ENGINE:

        async def inject(site: Site, stage: Stage = stage) -> Expected:
            return await sigkill(site, stage)

        yield Cell(FAMILY, "SIGKILL", stage.name, inject, quick=stage is stages.ENGINE[2])
    yield Cell(FAMILY, "SIGKILL", "idle", sigkill_idle)
    yield Cell(FAMILY, "SIGKILL at every attempt", "engine: fit", poison)
    yield Cell("Out of memory", "at full cost", "engine: photo", out_of_memory, quick=True)
    yield Cell("Out of memory", "at any cost", "engine: photo", always_out_of_memory)


CELLS: Final = tuple(_cells())
