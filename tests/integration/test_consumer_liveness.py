"""A connection that dies is noticed and replaced; whether Redis answers is always known.

Timeouts are shortened; what they do is the same.  docs/reference/bullmq.md has what was measured
with those of production.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import bullmq
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.conftest import NodeClient
from tests.consuming import Doer, consuming, eventually, settings_of
from tests.fakes.passage import Passage, passage_to
from worker.consumer import bull, connection, locks, pulse, scripts
from worker.consumer.worker import Consumer
from worker.demo.stack import EmbeddedStack
from worker.settings import QueueSettings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bull, "LONGEST_POLL_S", 0.1)
    monkeypatch.setattr(bull, "RUN_RETRY_DELAY_MS", 50)
    monkeypatch.setattr(bull, "LOCK_MS", 2000)
    monkeypatch.setattr(bull, "STALLED_INTERVAL_MS", 200)
    monkeypatch.setattr(scripts, "SETTLE_AGAIN_S", 0.05)
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 0.4)
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.4)
    monkeypatch.setattr(pulse, "PULSE_S", 0.1)
    monkeypatch.setattr(pulse, "PULSE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(pulse, "SILENCE_S", 0.3)
    monkeypatch.setattr(locks, "TICK_S", 0.02)
    monkeypatch.setattr(locks, "RENEW_TIMEOUT_S", 0.3)


@pytest.fixture
async def passage(stack: EmbeddedStack) -> AsyncIterator[Passage]:
    async with passage_to(stack.redis_port) as running:
        yield running


@pytest.fixture
def settings(stack: EmbeddedStack, passage: Passage, queue: str) -> QueueSettings:
    """The worker goes through the passage; everybody else does not."""
    there = stack.redis_url.replace(f":{stack.redis_port}/", f":{passage.port}/")
    return settings_of(stack, queue, REDIS_URL=there)


async def silence(consumer: Consumer, *, above_s: float = 0.0, below_s: float = 99.0) -> None:
    async with asyncio.timeout(10):
        while not above_s <= consumer.last_round_trip_s < below_s:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("fault", ["go_dead", "cut"])
async def test_an_idle_worker_takes_jobs_again_after_its_connections_died(
    settings: QueueSettings, passage: Passage, jobs: bullmq.Queue, doer: Doer, fault: str
) -> None:
    async with consuming(settings, doer):
        await jobs.add("avatar_build", {"n": 1}, {})
        await doer.until(lambda: len(doer.finished) == 1)
        getattr(passage, fault)()
        await jobs.add("avatar_build", {"n": 2}, {})
        await doer.until(lambda: len(doer.finished) == 2)


@pytest.mark.parametrize("fault", ["go_dead", "cut"])
async def test_a_busy_worker_keeps_its_job_when_its_connections_die(
    settings: QueueSettings, passage: Passage, jobs: bullmq.Queue, doer: Doer, fault: str
) -> None:
    async with consuming(settings, doer) as consumer:
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        getattr(passage, fault)()
        key = f"bull:{jobs.name}:{job.id}:lock"
        left = await jobs.client.pttl(key)
        # Renewed by a connection that was made since.
        async with asyncio.timeout(5):
            while (now := await jobs.client.pttl(key)) <= left:
                left = now
                await asyncio.sleep(0.01)
        await silence(consumer, below_s=0.2)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))
    assert (len(doer.taken), doer.aborted) == (1, [])
    assert await job.getState() == "completed"


async def test_a_job_that_ends_on_a_dead_connection_is_settled_when_redis_answers_elsewhere(
    settings: QueueSettings,
    passage: Passage,
    jobs: bullmq.Queue,
    doer: Doer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SOCKET_TIMEOUT_S", 60.0)  # does not help here
    async with consuming(settings, doer):
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        passage.go_dead()
        doer.let_go.set()
        assert await eventually(job.getState, lambda state: state == "completed")
    assert len(doer.taken) == 1


@pytest.mark.parametrize(
    "case", [("wait", "completed"), ("wait and refuse", "failed")], ids=["good", "bad"]
)
async def test_a_job_that_ends_while_redis_is_away_is_settled_when_it_is_back(
    settings: QueueSettings, passage: Passage, jobs: bullmq.Queue, doer: Doer, case: tuple[str, str]
) -> None:
    do, state = case
    async with consuming(settings, doer) as consumer:
        job = await jobs.add("avatar_build", {"do": do}, {"attempts": 2})
        await doer.until(lambda: doer.at_once == 1)
        passage.refuses = True
        passage.cut()
        doer.let_go.set()
        await doer.until(lambda: doer.at_once == 0)
        await silence(consumer, above_s=0.5)
        assert await job.getState() == "active"
        passage.refuses = False
        async with asyncio.timeout(5):
            while await job.getState() != state:  # noqa: ASYNC110 - it has no events
                await asyncio.sleep(0.01)
    assert len(doer.taken) == 1


async def test_a_finished_job_whose_result_was_refused_is_never_failed(
    settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    """Its lock went to another just before: the package would have burned an attempt."""
    async with consuming(settings, doer):
        job = await jobs.add("avatar_build", {"do": "wait"}, {"attempts": 1})
        await doer.until(lambda: doer.at_once == 1)
        await jobs.client.delete(f"bull:{jobs.name}:{job.id}:lock")
        doer.let_go.set()
        # Nobody's, it stalls, and is done again.
        await doer.until(lambda: len(doer.finished) == 2)
        async with asyncio.timeout(5):
            while await job.getState() != "completed":  # noqa: ASYNC110 - it has no events
                await asyncio.sleep(0.01)
    assert [(one.attempt, one.starts) for one in doer.taken] == [(1, 1), (1, 2)]


async def test_stopping_does_not_wait_for_a_redis_that_does_not_answer(
    settings: QueueSettings, passage: Passage, jobs: bullmq.Queue, doer: Doer
) -> None:
    async with consuming(settings, doer) as consumer:
        job = await jobs.add("avatar_build", {"do": "wait"}, {})
        await doer.until(lambda: doer.at_once == 1)
        passage.go_dead()
        async with asyncio.timeout(3.0):  # and the rest of the 5 s is for others
            await consumer.stop()
    assert len(doer.aborted) == 1
    # It could not be put back, so it stalls; another does it.
    doer.let_go.set()
    async with consuming(settings, doer):
        await doer.until(lambda: bool(doer.finished))
    assert [(one.attempt, one.starts) for one in doer.taken] == [(1, 1), (1, 2)]
    assert await job.getState() == "completed"


async def test_silence_is_known_idle_and_busy_and_said_once(
    settings: QueueSettings,
    passage: Passage,
    jobs: bullmq.Queue,
    doer: Doer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with consuming(settings, doer) as consumer:
        for busy in (False, True):
            if busy:
                await jobs.add("avatar_build", {"do": "wait"}, {})
                await doer.until(lambda: doer.at_once == 1)
            await silence(consumer, below_s=0.2)
            passage.refuses = True
            passage.cut()
            await silence(consumer, above_s=1.0)
            passage.refuses = False
            await silence(consumer, below_s=0.2)
            await eventually(lambda: _said(capsys), lambda said: said == 1)
        doer.let_go.set()
        await doer.until(lambda: bool(doer.finished))


async def test_opening_the_gate_again_is_no_answer_of_redis(
    settings: QueueSettings, passage: Passage, doer: Doer
) -> None:
    """It happens with each change of an engine's state, whether Redis is there or not."""
    async with consuming(settings, doer) as consumer:
        passage.refuses = True
        passage.cut()
        await silence(consumer, above_s=0.5)
        for slots in (1, 0, 1):
            consumer.open(slots)
            assert consumer.last_round_trip_s >= 0.5


