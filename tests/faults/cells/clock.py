"""The machine's wall clock is wrong, or is set while a job runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.pod import Pod
from tests.faults.site import Site

FAMILY: Final = "Clock jump"
JUMP_S: Final = 600
"""Within the 15 minutes by which S3 lets clocks differ; many times lock and lease."""


async def _pod(site: Site, offset_s: float) -> tuple[Pod, Path]:
    await site.clear_pods(none=True)
    file = site.folder / f"clock-{len(site.all_pods)}"
    file.write_text(str(offset_s))
    return await site.pod(FAULT_CLOCK=str(file)), file


async def jumps(site: Site, seconds: float) -> Expected:
    """The clock is set while the engine works, and that attempt is lost: it is tried again."""
    pod, clock = await _pod(site, 0)
    job, point = await stages.ENGINE[2].stop(site, pod)
    clock.write_text(str(seconds))
    pod.kill_engine()
    site.fault_over()
    point.release()
    return Expected(job, attempts=2)


async def differs(site: Site, seconds: float) -> Expected:
    """One worker's clock is wrong from the start; it is killed, and another takes over."""
    pod, _ = await _pod(site, seconds)
    job, point = await stages.ENGINE[2].stop(site, pod)
    await site.pod()
    await pod.kill()
    site.fault_over()
    point.release()
    return Expected(job, attempts=1)


def _cells() -> Iterator[Cell]:
    for seconds in (JUMP_S, -JUMP_S):

        async def jump(site: Site, seconds: float = seconds) -> Expected:
            return await jumps(site, seconds)

        async def differ(site: Site, seconds: float = seconds) -> Expected:
            return await differs(site, seconds)

        way = "ahead" if seconds > 0 else "back"
        quick = seconds < 0
        yield Cell(FAMILY, f"{JUMP_S} s {way}", "engine: fit", jump, alone=True, quick=quick)
        yield Cell(FAMILY, f"{JUMP_S} s {way} of the others", "engine: fit", differ, alone=True)


CELLS: Final = tuple(_cells())
