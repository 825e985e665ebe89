"""The Node client that the API uses, on its oldest supported, latest 5.x and latest 6.x release.

Node enqueues, waits and watches as the API does; this worker takes the jobs.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import NodeClient, StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.consumer import retries


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", {"type": "exponential", "delay": 20})


async def test_a_job_added_with_no_options_is_seen_from_node_from_end_to_end(
    node: NodeClient,
    start_worker: StartWorker,
    producer: Producer,
    queue: str,
    api: FakeApi,
) -> None:
    good, refused = producer.payload("ok"), producer.payload("no-person")
    async with start_worker() as worker:
        await node("open", queue)
        await until_ready(worker)
        job_id = await node("add", queue, data=good)
        waited = await node("wait", queue, id=job_id, ttlMs=15_000)
        workers = await node("workers", queue)
        refused_id = await node("add", queue, data=refused)
        refusal = await node("wait", queue, id=refused_id, ttlMs=15_000)

    result = api.jobs[good["jobId"]]["avatar"]
    expected = {name: value for name, value in result.items() if name != "id"}
    assert waited["returnvalue"] == expected
    job = await node("job", queue, id=job_id)
    assert (job["state"], job["attemptsMade"], job["progress"]) == ("completed", 1, 100)

    seen = await node("seen", queue, id=job_id)
    percents = [event["data"] for event in seen if event["event"] == "progress"]
    assert set(percents) >= {10, 20, 40, 60, 70, 85, 95, 100}
    assert percents == sorted(percents)
    assert [event["event"] for event in seen if event["event"] != "progress"] == [
        "waiting",
        "active",
        "completed",
    ]
    assert seen[-1]["event"] == "completed"

    # One worker, as Node names workers: one connection carries the name.
    assert len(workers) == 1, workers

    # An InputError: failed at once, code and advice in plain text.
    assert refusal["error"].startswith("NO_PERSON: Please stand in front")
    job = await node("job", queue, id=refused_id)
    assert (job["state"], job["attemptsMade"]) == ("failed", 1)
    assert job["failedReason"] == refusal["error"]


@pytest.mark.parametrize(
    ("options", "attempts"),
    [(None, 3), ({"attempts": 2, "backoff": {"type": "fixed", "delay": 10}}, 2)],
    ids=["none: MAX_RETRIES", "two"],
)
async def test_attempts_are_counted_as_node_counts_them(
    node: NodeClient,
    start_worker: StartWorker,
    producer: Producer,
    options: dict[str, Any] | None,
    attempts: int,
) -> None:
    queue = producer.name
    async with start_worker() as worker:
        await node("open", queue)
        await until_ready(worker)
        job_id = await node("add", queue, data=producer.payload("oom"), opts=options)
        waited = await node("wait", queue, id=job_id, ttlMs=15_000)
    assert waited["error"].startswith("OUT_OF_MEMORY: ")
    job = await node("job", queue, id=job_id)
    assert (job["state"], job["attemptsMade"]) == ("failed", attempts)
    seen = [event["event"] for event in await node("seen", queue, id=job_id)]
    assert seen.count("active") == attempts
    assert seen.count("failed") == 1
    assert seen.count("delayed") == attempts - 1


async def test_nothing_is_lost_when_a_retry_or_a_requeue_meets_a_paused_queue(
    node: NodeClient, start_worker: StartWorker, producer: Producer, queue: str, api: FakeApi
) -> None:
    """In this cell one version of the package was seen to lose jobs."""
    retried, requeued = producer.payload("oom"), producer.payload("slow")
    await node("open", queue)
    async with start_worker(MAX_RETRIES="2") as worker:
        await until_ready(worker)
        # A retry: without backoff it goes straight back to a waiting list.
        first = await node("add", queue, data=retried, opts={"attempts": 2})
        await producer.attempted(await _job(producer, first))
        # Paused while the second job runs; stopping the worker puts it back.
        second = await node("add", queue, data=requeued, opts={"attempts": 2})
        await api.until(lambda: bool(api.percents(requeued["jobId"])))
        await node("pause", queue)
    assert (await node("job", queue, id=second))["attemptsMade"] == 0

    third = await node("add", queue, data=producer.payload("ok"))
    await node("resume", queue)
    async with start_worker(MAX_RETRIES="2") as worker:
        await until_ready(worker)
        waits = [node("wait", queue, id=id_, ttlMs=20_000) for id_ in (second, third)]
        done = [await wait for wait in waits]
        failed = await producer.settled(await _job(producer, first))
    assert all("returnvalue" in answer for answer in done), done
    assert failed.attemptsMade == 2
    counts = await node("counts", queue)
    assert counts["completed"] == 2
    assert counts["failed"] == 1
    assert sum(counts.values()) == 3, counts


async def test_a_retry_while_paused_survives_the_resume(
    node: NodeClient, start_worker: StartWorker, producer: Producer, queue: str
) -> None:
    await node("open", queue)
    async with start_worker(PROCESSING_TIMEOUT="1") as worker:
        await until_ready(worker)
        job_id = await node("add", queue, data=producer.payload("hang"), opts={"attempts": 2})
        job = await producer.in_state(await _job(producer, job_id), "active")
        await node("pause", queue)
        await producer.attempted(job)  # retried by its deadline, into the paused queue
        await node("resume", queue)
        waited = await node("wait", queue, id=job_id, ttlMs=15_000)
    assert waited["error"].startswith("ENGINE_TIMEOUT")
    assert (await node("job", queue, id=job_id))["attemptsMade"] == 2


async def _job(producer: Producer, job_id: str) -> Any:
    import bullmq

    async with asyncio.timeout(5):
        return await bullmq.Job.fromId(producer.queue, job_id)
