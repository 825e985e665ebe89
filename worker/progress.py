"""How far a job is, as a percentage that only grows, told without ever holding up the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from worker import tasks
from worker.contract import ProgressMark

SPANS: Final = {
    "photo": (ProgressMark.PHOTOS_READ, 22),
    "observe": (22, 30),
    "fit": (30, ProgressMark.BODY_FITTED),
    "measure": (ProgressMark.BODY_FITTED, ProgressMark.MEASURED),
    "export": (ProgressMark.MEASURED, ProgressMark.OPTIMISED),
}
"""From where to where each stage of the pipeline takes the percentage."""

LAST_WORD_S: Final = 1.0


def percent_of(stage: str, fraction: float) -> int:
    """Turn a stage and how much of it is done, 0..1, into the contract's percentage."""
    first, last = SPANS[stage]
    return round(first + (last - first) * min(max(fraction, 0.0), 1.0))


class JobProgress:
    """The progress of one job, while its block lasts.

    Every mark that is passed is told once and in order, so that those who wait for a mark see it;
    between marks the latest value is told.

    Args:
        to_queue: tells BullMQ; awaited beside the work, one call after the other.
        to_api: tells the API's reporter, which never waits.
    """

    def __init__(
        self, to_queue: Callable[[int], Awaitable[None]], to_api: Callable[[int], None]
    ) -> None:
        self._to_queue = to_queue
        self._to_api = to_api
        self._reached = 0
        self._pending: asyncio.Queue[int | None] = asyncio.Queue()
        self._teller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._teller = asyncio.create_task(self._tell(), name="queue progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let what is pending go out, for a moment; not when the job is taken away."""
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await tasks.end(self._teller)
            return
        self._pending.put_nowait(None)
        if self._teller is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._teller

    def reach(self, percent: int) -> None:
        """Note that the job is this far; less than before is ignored."""
        passed = [mark for mark in ProgressMark if self._reached < mark <= percent]
        for value in sorted({*map(int, passed), percent}):
            if value > self._reached:
                self._reached = value
                self._pending.put_nowait(value)
                self._to_api(value)

    def advance(self, stage: str, fraction: float) -> None:
        """Note how far a stage of the pipeline is."""
        self.reach(percent_of(stage, fraction))

    async def _tell(self) -> None:
        while (value := await self._pending.get()) is not None:
            await self._to_queue(value)
