"""The lease on data.jobId, on a real Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from worker.consumer.connection import connect
from worker.consumer.keys import own_key
from worker.consumer.lease import Lease
from worker.errors import JobHeldElsewhere
from worker.settings import Settings


@pytest.fixture
async def client(environment: dict[str, str]) -> AsyncIterator[Any]:
    running = connect(Settings.load(environment).queue)
    yield running
    await running.aclose()


@pytest.fixture
def key(queue: str) -> str:
    return own_key("bull", queue, "lease", "job-1")


async def test_one_holds_it_and_the_next_gets_it_afterwards(client: Any, key: str) -> None:
    async with Lease(client, key, holder="a"):
        with pytest.raises(JobHeldElsewhere):
            await Lease(client, key, holder="b").__aenter__()
    async with Lease(client, key, holder="b") as lease:
        await lease.check()
    assert await client.get(key) is None


async def test_it_outlives_its_time_while_it_is_renewed(client: Any, key: str) -> None:
    async with Lease(client, key, holder="a", lease_ms=900, renew_every_s=0.1) as lease:
        await asyncio.sleep(1.3)
        await lease.check()
        assert await client.get(key) == lease.guard[1]


async def test_a_stolen_lease_aborts_the_work_and_is_not_given_back(client: Any, key: str) -> None:
    async def work() -> None:
        async with Lease(client, key, holder="a", lease_ms=5_000, renew_every_s=0.02) as lease:
            await client.set(key, "thief")
            with pytest.raises(JobHeldElsewhere):
                await lease.check()
            await asyncio.Event().wait()

    with pytest.raises(JobHeldElsewhere):
        await work()
    assert await client.get(key) == "thief"
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_without_redis_it_is_lost_when_it_has_run_out(client: Any, key: str) -> None:
    class Dead:
        async def eval(self, *_: Any) -> None:
            raise ConnectionError("gone")

    began = asyncio.get_running_loop().time()

    async def work() -> None:
        async with Lease(client, key, holder="a", lease_ms=300, renew_every_s=0.05) as lease:
            lease._client = Dead()
            await asyncio.Event().wait()

    with pytest.raises(JobHeldElsewhere):
        await work()
    assert 0.2 < asyncio.get_running_loop().time() - began < 2


async def test_a_cancellation_from_outside_stays_one(client: Any, key: str) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with Lease(client, key, holder="a"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert await client.get(key) is None


async def test_a_taker_that_is_cancelled_leaves_no_lease(client: Any, key: str) -> None:
    class Slow:
        """Redis has done it; its answer is still on the way."""

        async def set(self, *args: Any, **named: Any) -> Any:
            answer = await client.set(*args, **named)
            arrived.set()
            await asyncio.sleep(0.2)
            return answer

        async def eval(self, *args: Any) -> Any:
            return await client.eval(*args)

    arrived = asyncio.Event()
    task = asyncio.create_task(Lease(Slow(), key, holder="a").__aenter__())
    await arrived.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert await client.get(key) is None
