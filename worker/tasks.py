"""Cancelling tasks so that they really end.

redis-py sends through `asyncio.wait_for`, and that swallows a cancellation which comes just as the
send completes (Python 3.11; measured: 8 of 60 in a tight loop).  So a cancellation here is
repeated until it is heard.

In Python 3.11.2, which Debian 12 has, `asyncio.timeout` and a TaskGroup misbehave in a task that is
marked as cancelled (`cancelling()`): a timeout that runs out raises CancelledError.  redis-py
waits with such timeouts, so what a cancelled task still has to tell Redis is said by
another one (`to_the_end`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

AGAIN_S: Final = 0.5
"""Longer than a last word to Redis takes, which a task may say on its way out."""


def cancel(task: asyncio.Task[Any]) -> bool:
    """Cancel a task, again and again until it is done; False when it was done already."""
    if not task.cancel():
        return False
    asyncio.get_running_loop().call_later(AGAIN_S, cancel, task)
    return True


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do what a cancellation must not tear apart, then let the cancellation through.

    Args:
        work: bounded in time by itself.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do them side by side; when one fails, stop the others and raise its error.

    Not a TaskGroup: Python 3.11.2's leaves its task marked as cancelled when a child fails.
    """
    running = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*running)
    finally:
        await end(*running)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are done; what they raise is left in them."""
    running = {task for task in tasks if task is not None and cancel(task)}
    if running:
        await asyncio.wait(running)
