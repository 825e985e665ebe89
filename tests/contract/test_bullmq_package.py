"""What `worker.consumer.worker` reaches into: these fail loudly when the package changes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
from typing import Any

import bullmq
import pytest
from bullmq.custom_errors import UnrecoverableError
from bullmq.lock_manager import LockManager
from bullmq.redis_connection import RedisConnection, loadScript
from bullmq.scripts import Scripts, raw2NextJobData

from worker.consumer.bull import BullWorker
from worker.consumer.connection import connect
from worker.consumer.locks import LockKeeper
from worker.consumer.retries import settle_retry_policy
from worker.consumer.scripts import BullScripts
from worker.consumer.worker import Consumer
from worker.demo.stack import EmbeddedStack
from worker.errors import AvatarError
from worker.settings import QueueSettings


async def never(*_args: Any) -> dict[str, Any]:
    return {}


@pytest.fixture
def settings(stack: EmbeddedStack, queue: str) -> QueueSettings:
    return QueueSettings.read({"REDIS_URL": stack.redis_url, "AVATAR_QUEUE": queue})


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("bullmq") == "2.26.0"


def test_the_requeue_script_takes_the_keys_that_we_give() -> None:
    script = loadScript("moveJobFromActiveToWait-9.lua")
    keys = "active wait stalled paused meta limiter prioritized marker event"
    for number, name in enumerate(keys.split(), start=1):
        assert f"KEYS[{number}] {name} key" in script.replace("  ", " ")
    for argument in ("ARGV[1] job id", "ARGV[2] lock token", "ARGV[3] job id key"):
        assert argument in script


def test_what_we_override_is_called_with_what_we_expect() -> None:
    assert list(inspect.signature(bullmq.Worker.moveToActive).parameters) == ["self", "token"]
    assert list(inspect.signature(bullmq.Worker.getBlockTimeout).parameters) == [
        "self",
        "block_until",
    ]
    assert list(inspect.signature(bullmq.Worker.processJob).parameters) == ["self", "job", "token"]
    assert list(inspect.signature(Scripts.moveToFailedArgs).parameters)[:3] == [
        "self",
        "job",
        "failed_reason",
    ]
    # What ours does in its place.
    source = inspect.getsource(bullmq.Worker.processJob)
    for done in (
        "await job.moveToFailed(UnrecoverableError(job.deferredFailure), token)",
        "result = await self.processor(job, token)",
        'job.opts.get("removeOnComplete", False), token, fetchNext=False)',
        "await job.moveToFailed(err, token)",
    ):
        assert done in source, done
    assert source.count("if not self.forceClosing:") == 2
    assert "isinstance(err, UnrecoverableError)" in inspect.getsource(bullmq.Job.moveToFailed)
    assert issubclass(UnrecoverableError, Exception)


def test_the_locks_that_we_keep_are_the_ones_that_the_package_asks_for() -> None:
    worker, job = inspect.getsource(bullmq.Worker), inspect.getsource(bullmq.Job)
    for used in (
        "self.lockManager.start()",
        "self.lockManager.track_job(",
        "self.lockManager.untrack_job(job.id)",
        "await self.lockManager.close()",
        "self.lockManager.cancel_all_jobs(",
        "self.processJob(job, job.token)",
        "job_instance = await self.moveToActive(token)",
    ):
        assert used in worker, used
    assert "self.scripts = queue.scripts" in job
    keeper = inspect.getsource(LockManager)
    assert "self._renewal_task = asyncio.ensure_future(self._renewal_loop())" in keeper
    assert "self.tracked_jobs[job_id] = {" in keeper
    assert list(inspect.signature(LockManager.track_job).parameters) == [
        *("self", "job_id", "token", "ts", "should_create_controller"),
    ]
    assert list(inspect.signature(Scripts.extendJobLocks).parameters) == [
        *("self", "job_ids", "tokens", "duration"),
    ]


def test_the_scripts_take_what_we_give_them() -> None:
    take = loadScript("moveToActive-11.lua").replace("  ", " ")
    keys = "wait active prioritized events stalled limiter delayed paused meta pc marker"
    assert f"keys = self.getKeys({keys.split()!s})".replace(" ", "") in (
        inspect.getsource(Scripts.moveToActive).replace(" ", "").replace("\n", "")
    )
    assert "opts - name - worker name" in take
    assert 'table.insert(optionalValues, "pb")' in take
    assert 'if ARGV[6] == "0" then' in loadScript("moveToDelayed-12.lua")
    assert '"1" if opts.get("skipAttempt") else "0"' in inspect.getsource(Scripts.moveToDelayedArgs)
    assert list(inspect.signature(Scripts.moveToFinished).parameters) == [
        *("self", "job_id", "keys", "args"),
    ]
    assert raw2NextJobData([["name", "n"], "7", 0, 0]) == [{"name": "n"}, "7", 0, 0]
    for write in (Scripts.moveToDelayed, Scripts.retryJob, Scripts.moveToFinished):
        assert inspect.iscoroutinefunction(write)


async def test_the_worker_has_the_settings_that_held_up(settings: QueueSettings) -> None:
    worker = BullWorker(settings, never, never)
    try:
        assert worker.opts["lockDuration"] == 60_000
        assert worker.opts["stalledInterval"] == 15_000
        assert worker.opts["maxStalledCount"] == 3
        assert worker.opts["concurrency"] == 1
        assert worker.opts["autorun"] is False
        assert worker.bclient is not worker.client
        assert isinstance(worker.blockingRedisConnection, RedisConnection)
        assert isinstance(worker.scripts, BullScripts)
        assert isinstance(worker.lockManager, LockKeeper)
        assert (
            worker.opts["name"] in worker.bclient.connection_pool.connection_kwargs["client_name"]
        )
        assert worker.getBlockTimeout(0) == 1.0
        assert worker.running is False
        for client in (worker.client, worker.bclient):
            options = client.connection_pool.connection_kwargs
            assert options["socket_timeout"] == 15
            assert options["health_check_interval"] == 15
            assert options["socket_keepalive"] is True
    finally:
        await worker.close(force=True)


async def test_a_gate_that_is_closed_takes_nothing_and_stopping_takes_nothing(
    settings: QueueSettings, stack: EmbeddedStack
) -> None:
    queue = bullmq.Queue(settings.queue, {"connection": stack.redis_url})
    taken = asyncio.Event()

    async def take(_delivery: Any) -> dict[str, Any]:
        taken.set()
        return {}

    consumer = Consumer(settings, take, never)
    try:
        run = await consumer.start()
        job = await queue.add("avatar_build", {}, {})
        done, _ = await asyncio.wait({asyncio.create_task(taken.wait())}, timeout=0.3)
        assert not done, "a job was taken through a closed gate"
        await consumer.stop()
        assert run.done()
        assert await job.getState() == "waiting"
    finally:
        await consumer.stop()
        await queue.close()


async def test_a_cancelled_error_inside_the_handler_does_not_end_the_loop(
    settings: QueueSettings, stack: EmbeddedStack
) -> None:
    """The package's own worker ends in silence here, its job active for ever."""
    queue = bullmq.Queue(settings.queue, {"connection": stack.redis_url})
    settled = asyncio.Event()
    calls: list[int] = []

    async def handle(delivery: Any) -> dict[str, Any]:
        calls.append(delivery.attempt)
        if len(calls) == 1:
            raise asyncio.CancelledError
        settled.set()
        return {"fine": True}

    consumer = Consumer(settings, handle, never)
    try:
        run = await consumer.start()
        consumer.open()
        job = await queue.add("avatar_build", {}, {"attempts": 2})
        await asyncio.wait_for(settled.wait(), 10)
        assert calls == [1, 2]
        assert not run.done()
    finally:
        await consumer.stop()
        assert await job.getState() == "completed"
        await queue.close()


