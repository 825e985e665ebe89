"""Redis goes away and comes back: told by /health, survived by the worker.

These tests have servers of their own, so that nobody else's go away with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer
from worker import status
from worker.demo.stack import EmbeddedStack
from worker.lifecycle import Worker


@pytest.fixture(scope="module")
def stack() -> Iterator[EmbeddedStack]:
    with EmbeddedStack() as running:
        yield running


async def healthy(worker: Worker, *, wanted: bool) -> None:
    async with asyncio.timeout(20):
        while worker.told.health()[0] is not wanted:  # noqa: ASYNC110 - silence is no event
            await asyncio.sleep(0.02)


async def test_a_frozen_redis_makes_the_worker_unhealthy_and_a_thawed_one_healthy(
    start_worker: StartWorker,
    producer: Producer,
    stack: EmbeddedStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(status, "UNHEALTHY_AFTER_S", 1.5)
    async with start_worker() as worker:
        await until_ready(worker)
        await healthy(worker, wanted=True)
        stack.valkey.freeze()
        try:
            await healthy(worker, wanted=False)
        finally:
            stack.valkey.thaw()
        await healthy(worker, wanted=True)
        job = await producer.settled(await producer.add(producer.payload("ok")))
    assert await job.getState() == "completed", job.failedReason


async def test_a_redis_that_was_killed_and_came_back_is_worked_with_again(
    start_worker: StartWorker, producer: Producer, stack: EmbeddedStack
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        stack.valkey.kill()
        stack.valkey.start()  # from this thread: the server ends with the one that started it
        job = await producer.settled(await producer.add(producer.payload("ok")))
        assert await job.getState() == "completed", job.failedReason


async def test_a_worker_stops_soon_though_redis_does_not_answer(
    start_worker: StartWorker, stack: EmbeddedStack
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        stack.valkey.freeze()
        try:
            async with asyncio.timeout(4.5):  # RunPod kills 5 s after SIGTERM
                worker.stop()
                while not worker.stopped.is_set():  # noqa: ASYNC110 - set at the very end
                    await asyncio.sleep(0.02)
        finally:
            stack.valkey.thaw()
