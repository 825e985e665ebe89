"""What must be true of a job when it is over, whatever died on the way.

One marker, whole objects; one `completed` or `failed` in BullMQ; one accepted final report and no
second `avatar.create`; nothing left in the work prefix, in the outbox, of the lease, on the disk.
Each check returns sentences that say what is wrong; none of them is a boolean that says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from tests.faults.site import Job, Site, bullmq_job
from worker.consumer.keys import own_key
from worker.storage.outputs import MARKER, CompletionMarker

LEFTOVERS_S: Final = 20.0
"""What is cleaned up after the job is over may take so long."""


@dataclass(frozen=True)
class Expected:
    """How a job should have ended.

    Attributes:
        outcome: `completed`, `failed`, or `either`, where both are right and only one may be.
        reason: what the failed reason must contain.
        finals: how many final reports the API accepted; 2 only where the first was half stored.
        markers: how many different markers may have been stored; 2 only where a frozen worker's can
            arrive late.  (One that is sent again, because an answer was lost, is the same.)
        attempts: what attemptsMade must be; None where the fault is an attempt's.
        known: whether the API knows the job.
        put_right: whether `processing` may follow the final report, if a bare `completed` takes
            it back: a frozen worker's last words, which nothing can stop.
        refused: how many second creates the API may have refused: a frozen worker's completion
            that arrives after another's.
    """

    job: Job
    outcome: str = "completed"
    reason: str = ""
    finals: int = 1
    markers: int = 1
    attempts: int | None = None
    known: bool = True
    put_right: bool = False
    refused: int = 0


async def violations(site: Site, expected: Expected, *, leftovers: bool = True) -> list[str]:
    """Everything that is wrong with a job that has settled; waits for what may take a moment."""
    expected = _decided(site, expected)
    found = [
        *await _queue(site, expected),
        *(await _api(site, expected) if expected.known else ()),
        *await asyncio.to_thread(lambda: [*_objects(site, expected)]),
    ]
    return found + (await _leftovers(site, expected.job) if leftovers else [])


async def late_violations(site: Site, expected: Expected) -> list[str]:
    """What has happened to a job since: a second end in BullMQ, a second or another report."""
    expected = _decided(site, expected)
    ends = [*_ends(site, expected)]
    return ends + (await _api(site, expected) if expected.known else [])


def _decided(site: Site, expected: Expected) -> Expected:
    """With the outcome that it was, where either is right."""
    if expected.outcome != "either":
        return expected
    ends = [end.event for i in expected.job.queue_ids for end in site.settled_by_id[i]]
    return replace(expected, outcome=ends[0])


# ---------------------------------------------------------------- BullMQ
def _ends(site: Site, expected: Expected) -> Iterator[str]:
    for queue_id in expected.job.queue_ids:
        ends = site.settled_by_id.get(queue_id, [])
        if [end.event for end in ends] != [expected.outcome]:
            yield f"BullMQ's events of {queue_id} end in {[(e.event, e.reason) for e in ends]}"
        elif expected.reason not in ends[0].reason:
            yield f"failed for {ends[0].reason!r}, not for {expected.reason!r}"


async def _queue(site: Site, expected: Expected) -> list[str]:
    wrong = [*_ends(site, expected)]
    for queue_id in expected.job.queue_ids:
        where = await _lists_with(site, queue_id)
        if where != [expected.outcome]:
            wrong.append(f"BullMQ has {queue_id} in {where}")
        job = await bullmq_job(site, queue_id)
        if expected.attempts is not None and job.attemptsMade != expected.attempts:
            wrong.append(f"attemptsMade is {job.attemptsMade}, not {expected.attempts}")
    return wrong


async def _lists_with(site: Site, queue_id: str) -> list[str]:
    base = f"bull:{site.queue}"
    found = []
    for name in ("wait", "paused", "active"):
        found += [name] * (await site.redis.lrange(f"{base}:{name}", 0, -1)).count(queue_id)
    for name in ("delayed", "prioritized", "completed", "failed", "waiting-children"):
        if await site.redis.zscore(f"{base}:{name}", queue_id) is not None:
            found.append(name)
    if await site.redis.exists(f"{base}:{queue_id}:lock"):
        found.append("lock")
    return found


# ---------------------------------------------------------------- the API
async def _api(site: Site, expected: Expected) -> list[str]:
    job_id, wrong = expected.job.id, []
    if expected.put_right:
        with contextlib.suppress(TimeoutError):
            await site.api.until(
                lambda: site.api.jobs[job_id]["status"] == expected.outcome, LEFTOVERS_S
            )
    entries = site.ledger.entries.get(job_id, [])
    finals = site.ledger.finals(job_id)
    late = entries[-1:] if entries and not entries[-1].is_final else []
    taken_back = (
        any(not e.is_final for e in entries[entries.index(finals[0]) :]) if finals else False
    )
    allowed = expected.finals + (taken_back and expected.put_right)
    if len(finals) != allowed:
        wrong.append(f"the API accepted {len(finals)} final reports")
    if any(entry.status != expected.outcome for entry in finals):
        wrong.append(f"the API was told {[entry.status for entry in finals]}")
    if taken_back and not expected.put_right:
        wrong.append("processing was told after the final report")
    elif late and finals:
        wrong.append("processing was told last")
    creates = [entry for entry in entries if entry.creates]
    accepted = [entry for entry in creates if entry.accepted]
    wanted = 1 if expected.outcome == "completed" else 0
    if len(accepted) != wanted or len(creates) > wanted + expected.refused:
        wrong.append(f"avatar.create ran {len(creates)} times, {len(accepted)} accepted")
    status = site.api.jobs[job_id]["status"]
    if status != expected.outcome:
        wrong.append(f"the API's status is {status}")
    return wrong


# ---------------------------------------------------------------- MinIO
def _objects(site: Site, expected: Expected) -> Iterator[str]:
    job_id = expected.job.id
    stored = keys_under(site, f"avatars/{job_id}/")
    if expected.outcome == "failed":
        if MARKER in stored:
            yield "a failed job has a marker"
        return
    if MARKER not in stored:
        yield f"there is no marker among {sorted(stored)}"
        return
    try:
        marker = CompletionMarker.model_validate_json(_read(site, f"avatars/{job_id}/{MARKER}"))
    except ValidationError as error:
        yield f"the marker is damaged: {error}"
        return
    if {file.name for file in marker.files} | {MARKER} != stored:
        yield f"the marker does not list what is stored: {sorted(stored)}"
        return
    for file in marker.files:
        body = _read(site, f"avatars/{job_id}/{file.name}")
        if (len(body), hashlib.sha256(body).hexdigest()) != (file.size, file.sha256):
            yield f"{file.name} is not the file that the marker lists"
    path = f"/{site.stack.bucket}/avatars/{job_id}/{MARKER}"
    passed = [one for pod in site.all_pods for one in pod.storage.passed]
    puts = {
        p.body_sha256 for p in passed if p.method == "PUT" and p.path == path and p.status < 300
    }
    if not 1 <= len(puts) <= expected.markers:
        yield f"{len(puts)} different markers were stored"


def keys_under(site: Site, prefix: str) -> set[str]:
    """What objects the bucket holds under a prefix; blocks.

    Empty folders are none.  Our server of MinIO's API keeps objects in a file system; killed
    between the removal of a folder's last object and the folder's own, it lists it for ever.
    """
    found = site.root.list_objects(bucket_name=site.stack.bucket, prefix=prefix, recursive=True)
    return {str(item.object_name).removeprefix(prefix) for item in found if not item.is_dir}


def _read(site: Site, key: str) -> bytes:
    response = site.root.get_object(bucket_name=site.stack.bucket, object_name=key)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


# ---------------------------------------------------------------- what must not be left
async def _leftovers(site: Site, job: Job) -> list[str]:
    """Ask until nothing is left, or the time is over."""
    deadline = asyncio.get_running_loop().time() + LEFTOVERS_S
    while True:
        left = [
            *(
                await asyncio.to_thread(
                    lambda: [f"work/{job.id}/{k}" for k in keys_under(site, f"work/{job.id}/")]
                )
            ),
            *await _own_keys(site, job),
            *job_folders(site),
        ]
        if not left or asyncio.get_running_loop().time() > deadline:
            return [f"left behind: {what}" for what in left]
        await asyncio.sleep(0.1)


async def _own_keys(site: Site, job: Job) -> list[str]:
    """Keys and entries of ours in Redis that speak of the job.

    Not a cancellation, which expires by age, nor the note to look at a delivered report once more,
    which goes a while later; the soak looks for that one too.
    """
    found = []
    async for key in site.redis.scan_iter(match=own_key("bull", site.queue, "*"), count=1000):
        if ":cancel:" in key or key.endswith((":checks", ":failures")):
            continue
        if job.id in key:
            found.append(f"Redis key {key}")
        elif any(job.id in str(part) for part in await _content(site, key)):
            found.append(f"Redis key {key} names it")
    return found


async def _content(site: Site, key: str) -> list[Any]:
    readers: dict[str, Callable[[], Any]] = {
        "string": lambda: site.redis.get(key),
        "hash": lambda: site.redis.hgetall(key),
        "list": lambda: site.redis.lrange(key, 0, -1),
        "set": lambda: site.redis.smembers(key),
        "zset": lambda: site.redis.zrange(key, 0, -1),
        "stream": lambda: site.redis.xrange(key),
    }
    kind = await site.redis.type(key)
    if kind not in readers:
        return []
    value = await readers[kind]()
    return [*value.items()] if isinstance(value, dict) else [value]


async def own_keys(site: Site) -> list[str]:
    """Our keys in Redis, but for cancellations, which expire by age."""
    found = site.redis.scan_iter(match=own_key("bull", site.queue, "*"), count=1000)
    return [key async for key in found if ":cancel:" not in key]


def job_folders(site: Site) -> list[str]:
    """Folders of jobs in workers that live; a killed one takes its disk with it."""
    return [
        f"{pod.name}:{folder.name}"
        for pod in site.pods
        if pod.alive
        for folder in pod.folder.glob("avatar-job-*")
    ]
