"""Waiting for the work on a job: what is learnt of its end, and of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.consumer.running import RunningJob, Why


async def _return() -> dict[str, Any]:
    return {"n": 1}


async def _raise() -> dict[str, Any]:
    raise LookupError


async def _cancel() -> dict[str, Any]:
    raise asyncio.CancelledError


async def _wait() -> dict[str, Any]:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)  # a last word
    return {}


def running(work: Callable[[], Awaitable[dict[str, Any]]]) -> RunningJob:
    job = RunningJob("c1")
    job.work = asyncio.ensure_future(work())  # type: ignore[assignment]  # a coroutine: a task
    return job


@pytest.mark.parametrize("work", [_return, _raise, _cancel])
async def test_work_that_ends_by_itself_is_over_and_nothing_is_raised(
    work: Callable[[], Awaitable[dict[str, Any]]],
) -> None:
    job = running(work)
    await job.over()
    assert job.work.done()
    assert job.why is None
    assert job.work.cancelled() is (work is _cancel)
    if work is _raise:
        assert isinstance(job.work.exception(), LookupError)


@pytest.mark.parametrize("why", list(Why))
async def test_work_that_was_aborted_is_over_when_it_has_said_its_last_word(why: Why) -> None:
    job = running(_wait)
    waiting = asyncio.create_task(job.over())
    await asyncio.sleep(0)
    assert job.abort(why)
    await waiting
    assert (job.work.cancelled(), job.why) == (True, why)


@pytest.mark.parametrize(
    ("aborted", "why"),
    [
        (None, Why.STOPPING),
        (Why.CANCELLED, Why.STOPPING),
        (Why.STOPPING, Why.STOPPING),
        (Why.LOCK_LOST, Why.LOCK_LOST),
    ],
)
async def test_the_work_of_one_who_is_cancelled_ends_because_the_worker_stops(
    aborted: Why | None, why: Why
) -> None:
    job = running(_wait)
    waiting = asyncio.create_task(job.over())
    await asyncio.sleep(0)
    if aborted is not None:
        job.abort(aborted)
    waiting.cancel()
    await waiting
    assert (job.work.cancelled(), job.why) == (True, why)


async def test_work_that_had_just_ended_keeps_its_result_when_its_waiter_is_cancelled() -> None:
    job = running(_return)
    waiting = asyncio.create_task(job.over())
    await asyncio.wait({job.work})
    waiting.cancel()
    await waiting
    assert job.work.result() == {"n": 1}
