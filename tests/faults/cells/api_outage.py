"""The API is down, or says one thing and has done another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from tests.fakes.api import FakeApi, Fault, after_storing, instead_of_storing
from tests.faults import stages
from tests.faults.invariants import Expected
from tests.faults.matrix import Cell
from tests.faults.pod import Pod
from tests.faults.site import Job, Site
from tests.faults.times import API_TIMEOUT_S, RETRY_AFTER_S

FAMILY: Final = "API"
DOWN_S: Final = 5.0


async def down(site: Site) -> Expected:
    """Nothing listens from before the report until long after: BullMQ does not wait for it."""
    pod = await site.one_pod()
    job, point = await stages.BEFORE_MARKER.stop(site, pod)
    await pod.api.refuse()
    point.release()
    await site.settled(job)
    await asyncio.sleep(DOWN_S)
    assert not site.ledger.finals(job.id)
    await pod.api.start()
    site.fault_over()
    return Expected(job, attempts=1)


async def _left_in_outbox(site: Site) -> tuple[Job, Pod, list[Pod]]:
    """A job that is completed in BullMQ while no worker can reach the API."""
    pods = await site.some_pods(2)
    job, point, pod, others = await stages.BEFORE_MARKER.stop_one(site, pods)
    for each in pods:
        await each.api.refuse()
    point.release()
    await site.settled(job)
    return job, pod, others


async def down_and_killed(site: Site) -> Expected:
    """The worker that has the report is killed, and the API comes back: another delivers it."""
    job, pod, (other,) = await _left_in_outbox(site)
    await pod.kill()
    await other.api.start()
    site.fault_over()
    return Expected(job, attempts=1)


async def down_and_stopped(site: Site) -> Expected:
    """The same, and the worker is stopped in order."""
    job, pod, (other,) = await _left_in_outbox(site)
    await pod.terminate()
    await other.api.start()
    site.fault_over()
    return Expected(job, attempts=1)


async def _with_fault(site: Site, *faults: Fault, word: str = "ok") -> Expected:
    await site.one_pod()
    site.api.faults[:] = faults
    return Expected(await site.submit(word), attempts=1)


async def stored_and_500(site: Site) -> Expected:
    """The completion is stored and answered 500."""
    return await _with_fault(site, after_storing(JSONResponse({"error": "fault"}, 500)))


async def half_stored(site: Site) -> Expected:
    """The avatar is created, the status is not noted: a bare `completed` must follow."""

    def half(api: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
        api.store(job_id, body)
        api.jobs[job_id]["status"] = "processing"
        return JSONResponse({"error": "fault"}, 500)

    expected = await _with_fault(site, half)
    return Expected(expected.job, attempts=1, finals=2)


async def stored_and_silent(site: Site) -> Expected:
    """The completion is stored, and the answer comes after the worker has hung up."""
    pod = await site.one_pod()
    job, point = await stages.AFTER_REPORT.stop(site, pod)
    await asyncio.sleep(API_TIMEOUT_S * 1.2)
    point.release()
    site.fault_over()
    return Expected(job, attempts=1)


async def silent(site: Site) -> Expected:
    """Nothing is stored, and no answer comes."""
    pod = await site.one_pod()
    job, point = await stages.BEFORE_REPORT.stop(site, pod)
    await asyncio.sleep(API_TIMEOUT_S * 1.2)
    point.release()
    site.fault_over()
    return Expected(job, attempts=1)


async def retry_after(site: Site) -> Expected:
    """429: the report is not sent again before it may be."""
    pod = await site.one_pod()
    refusal = instead_of_storing(429, **{"retry-after": str(RETRY_AFTER_S)})
    site.api.faults[:] = [refusal]
    job = await site.submit()
    await site.told(job)
    patches = [p for p in pod.api.passed if p.method == "PATCH" and job.id in p.path]
    refused = next(p for p in patches if p.status == 429)
    pause_s = site.ledger.finals(job.id)[0].at - refused.at
    assert pause_s >= RETRY_AFTER_S, f"sent again after {pause_s:.2f} s"
    site.fault_over_at = refused.at + RETRY_AFTER_S
    return Expected(job, attempts=1)


async def unknown(site: Site) -> Expected:
    """404: nobody waits for this job any more; it completes, and what was made stays."""
    await site.one_pod()
    job = await site.prepare()
    del site.api.jobs[job.id]
    return Expected(await site.enqueue(job), attempts=1, known=False)


async def failure_not_stored(site: Site) -> Expected:
    """The same for a job that fails: 503 to its final report, twice."""
    refusal = instead_of_storing(503)
    expected = await _with_fault(site, refusal, refusal, word="no-person")
    return Expected(expected.job, outcome="failed", reason="NO_PERSON")


async def failure_stored_and_500(site: Site) -> Expected:
    """The failure is stored and answered 500."""
    expected = await _with_fault(
        site, after_storing(JSONResponse({"error": "fault"}, 500)), word="no-person"
    )
    return Expected(expected.job, outcome="failed", reason="NO_PERSON")


def _answered(code: int, times: int) -> Callable[[Site], Any]:
    async def inject(site: Site) -> Expected:
        return await _with_fault(site, *[instead_of_storing(code)] * times)

    return inject


def _cells() -> Iterator[Cell]:
    report, outbox = "report", "report in the outbox"
    yield Cell(FAMILY, f"down {DOWN_S:g} s", report, down)
    yield Cell(FAMILY, "down, worker SIGKILLed", outbox, down_and_killed)
    yield Cell(FAMILY, "down, worker SIGTERMed", outbox, down_and_stopped)
    yield Cell(FAMILY, "500 after it stored the completion", report, stored_and_500, quick=True)
    yield Cell(FAMILY, "500 after avatar.create, before the status", report, half_stored)
    yield Cell(FAMILY, "times out after it stored the completion", report, stored_and_silent)
    yield Cell(FAMILY, "times out, nothing stored", report, silent)
    yield Cell(FAMILY, "503 twice", report, _answered(503, 2))
    yield Cell(FAMILY, "401 twice, then let in", report, _answered(401, 2))
    yield Cell(FAMILY, "404", report, unknown)
    yield Cell(FAMILY, f"429, Retry-After {RETRY_AFTER_S} s", report, retry_after)
    yield Cell(FAMILY, "503 twice", "report of a failure", failure_not_stored)
    yield Cell(FAMILY, "500 after it stored it", "report of a failure", failure_stored_and_500)


CELLS: Final = tuple(_cells())