async def test_a_job_whose_lock_is_lost_is_aborted_and_left_to_its_new_owner(
    settings: QueueSettings, stack: EmbeddedStack
) -> None:
    queue = bullmq.Queue(settings.queue, {"connection": stack.redis_url})
    inside, aborted = asyncio.Event(), asyncio.Event()

    async def handle(_delivery: Any) -> dict[str, Any]:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            aborted.set()
        return {}

    consumer = Consumer(settings, handle, never)
    client = connect(settings)
    try:
        await consumer.start()
        consumer.open()
        job = await queue.add("avatar_build", {}, {})
        await asyncio.wait_for(inside.wait(), 5)
        await client.set(f"bull:{settings.queue}:{job.id}:lock", "somebody else")
        worker = consumer._worker
        assert worker is not None
        await worker.lockManager._extend_locks([job.id])
        await asyncio.wait_for(aborted.wait(), 1)
        assert await client.get(f"bull:{settings.queue}:{job.id}:lock") == "somebody else"
        assert await job.getState() == "active"
    finally:
        await consumer.stop()
        await client.aclose()
        await queue.close()


async def test_a_job_that_stalled_too_often_is_told_before_it_is_failed(
    settings: QueueSettings, stack: EmbeddedStack
) -> None:
    queue = bullmq.Queue(settings.queue, {"connection": stack.redis_url})
    told: list[str] = []
    settled = asyncio.Event()

    async def gave_up(_delivery: Any, error: AvatarError) -> None:
        told.append(error.message)
        settled.set()

    consumer = Consumer(settings, never, gave_up)
    client = connect(settings)
    try:
        job = await queue.add("avatar_build", {"jobId": "j"}, {})
        # As moveStalledJobsToWait leaves it.
        await client.hset(f"bull:{settings.queue}:{job.id}", "defa", "job stalled too often")
        await consumer.start()
        consumer.open()
        await asyncio.wait_for(settled.wait(), 5)
        async with asyncio.timeout(5):
            while await job.getState() != "failed":  # noqa: ASYNC110 - two scripts after the call
                await asyncio.sleep(0.01)
        assert told == ["job stalled too often"]
    finally:
        await consumer.stop()
        await client.aclose()
        await queue.close()


