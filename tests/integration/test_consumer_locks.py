"""BullMQ's lock is kept against slow answers and wrong clocks, and its loss ends the work."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import bullmq
import pytest

from tests.consuming import Doer, consuming
from worker.consumer import bull, locks
from worker.settings import QueueSettings

LOCK_MS = 600


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)
    monkeypatch.setattr(bull, "LOCK_MS", LOCK_MS)
    monkeypatch.setattr(bull, "STALLED_INTERVAL_MS", 100)
    monkeypatch.setattr(locks, "TICK_S", 0.02)
    monkeypatch.setattr(locks, "RENEW_TIMEOUT_S", 0.1)
    monkeypatch.setattr(locks, "RENEW_AGAIN_S", 0.05)


async def renewals(jobs: bullmq.Queue, job: bullmq.Job, wanted: int) -> None:
    """Wait until the lock's remaining life has grown `wanted` times."""
    left, grown = -1, 0
    async with asyncio.timeout(10):
        while grown < wanted:
            now = await jobs.client.pttl(f"bull:{jobs.name}:{job.id}:lock")
            assert now > 0, "the lock is gone"
            grown += now > left > 0
            left = now
            await asyncio.sleep(0.01)


async def test_a_clock_that_jumps_costs_no_lock(
    settings: QueueSettings,
    jobs: bullmq.Queue,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package's own loop stops renewing for as long as a clock was set back."""
    async with consuming(settings, doer):
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        real = time.time
        for jump_s in (-3600.0, 3600.0):
            monkeypatch.setattr(time, "time", lambda by=jump_s: real() + by)
            await renewals(jobs, job, 5)
        monkeypatch.setattr(time, "time", real)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert [one.starts for one in doer.taken] == [1]
    assert await job.getState() == "completed"


async def test_work_is_aborted_when_a_renewal_finds_the_lock_with_somebody_else(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer):
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        await jobs.client.set(f"bull:{jobs.name}:{job.id}:lock", "somebody else")
        await doer.until(lambda: bool(doer.aborted), timeout_s=1.0)
        assert await job.getState() == "active"
    assert await jobs.client.get(f"bull:{jobs.name}:{job.id}:lock") == "somebody else"
    assert await job.getState() == "active"
    assert doer.told == []


async def test_work_is_aborted_when_the_lock_could_not_be_confirmed_while_it_lasts(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    """Redis is there for others, who may take the job up; only our renewals do not arrive."""
    async with consuming(settings, doer) as consumer:
        await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        worker = consumer._worker
        assert worker is not None

        async def silence(*_args: Any) -> Any:
            await asyncio.Event().wait()

        worker.scripts.extendJobLocks = silence
        began = time.monotonic()
        await doer.until(lambda: bool(doer.aborted), timeout_s=LOCK_MS / 1000.0 + 1.0)
        assert time.monotonic() - began < LOCK_MS / 1000.0 + 1.0
        del worker.scripts.extendJobLocks
        # It stalls, and is taken up again: by us, as nobody else is there.
        await doer.until(lambda: len(doer.taken) == 2)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert [one.attempt for one in doer.taken] == [1, 1]


async def test_a_renewal_that_failed_is_tried_again_in_time(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer) as consumer:
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        worker = consumer._worker
        assert worker is not None
        real, failures = worker.scripts.extendJobLocks, iter(range(3))

        async def sometimes(*args: Any) -> Any:
            if next(failures, None) is not None:
                raise ConnectionError
            return await real(*args)

        worker.scripts.extendJobLocks = sometimes
        await renewals(jobs, job, 3)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert next(failures, None) is None
    assert doer.aborted == []


async def test_a_stalled_event_loop_loses_the_lock_and_the_job_is_done_once_more(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    """Taken up again by the very worker that lost it, whose first work must be over by then."""
    async with consuming(settings, doer, concurrency=2):
        job = await jobs.add("avatar_build", {"do": "wait"}, {"attempts": 1})
        await doer.until(lambda: doer.at_once == 1)
        time.sleep(LOCK_MS / 1000.0 * 1.5)  # noqa: ASYNC251 - this is the fault
        await doer.until(lambda: len(doer.taken) == 2)
        assert len(doer.aborted) == 1
        assert doer.most_at_once == 1
        await renewals(jobs, job, 3)  # the end of the first did not end the second's renewals
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert [(one.attempt, one.starts) for one in doer.taken] == [(1, 1), (1, 2)]
    assert await job.getState() == "completed"


async def test_a_job_that_is_taken_up_by_its_own_worker_ends_the_work_on_it_first(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer, concurrency=2):
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        # As the stalled check leaves it, before the first work has noticed.
        await jobs.client.delete(f"bull:{jobs.name}:{job.id}:lock")
        await jobs.client.lrem(f"bull:{jobs.name}:active", 1, job.id)
        await jobs.client.rpush(f"bull:{jobs.name}:wait", job.id)
        await doer.until(lambda: len(doer.taken) == 2)
        assert (len(doer.aborted), doer.most_at_once) == (1, 1)
        await renewals(jobs, job, 3)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))


@pytest.mark.parametrize("delayed", [False, True], ids=["empty queue", "a delayed job waits"])
async def test_a_job_that_is_drained_keeps_its_lock(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer, delayed: bool
) -> None:
    """The package's loop ends when it is closing and has nothing to take, and renewals with it."""
    async with consuming(settings, doer, concurrency=2) as consumer:
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        if delayed:
            await jobs.add("avatar_build", {}, {"delay": 3_600_000})
        stopping = asyncio.create_task(consumer.stop(drain_s=20))
        late = await jobs.add("avatar_build", {}, {})
        await renewals(jobs, job, 8)
        doer.let_go.set()
        await stopping
    assert [one.queue_job_id for one in doer.taken] == [job.id]
    assert await job.getState() == "completed"
    assert await late.getState() == "waiting"
