"""SIGKILL and SIGTERM of the worker at each stage of a job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.site import Site
from tests.faults.stages import Stage
from worker.lifecycle import ExitCode


async def sigkill(site: Site, stage: Stage) -> Expected:
    """The worker vanishes; another finds the job stalled."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(2))
    await pod.kill()
    site.fault_over()
    point.release()
    return Expected(job, attempts=1)


async def sigterm(site: Site, stage: Stage) -> Expected:
    """The worker is asked to stop; another takes the job from the head of the queue."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(2))
    site.fault_over()
    # How long that takes is no cell's business but the figures'.
    code, _ = await pod.terminate()
    point.release()
    assert code == ExitCode.STOPPED, f"exit code {code}"
    return Expected(job, attempts=1)


def _cells() -> Iterator[Cell]:
    for fault, do in (("SIGKILL", sigkill), ("SIGTERM", sigterm)):
        for stage in stages.ALL:

            async def inject(site: Site, do=do, stage: Stage = stage) -> Expected:  # type: ignore[no-untyped-def]  # bound here
                return await do(site, stage)

            quick = (fault, stage) in {
                ("SIGKILL", stages.AFTER_REPORT),
                ("SIGTERM", stages.ENGINE[1]),
            }
            yield Cell(f"{fault} of the worker", fault, stage.name, inject, quick=quick)


CELLS: Final = tuple(_cells())
