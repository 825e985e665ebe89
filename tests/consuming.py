"""A consumer on a real queue whose jobs say themselves what becomes of them.

No engine and no API: what is tested is what the queue does with a job, and what Node sees of it.
`data.do` is the job's behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from worker.consumer.delivery import Delivery
from worker.consumer.worker import Consumer
from worker.demo.stack import EmbeddedStack
from worker.errors import (
    AvatarError,
    EngineCrashed,
    JobHeldElsewhere,
    NoPerson,
    StorageUnavailable,
)
from worker.settings import QueueSettings


@dataclass
class Doer:
    """Does what the jobs say, and keeps what it saw, in order."""

    taken: list[Delivery] = field(default_factory=list)
    finished: list[Any] = field(default_factory=list)
    aborted: list[Any] = field(default_factory=list)
    told: list[tuple[Delivery, AvatarError]] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends what waits."""
    let_go_later: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends what waits longer."""
    at_once: int = 0
    most_at_once: int = 0
    gave_up_raises: list[Exception] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Wait until `holds`, looked at whenever something was taken, ended or told."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def handle(self, delivery: Delivery) -> dict[str, Any]:
        self.taken.append(delivery)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._changed.set()
        try:
            answer = await self._do(delivery)
        except asyncio.CancelledError:
            self.aborted.append(delivery.data)
            raise
        else:
            self.finished.append(delivery.data.get("n"))
            return answer
        finally:
            self.at_once -= 1
            self._changed.set()

    async def _do(self, delivery: Delivery) -> dict[str, Any]:
        what = delivery.data.get("do", "ok")
        if what.startswith("wait longer"):
            await self.let_go_later.wait()
        elif what.startswith("wait"):
            await self.let_go.wait()
        if what.endswith("refuse"):
            raise NoPerson
        if what == "break":
            raise StorageUnavailable
        if what == "break once" and delivery.attempt == 1:
            raise EngineCrashed
        if what == "held once" and delivery.starts == 1:
            raise JobHeldElsewhere
        if what == "tell":
            for percent in (10, 50, 100):
                await delivery.progress(percent)
                await delivery.note(f"reached {percent} %")
        return {"attempt": delivery.attempt, "n": delivery.data.get("n")}

    async def gave_up(self, delivery: Delivery, error: AvatarError) -> None:
        if self.gave_up_raises:
            raise self.gave_up_raises.pop()
        self.told.append((delivery, error))
        self._changed.set()


def settings_of(stack: EmbeddedStack, queue: str, **variables: str) -> QueueSettings:
    return QueueSettings.read({"REDIS_URL": stack.redis_url, "AVATAR_QUEUE": queue} | variables)


@contextlib.asynccontextmanager
async def consuming(
    settings: QueueSettings, doer: Doer, *, concurrency: int = 1, taking: bool = True
) -> AsyncIterator[Consumer]:
    """Run a consumer; at the end what is still running is put back."""
    consumer = Consumer(settings, doer.handle, doer.gave_up, concurrency=concurrency)
    await consumer.start()
    if taking:
        consumer.open()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def eventually(
    ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool], timeout_s: float = 10.0
) -> Any:
    """Ask another process until its answer is the wanted one, and return that."""
    async with asyncio.timeout(timeout_s):
        while not wanted(answer := await ask()):  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.02)
    return answer
