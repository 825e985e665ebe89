"""`avatar-worker queue`: what it sees, what it mends, and that looking changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import bullmq
import pytest
from bullmq.custom_errors import UnrecoverableError
from bullmq.redis_connection import loadScript

from worker.consumer import keyspace
from worker.consumer.admin import QueueAdmin, open_queue
from worker.consumer.connection import client_name, connect
from worker.consumer.keys import own_key
from worker.consumer.overview import Overview
from worker.consumer.search import Found
from worker.contract import JobStatus, StatusUpdate
from worker.demo.stack import EmbeddedStack
from worker.errors import PayloadInvalid, QueueUnavailable
from worker.reporter.outbox_store import OutboxStore
from worker.settings import QueueSettings

SCAN = 100_000


class Backstage:
    """Brings jobs of one queue into states that are hard to come by."""

    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        self.client = connect(settings)
        options = {"connection": self.client, "prefix": settings.prefix}
        self.queue = bullmq.Queue(settings.queue, options)
        self._worker = bullmq.Worker(settings.queue, None, options | {"lockDuration": 60_000})

    def key(self, *parts: str) -> str:
        return ":".join((self.settings.prefix, self.settings.queue, *parts))

    def own(self, *parts: str) -> str:
        return own_key(self.settings.prefix, self.settings.queue, *parts)

    async def add(self, job_id: str, **options: Any) -> bullmq.Job:
        return await self.queue.add("avatar_build", {"jobId": job_id, "heightCm": 178}, options)

    async def take(self) -> bullmq.Job:
        job = await self._worker.getNextJob("a token")
        assert job is not None
        return job

    async def fail(self, job_id: str, reason: str, **options: Any) -> bullmq.Job:
        await self.add(job_id, **options)
        job = await self.take()
        job.queue.scripts = self._worker.scripts
        await job.moveToFailed(UnrecoverableError(reason), "a token")
        # As our consumer stores it: the package alone writes the reason as JSON.
        await self.client.hset(self.key(job.id), "failedReason", reason)
        return job

    async def complete(self, job_id: str) -> bullmq.Job:
        await self.add(job_id)
        job = await self.take()
        await self._worker.scripts.moveToCompleted(job, {}, False, "a token", fetchNext=False)
        return job

    async def orphan(self, job_id: str) -> bullmq.Job:
        job = await self.add(job_id)
        await self.client.lrem(self.key("wait"), 0, job.id)
        return job

    async def snapshot(self) -> dict[str, bytes]:
        keys = [key async for key in self.client.scan_iter(f"{self.key()}*")]
        raw = connect(self.settings)
        raw.connection_pool.connection_kwargs["decode_responses"] = False
        try:
            return {key: await raw.dump(key) for key in sorted(keys)}
        finally:
            await raw.aclose()

    async def close(self) -> None:
        await self._worker.close(force=True)
        await self.client.aclose()


@pytest.fixture
def settings(stack: EmbeddedStack, queue: str) -> QueueSettings:
    return QueueSettings.read({"REDIS_URL": stack.redis_url, "AVATAR_QUEUE": queue})


@pytest.fixture
async def backstage(settings: QueueSettings) -> AsyncIterator[Backstage]:
    running = Backstage(settings)
    yield running
    await running.close()


@pytest.fixture
async def admin(settings: QueueSettings) -> AsyncIterator[QueueAdmin]:
    async with open_queue(settings) as running:
        yield running


async def look(admin: QueueAdmin) -> Overview:
    return await admin.overview(scan_keys=SCAN)


def kinds(seen: Overview) -> set[str]:
    return {trouble.kind for trouble in seen.troubles()}


# ---------------------------------------------------------------- looking
async def test_looking_at_a_queue_with_everything_in_it_changes_nothing(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    await backstage.fail("cfailed", "ENGINE_TIMEOUT: too long")
    await backstage.complete("cdone")
    await backstage.add("crunning")
    await backstage.take()
    await backstage.orphan("corphan")
    await backstage.add("cdelayed", delay=60_000)
    await backstage.add("curgent", priority=3)
    await backstage.add("cwaiting")
    await backstage.client.set(backstage.own("lease", "crunning"), "pod-1:abc", px=45_000)
    before = await backstage.snapshot()

    seen = await look(admin)

    assert {state: count for state, count in seen.counts.items() if count} == {
        "waiting": 1,
        "prioritized": 1,
        "delayed": 1,
        "active": 1,
        "completed": 1,
        "failed": 1,
    }
    assert [job.job_id for job in seen.running] == ["crunning"]
    assert seen.running[0].lock_s == pytest.approx(60, abs=5)
    assert [(job.job_id, job.reason) for job in seen.failed] == [
        ("cfailed", "ENGINE_TIMEOUT: too long")
    ]
    assert [job.job_id for job in seen.orphans] == ["corphan"]
    assert [(lease.job_id, lease.holder) for lease in seen.leases] == [("crunning", "pod-1:abc")]
    assert seen.scan.complete
    assert kinds(seen) == {"NO_WORKER", "ORPHAN", "FAILED"}
    after = await backstage.snapshot()
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    assert not changed


async def test_an_empty_queue_has_no_trouble(admin: QueueAdmin) -> None:
    seen = await look(admin)
    assert seen.troubles() == []
    assert set(seen.counts.values()) == {0}
    assert not seen.paused
    assert seen.workers == ()


async def test_a_connected_worker_is_seen_as_node_sees_it(
    admin: QueueAdmin, backstage: Backstage, settings: QueueSettings
) -> None:
    await backstage.add("cwaiting")
    worker = connect(settings, name=client_name(settings.prefix, settings.queue, "pod-1:7"))
    other = connect(settings, name=client_name(settings.prefix, settings.queue + "2", "pod-2:7"))
    try:
        await worker.ping()
        await other.ping()
        seen = await look(admin)
        assert seen.workers is not None
        assert [worker.name for worker in seen.workers] == ["pod-1:7"]
        assert kinds(seen) == set()
    finally:
        await worker.aclose()
        await other.aclose()


async def test_a_paused_queue_and_an_overdue_job_are_told(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    job = await backstage.add("cdelayed", delay=60_000)
    long_ago = (job.timestamp - 3_600_000) * 0x1000
    await backstage.client.zadd(backstage.key("delayed"), {job.id: long_ago})
    await backstage.queue.pause()
    await backstage.add("cwaiting")
    seen = await look(admin)
    assert seen.paused
    assert seen.counts["waiting"] == 1
    assert kinds(seen) == {"PAUSED", "NO_WORKER", "OVERDUE"}


async def test_a_neighbour_whose_name_begins_the_same_is_left_out(
    admin: QueueAdmin, settings: QueueSettings
) -> None:
    near = Backstage(settings.model_copy(update={"queue": settings.queue + "-2"}))
    try:
        await near.orphan("cforeign")
        assert (await look(admin)).orphans == ()
    finally:
        await near.close()


async def test_a_bounded_look_says_that_it_is_not_complete(
    admin: QueueAdmin, backstage: Backstage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(64):
        await backstage.add(f"cjob{number}")
    monkeypatch.setattr(keyspace, "PAGE", 10)
    pages: list[tuple[int, int]] = []
    seen = await admin.overview(scan_keys=20, advance=lambda done, of: pages.append((done, of)))
    assert not seen.scan.complete
    assert pages == [(10, 20), (20, 20)]


async def test_characters_of_patterns_in_a_queues_name_mean_themselves(
    stack: EmbeddedStack, queue: str
) -> None:
    settings = QueueSettings.read({"REDIS_URL": stack.redis_url, "AVATAR_QUEUE": queue + "[*]?"})
    backstage = Backstage(settings)
    try:
        await backstage.orphan("corphan")
        async with open_queue(settings) as admin:
            assert [job.job_id for job in (await look(admin)).orphans] == ["corphan"]
    finally:
        await backstage.close()


async def test_a_redis_that_is_not_there_is_named(settings: QueueSettings) -> None:
    nowhere = settings.read({"REDIS_URL": "redis://127.0.0.1:1"})
    with pytest.raises(QueueUnavailable, match="Nothing listens"):
        async with open_queue(nowhere):
            pass


# ---------------------------------------------------------------- finding
async def test_a_job_is_found_by_either_id_and_every_job_of_a_job_id(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    first = await backstage.fail("ctwice", "ENGINE_TIMEOUT: too long")
    second = await backstage.add("ctwice")
    await backstage.add("ctwice-not")
    assert await admin.find(first.id) == [Found(first.id, "ctwice", "failed")]
    assert await admin.find("ctwice") == [
        Found(second.id, "ctwice", "waiting"),
        Found(first.id, "ctwice", "failed"),
    ]
    assert await admin.find("cnobody") == []


# ---------------------------------------------------------------- repairing
async def test_an_orphan_waits_at_the_head_again_and_is_mended_once(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    orphan = await backstage.orphan("corphan")
    await backstage.add("cwaiting")
    [found] = await admin.find_unheld("corphan", scan_keys=SCAN)
    assert found == Found(orphan.id, "corphan", "unknown")

    assert (await admin.requeue(found)).done
    again = await admin.requeue(found)

    assert not again.done
    assert again.what == "is where it belongs: nothing to mend"
    taken = await backstage.take()
    assert (taken.id, taken.attemptsMade) == (orphan.id, 0)
    assert (await look(admin)).orphans == ()


async def test_an_active_job_without_a_lock_is_stalled_and_can_be_requeued(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    await backstage.add("cstalled")
    job = await backstage.take()
    [found] = await admin.find_unheld("cstalled", scan_keys=SCAN)
    held = await admin.requeue(found)
    assert (held.done, held.what) == (False, "is held by a worker")
    assert await job.getState() == "active"

    await backstage.client.delete(backstage.key(job.id, "lock"))
    await backstage.client.hset(backstage.key(job.id), mapping={"stc": 3, "defa": "stalled"})
    seen = await look(admin)
    assert seen.running[0].lock_s is None
    assert "STALLED" in kinds(seen)

    assert (await admin.requeue(found)).done
    assert await job.getState() == "waiting"
    assert await backstage.client.llen(backstage.key("active")) == 0
    taken = await backstage.take()
    assert taken.deferredFailure is None
    assert taken.attemptsMade == 0


async def test_what_is_paused_waits_paused_after_a_repair(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    orphan = await backstage.orphan("corphan")
    failed = await backstage.fail("cfailed", "ENGINE_TIMEOUT: too long")
    await backstage.queue.pause()
    assert (await admin.requeue(Found(orphan.id, None, "unknown"))).done
    assert (await admin.retry(Found(failed.id, None, "failed"))).done
    await backstage.queue.resume()
    assert {(await backstage.take()).id for _ in range(2)} == {orphan.id, failed.id}


async def test_a_retried_job_has_all_its_attempts_and_no_mark_against_it(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    job = await backstage.fail("cfailed", "JOB_KILLS_ENGINE: twice", attempts=1)
    await backstage.client.hset(backstage.key(job.id), "stc", 3)
    for mark in ("cancel", "kills"):
        await backstage.client.set(backstage.own(mark, "cfailed"), "2", ex=60)
    [found] = await admin.find("cfailed")

    repair = await admin.retry(found)
    again = await admin.retry(found)

    assert repair.done
    assert not again.done
    taken = await backstage.take()
    assert (taken.id, taken.attemptsMade, taken.stalledCounter) == (job.id, 0, 0)
    assert taken.attemptsStarted == 2, "the reporter must know that the API may have been told"
    assert not await backstage.client.exists(
        backstage.own("cancel", "cfailed"), backstage.own("kills", "cfailed")
    )


async def test_only_a_failed_job_is_retried(admin: QueueAdmin, backstage: Backstage) -> None:
    await backstage.complete("cdone")
    [found] = await admin.find("cdone")
    repair = await admin.retry(found)
    assert (repair.done, repair.what) == (False, "is completed, not failed")


async def test_retrying_all_leaves_out_what_no_attempt_can_help(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    first = await backstage.fail("ctimeout", "ENGINE_TIMEOUT: too long")
    await backstage.fail("cphoto", "NO_PERSON: Please stand in the middle.")
    await backstage.fail("ccancelled", "CANCELLED: The job was cancelled.")
    second = await backstage.fail("cstorage", "STORAGE_UNAVAILABLE: MinIO did not answer.")
    await backstage.client.zadd(backstage.key("failed"), {first.id: 1, second.id: 2})
    jobs, left_out = await admin.find_retryable()
    assert [job.queue_job_id for job in jobs] == [first.id, second.id]
    assert left_out == 2


async def test_a_fresh_rerun_marks_the_job_and_runs_it_again(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    job = await backstage.complete("cdone")
    repair = await admin.rerun_fresh("cdone")
    assert (repair.done, repair.queue_job_id) == (True, job.id)
    assert await job.getState() == "waiting"
    assert await backstage.client.exists(backstage.own("fresh", "cdone"))
    assert [(mark.kind, mark.job_id) for mark in (await look(admin)).marks] == [("fresh", "cdone")]


async def test_a_fresh_rerun_of_a_running_or_unknown_job_is_refused(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    await backstage.add("crunning")
    await backstage.take()
    assert not (await admin.rerun_fresh("crunning")).done
    assert not (await admin.rerun_fresh("cnobody")).done
    marks = [backstage.own("fresh", job_id) for job_id in ("crunning", "cnobody")]
    assert not await backstage.client.exists(*marks)


async def test_a_parked_report_is_shown_and_brought_back(
    admin: QueueAdmin, backstage: Backstage, settings: QueueSettings
) -> None:
    store = OutboxStore(backstage.client, prefix=settings.prefix, queue=settings.queue)
    update = StatusUpdate(status=JobStatus.FAILED, error="NO_PERSON: nobody")
    await store.put("cparked", update, maybe_reported=False, check=False, keep_for_s=60, guard=None)
    claim = await store.claim("a token", claim_s=60, entries=10, checks=10)
    await store.settle(claim.entries[0], "a token", "parked", error="HTTP 401")
    seen = await look(admin)
    assert [(r.job_id, r.status, r.parked, r.last_error) for r in seen.reports] == [
        ("cparked", "failed", True, "HTTP 401")
    ]
    assert "REPORT_PARKED" in kinds(seen)

    assert (await admin.report("cparked")).done
    assert not (await admin.report("cnobody")).done
    assert [r.parked for r in (await look(admin)).reports] == [False]


async def test_a_job_that_waits_or_is_unknown_is_cancelled_and_a_finished_one_is_not(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    await backstage.complete("cdone")
    waiting = await backstage.add("cwaiting")
    assert not (await admin.cancel("cdone", "")).done
    by_queue_id = await admin.cancel(waiting.id, "ordered twice")
    assert (by_queue_id.done, by_queue_id.what) == (True, "is cancelled; it is waiting")
    assert (await admin.cancel("cnobody", "")).done
    assert await backstage.client.get(backstage.own("cancel", "cwaiting")) == "ordered twice"
    assert await backstage.client.exists(backstage.own("cancel", "cnobody"))
    assert not await backstage.client.exists(backstage.own("cancel", "cdone"))


async def test_an_enqueued_job_is_as_the_api_adds_it_or_is_refused(
    admin: QueueAdmin, backstage: Backstage
) -> None:
    payload = {"jobId": "cnew", "frontPhotoUrl": "https://cdn.shop.example/tryfitted/uploads/a.jpg"}
    with pytest.raises(PayloadInvalid, match="heightCm"):
        await admin.enqueue(payload)
    repair = await admin.enqueue(payload | {"heightCm": 178}, fresh=True)
    taken = await backstage.take()
    assert (taken.id, taken.name, taken.data) == (
        repair.queue_job_id,
        "avatar_build",
        payload | {"heightCm": 178},
    )
    assert await backstage.client.exists(backstage.own("fresh", "cnew"))


# ---------------------------------------------------------------- what we reach into
def test_the_packages_scripts_take_the_keys_that_we_give() -> None:
    reprocess = loadScript("reprocessJob-8.lua")
    names = ("job key", "events stream", "job state", "wait key", "meta", "paused key",
             "active key", "marker key")  # fmt: skip
    for number, name in enumerate(names, start=1):
        assert f"KEYS[{number}] {name}" in reprocess
    assert 'rcall("ZREM", KEYS[3], jobId)' in reprocess
    get_state = loadScript("getStateV2-8.lua")
    for number, name in enumerate(keyspace.STATE_ORDER, start=1):
        assert f"KEYS[{number}] '{name}' key" in get_state


# ---------------------------------------------------------------- the command
@pytest.fixture
def command(settings: QueueSettings) -> Iterator[Any]:
    """Run `avatar-worker …` with the queue's variables and nothing else."""
    environment = {
        "PATH": os.environ["PATH"],
        "REDIS_URL": settings.url.get_secret_value(),
        "AVATAR_QUEUE": settings.queue,
    }

    async def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "worker", *arguments],
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


