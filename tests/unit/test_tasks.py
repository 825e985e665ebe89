"""A cancellation that is swallowed is repeated."""

import asyncio

from worker import tasks


async def deaf(times: int) -> str:
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()
    return "never"


async def test_a_task_that_swallows_cancellations_ends_all_the_same(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    task = asyncio.create_task(deaf(3))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end(task, None)
    assert task.cancelled()
    assert not tasks.cancel(task)