def test_the_stalled_script_still_sets_the_field_that_we_look_at() -> None:
    assert '"defa"' in loadScript("moveStalledJobsToWait-9.lua")


class _Job:
    def __init__(self, **opts: Any) -> None:
        self.opts = {"attempts": 0, "delay": 0} | opts  # as bullmq.Job fills them
        self.attempts = 1
        self.attemptsMade = 0


@pytest.mark.parametrize(
    ("opts", "attempts", "backoff"),
    [
        ({}, 3, {"type": "fixed", "delay": 2000}),
        ({"attempts": 1}, 1, None),
        (
            {"attempts": 5, "backoff": {"type": "fixed", "delay": 9}},
            5,
            {"type": "fixed", "delay": 9},
        ),
        ({"backoff": {"type": "fixed", "delay": 9}}, 3, {"type": "fixed", "delay": 9}),
        ({"attempts": 4, "backoff": {"type": "own"}}, 4, {"type": "fixed", "delay": 2000}),
    ],
)
def test_the_retry_policy_is_the_producers_or_ours(
    opts: dict[str, Any], attempts: int, backoff: dict[str, Any] | None
) -> None:
    job = _Job(**opts)
    settle_retry_policy(job, 3)
    assert (job.attempts, job.opts["attempts"]) == (attempts, attempts)
    assert job.opts.get("backoff") == backoff


async def test_the_packages_own_worker_would_die_of_it(stack: EmbeddedStack, queue: str) -> None:
    """If this fails, the package has mended its fourth default; then our wrapper may go."""
    producer = bullmq.Queue(queue, {"connection": stack.redis_url})

    async def cancelled(_job: Any, _token: str) -> None:
        raise asyncio.CancelledError

    worker = bullmq.Worker(queue, cancelled, {"connection": stack.redis_url, "autorun": False})
    try:
        await producer.add("avatar_build", {}, {})
        run = asyncio.create_task(worker.run())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(run, 10)
        assert run.cancelled()
    finally:
        await worker.close(force=True)
        await producer.close()
