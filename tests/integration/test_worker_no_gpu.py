"""A pod without a usable GPU stays up, says why, takes no job, and has itself stopped."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest

from tests.conftest import StartWorker
from tests.producer import Producer
from worker import lifecycle
from worker.engine import preflight
from worker.engine.limits import EngineLimits
from worker.engine.supervisor import EngineState
from worker.lifecycle import Worker
from worker.settings import Settings

OLD_DRIVER = ("echo", "570.86.15, 8.9, NVIDIA L4")


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi of a host whose driver torch cannot use."""
    monkeypatch.setattr(preflight, "torch_cuda", lambda: "13.0")
    monkeypatch.setattr(preflight, "look", functools.partial(preflight.look, command=OLD_DRIVER))


async def seen(worker: Worker) -> None:
    async with asyncio.timeout(10):
        while worker.trouble is None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("device", ["cuda", "auto"])
async def test_the_pod_says_which_driver_it_has_and_takes_no_job(
    old_driver: None, start_worker: StartWorker, producer: Producer, device: str
) -> None:
    async with start_worker(RUNPOD_POD_ID="pod1", WORKER_DEVICE=device) as worker:
        await seen(worker)
        job = await producer.add(producer.payload("ok"))
        ready, facts = worker.told.readiness()
        assert (ready, facts["state"]) == (False, "SETUP_FAILED")
        assert "570.86.15, is too old" in facts["reason"]
        assert "allowedCudaVersions" in facts["advice"]
        assert worker.told.health()[0]
        assert await job.getState() == "waiting"


async def test_it_is_handed_to_the_one_who_stops_pods(
    old_driver: None, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str | None, float, str]] = []
    done = asyncio.Event()

    class Stopper:
        def __init__(self, pod_id: str | None, _key: object, *, after_s: float) -> None:
            self.pod_id, self.after_s = pod_id, after_s

        async def watch(self, unfit: Callable[[], Exception | None]) -> None:
            while (reason := unfit()) is None:  # noqa: ASYNC110 - as the real one does
                await asyncio.sleep(0.01)
            asked.append((self.pod_id, self.after_s, str(reason)))
            done.set()

    monkeypatch.setattr(lifecycle, "PodStopper", Stopper)
    variables = {"RUNPOD_API_KEY": "the-key-of-runpod", "WORKER_UNFIT_STOP_MINUTES": "2"}
    async with start_worker(RUNPOD_POD_ID="pod1", WORKER_DEVICE="cuda", **variables):
        async with asyncio.timeout(10):
            await done.wait()
    assert asked[0][:2] == ("pod1", 120)
    assert "too old" in asked[0][2]


async def test_an_engine_that_does_not_come_up_is_unfit_while_it_is_tried_again(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi is content, torch is not: billed all the same."""
    monkeypatch.setattr(EngineLimits, "for_jobs_of", lambda _s: EngineLimits(setup_retry_s=(0.05,)))
    tries = 0

    def count(state: EngineState) -> None:
        nonlocal tries
        tries += state is EngineState.STARTING

    async with start_worker(GLTFPACK_PATH="no-cuda", WORKER_DEVICE="cpu") as worker:
        (engine,) = worker.engine.engines
        monkeypatch.setattr(engine, "_on_state", count)
        async with asyncio.timeout(10):
            while worker.engine.unfit is None:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
            tries = 0
            while tries < 2:
                assert "no CUDA device" in str(worker.engine.unfit)
                await asyncio.sleep(0.01)


def test_the_key_of_runpod_is_a_secret(environment: dict[str, str]) -> None:
    settings = Settings.load(environment | {"RUNPOD_API_KEY": "the-key-of-runpod"})
    assert "the-key-of-runpod" in settings.secrets()
