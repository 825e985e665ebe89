"""Redis dies and comes back, freezes, or is behind a connection that died without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.pod import Pod
from tests.faults.site import Site
from tests.faults.stages import Stage
from tests.faults.times import LONGER_S, SHORTER_S

Outage = Callable[[Site, Pod], Awaitable[None]]
"""Happens, lasts and ends."""


def _killed(down_s: float) -> Outage:
    async def outage(site: Site, _pod: Pod) -> None:
        await site.restart_redis(down_s)

    return outage


def _frozen(frozen_s: float) -> Outage:
    async def outage(site: Site, _pod: Pod) -> None:
        site.stack.valkey.freeze()
        await asyncio.sleep(frozen_s)
        site.stack.valkey.thaw()

    return outage


async def _half_open(_site: Site, pod: Pod) -> None:
    """The fault does not end: the connections of this moment never carry a byte again."""
    pod.redis.freeze()


async def _parted(_site: Site, pod: Pod) -> None:
    """One worker cannot reach Redis for longer than its lock, but MinIO and the API it can."""
    pod.redis.freeze(new_ones_too=True)
    await asyncio.sleep(LONGER_S)
    pod.redis.thaw()


async def while_working(site: Site, stage: Stage, outage: Outage, *, workers: int) -> Expected:
    """The job goes on from `stage` as soon as Redis is gone."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(workers))
    happening = asyncio.create_task(outage(site, pod))
    await asyncio.sleep(0.05)
    point.release()
    await happening
    site.fault_over()
    return Expected(job)


async def while_waiting(site: Site, stage: Stage, outage: Outage, *, workers: int) -> Expected:
    """The job is at `stage` all the while, and goes on when Redis is back."""
    job, point, pod, _ = await stage.stop_one(site, await site.some_pods(workers))
    await outage(site, pod)
    site.fault_over()
    point.release()
    return Expected(job)


async def while_failing(site: Site, outage: Outage) -> Expected:
    """The job has just turned out to be impossible: its photo is gone."""
    pod = await site.one_pod()
    job, point = await stages.DOWNLOAD.stop(site, pod)
    await site.remove_photo(job)
    happening = asyncio.create_task(outage(site, pod))
    await asyncio.sleep(0.05)
    point.release()
    await happening
    site.fault_over()
    return Expected(job, outcome="failed", reason="PHOTO_NOT_FOUND")


async def while_idle(site: Site, outage: Outage) -> Expected:
    """The worker waits for a job, which comes afterwards."""
    pod = await site.one_pod()
    await outage(site, pod)
    site.fault_over()
    return Expected(await site.submit(), attempts=1)


def _cells() -> Iterator[Cell]:
    outages = (
        ("Redis SIGKILL", f"down {SHORTER_S:g} s, less than the lock", _killed(SHORTER_S)),
        ("Redis SIGKILL", f"down {LONGER_S:g} s, more than the lock", _killed(LONGER_S)),
        ("Redis frozen", f"SIGSTOP {SHORTER_S:g} s, less than the lock", _frozen(SHORTER_S)),
        ("Redis frozen", f"SIGSTOP {LONGER_S:g} s, more than the lock", _frozen(LONGER_S)),
        ("TCP half-open", "no byte, no RST", _half_open),
    )
    observe = stages.ENGINE[1]
    moments = (
        (observe, while_working, 1),
        (observe, while_waiting, 2),
        (stages.BEFORE_MARKER, while_working, 2),
        (stages.AFTER_MARKER, while_waiting, 1),
        (stages.BEFORE_REPORT, while_working, 1),
        (stages.BEFORE_COMPLETED, while_working, 2),
        (stages.AFTER_COMPLETED, while_working, 1),
    )
    for family, fault, outage in outages:
        for stage, when, workers in moments:

            async def inject(
                site: Site,
                stage: Stage = stage,
                when=when,
                outage: Outage = outage,
                workers: int = workers,  # type: ignore[no-untyped-def]
            ) -> Expected:
                return await when(site, stage, outage, workers=workers)

            how = "goes on" if when is while_working else "waits"
            number = "one worker" if workers == 1 else "two workers"
            quick = (stage, when) == (observe, while_working) and "more" not in fault
            yield Cell(family, fault, f"{stage.name}, {how}, {number}", inject, quick=quick)

        async def idle(site: Site, outage: Outage = outage) -> Expected:
            return await while_idle(site, outage)

        async def failing(site: Site, outage: Outage = outage) -> Expected:
            return await while_failing(site, outage)

        yield Cell(family, fault, "the job fails, goes on, one worker", failing)
        yield Cell(family, fault, "idle", idle)

    for stage in (stages.DOWNLOAD, observe, *(moment[0] for moment in moments[2:-1])):

        async def parted(site: Site, stage: Stage = stage) -> Expected:
            expected = await while_working(site, stage, _parted, workers=2)
            return replace(expected, put_right=True)

        name = f"{stage.name}, goes on, two workers"
        yield Cell(
            "TCP half-open", f"one worker parted from Redis for {LONGER_S:g} s", name, parted
        )


CELLS: Final = tuple(_cells())