async def test_a_refusal_is_said_with_its_text_and_is_no_silence(
    stack: EmbeddedStack,
    jobs: bullmq.Queue,
    doer: Doer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user = f"u-{jobs.name}"
    rights = ("on", ">word", "~*", "&*", "+@all", "-mget")
    await jobs.client.execute_command("ACL", "SETUSER", user, *rights)
    there = f"redis://{user}:word@127.0.0.1:{stack.redis_port}/0"
    theirs = settings_of(stack, jobs.name, REDIS_URL=there)
    printed: list[str] = []

    async def refused() -> bool:
        printed.append(capsys.readouterr().out)
        return "NOPERM" in "".join(printed) or "no permissions" in "".join(printed)

    try:
        async with consuming(theirs, doer) as consumer:
            await jobs.add("avatar_build", {"jobId": "j", "do": "wait"}, {})
            assert await eventually(refused, bool)
            await asyncio.sleep(2 * pulse.SILENCE_S)  # nothing tells that there is no silence
            assert consumer.last_round_trip_s < pulse.SILENCE_S
            doer.let_go.set()
            await doer.until(lambda: bool(doer.finished))
    finally:
        await jobs.client.execute_command("ACL", "DELUSER", user)
    assert "queue.silent" not in "".join(printed) + capsys.readouterr().out


async def _said(capsys: pytest.CaptureFixture[str], seen: list[str] = []) -> int:  # noqa: B006 - kept between calls
    seen.append(capsys.readouterr().out)
    text = "".join(seen)
    if "queue.answers_again" not in text:
        return 0
    seen.clear()
    return text.count("queue.silent")


async def test_node_sees_one_worker_also_after_its_connection_was_killed(
    node: NodeClient, settings: QueueSettings, jobs: bullmq.Queue, doer: Doer
) -> None:
    async def workers() -> list[dict[str, str]]:
        found: list[dict[str, str]] = await node("workers", jobs.name)
        return found

    async with consuming(settings, doer, concurrency=2):
        (before,) = await eventually(workers, lambda found: len(found) == 1)
        await jobs.client.execute_command("CLIENT", "KILL", "ID", before["id"])
        (after,) = await eventually(
            workers, lambda found: len(found) == 1 and found[0]["id"] != before["id"]
        )
    assert after["rawname"] == before["rawname"]
    assert await eventually(workers, lambda found: not found) == []


async def test_it_starts_only_when_redis_answers(
    settings: QueueSettings, passage: Passage, doer: Doer
) -> None:
    passage.refuses = True
    consumer = Consumer(settings, doer.handle, doer.gave_up)
    with pytest.raises(RedisConnectionError):
        await consumer.start()
    assert not consumer.is_taking
    await consumer.stop()
