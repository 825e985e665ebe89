"""The next job comes with the completion of the last: how it is done, and when it must not be."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import bullmq
import msgpack
import pytest
from bullmq.redis_connection import loadScript

from tests.consuming import Doer, consuming
from worker.consumer import bull
from worker.consumer.bull import BullWorker
from worker.consumer.cancellation import cancel_key, request_cancel
from worker.consumer.worker import Consumer
from worker.settings import QueueSettings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)


async def add(jobs: bullmq.Queue, number: int, do: str = "ok", **opts: object) -> bullmq.Job:
    data = {"jobId": f"c{number}", "n": number, "do": do}
    return await jobs.add("avatar_build", data, opts)


def worker_of(consumer: Consumer) -> BullWorker:
    assert consumer._worker is not None
    return consumer._worker


def count_questions(worker: BullWorker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each question for a job that does not come with a completion."""
    asked: list[str] = []
    take = worker.scripts.moveToActive

    async def counting(token: str, opts: dict[str, Any]) -> Any:
        asked.append(token)
        return await take(token, opts)

    monkeypatch.setattr(worker.scripts, "moveToActive", counting)
    return asked


def after_completion(
    worker: BullWorker, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]
) -> None:
    """Do something while the next job is on its way."""
    complete = worker.scripts.complete

    async def completing(*args: Any, **named: Any) -> Any:
        answer = await complete(*args, **named)
        do()
        return answer

    monkeypatch.setattr(worker.scripts, "complete", completing)


# ---------------------------------------------------------------- what it saves
async def test_jobs_that_wait_are_taken_without_asking_for_each(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = [await add(jobs, number) for number in range(20)]
    async with consuming(settings, doer, taking=False) as consumer:
        asked = count_questions(worker_of(consumer), monkeypatch)
        consumer.open()
        await doer.until(lambda: len(doer.finished) == 20)
        assert doer.finished == list(range(20))
        assert len(asked) == 1
    keys = [f"bull:{jobs.name}:{job.id}" for job in added]
    fields = [await jobs.client.hmget(key, "pb", "ats", "atm") for key in keys]
    # As Node fills them in, in a job that was asked for and in those that came by themselves.
    assert {tuple(field) for field in fields} == {(worker_of(consumer).opts["name"], "1", "1")}
    assert await jobs.client.zcard(f"bull:{jobs.name}:completed") == 20


async def test_a_queue_that_ran_dry_is_waited_at_and_wakes_at_once(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 30.0)
    async with consuming(settings, doer, concurrency=3):
        for number in range(5):
            await add(jobs, number)
            await doer.until(lambda number=number: number in doer.finished, timeout_s=5)
        monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)
        await add(jobs, 5)
        await doer.until(lambda: 5 in doer.finished)