async def test_the_command_needs_only_the_queues_variables_and_asks_before_it_moves_many(
    command: Any, backstage: Backstage
) -> None:
    job = await backstage.fail("cfailed", "ENGINE_TIMEOUT: too long")
    shown = await command("queue")
    assert "cfailed" in shown.stdout
    assert "FAILED Failed jobs: 1." in shown.stdout
    assert (shown.returncode, shown.stderr) == (0, "")

    refused = await command("queue", "retry", "--failed", typed="n\n")
    assert refused.returncode == 1
    assert "Retry these failed jobs: 1?" in refused.stderr
    assert await job.getState() == "failed"

    done = await command("queue", "retry", "--failed", "--yes", "--json")
    assert json.loads(done.stdout) == {
        "repairs": [{"asked": job.id, "queueJobId": job.id, "done": True, "what": "waits again"}]
    }
    assert await job.getState() == "waiting"


async def test_the_commands_json_has_everything_and_its_exit_code_tells_what_was_not_done(
    command: Any, backstage: Backstage
) -> None:
    await backstage.orphan("corphan")
    seen = json.loads((await command("queue", "--json")).stdout)
    assert seen["counts"]["waiting"] == 0
    assert [orphan["jobId"] for orphan in seen["orphans"]] == ["corphan"]
    assert [trouble["kind"] for trouble in seen["troubles"]] == ["ORPHAN"]

    mended = await command("queue", "requeue", "corphan", "cnobody", "--yes", "--json")
    assert [repair["done"] for repair in json.loads(mended.stdout)["repairs"]] == [True, False]
    assert mended.returncode == 1


async def test_a_job_is_enqueued_and_cancelled_from_the_command_line(
    command: Any, backstage: Backstage
) -> None:
    photo = "https://cdn.shop.example/tryfitted/uploads/a.jpg"
    refused = await command("enqueue", "--job-id", "cnew", "--front", photo, "--height", "17")
    assert refused.returncode == 3
    assert "heightCm" in refused.stderr

    added = await command(
        *("enqueue", "--job-id", "cnew", "--front", photo, "--height", "178", "--json")
    )
    [repair] = json.loads(added.stdout)["repairs"]
    assert repair["done"]
    cancelled = await command("cancel", "cnew", "--reason", "ordered twice", "--yes")
    assert "is cancelled; it is waiting" in cancelled.stdout
    assert await backstage.client.get(backstage.own("cancel", "cnew")) == "ordered twice"

    usage = await command("queue", "rerun", "cnew")
    assert usage.returncode == 2
    assert "--fresh" in usage.stderr
