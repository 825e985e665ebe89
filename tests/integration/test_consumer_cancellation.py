"""A job is taken back: while it runs, while it waits, and while Redis comes and goes."""

from __future__ import annotations

import asyncio
import time

import bullmq
import pytest

from tests.conftest import StartWorker, until_ready
from tests.consuming import Doer, consuming
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.consumer import bull, pulse
from worker.consumer.cancellation import cancel_key, request_cancel, withdraw_cancellation
from worker.consumer.connection import connect
from worker.errors import QueueUnavailable
from worker.settings import QueueSettings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)


async def add(jobs: bullmq.Queue, job_id: str, do: str = "ok", **opts: object) -> bullmq.Job:
    return await jobs.add("avatar_build", {"jobId": job_id, "do": do}, opts)


async def cancel(jobs: bullmq.Queue, job_id: str, reason: str = "the shopper left") -> None:
    await request_cancel(jobs.client, "bull", jobs.name, job_id, reason)


async def failed_reason(jobs: bullmq.Queue, job: bullmq.Job) -> str:
    async with asyncio.timeout(10):
        while await job.getState() != "failed":  # noqa: ASYNC110 - one script after the call
            await asyncio.sleep(0.01)
    fresh = await bullmq.Job.fromId(jobs, job.id)
    assert fresh is not None
    return str(fresh.failedReason)


async def test_a_running_job_stops_within_two_seconds_and_is_told_once(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer, concurrency=2):
        job = await add(jobs, "c1", "wait", attempts=5)
        other = await add(jobs, "c2", "wait")
        await doer.until(lambda: doer.at_once == 2)
        asked_at = time.monotonic()
        await cancel(jobs, "c1")
        await doer.until(lambda: bool(doer.told))
        assert time.monotonic() - asked_at < 2.0
        reason = await failed_reason(jobs, job)
        assert [data["jobId"] for data in doer.aborted] == ["c1"]
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert reason == "CANCELLED: The job was cancelled: the shopper left"
    assert [(one.data["jobId"], str(error)) for one, error in doer.told] == [("c1", reason)]
    assert await other.getState() == "completed"


async def test_a_waiting_job_is_refused_when_it_is_taken(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    job, delayed = await add(jobs, "c1", attempts=3), await add(jobs, "c2", delay=50)
    await cancel(jobs, "c1", "")
    await cancel(jobs, "c2")
    async with consuming(settings, doer):
        assert await failed_reason(jobs, job) == "CANCELLED: The job was cancelled."
        assert await failed_reason(jobs, delayed)
    assert doer.taken == []
    assert len(doer.told) == 2


async def test_it_stands_for_every_job_with_that_id_until_it_is_withdrawn(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    await cancel(jobs, "c1")
    assert 23 * 3600 < await jobs.client.ttl(cancel_key("bull", jobs.name, "c1")) <= 24 * 3600
    async with consuming(settings, doer):
        for _ in range(2):
            await failed_reason(jobs, await add(jobs, "c1"))
        assert await withdraw_cancellation(jobs.client, "bull", jobs.name, "c1")
        assert not await withdraw_cancellation(jobs.client, "bull", jobs.name, "c1")
        await add(jobs, "c1")
        await doer.until(lambda: len(doer.finished) == 1)


async def test_a_key_that_was_set_by_any_client_is_enough(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    """What docs/reference/bullmq.md shows for Node."""
    async with consuming(settings, doer):
        job = await add(jobs, "c1", "wait")
        await doer.until(lambda: doer.at_once == 1)
        await jobs.client.set(f"bull:{jobs.name}-worker:cancel:c1", "gone", ex=86400)
        assert await failed_reason(jobs, job) == "CANCELLED: The job was cancelled: gone"


async def test_a_job_that_is_finished_stays_finished(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer):
        job = await add(jobs, "c1")
        await doer.until(lambda: bool(doer.finished))
        await cancel(jobs, "c1")
        await add(jobs, "c2")
        await doer.until(lambda: len(doer.finished) == 2)
    assert await job.getState() == "completed"
    assert doer.told == []


async def test_stopping_overrules_it_and_the_next_worker_refuses(
    settings: QueueSettings,
    jobs: bullmq.Queue,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulse, "PULSE_S", 60.0)  # not noticed by the first
    async with consuming(settings, doer):
        job = await add(jobs, "c1", "wait")
        await doer.until(lambda: doer.at_once == 1)
        await cancel(jobs, "c1")
    assert await job.getState() == "waiting"
    assert doer.told == []
    async with consuming(settings, doer):
        assert await failed_reason(jobs, job)
    assert len(doer.told) == 1


async def test_a_job_is_not_failed_before_somebody_took_note(
    settings: QueueSettings,
    jobs: bullmq.Queue,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a final report would be missing for ever: the job stalls, and is told of again."""
    monkeypatch.setattr(bull, "LOCK_MS", 300)
    monkeypatch.setattr(bull, "STALLED_INTERVAL_MS", 60)
    doer.gave_up_raises.append(QueueUnavailable())
    await cancel(jobs, "c1")
    async with consuming(settings, doer):
        job = await add(jobs, "c1")
        assert await failed_reason(jobs, job)
    assert doer.gave_up_raises == []
    assert len(doer.told) == 1
    assert (await bullmq.Job.fromId(jobs, job.id)).attemptsMade == 1


async def test_an_unreachable_redis_is_named(queue: str) -> None:
    settings = QueueSettings.read({"REDIS_URL": "redis://127.0.0.1:1", "AVATAR_QUEUE": queue})
    client = connect(settings, retries=0)
    with pytest.raises(QueueUnavailable):
        await request_cancel(client, "bull", queue, "c1", "")
    with pytest.raises(QueueUnavailable):
        await withdraw_cancellation(client, "bull", queue, "c1")
    await client.aclose()


async def test_the_api_is_told_once_that_it_was_cancelled(
    start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    running, waiting = producer.payload("hang"), producer.payload("ok")
    async with start_worker() as worker:
        await until_ready(worker)
        first = await producer.in_state(await producer.add(running, attempts=3), "active")
        second = await producer.add(waiting, attempts=3)
        await api.until(lambda: bool(api.percents(running["jobId"])))
        for payload in (running, waiting):
            await request_cancel(
                producer.queue.client, "bull", producer.name, payload["jobId"], "test"
            )
        for job in (first, second):
            failed = await producer.settled(job)
            assert failed.failedReason == "CANCELLED: The job was cancelled: test"
        third = await producer.settled(await producer.add(producer.payload("ok")))
        assert await third.getState() == "completed", third.failedReason
    for payload in (running, waiting):
        assert api.statuses(payload["jobId"]).count("failed") == 1
        assert api.statuses(payload["jobId"])[-1] == "failed"
        assert api.jobs[payload["jobId"]]["error"] == "CANCELLED: The job was cancelled: test"
        assert producer.objects(payload["jobId"]) == {}
