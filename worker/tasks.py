"""Cancelling tasks so that they really end.

redis-py sends through `asyncio.wait_for`, and that swallows a cancellation which comes just as the
send completes (Python 3.11; measured: 8 of 60 in a tight loop).  So a cancellation here is
repeated until it is heard.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_S: Final = 0.5
"""Longer than a last word to Redis takes, which a task may say on its way out."""


def cancel(task: asyncio.Task[Any]) -> bool:
    """Cancel a task, again and again until it is done; False when it was done already."""
    if not task.cancel():
        return False
    asyncio.get_running_loop().call_later(AGAIN_S, cancel, task)
    return True


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are done; what they raise is left in them."""
    running = {task for task in tasks if task is not None and cancel(task)}
    if running:
        await asyncio.wait(running)