async def test_slots_fill_up_while_jobs_come_by_themselves(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    for number in range(3):
        await add(jobs, number, "wait")
    for number in range(3, 9):
        await add(jobs, number)
    async with consuming(settings, doer, concurrency=4):
        await doer.until(lambda: len(doer.finished) == 6)
        assert doer.most_at_once == 4
        doer.let_go.set()
        await doer.until(lambda: len(doer.finished) == 9)
    assert doer.most_at_once == 4


# ---------------------------------------------------------------- when it must not be
async def test_a_closed_gate_takes_no_job_with_a_completion(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    await add(jobs, 0, "wait")
    second = await add(jobs, 1)
    async with consuming(settings, doer) as consumer:
        await doer.until(lambda: doer.at_once == 1)
        consumer.close_gate()
        doer.let_go.set()
        await doer.until(lambda: doer.finished == [0])
        async with asyncio.timeout(5):
            while await jobs.client.zcard(f"bull:{jobs.name}:completed") < 1:  # noqa: ASYNC110 - one script after
                await asyncio.sleep(0.01)
        assert await second.getState() == "waiting"
        consumer.open()
        await doer.until(lambda: doer.finished == [0, 1])


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_job_that_comes_while_stopping_is_put_back_at_the_head(
    settings: QueueSettings,
    jobs: bullmq.Queue,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
    concurrency: int,
) -> None:
    await add(jobs, 0, "wait")
    second, third = [await add(jobs, number) for number in (1, 2)]
    stopping: list[asyncio.Task[None]] = []
    async with consuming(settings, doer, taking=False) as consumer:
        worker = worker_of(consumer)

        def stop() -> None:
            stopping.append(asyncio.create_task(consumer.stop()))
            worker.take_no_more()

        after_completion(worker, monkeypatch, stop)
        consumer.open()
        await doer.until(lambda: doer.at_once == 1)
        doer.let_go.set()
        await doer.until(lambda: doer.finished == [0])
        async with asyncio.timeout(5):
            while not stopping:  # noqa: ASYNC110 - one script after the job's end
                await asyncio.sleep(0.01)
        await stopping[0]
    assert [delivery.data["n"] for delivery in doer.taken] == [0]
    key = f"bull:{jobs.name}"
    assert await jobs.client.lrange(f"{key}:wait", 0, -1) == [third.id, second.id]
    assert await jobs.client.llen(f"{key}:active") == 0
    assert await jobs.client.hget(f"{key}:{second.id}", "atm") is None
    assert not await jobs.client.exists(f"{key}:{second.id}:lock")
    assert await jobs.client.zscore(f"{key}:marker", "0") == 0, "others are woken"


async def test_a_job_that_comes_when_the_gate_has_just_closed_is_put_back(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(jobs, 0)
    second = await add(jobs, 1)
    async with consuming(settings, doer, taking=False) as consumer:
        after_completion(worker_of(consumer), monkeypatch, consumer.close_gate)
        consumer.open()
        async with asyncio.timeout(5):
            while await jobs.client.zcard(f"bull:{jobs.name}:completed") < 1:  # noqa: ASYNC110 - one script after
                await asyncio.sleep(0.01)
            while await second.getState() != "waiting":  # noqa: ASYNC110 - same
                await asyncio.sleep(0.01)
        assert doer.finished == [0]
        consumer.open()
        await doer.until(lambda: doer.finished == [0, 1])


async def test_a_job_that_is_drained_is_completed_though_another_slot_is_free(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    job = await add(jobs, 0, "wait")
    async with consuming(settings, doer, concurrency=2) as consumer:
        await doer.until(lambda: doer.at_once == 1)
        stopping = asyncio.create_task(consumer.stop(drain_s=10))
        run = consumer._run
        assert run is not None
        done, _ = await asyncio.wait({run}, timeout=0.5)
        assert not done, "the loop, and with it the renewal of locks, ended before the job"
        doer.let_go.set()
        await stopping
    assert await job.getState() == "completed"


# ---------------------------------------------------------------- cancelled
async def test_a_cancelled_job_that_comes_by_itself_is_refused(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    added = [await add(jobs, number) for number in range(3)]
    await request_cancel(jobs.client, "bull", jobs.name, "c1", "ordered twice")
    async with consuming(settings, doer):
        await doer.until(lambda: doer.finished == [0, 2])
    assert [(one.data["n"], error.code) for one, error in doer.told] == [(1, "CANCELLED")]
    fresh = await bullmq.Job.fromId(jobs, added[1].id)
    assert fresh.failedReason == "CANCELLED: The job was cancelled: ordered twice"


async def test_a_key_that_is_no_reason_and_data_that_is_no_object_strand_no_job(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.client.rpush(cancel_key("bull", jobs.name, "c0"), "not a string")
    await add(jobs, 0)
    odd = [await jobs.add("avatar_build", data, {}) for data in ({"n": 1, "jobId": 5}, {"n": 2})]
    async with consuming(settings, doer):
        await doer.until(lambda: doer.finished == [0, 1, 2])
    assert {await job.getState() for job in odd} == {"completed"}


# ---------------------------------------------------------------- what we reach into
def test_the_package_completes_and_takes_as_we_expect() -> None:
    finish = loadScript("moveToFinished-14.lua")
    for said in ("ARGV[6]  fetch next?", "ARGV[8]  opts", "opts - name - worker name"):
        assert said in finish
    assert 'if (ARGV[6] == "1") then' in finish
    assert list(inspect.signature(bullmq.Worker.nextJobFromJobData).parameters) == [
        *("self", "job_data", "job_id", "limit_until", "delay_until", "token"),
    ]
    scripts = inspect.getsource(bullmq.scripts.Scripts)
    assert 'self.commands["moveToFinished"](keys=keys, args=args)' in scripts
    assert 'self.commands["moveToActive"](keys=keys, args=args)' in scripts


@pytest.mark.parametrize("fetch", [True, False])
@pytest.mark.parametrize(
    "opts",
    [
        {},
        {"attempts": 4, "removeOnComplete": True},
        {"removeOnComplete": False, "ignoreDependencyOnFailure": True},
        {"removeOnComplete": 5, "failParentOnFailure": True},
        {"removeOnComplete": {"age": 60, "count": 7}, "continueParentOnFailure": True},
        {"removeDependencyOnFailure": True},
    ],
    ids=str,
)
async def test_a_completion_is_the_packages_with_the_worker_named(
    settings: QueueSettings, doer: Doer, opts: dict[str, Any], fetch: bool
) -> None:
    async with consuming(settings, doer, taking=False) as consumer:
        worker = worker_of(consumer)
        job = bullmq.Job(worker, "avatar_build", {}, opts, "7")
        keys, args = worker.scripts.completion(job, {"é": [1]}, "a token", fetch=fetch)
        theirs = worker.scripts.moveToCompletedArgs(
            job, {"é": [1]}, job.opts.get("removeOnComplete", False), "a token", fetch
        )
    assert keys == theirs[0]
    assert [arg for n, arg in enumerate(args) if n not in {1, 7}] == [
        arg for n, arg in enumerate(theirs[1]) if n not in {1, 7}
    ]
    assert abs(args[1] - theirs[1][1]) < 10_000
    named = {"name": worker.opts["name"]}
    assert msgpack.unpackb(args[7]) == msgpack.unpackb(theirs[1][7]) | named
