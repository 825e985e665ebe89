"""Jobs that meet trouble, each on a worker of its own: engine, deadline, storage."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.conftest import StartWorker, until_ready
from tests.producer import Producer
from worker import status
from worker.demo.stack import EmbeddedStack
from worker.engine.limits import EngineLimits
from worker.engine.supervisor import EngineState
from worker.errors import EngineCrashed


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - neither silence nor a state of the pool is an event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("segfault", "ENGINE_CRASHED: The engine process ended: killed by SIGSEGV"),
        ("exit", "ENGINE_CRASHED: The engine process ended: exit code 3"),
        ("raise", "ENGINE_ERROR: RuntimeError: boom"),
    ],
)
async def test_a_broken_engine_costs_that_attempt_only(
    start_worker: StartWorker, producer: Producer, behaviour: str, reason: str
) -> None:
    async with start_worker(MAX_RETRIES="1") as worker:
        await until_ready(worker)
        bad = await producer.settled(await producer.add(producer.payload(behaviour)))
        good = await producer.settled(await producer.add(producer.payload("ok")))
    assert bad.failedReason.startswith(reason)
    assert await good.getState() == "completed"


async def test_a_job_past_its_deadline_is_killed_and_the_next_one_runs(
    start_worker: StartWorker, producer: Producer
) -> None:
    async with start_worker(MAX_RETRIES="1", PROCESSING_TIMEOUT="1") as worker:
        await until_ready(worker)
        late = await producer.settled(await producer.add(producer.payload("hang")))
        good = await producer.settled(await producer.add(producer.payload("ok")))
    assert late.failedReason == "ENGINE_TIMEOUT: The job took longer than 1 s."
    assert await good.getState() == "completed", good.failedReason


async def test_inspection_files_are_published_only_when_asked_for(
    start_worker: StartWorker, producer: Producer
) -> None:
    payload = producer.payload("ok")
    async with start_worker(PUBLISH_INSPECTION="true") as worker:
        await until_ready(worker)
        await producer.settled(await producer.add(payload))
    assert "mask_front.png" in producer.objects(payload["jobId"])


async def test_storage_that_is_down_is_tried_again(
    start_worker: StartWorker, producer: Producer, stack: EmbeddedStack
) -> None:
    payload = producer.payload("ok")
    async with start_worker() as worker:
        await until_ready(worker)
        stack.gateway.kill()
        try:
            job = await producer.add(payload, attempts=50, backoff=100)
            await producer.attempted(job)
        finally:
            stack.gateway.start()  # from this thread: the server ends with the one that started it
        job = await producer.settled(job)
    assert await job.getState() == "completed", job.failedReason


async def test_a_frozen_engine_makes_the_worker_unhealthy_and_a_thawed_one_healthy(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less than the silence after which the engine is replaced, which would end this.
    monkeypatch.setattr(status, "UNHEALTHY_AFTER_S", 3.0)
    async with start_worker() as worker:
        await until_ready(worker)
        assert worker.told.health()[0]
        (engine,) = worker.engine.engines
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            await until(lambda: not worker.told.health()[0])
            _, facts = worker.told.health()
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert facts["status"] == "unhealthy"
        assert facts["secondsSinceEngineBeat"] >= 3
        assert "silent" in facts["reason"]
        await until(lambda: worker.told.health()[0])


async def test_engines_that_are_given_up_are_a_case_for_a_new_start(
    start_worker: StartWorker,
) -> None:
    async with start_worker(GLTFPACK_PATH="die-in-setup") as worker:
        await until(lambda: not worker.told.health()[0])
        assert "No engine process is left" in worker.told.health()[1]["reason"]
        assert worker.told.readiness()[1]["state"] == "DEFUNCT"
        # And on RunPod, where nobody starts it anew, for stopping the pod.
        assert isinstance(worker.engine.unfit, EngineCrashed)


async def test_models_that_are_missing_are_for_a_person_to_bring_and_told_while_it_is_tried_again(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineLimits, "for_jobs_of", lambda _s: EngineLimits(setup_retry_s=(0.05,)))
    async with start_worker(GLTFPACK_PATH="model-missing") as worker:
        await until(lambda: worker.engine.reason is not None)
        await until(lambda: worker.engine.state is EngineState.STARTING)
        assert "pose.tflite" in worker.told.readiness()[1]["reason"]
        assert worker.told.health()[0]
        assert worker.engine.unfit is None
