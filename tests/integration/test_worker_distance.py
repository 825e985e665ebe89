"""A Redis that is far away: every byte is under way for 50 ms, there and back."""

from __future__ import annotations

from tests.conftest import StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.fakes.passage import Passage, passage_to
from tests.producer import Producer
from worker.demo.stack import EmbeddedStack

FAR_S = 0.05


def far(stack: EmbeddedStack, passage: Passage) -> str:
    return stack.redis_url.replace(f":{stack.redis_port}", f":{passage.port}")


async def test_every_job_is_done_and_told_once_though_redis_is_100_ms_away(
    stack: EmbeddedStack, start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    async with (
        passage_to(stack.redis_port, delay_s=FAR_S) as passage,
        start_worker(REDIS_URL=far(stack, passage)) as worker,
    ):
        await until_ready(worker, timeout_s=20.0)
        payloads = [producer.payload("ok") for _ in range(3)]
        jobs = [await producer.add(payload) for payload in payloads]
        for job in jobs:
            settled = await producer.settled(job, timeout_s=30.0)
            assert await settled.getState() == "completed", settled.failedReason
            assert settled.attemptsMade == 1
    for payload in payloads:
        assert api.statuses(payload["jobId"]).count("completed") == 1
