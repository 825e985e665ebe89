"""Where Redis refuses a command, the error says so, and what Redis said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from worker.consumer.connection import connect
from worker.consumer.keys import own_key
from worker.consumer.marks import JobMarks
from worker.contract import JobStatus, StatusUpdate
from worker.errors import QueueUnavailable
from worker.reporter.outbox_store import OutboxStore
from worker.settings import Settings

REFUSED = "Redis refused: .*WRONGTYPE Operation against a key"


@pytest.fixture
async def redis(environment: dict[str, str]) -> AsyncIterator[Any]:
    client = connect(Settings.load(environment).queue)
    yield client
    await client.aclose()


@pytest.fixture
async def marks(redis: Any, queue: str) -> JobMarks:
    return JobMarks(redis, prefix="bull", queue=queue, holder="w")


async def test_a_mark_that_cannot_be_set(redis: Any, marks: JobMarks, queue: str) -> None:
    await redis.hset(own_key("bull", queue, "kills", "j"), "no", "number")
    with pytest.raises(QueueUnavailable, match=rf"The kill could not be noted\. {REFUSED}"):
        await marks.note_kill("j")


async def test_a_lease_that_cannot_be_taken(redis: Any, marks: JobMarks, queue: str) -> None:
    await redis.hset(own_key("bull", queue, "lease", "j"), "no", "lease")
    with pytest.raises(QueueUnavailable, match=rf"The lease could not be taken\. {REFUSED}"):
        async with marks.lease("j"):
            pass


async def test_a_report_that_cannot_be_put(redis: Any, queue: str) -> None:
    await redis.set(own_key("bull", queue, "outbox", "entry", "j"), "no hash")
    store = OutboxStore(redis, prefix="bull", queue=queue)
    update = StatusUpdate(status=JobStatus.FAILED, error="NO_PERSON: …")
    with pytest.raises(QueueUnavailable, match=REFUSED):
        await store.put("j", update, maybe_reported=False, check=False, keep_for_s=60, guard=None)


async def test_a_redis_that_is_not_there_is_no_refusal(environment: dict[str, str]) -> None:
    gone = connect(
        Settings.load(environment | {"REDIS_URL": "redis://127.0.0.1:1/0"}).queue, retries=0
    )
    marks = JobMarks(gone, prefix="bull", queue="q", holder="w")
    with pytest.raises(QueueUnavailable, match=r"Redis did not answer: ConnectionError: .*127"):
        await marks.wants_fresh("j")
    await gone.aclose()
