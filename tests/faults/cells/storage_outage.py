"""MinIO is down, slow, answers 503, dies in the middle of an upload, or its answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.pod import Pod
from tests.faults.proxy import CutError, Request, Send, answer, send_part
from tests.faults.site import Job, Site
from tests.faults.stages import Stage

FAMILY: Final = "MinIO"
SLOW_S: Final = 0.4
STAGES: Final = (stages.TAKEN, stages.DOWNLOAD, stages.PUBLISH, stages.BEFORE_MARKER)
SLOW_DOWN: Final = b"<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"


async def down(site: Site, stage: Stage) -> Expected:
    """The server is killed, and is back while attempts are left."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    happening = asyncio.create_task(site.restart_storage(0.6))
    await asyncio.sleep(0.05)
    point.release()
    await happening
    site.fault_over()
    return Expected(job)


async def down_too_long(site: Site) -> Expected:
    """The server is not back before the last attempt: the job fails, once."""
    pod = await site.one_pod()
    job, point = await stages.DOWNLOAD.stop(site, pod)
    site.stack.gateway.kill()
    point.release()
    await site.settled(job)
    site.stack.gateway.spawn()
    await asyncio.to_thread(site.stack.gateway.wait_ready)
    site.fault_over()
    return Expected(job, outcome="failed", reason="STORAGE_UNAVAILABLE")


async def slow(site: Site) -> Expected:
    """Every request takes its time."""
    pod = await site.one_pod()

    async def slowly(request: Request, send: Send) -> bytes:
        await asyncio.sleep(SLOW_S)
        return await send(request.raw)

    pod.storage.rule(lambda _: True, slowly, once=False)
    return Expected(await site.submit(), attempts=1)


async def unavailable(site: Site, stage: Stage) -> Expected:
    """The server answers 503 to everything for a while."""
    pod = await site.one_pod()
    job, point = await stage.stop(site, pod)
    pod.storage.rule(lambda _: True, _refuse, once=False)
    point.release()
    await asyncio.sleep(1.0)
    pod.storage.clear()
    site.fault_over()
    return Expected(job)


async def unavailable_at_the_end(site: Site) -> Expected:
    """503 to everything once the API has been told: what was kept of the job cannot be removed."""
    pod = await site.one_pod()
    job, point = await stages.AFTER_REPORT.stop(site, pod)
    pod.storage.rule(lambda _: True, _refuse, once=False)
    point.release()
    await site.settled(job)
    await asyncio.sleep(1.0)
    pod.storage.clear()
    site.fault_over()
    return Expected(job)


async def _refuse(_request: Request, _send: Send) -> bytes:
    return answer(503, "Slow Down", SLOW_DOWN, content_type="application/xml")


def _key(job: Job, name: str) -> Callable[[Request], bool]:
    return lambda r: r.method == "PUT" and f"/avatars/{job.id}/{name}" in r.path


async def _with_rule(
    site: Site, name: str, rule: Callable[[Pod, Request, Send], Awaitable[bytes]], times: int = 1
) -> Job:
    pod = await site.one_pod()
    job = await site.prepare()
    for _ in range(times):
        pod.storage.rule(_key(job, name), lambda request, send: rule(pod, request, send))
    return await site.enqueue(job)


async def cut_mid_upload(site: Site, name: str) -> Expected:
    """Half of the file arrives, then the connection breaks; all tries of one attempt."""

    async def cut(pod: Pod, request: Request, _send: Send) -> bytes:
        await send_part(pod.storage.target_port, request.raw, 0.5)
        raise CutError

    return Expected(await _with_rule(site, name, cut, times=3))


async def killed_mid_upload(site: Site, name: str) -> Expected:
    """Half of the file arrives, then the server is killed, and is back after a moment."""
    restarts = []

    async def kill(pod: Pod, request: Request, _send: Send) -> bytes:
        await send_part(pod.storage.target_port, request.raw, 0.5)
        site.stack.gateway.kill()
        restarts.append(asyncio.create_task(site.restart_storage(0.3)))
        raise CutError

    job = await _with_rule(site, name, kill)
    await site.settled(job)
    await asyncio.gather(*restarts)
    site.fault_over_at = site.settled_by_id[job.queue_ids[0]][0].at
    return Expected(job)


async def answer_lost(site: Site, name: str) -> Expected:
    """The file is stored, but the worker is never told."""

    async def lose(_pod: Pod, request: Request, send: Send) -> bytes:
        await send(request.raw)
        raise CutError

    job = await _with_rule(site, name, lose)
    return Expected(job, markers=2 if name == "result.json" else 1)


def _cells() -> Iterator[Cell]:
    for stage in STAGES:

        async def is_down(site: Site, stage: Stage = stage) -> Expected:
            return await down(site, stage)

        async def is_unavailable(site: Site, stage: Stage = stage) -> Expected:
            return await unavailable(site, stage)

        yield Cell(FAMILY, "down 0.6 s", stage.name, is_down, quick=stage is stages.PUBLISH)
        yield Cell(FAMILY, "503 for 1 s", stage.name, is_unavailable)
    yield Cell(FAMILY, "503 for 1 s", "cleaning up", unavailable_at_the_end)
    yield Cell(FAMILY, "down longer than all attempts", "download", down_too_long)
    yield Cell(FAMILY, f"slow: {SLOW_S:g} s a request", "all", slow)
    for name, where in (("avatar.glb", "publish"), ("result.json", "the marker")):
        for fault, do in (
            ("connection cut mid-upload", cut_mid_upload),
            ("killed mid-upload", killed_mid_upload),
            ("stored, answer lost", answer_lost),
        ):

            async def inject(site: Site, do=do, name: str = name) -> Expected:  # type: ignore[no-untyped-def]  # bound here
                return await do(site, name)

            yield Cell(FAMILY, fault, where, inject)


CELLS: Final = tuple(_cells())
