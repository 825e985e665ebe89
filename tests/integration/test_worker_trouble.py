"""Jobs that meet trouble, each on a worker of its own: engine, deadline, storage."""

from __future__ import annotations

import pytest

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer
from worker.demo.stack import EmbeddedStack


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("segfault", "ENGINE_CRASHED: The engine process ended: killed by SIGSEGV"),
        ("exit", "ENGINE_CRASHED: The engine process ended: exit code 3"),
        ("raise", "ENGINE_ERROR: RuntimeError: boom"),
    ],
)
async def test_a_broken_engine_costs_that_attempt_only(
    start_worker: StartWorker, producer: Producer, behaviour: str, reason: str
) -> None:
    async with start_worker(MAX_RETRIES="1") as worker:
        await until_ready(worker)
        bad = await producer.settled(await producer.add(producer.payload(behaviour)))
        good = await producer.settled(await producer.add(producer.payload("ok")))
    assert bad.failedReason.startswith(reason)
    assert await good.getState() == "completed"


async def test_a_job_past_its_deadline_is_killed_and_the_next_one_runs(
    start_worker: StartWorker, producer: Producer
) -> None:
    async with start_worker(MAX_RETRIES="1", PROCESSING_TIMEOUT="1") as worker:
        await until_ready(worker)
        late = await producer.settled(await producer.add(producer.payload("hang")))
        good = await producer.settled(await producer.add(producer.payload("ok")))
    assert late.failedReason == "ENGINE_TIMEOUT: The job took longer than 1 s."
    assert await good.getState() == "completed", good.failedReason


async def test_inspection_files_are_published_only_when_asked_for(
    start_worker: StartWorker, producer: Producer
) -> None:
    payload = producer.payload("ok")
    async with start_worker(PUBLISH_INSPECTION="true") as worker:
        await until_ready(worker)
        await producer.settled(await producer.add(payload))
    assert "mask_front.png" in producer.objects(payload["jobId"])


async def test_storage_that_is_down_is_tried_again(
    start_worker: StartWorker, producer: Producer, stack: EmbeddedStack
) -> None:
    payload = producer.payload("ok")
    async with start_worker() as worker:
        await until_ready(worker)
        stack.gateway.kill()
        try:
            job = await producer.add(payload, attempts=50, backoff=100)
            await producer.attempted(job)
        finally:
            stack.gateway.start()  # from this thread: the server ends with the one that started it
        job = await producer.settled(job)
    assert await job.getState() == "completed", job.failedReason
